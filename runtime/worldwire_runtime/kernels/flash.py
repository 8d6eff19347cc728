"""Triton: the product of `kernels.attention`, one tile of queries per program, keys block by block.

Written for Hopper: 8-bit tiles arrive by the bulk tensor copy engine, both products run on the tensor
cores. There the softmax between them costs as much as they do, so the loop has little else: scales are
folded into one fused multiply-add per score, only the last block, which comes first, is masked, and
probabilities become the next product's operand without leaving their registers (`attention.turned`).

A candidate with `apart` sums a block's product with the values apart and adds it in float32, so that the
tensor cores' shorter fp8 sums never run longer than one block. The others leave the sums in the tensor
cores, which takes fewer registers, but loses too much where fp8 sums are longer than `LONGEST_SUM`. Two
programs of few warps fit on a multiprocessor: one's softmax runs beside the other's products.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from worldwire_runtime.kernels.attention import PROBABILITY_RANGE
from worldwire_runtime.kernels.gemm import DTYPES
from worldwire_runtime.kernels.rows import FP8
from worldwire_runtime.kernels.tuning import Tiles, gpu_name, tuner

# The first is what runs unmeasured, over any number of tokens: the fastest on an H200 but for the longest
# clips. Tiles of 64 rows are for several programs on a multiprocessor.
CANDIDATES = (
    Tiles(64, 64, 0, warps=4, stages=3, apart=True),
    Tiles(64, 128, 0, warps=4, stages=2, apart=True),
    Tiles(128, 128, 0, warps=8, stages=3, apart=True),
    Tiles(64, 64, 0, warps=4, stages=3),
)
"""columns: keys of one step; depth is the head's width. `candidates` says which may be chosen."""
LONGEST_SUM = 2048
"""Tokens whose fp8 products may be summed in the tensor cores. They keep few bits: on an H200 sums of 16,720
that do not cancel lose 18.8 %, and the loss grows in proportion (about 1 % of 900)."""
SMALL = Tiles(16, 64, 0, warps=4, stages=1, apart=True)
"""For Triton's interpreter."""
LEAST_WIDTH = 32
"""The tensor cores add up 8-bit products in runs of so many, so a head is at least this wide."""
SHIFT = math.log2(PROBABILITY_RANGE)
"""What multiplies probabilities by their range, in the exponent."""


@triton.jit
def weigh(scores, scale, largest, total, SHIFT: tl.constexpr):
    """Probabilities (times their range) of one block of scores by the maximum so far.

    scale [rows] is positive, so the largest score is found before it. Returns also by how much older sums
    fade, the new maximum and the new sum.
    """
    new_largest = tl.maximum(largest, tl.max(scores, axis=1).to(tl.float32) * scale)
    weights = tl.exp2(scores.to(tl.float32) * scale[:, None] - (new_largest - SHIFT)[:, None])
    fade = tl.exp2(largest - new_largest)
    return weights, fade, new_largest, total * fade + tl.sum(weights, axis=1)


