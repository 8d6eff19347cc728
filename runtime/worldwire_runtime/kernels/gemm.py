"""Triton: products of 8-bit matrices with everything that follows done before the result is stored.

One kernel for int8 (sums in int32) and fp8 (sums in float32), written for Hopper: tiles arrive by the bulk
tensor copy engine (host-side tensor descriptors, no workspace, safe under CUDA graphs), tiles that share
inputs run near each other. To torch.compile the custom operators are single steps of known shape.

    y = gelu?(values x values * scale * scale + bias)            `linear_8bit`
    y = residual + gate[latent] * (the same without gelu)        `linear_8bit_gated`
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from worldwire_runtime.kernels import gemm_specialised
from worldwire_runtime.kernels.linear import COPY_BYTES, fits
from worldwire_runtime.kernels.tuning import Tiles, gpu_name, tuner

GROUP_ROWS = 8
"""Tiles of so many rows of tiles are worked on together, so that they share weights in the L2 cache."""
FEW_ROWS = 2048
"""Up to so many rows one wave of large tiles leaves multiprocessors without work."""
# The first of each is what runs unmeasured. All fit Hopper's 227 KB of shared memory. Triton waits for
# integer products at the end of every step, so a step is as deep as fits, or two programs share a
# multiprocessor (those of 4 warps and 2 stages) and one computes while the other waits or stores. Where warps
# have roles (`gemm_specialised`) nothing waits: measured on an H200, these take 0.74 to 0.84 of the time.
# Other chips have less shared memory (99 KB of a consumer's Blackwell): `GENERAL` fits everywhere.
GENERAL = (Tiles(128, 128, 128, warps=4, stages=2),)
SPECIALISED = (
    Tiles(128, 128, 128, warps=4, stages=5, specialised=True),
    Tiles(128, 256, 128, warps=4, stages=3, specialised=True),
)
CANDIDATES = (
    Tiles(128, 256, 128, warps=8, stages=3),
    Tiles(128, 256, 128, warps=8, stages=3, persistent=True),
    *SPECIALISED,
)
FEW_ROWS_CANDIDATES = (
    Tiles(128, 256, 128, warps=8, stages=3),
    Tiles(128, 128, 256, warps=8, stages=3),
    Tiles(64, 128, 128, warps=4, stages=3),
    *SPECIALISED,
)
# Gate and residual need registers, and a float32 result twice the shared memory: for both, wide tiles spill
# or do not fit.
GATED_CANDIDATES = (
    Tiles(128, 128, 128, warps=8, stages=3),
    Tiles(64, 128, 128, warps=4, stages=3),
    Tiles(64, 256, 128, warps=8, stages=3),
)
HOPPER = 9
"""The only generation that `gemm_specialised` is written for."""
SMALL = Tiles(16, 16, 32, warps=4, stages=1)
"""For Triton's interpreter."""
DTYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
GELU_LINEAR = tl.constexpr(-2 * (2 / math.pi) ** 0.5 / math.log(2))
GELU_CUBIC = tl.constexpr(0.044715 * -2 * (2 / math.pi) ** 0.5 / math.log(2))


@triton.jit
def gelu_tanh(x):
    """x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), as x / (1 + 2^(-2 u log2(e)))."""
    return x / (1.0 + tl.exp2(x * (GELU_LINEAR + GELU_CUBIC * (x * x))))


@triton.jit
def tile_place(tile, row_tiles, column_tiles, GROUP: tl.constexpr):
    """Row and column of the n-th tile: down through GROUP rows of tiles, then one column further."""
    per_group = GROUP * column_tiles
    first = (tile // per_group) * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    return first + (tile % per_group) % height, (tile % per_group) // height


@triton.jit
def gemm_kernel(
    x_desc,
    w_desc,
    y_desc,
    x_scale,
    w_scale,
    bias,
    residual,
    gate,
    M,
    N,
    tokens,
    gate_stride,
    K,
    TILE_M: tl.constexpr,
    TILE_N: tl.constexpr,
    TILE_K: tl.constexpr,
    GROUP: tl.constexpr,
    INTEGER: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    GELU: tl.constexpr,
    GATED: tl.constexpr,
    FLATTEN: tl.constexpr,
    OUT: tl.constexpr,
):
    """Y [M, N] of X [M, K] and W [N, K]; program p computes tiles p, p + programs, ...

    FLATTEN makes one loop of both, so that a tile's first copies run beside the end of the tile before.
    """
    row_tiles, column_tiles = tl.cdiv(M, TILE_M), tl.cdiv(N, TILE_N)
    tiles = row_tiles * column_tiles
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), flatten=FLATTEN):
        row_tile, column_tile = tile_place(tile, row_tiles, column_tiles, GROUP)
        first_row, first_column = row_tile * TILE_M, column_tile * TILE_N
        sums = tl.zeros((TILE_M, TILE_N), tl.int32 if INTEGER else tl.float32)
        for k in tl.range(0, K, TILE_K):
            x = x_desc.load([first_row, k])
            w = w_desc.load([first_column, k])
            sums = tl.dot(x, w.T, sums, out_dtype=tl.int32 if INTEGER else tl.float32)
        rows = first_row + tl.arange(0, TILE_M)
        columns = first_column + tl.arange(0, TILE_N)
        row_scale = tl.load(x_scale + rows, mask=rows < M, other=0.0)
        column_scale = tl.load(w_scale + columns, mask=columns < N, other=0.0)
        y = sums.to(tl.float32) * row_scale[:, None] * column_scale[None, :]
        if HAS_BIAS:
            y += tl.load(bias + columns, mask=columns < N, other=0.0).to(tl.float32)[None, :]
        if GELU:
            y = gelu_tanh(y)
        if GATED:
            inside = (rows < M)[:, None] & (columns < N)[None, :]
            latent = (rows // tokens)[:, None]
            g = tl.load(gate + latent * gate_stride + columns[None, :], mask=inside, other=0.0)
            x0 = tl.load(residual + rows[:, None].to(tl.int64) * N + columns[None, :], mask=inside, other=0.0)
            y = x0.to(tl.float32) + y * g.to(tl.float32)
        y_desc.store([first_row, first_column], y.to(OUT))


@torch.library.custom_op("worldwire::linear_8bit", mutates_args=())
def linear_8bit(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gelu: bool,
) -> Tensor:
    """y [M, N] in `dtype`; x [M, K], scales [M, 1], weight [N, K], scales [N, 1], both int8 or both e4m3."""
    return product(x, x_scale, weight, weight_scale, bias, dtype, gelu=gelu)


@linear_8bit.register_fake
def _(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    gelu: bool,
) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], dtype=dtype)


