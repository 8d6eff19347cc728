"""Triton: attention that is short in one direction, in programs that read their rows once.

The action modules mix a token with those at its place in a few other latents: thousands of sequences of ten
to twenty (`short_attention`). The libraries' kernels work on tiles of 64 queries and leave most of each
empty. And every token looks at the prompt, whose padding is one key many times (`counted_attention`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from worldwire_runtime.kernels.attention import LOG2_E

LEAST = 16
"""Rows of the smallest tile that the tensor cores multiply."""
QUERIES, KEYS, WARPS, STAGES = 64, 64, 4, 2
"""Of a tile of `counted_kernel`."""


@triton.jit
def short_kernel(
    query,
    key,
    value,
    out,
    queries,
    tokens,
    query_batch,
    query_head,
    query_token,
    key_batch,
    key_head,
    key_token,
    value_batch,
    value_head,
    value_token,
    out_batch,
    out_head,
    out_token,
    SCALE: tl.constexpr,
    D: tl.constexpr,
    TILE_Q: tl.constexpr,
    TILE_K: tl.constexpr,
):
    """Program (b, h): head h of sequence b. The last dimension of all four is dense."""
    batch, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rows, columns, channels = tl.arange(0, TILE_Q), tl.arange(0, TILE_K), tl.arange(0, D)
    here, there = (rows < queries)[:, None], (columns < tokens)[:, None]
    at = query + batch * query_batch + head * query_head
    q = tl.load(at + rows[:, None] * query_token + channels[None, :], mask=here, other=0.0)
    at = key + batch * key_batch + head * key_head
    k = tl.load(at + columns[:, None] * key_token + channels[None, :], mask=there, other=0.0)
    at = value + batch * value_batch + head * value_head
    v = tl.load(at + columns[:, None] * value_token + channels[None, :], mask=there, other=0.0)
    scores = tl.where((columns < tokens)[None, :], tl.dot(q, k.T) * SCALE, float("-inf"))
    weights = tl.exp2(scores - tl.max(scores, axis=1)[:, None])
    y = tl.dot(weights.to(v.dtype), v) / tl.sum(weights, axis=1)[:, None]
    at = out + batch * out_batch + head * out_head
    tl.store(at + rows[:, None] * out_token + channels[None, :], y.to(out.dtype.element_ty), mask=here)


@torch.library.custom_op("worldwire::short_attention", mutates_args=())
def short_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(query key^T / sqrt(D)) value of [S, H, Q, D] and [S, H, T, D], in the layout of `query`."""
    query, key, value = (part if part.stride(-1) == 1 else part.contiguous() for part in (query, key, value))
    out = torch.empty_like(query)
    sequences, heads, queries, width = query.shape
    tokens = key.shape[2]
    short_kernel[(sequences, heads)](
        query,
        key,
        value,
        out,
        queries,
        tokens,
        *(stride for part in (query, key, value, out) for stride in part.stride()[:3]),
        SCALE=LOG2_E / width**0.5,
        D=width,
        TILE_Q=max(LEAST, triton.next_power_of_2(queries)),
        TILE_K=max(LEAST, triton.next_power_of_2(tokens)),
        num_warps=1,
    )
    return out


@short_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.empty_like(query)


@triton.jit
def counted_kernel(
    query,
    key,
    value,
    times,
    out,
    queries,
    tokens,
    query_head,
    query_token,
    key_head,
    key_token,
    value_head,
    value_token,
    out_head,
    out_token,
    SCALE: tl.constexpr,
    TO_BASE_2: tl.constexpr,
    D: tl.constexpr,
    TILE_Q: tl.constexpr,
    TILE_K: tl.constexpr,
):
    """Program (i, h): queries i * TILE_Q ... of head h. The first block of keys has one that counts."""
    head = tl.program_id(1)
    rows, channels = tl.program_id(0) * TILE_Q + tl.arange(0, TILE_Q), tl.arange(0, D)
    here = (rows < queries)[:, None]
    at = query + head * query_head + rows[:, None].to(tl.int64) * query_token + channels[None, :]
    q = tl.load(at, mask=here, other=0.0)
    largest = tl.full((TILE_Q,), float("-inf"), tl.float32)
    total, mixed = tl.zeros((TILE_Q,), tl.float32), tl.zeros((TILE_Q, D), tl.float32)
    for start in tl.range(0, tokens, TILE_K):
        columns = start + tl.arange(0, TILE_K)
        there = (columns < tokens)[:, None]
        k = tl.load(
            key + head * key_head + columns[:, None] * key_token + channels[None, :], mask=there, other=0.0
        )
        v = tl.load(
            value + head * value_head + columns[:, None] * value_token + channels[None, :],
            mask=there,
            other=0.0,
        )
        count = tl.load(times + columns, mask=columns < tokens, other=float("-inf")) * TO_BASE_2
        scores = tl.dot(q, k.T) * SCALE + count[None, :]
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_largest[:, None])
        fade = tl.exp2(largest - new_largest)
        total = total * fade + tl.sum(weights, axis=1)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * fade[:, None])
        largest = new_largest
    y = (mixed / total[:, None]).to(out.dtype.element_ty)
    at = out + head * out_head + rows[:, None].to(tl.int64) * out_token + channels[None, :]
    tl.store(at, y, mask=here)


@torch.library.custom_op("worldwire::counted_attention", mutates_args=())
def counted_attention(query: Tensor, key: Tensor, value: Tensor, times: Tensor) -> Tensor:
    """`model.attention.attend_counted` of one sample: [1, H, Q, D] and [1, H, T, D], like `query`."""
    query, key, value = (part if part.stride(-1) == 1 else part.contiguous() for part in (query, key, value))
    out = torch.empty_like(query)
    _, heads, queries, width = query.shape
    counted_kernel[(triton.cdiv(queries, QUERIES), heads)](
        query,
        key,
        value,
        times,
        out,
        queries,
        key.shape[2],
        *(stride for part in (query, key, value, out) for stride in part.stride()[1:3]),
        SCALE=LOG2_E / width**0.5,
        TO_BASE_2=LOG2_E,
        D=width,
        TILE_Q=QUERIES,
        TILE_K=KEYS,
        num_warps=WARPS,
        num_stages=STAGES,
    )
    return out


@counted_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, times: Tensor) -> Tensor:
    return torch.empty_like(query)
