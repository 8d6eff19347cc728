"""Triton: attention of very many short sequences, each in one program that reads its rows once.

The action modules mix a token with those at its place in a few other latents: thousands of sequences of ten
to twenty. The libraries' kernels work on tiles of 64 queries and leave most of each tile empty.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

LEAST = 16
"""Rows of the smallest tile that the tensor cores multiply."""
LOG2_E = 1 / math.log(2)


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