@torch.library.custom_op("worldwire::linear_8bit_gated", mutates_args=())
def linear_8bit_gated(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    gate: Tensor,
) -> Tensor:
    """residual [M, N] + gate * product, in the residual's type. gate [L, N]: M / L tokens share a row."""
    return product(
        x, x_scale, weight, weight_scale, bias, residual.dtype, residual=residual.contiguous(), gate=gate
    )


@linear_8bit_gated.register_fake
def _(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    gate: Tensor,
) -> Tensor:
    return torch.empty_like(residual, memory_format=torch.contiguous_format)


def product(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
    *,
    gelu: bool = False,
    residual: Tensor | None = None,
    gate: Tensor | None = None,
    tiles: Tiles | None = None,
) -> Tensor:
    """The kernel with the best tiles for this problem, or with these."""
    x, weight = x.contiguous(), weight.contiguous()
    _check(x, weight, dtype)
    y = x.new_empty(x.shape[0], weight.shape[0], dtype=dtype)

    def run(chosen: Tiles) -> None:
        _launch(x, x_scale, weight, weight_scale, bias, y, gelu, residual, gate, chosen)

    run(tiles or _best(x, weight, y, gelu, residual is not None, run))
    return y


def _best(
    x: Tensor, weight: Tensor, y: Tensor, gelu: bool, gated: bool, run: Callable[[Tiles], None]
) -> Tiles:
    if not x.is_cuda:
        return SMALL
    shape = f"{x.shape[0]}x{x.shape[1]}x{weight.shape[0]}"
    extras = f"{x.dtype} to {y.dtype}{', gelu' * gelu}{', gated' * gated}"
    choice = candidates(x.shape[0], y.dtype, gated, has_roles=_is_hopper(x.device))
    return tuner().best(f"gemm, {gpu_name(x.device)}, {shape}, {extras}", choice, run)


def candidates(rows: int, dtype: torch.dtype, gated: bool, *, has_roles: bool = True) -> tuple[Tiles, ...]:
    """The tiles to choose from for so many rows of results in `dtype`. has_roles: on a Hopper GPU."""
    if gated or dtype == torch.float32:
        return GATED_CANDIDATES
    wanted = FEW_ROWS_CANDIDATES if rows <= FEW_ROWS else CANDIDATES
    return wanted if has_roles else (*GENERAL, *(tiles for tiles in wanted if not tiles.specialised))


def _launch(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    y: Tensor,
    gelu: bool,
    residual: Tensor | None,
    gate: Tensor | None,
    tiles: Tiles,
) -> None:
    if tiles.specialised:
        operands = (x, x_scale, weight, weight_scale, bias, y, gelu)
        gemm_specialised.launch(*operands, tiles, GROUP_ROWS, _processors(x.device))
        return
    (M, K), N = x.shape, weight.shape[0]
    count = triton.cdiv(M, tiles.rows) * triton.cdiv(N, tiles.columns)
    gemm_kernel[(min(count, _processors(x.device)) if tiles.persistent else count,)](
        _tiled(x, tiles.rows, tiles.depth),
        _tiled(weight, tiles.columns, tiles.depth),
        _tiled(y, tiles.rows, tiles.columns),
        x_scale,
        weight_scale,
        bias,
        residual,
        gate,
        M,
        N,
        1 if gate is None else M // gate.shape[0],
        0 if gate is None else gate.stride(0),
        K,
        TILE_M=tiles.rows,
        TILE_N=tiles.columns,
        TILE_K=tiles.depth,
        GROUP=GROUP_ROWS,
        INTEGER=x.dtype == torch.int8,
        HAS_BIAS=bias is not None,
        GELU=gelu,
        GATED=gate is not None,
        FLATTEN=tiles.persistent,
        OUT=DTYPES[y.dtype],
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


def _tiled(matrix: Tensor, rows: int, columns: int) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(matrix, [rows, columns])


@cache
def _is_hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device)[0] == HOPPER


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def _check(x: Tensor, weight: Tensor, dtype: torch.dtype) -> None:
    if x.shape[1] != weight.shape[1] or x.dtype != weight.dtype:
        raise ValueError(f"{x.dtype} {list(x.shape)} does not multiply {weight.dtype} {list(weight.shape)}")
    if not fits(weight, dtype):
        raise ValueError(
            f"the copy engine needs rows of a multiple of {COPY_BYTES} bytes, got {list(weight.shape)}"
        )