@triton.jit
def as_factor(weights, TILE_Q: tl.constexpr, TILE_K: tl.constexpr):
    """Probabilities in e4m3, in the order of `attention.turned`."""
    groups = tl.reshape(weights.to(tl.float8e4nv), (TILE_Q, TILE_K // 16, 2, 4, 2))
    return tl.reshape(tl.permute(groups, (0, 1, 3, 2, 4)), (TILE_Q, TILE_K))


@triton.jit
def mix(
    weights,
    sums,
    value_desc,
    first_value,
    start,
    TILE_Q: tl.constexpr,
    TILE_K: tl.constexpr,
    FP8_VALUES: tl.constexpr,
):
    """sums + probabilities times a block of values. first_value: the head's first row of `value_desc`."""
    if FP8_VALUES:
        value = value_desc.load([first_value, start])
        sums = tl.dot(as_factor(weights, TILE_Q, TILE_K), value.T, sums)
    else:
        value = value_desc.load([first_value + start, 0])
        sums = tl.dot(weights.to(value.dtype), value, sums)
    return sums


@triton.jit
def flash_kernel(
    query_desc,
    key_desc,
    value_desc,
    out,
    query_scale,
    value_scale,
    value_mean,
    queries,
    tokens,
    out_head,
    out_token,
    heads,
    out_batch,
    D: tl.constexpr,
    TILE_Q: tl.constexpr,
    TILE_K: tl.constexpr,
    INTEGER: tl.constexpr,
    FP8_VALUES: tl.constexpr,
    APART: tl.constexpr,
    SHIFT: tl.constexpr,
    OUT: tl.constexpr,
):
    """Program (i, h): queries i * TILE_Q ... of head h of all batches.

    All heads lie below each other in one matrix, so the last tile of a head reaches into the next one: its
    scores are masked, and its queries are not stored.
    """
    SUM: tl.constexpr = tl.int32 if INTEGER else tl.float32
    head = tl.program_id(1)
    first = tl.program_id(0) * TILE_Q
    rows = first + tl.arange(0, TILE_Q)
    query = query_desc.load([head * queries + first, 0])
    scale = tl.load(query_scale + head.to(tl.int64) * queries + rows, mask=rows < queries, other=1.0)
    first_value = head * D if FP8_VALUES else head * tokens
    zeros = tl.zeros((TILE_Q, D), tl.float32)

    last = (tl.cdiv(tokens, TILE_K) - 1) * TILE_K
    inside = (last + tl.arange(0, TILE_K)) < tokens
    at_end = tl.dot(query, key_desc.load([head * tokens + last, 0]).T, out_dtype=SUM).to(tl.float32)
    at_end = tl.where(inside[None, :], at_end, float("-inf"))
    lowest = tl.full((TILE_Q,), float("-inf"), tl.float32)
    weights, _, largest, total = weigh(at_end, scale, lowest, tl.zeros((TILE_Q,), tl.float32), SHIFT)
    mixed = mix(weights, zeros, value_desc, first_value, last, TILE_Q, TILE_K, FP8_VALUES)
    for start in tl.range(0, last, TILE_K):
        scores = tl.dot(query, key_desc.load([head * tokens + start, 0]).T, out_dtype=SUM)
        weights, fade, largest, total = weigh(scores, scale, largest, total, SHIFT)
        faded = mixed * fade[:, None]
        if APART:
            mixed = faded + mix(weights, zeros, value_desc, first_value, start, TILE_Q, TILE_K, FP8_VALUES)
        else:
            mixed = mix(weights, faded, value_desc, first_value, start, TILE_Q, TILE_K, FP8_VALUES)

    channels = tl.arange(0, D)
    y = mixed / total[:, None]
    if FP8_VALUES:
        mean = tl.load(value_mean + head * D + channels)
        y = y * tl.load(value_scale + head * D + channels)[None, :] + mean[None, :]
    place = (head // heads).to(tl.int64) * out_batch + (head % heads) * out_head
    place = place + rows[:, None].to(tl.int64) * out_token + channels[None, :]
    tl.store(out + place, y.to(OUT), mask=(rows < queries)[:, None])


@torch.library.custom_op("worldwire::attention_8bit", mutates_args=())
def attention_8bit(
    query: Tensor,
    query_scale: Tensor,
    key: Tensor,
    value: Tensor,
    value_scale: Tensor | None,
    value_mean: Tensor | None,
    tokens: int,
    dtype: torch.dtype,
) -> Tensor:
    """The kernel with its best tiles: [B, H, Q, D] in `dtype`, laid out as [B, Q, H, D] in memory."""
    return attend(query, query_scale, key, value, value_scale, value_mean, tokens, dtype)


@attention_8bit.register_fake
def _(
    query: Tensor,
    query_scale: Tensor,
    key: Tensor,
    value: Tensor,
    value_scale: Tensor | None,
    value_mean: Tensor | None,
    tokens: int,
    dtype: torch.dtype,
) -> Tensor:
    return _output(query, dtype)


def attend(
    query: Tensor,
    query_scale: Tensor,
    key: Tensor,
    value: Tensor,
    value_scale: Tensor | None,
    value_mean: Tensor | None,
    tokens: int,
    dtype: torch.dtype,
    *,
    tiles: Tiles | None = None,
) -> Tensor:
    """The same, with these tiles if some are given.

    Heads that are no `kernel_width` wide are filled up with zero channels, which add nothing to a score; the
    channels of the result that come of them are left out.
    """
    width = query.shape[-1]
    added = kernel_width(width) - width
    if added:
        query, key = F.pad(query, (0, added)), F.pad(key, (0, added))
        value = F.pad(value, (0, added) if value_scale is None else (0, 0, 0, added))
        value_scale = None if value_scale is None else F.pad(value_scale, (0, added))
        value_mean = None if value_mean is None else F.pad(value_mean, (0, added))
    out = _output(query, dtype)
    query, key, value, query_scale = (part.contiguous() for part in (query, key, value, query_scale))
    scale, mean = (part if part is None else part.contiguous() for part in (value_scale, value_mean))
    factors = (query_scale, scale, mean)

    def run(chosen: Tiles) -> None:
        _launch(query, key, value, factors, tokens, out, chosen)

    run(tiles or _best(query, value, tokens, run))
    return _output(query[..., :width], dtype).copy_(out[..., :width]) if added else out


def kernel_width(width: int) -> int:
    """Channels per head that the kernel works on: a power of two (its blocks are), `LEAST_WIDTH` or more."""
    return max(LEAST_WIDTH, triton.next_power_of_2(width))


def _best(query: Tensor, value: Tensor, tokens: int, run: Callable[[Tiles], None]) -> Tiles:
    if not query.is_cuda:
        return SMALL
    batch, heads, queries, width = query.shape
    types = f"{query.dtype} {value.dtype}"
    key = f"attention, {gpu_name(query.device)}, {batch * heads}x{queries}x{tokens}x{width}, {types}"
    return tuner().best(key, candidates(tokens, value.dtype), run)


def candidates(tokens: int, values: torch.dtype) -> tuple[Tiles, ...]:
    """The tiles that sum so many values of this format well enough, the one that runs unmeasured first."""
    short = values != FP8.dtype or tokens <= LONGEST_SUM
    return tuple(tiles for tiles in CANDIDATES if tiles.apart or short)


def _launch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    factors: tuple[Tensor, Tensor | None, Tensor | None],
    tokens: int,
    out: Tensor,
    tiles: Tiles,
) -> None:
    batch, heads, queries, width = query.shape
    fp8 = factors[1] is not None
    value_tile = [width, tiles.columns] if fp8 else [tiles.columns, width]
    flash_kernel[(triton.cdiv(queries, tiles.rows), batch * heads)](
        TensorDescriptor.from_tensor(query.flatten(0, 2), [tiles.rows, width]),
        TensorDescriptor.from_tensor(key.flatten(0, 2), [tiles.columns, width]),
        TensorDescriptor.from_tensor(value.flatten(0, 2), value_tile),
        out,
        *factors,
        queries,
        tokens,
        out.stride(1),
        out.stride(2),
        heads,
        out.stride(0),
        D=width,
        TILE_Q=tiles.rows,
        TILE_K=tiles.columns,
        INTEGER=query.dtype == torch.int8,
        FP8_VALUES=fp8,
        APART=tiles.apart,
        SHIFT=SHIFT,
        OUT=DTYPES[out.dtype],
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


def _output(query: Tensor, dtype: torch.dtype) -> Tensor:
    """Heads beside each other in memory, as the projection after attention reads them."""
    batch, heads, queries, width = query.shape
    return query.new_empty(batch, queries, heads, width, dtype=dtype).transpose(1, 2)
