"""Triton: the product of `kernels.attention`, one tile of queries per program, keys block by block.

Written for Hopper: 8-bit tiles arrive by the bulk tensor copy engine, both products run on the tensor cores.
A block's product with the values is summed apart and then added in float32, so that the tensor cores' shorter
fp8 sums never run longer than one block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from worldwire_runtime.kernels.attention import KEY_BLOCK, PROBABILITY_RANGE
from worldwire_runtime.kernels.gemm import DTYPES
from worldwire_runtime.kernels.tuning import Tiles, gpu_name, tuner

CANDIDATES = (
    Tiles(128, 128, 0, warps=8, stages=2),
    Tiles(128, 128, 0, warps=8, stages=3),
    Tiles(128, 64, 0, warps=8, stages=3),
    Tiles(64, 128, 0, warps=4, stages=3),
    Tiles(64, 64, 0, warps=4, stages=4),
)
"""columns: keys of one step, a divisor of `KEY_BLOCK`; depth is the head's width."""
SMALL = Tiles(16, 64, 0, warps=4, stages=1)
"""For Triton's interpreter."""
LEAST_WIDTH = 32
"""The tensor cores add up 8-bit products in runs of so many, so a head is at least this wide."""


@triton.jit
def flash_kernel(
    query_desc,
    key_desc,
    value_desc,
    out,
    query_scale,
    key_scale,
    value_scale,
    queries,
    tokens,
    key_blocks,
    out_head,
    out_token,
    heads,
    out_batch,
    D: tl.constexpr,
    TILE_Q: tl.constexpr,
    TILE_K: tl.constexpr,
    PER_SCALE: tl.constexpr,
    FP8_VALUES: tl.constexpr,
    RANGE: tl.constexpr,
    OUT: tl.constexpr,
):
    """Program (i, h): queries i * TILE_Q ... of head h of all batches.

    All heads lie below each other in one matrix, so the last tile of a head reaches into the next one: its
    scores are masked, and its queries are not stored.
    """
    head = tl.program_id(1)
    first = tl.program_id(0) * TILE_Q
    rows = first + tl.arange(0, TILE_Q)
    query = query_desc.load([head * queries + first, 0])
    row_scale = tl.load(query_scale + head.to(tl.int64) * queries + rows, mask=rows < queries, other=0.0)
    largest = tl.full((TILE_Q,), float("-inf"), tl.float32)
    total = tl.zeros((TILE_Q,), tl.float32)
    mixed = tl.zeros((TILE_Q, D), tl.float32)
    for start in tl.range(0, tokens, TILE_K):
        key = key_desc.load([head * tokens + start, 0])
        block_scale = tl.load(key_scale + head * key_blocks + start // PER_SCALE)
        scores = tl.dot(query, key.T, out_dtype=tl.int32).to(tl.float32) * (row_scale * block_scale)[:, None]
        seen = (start + tl.arange(0, TILE_K)) < tokens
        scores = tl.where(seen[None, :], scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_largest[:, None])
        fade = tl.exp2(largest - new_largest)
        total = total * fade + tl.sum(weights, axis=1)
        if FP8_VALUES:
            value = value_desc.load([head * D, start])
            part = tl.dot((weights * RANGE).to(tl.float8e4nv), value.T, out_dtype=tl.float32)
        else:
            value = value_desc.load([head * tokens + start, 0])
            part = tl.dot(weights.to(value.dtype), value, out_dtype=tl.float32)
        mixed = mixed * fade[:, None] + part
        largest = new_largest
    channels = tl.arange(0, D)
    y = mixed / total[:, None]
    if FP8_VALUES:
        y = y * (tl.load(value_scale + head * D + channels) / RANGE)[None, :]
    place = (head // heads).to(tl.int64) * out_batch + (head % heads) * out_head
    place = place + rows[:, None].to(tl.int64) * out_token + channels[None, :]
    tl.store(out + place, y.to(OUT), mask=(rows < queries)[:, None])


@torch.library.custom_op("worldwire::attention_8bit", mutates_args=())
def attention_8bit(
    query: Tensor,
    query_scale: Tensor,
    key: Tensor,
    key_scale: Tensor,
    value: Tensor,
    value_scale: Tensor | None,
    tokens: int,
    dtype: torch.dtype,
) -> Tensor:
    """The kernel with its best tiles: [B, H, Q, D] in `dtype`, laid out as [B, Q, H, D] in memory."""
    return attend(query, query_scale, key, key_scale, value, value_scale, tokens, dtype)


@attention_8bit.register_fake
def _(
    query: Tensor,
    query_scale: Tensor,
    key: Tensor,
    key_scale: Tensor,
    value: Tensor,
    value_scale: Tensor | None,
    tokens: int,
    dtype: torch.dtype,
) -> Tensor:
    return _output(query, dtype)


def attend(
    query: Tensor,
    query_scale: Tensor,
    key: Tensor,
    key_scale: Tensor,
    value: Tensor,
    value_scale: Tensor | None,
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
    out = _output(query, dtype)
    query, key, value, query_scale, key_scale = (
        part.contiguous() for part in (query, key, value, query_scale, key_scale)
    )
    scales = (query_scale, key_scale, None if value_scale is None else value_scale.contiguous())

    def run(chosen: Tiles) -> None:
        _launch(query, key, value, scales, tokens, out, chosen)

    run(tiles or _best(query, value, tokens, run))
    return _output(query[..., :width], dtype).copy_(out[..., :width]) if added else out


def kernel_width(width: int) -> int:
    """Channels per head that the kernel works on: a power of two (its blocks are), `LEAST_WIDTH` or more."""
    return max(LEAST_WIDTH, triton.next_power_of_2(width))


def _best(query: Tensor, value: Tensor, tokens: int, run: Callable[[Tiles], None]) -> Tiles:
    if not query.is_cuda:
        return SMALL
    batch, heads, queries, width = query.shape
    key = f"attention, {gpu_name(query.device)}, {batch * heads}x{queries}x{tokens}x{width}, {value.dtype}"
    return tuner().best(key, CANDIDATES, run)


def _launch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scales: tuple[Tensor | None, ...],
    tokens: int,
    out: Tensor,
    tiles: Tiles,
) -> None:
    batch, heads, queries, width = query.shape
    fp8 = scales[2] is not None
    value_tile = [width, tiles.columns] if fp8 else [tiles.columns, width]
    flash_kernel[(triton.cdiv(queries, tiles.rows), batch * heads)](
        TensorDescriptor.from_tensor(query.flatten(0, 2), [tiles.rows, width]),
        TensorDescriptor.from_tensor(key.flatten(0, 2), [tiles.columns, width]),
        TensorDescriptor.from_tensor(value.flatten(0, 2), value_tile),
        out,
        *scales,
        queries,
        tokens,
        triton.cdiv(tokens, KEY_BLOCK),
        out.stride(1),
        out.stride(2),
        heads,
        out.stride(0),
        D=width,
        TILE_Q=tiles.rows,
        TILE_K=tiles.columns,
        PER_SCALE=KEY_BLOCK,
        FP8_VALUES=fp8,
        RANGE=PROBABILITY_RANGE,
        OUT=DTYPES[out.dtype],
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )


def _output(query: Tensor, dtype: torch.dtype) -> Tensor:
    """Heads beside each other in memory, as the projection after attention reads them."""
    batch, heads, queries, width = query.shape
    return query.new_empty(batch, queries, heads, width, dtype=dtype).transpose(1, 2)
