"""Gluon: the product of `gemm` with a role for each group of warps, for Hopper GPUs alone, of many rows.

Triton waits for every step's integer products before it issues the next ones. Here they follow each other
without a gap: one warp copies tiles ahead, across the border between two tiles of the result, and two groups
of four warps multiply, half of the rows each. Persistent: one program per multiprocessor. int8 or e4m3, bias
and GELU.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from worldwire_runtime.kernels.tuning import Tiles

GROUPS = 2
GROUP_WARPS = gl.constexpr(4)
COMPUTING_REGISTERS, COPYING_REGISTERS = gl.constexpr(240), gl.constexpr(24)
REGISTERS_AT_START = 168
"""Of each of the 12 warps (the copying one is given a group, too): all that a multiprocessor has."""
# Copies by Hopper's engine: Triton 3.6 has only the older names, 3.9 only the newer ones.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global

STORED = {torch.bfloat16: gl.bfloat16, torch.float16: gl.float16}
MULTIPLIED = {torch.int8: gl.int8, torch.float8_e4m3fn: gl.float8e4nv}
GELU_LINEAR, GELU_CUBIC = gl.constexpr(-2.302208198), gl.constexpr(-0.1029432397)
"""Of `gemm.gelu_tanh`: x / (1 + 2^(x (linear + cubic x^2)))."""


@gluon.jit
def tile_place(tile, row_tiles, column_tiles, GROUP: gl.constexpr):
    """As `gemm.tile_place`."""
    per_group = GROUP * column_tiles
    first = (tile // per_group) * GROUP
    height = gl.minimum(row_tiles - first, GROUP)
    return first + (tile % per_group) % height, (tile % per_group) // height


@gluon.jit
def copy_tiles(
    buffers,
    barriers,
    copied,
    sizes,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    DEPTH: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
):
    """The copying warp: step after step of all of the program's tiles, as places become free."""
    xs, ws, _ = buffers
    here, used = barriers
    x_desc, w_desc = copied
    row_tiles, column_tiles, K = sizes
    step = 0
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = tile_place(tile, row_tiles, column_tiles, GROUP)
        for k in range(0, K, DEPTH):
            stage = step % STAGES
            mbarrier.wait(used.index(stage), ((step // STAGES) & 1) ^ 1)
            mbarrier.expect(here.index(stage), 2 * x_desc.block_type.nbytes + w_desc.block_type.nbytes)
            for half in gl.static_range(2):
                first = (row_tile * 2 + half) * ROWS
                async_load(x_desc, [first, k], here.index(stage), xs.index(2 * stage + half))
            async_load(w_desc, [column_tile * COLUMNS, k], here.index(stage), ws.index(stage))
            step += 1


@gluon.jit
def finished(
    sums,
    first_row,
    first_column,
    epilogue,
    HAS_BIAS: gl.constexpr,
    GELU: gl.constexpr,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    SUMS: gl.constexpr,
):
    """float32 of a group's sums: scales, bias, GELU."""
    x_scale, w_scale, bias, M, N = epilogue
    rows = first_row + gl.arange(0, ROWS, layout=gl.SliceLayout(1, SUMS))
    columns = first_column + gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, SUMS))
    row_scale = gl.load(x_scale + rows, mask=rows < M, other=0.0)
    column_scale = gl.load(w_scale + columns, mask=columns < N, other=0.0)
    y = sums.to(gl.float32) * row_scale[:, None] * column_scale[None, :]
    if HAS_BIAS:
        y += gl.load(bias + columns, mask=columns < N, other=0.0).to(gl.float32)[None, :]
    if GELU:
        y = y / (1.0 + gl.exp2(y * (GELU_LINEAR + GELU_CUBIC * (y * y))))
    return y


@gluon.jit
def multiply_rows(
    half,
    problem,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    DEPTH: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
    INTEGER: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    GELU: gl.constexpr,
):
    """A computing group: one half of the rows of each of the program's tiles."""
    WIDTH: gl.constexpr = 128 if INTEGER else COLUMNS  # Triton knows no wider products of integers
    SUMS: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [GROUP_WARPS, 1], [16, WIDTH, 32])
    buffers, barriers, y_desc, epilogue, sizes = problem
    xs, ws, ys = buffers
    here, used = barriers
    row_tiles, column_tiles, K = sizes
    step = 0
    for tile in range(gl.program_id(0), row_tiles * column_tiles, gl.num_programs(0)):
        row_tile, column_tile = tile_place(tile, row_tiles, column_tiles, GROUP)
        sums = gl.full([ROWS, COLUMNS], 0, gl.int32 if INTEGER else gl.float32, SUMS)
        for k in range(0, K, DEPTH):
            stage = step % STAGES
            mbarrier.wait(here.index(stage), (step // STAGES) & 1)
            sums = warpgroup_mma(
                xs.index(2 * stage + half), ws.index(stage).permute([1, 0]), sums, is_async=True
            )
            sums = warpgroup_mma_wait(1, deps=[sums])
            mbarrier.arrive(used.index((step + STAGES - 1) % STAGES), count=1, pred=k > 0)
            step += 1
        sums = warpgroup_mma_wait(0, deps=[sums])
        mbarrier.arrive(used.index((step + STAGES - 1) % STAGES), count=1)
        first_row, first_column = (row_tile * 2 + half) * ROWS, column_tile * COLUMNS
        y = finished(sums, first_row, first_column, epilogue, HAS_BIAS, GELU, ROWS, COLUMNS, SUMS)
        tma.store_wait(0)
        ys.index(half).store(y.to(y_desc.dtype))
        fence_async_shared()
        async_store(y_desc, [first_row, first_column], ys.index(half))
    tma.store_wait(0)


@gluon.jit
def specialised_kernel(
    x_desc,
    w_desc,
    y_desc,
    x_scale,
    w_scale,
    bias,
    M,
    N,
    K,
    ROWS: gl.constexpr,
    COLUMNS: gl.constexpr,
    DEPTH: gl.constexpr,
    STAGES: gl.constexpr,
    GROUP: gl.constexpr,
    INTEGER: gl.constexpr,
    HAS_BIAS: gl.constexpr,
    GELU: gl.constexpr,
):
    """Y [M, N] of X [M, K] and W [N, K]; a tile is 2 * ROWS x COLUMNS."""
    xs = gl.allocate_shared_memory(x_desc.dtype, [2 * STAGES, ROWS, DEPTH], x_desc.layout)
    ws = gl.allocate_shared_memory(w_desc.dtype, [STAGES, COLUMNS, DEPTH], w_desc.layout)
    ys = gl.allocate_shared_memory(y_desc.dtype, [2, ROWS, COLUMNS], y_desc.layout)
    here = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    used = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for stage in gl.static_range(STAGES):
        mbarrier.init(here.index(stage), count=1)
        mbarrier.init(used.index(stage), count=2)
    fence_async_shared()
    buffers, barriers = (xs, ws, ys), (here, used)
    sizes = (gl.cdiv(M, 2 * ROWS), gl.cdiv(N, COLUMNS), K)
    epilogue = (x_scale, w_scale, bias, M, N)
    problem = (buffers, barriers, y_desc, epilogue, sizes)
    gl.warp_specialize(
        [
            (multiply_rows, (0, problem, ROWS, COLUMNS, DEPTH, STAGES, GROUP, INTEGER, HAS_BIAS, GELU)),
            (multiply_rows, (1, problem, ROWS, COLUMNS, DEPTH, STAGES, GROUP, INTEGER, HAS_BIAS, GELU)),
            (copy_tiles, (buffers, barriers, (x_desc, w_desc), sizes, ROWS, COLUMNS, DEPTH, STAGES, GROUP)),
        ],
        [GROUP_WARPS, 1],
        [COMPUTING_REGISTERS, COPYING_REGISTERS],
    )


def launch(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    y: Tensor,
    gelu: bool,
    tiles: Tiles,
    group: int,
    processors: int,
) -> None:
    """Fills `y`. group: as `gemm.GROUP_ROWS`."""
    (M, K), N = x.shape, weight.shape[0]
    rows, kind = tiles.rows // GROUPS, MULTIPLIED[x.dtype]
    count = triton.cdiv(M, tiles.rows) * triton.cdiv(N, tiles.columns)
    specialised_kernel[(min(count, processors),)](
        _tiled(x, [rows, tiles.depth], kind),
        _tiled(weight, [tiles.columns, tiles.depth], kind),
        _tiled(y, [rows, tiles.columns], STORED[y.dtype]),
        x_scale,
        weight_scale,
        weight_scale if bias is None else bias,
        M,
        N,
        K,
        ROWS=rows,
        COLUMNS=tiles.columns,
        DEPTH=tiles.depth,
        STAGES=tiles.stages,
        GROUP=group,
        INTEGER=x.dtype == torch.int8,
        HAS_BIAS=bias is not None,
        GELU=gelu,
        num_warps=tiles.warps,
        maxnreg=REGISTERS_AT_START,
    )


def _tiled(matrix: Tensor, block: list[int], dtype: gl.dtype) -> TensorDescriptor:
    """A matrix that is copied block by block."""
    return TensorDescriptor.from_tensor(matrix, block, gl.NVMMASharedLayout.get_default_for(block, dtype))
