"""Triton: norms of queries and keys over the full width and their rotation, in one pass over memory.

Both rows of a token are one program's, so that one exchange between its warps serves both norms; and it takes
some latents one after another, so that what turns rows and columns is read once for them: if each head has a
base of its own, that is as much as a token's queries and keys. A row of 24 heads is two tiles, of 16 and of
8: filled up to a power of two, a quarter of it would be nothing.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from worldwire_runtime.kernels.tuning import two_tiles

WARPS = 4
"""A tile of eight heads of 128 is 16 bytes for each of their threads: half as much would be slow to read."""
LATENTS = 4
"""Most that one program turns."""


def reference(
    query: Tensor,
    key: Tensor,
    weights: tuple[Tensor, Tensor],
    time: tuple[Tensor, Tensor],
    space: tuple[Tensor, Tensor],
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The definition: queries and keys [B, F, N, d], each over its root mean square, weighted and turned.

    To [B, F, N, H, D] in `dtype`. weights [d]; time [b, F, 1, h, D] and space [1, 1, N, h, D]: cosines and
    sines as of `model.rope.TrunkRotary`, float32, b is B or 1, h is H or 1.
    """
    cos, sin = time[0] * space[0], time[1] + space[1]

    def turned(x: Tensor, weight: Tensor) -> Tensor:
        x = x.float() * torch.rsqrt(x.float().square().mean(dim=-1, keepdim=True) + eps) * weight
        x = x.unflatten(-1, (-1, cos.shape[-1]))
        return (x * cos + x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2) * sin).to(dtype)

    return turned(query, weights[0]), turned(key, weights[1])


@triton.jit
def _both(a, b, c, d):
    return a + c, b + d


@triton.jit
def _load(start, first_head, column, HEADS: tl.constexpr, TILE: tl.constexpr, D: tl.constexpr):
    """Heads first_head ... of what begins at `start`: float32 [TILE, D]."""
    head = first_head + tl.arange(0, TILE)[:, None]
    return tl.load(start + head * D + column, mask=head < HEADS, other=0.0).to(tl.float32)


@triton.jit
def _pairs(x, TILE: tl.constexpr, D: tl.constexpr):
    """[TILE, D]: the first and the second of each pair."""
    return tl.split(tl.reshape(x, (TILE, D // 2, 2)))


@triton.jit
def _table(
    cos, sin, first_head, column, turns, HEADS: tl.constexpr, STRIDE: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """What the pairs turn by whose columns `turns`, and 0: cosines and sines [TILE, D / 2]."""
    head = first_head + tl.arange(0, TILE)[:, None]
    place, here = head * STRIDE + column, (head < HEADS) & turns
    cosine, _ = _pairs(tl.load(cos + place, mask=here, other=0.0), TILE, D)
    _, sine = _pairs(tl.load(sin + place, mask=here, other=0.0), TILE, D)
    return cosine, sine


@triton.jit
def _squares(a, b, FIRST: tl.constexpr, REST: tl.constexpr, D: tl.constexpr):
    """Of both tiles, added up as far as that takes no other thread."""
    if REST:
        sums = tl.reshape(tl.sum(tl.reshape(a * a, (FIRST // REST, REST, D)), axis=0) + b * b, (REST * D,))
    else:
        sums = tl.reshape(a * a, (FIRST * D,))
    return sums


@triton.jit
def _turn(
    x, factor, weight, cos, sin, out, first_head, column, HEADS: tl.constexpr, TILE: tl.constexpr,
    D: tl.constexpr,
):  # fmt: skip
    """Stores a tile, normalised and turned."""
    head = first_head + tl.arange(0, TILE)[:, None]
    w = _load(weight, first_head, column, HEADS, TILE, D)
    a, b = _pairs(x * factor * w, TILE, D)
    turned = tl.reshape(tl.join(a * cos - b * sin, b * cos + a * sin), (TILE, D))
    tl.store(out + head * D + column, turned.to(out.dtype.element_ty), mask=head < HEADS)


@triton.jit
def turned_kernel(
    query,
    key,
    query_weight,
    key_weight,
    time_cos,
    time_sin,
    space_cos,
    space_sin,
    turned_query,
    turned_key,
    latents,
    tokens,
    parts,
    batches,
    query_stride,
    key_stride,
    time_stride,
    eps,
    TIMED: tl.constexpr,
    HEADS: tl.constexpr,
    TABLES: tl.constexpr,
    D: tl.constexpr,
    FIRST: tl.constexpr,
    REST: tl.constexpr,
    LATENTS: tl.constexpr,
):
    """One token of `LATENTS` latents per program; programs beside each other have the same token."""
    program = tl.program_id(0)
    token, batch, part = program // (parts * batches), (program // parts) % batches, program % parts
    column = tl.arange(0, D)[None, :]
    timed = column < TIMED
    STRIDE: tl.constexpr = D if TABLES > 1 else 0
    at = token * TABLES * D
    cos, sin = space_cos + at, space_sin + at
    space_ca, space_sa = _table(cos, sin, 0, column, column >= TIMED, HEADS, STRIDE, FIRST, D)
    if REST:
        space_cb, space_sb = _table(cos, sin, FIRST, column, column >= TIMED, HEADS, STRIDE, REST, D)
    for latent in range(part * LATENTS, tl.minimum((part + 1) * LATENTS, latents)):
        row = ((batch * latents + latent) * tokens + token).to(tl.int64)
        q, k = query + row * query_stride, key + row * key_stride
        qa, ka = _load(q, 0, column, HEADS, FIRST, D), _load(k, 0, column, HEADS, FIRST, D)
        if REST:
            qb, kb = _load(q, FIRST, column, HEADS, REST, D), _load(k, FIRST, column, HEADS, REST, D)
        else:
            qb, kb = qa, ka
        squares = (_squares(qa, qb, FIRST, REST, D), _squares(ka, kb, FIRST, REST, D))
        q_sum, k_sum = tl.reduce(squares, 0, _both)
        q_factor, k_factor = tl.rsqrt(q_sum / (HEADS * D) + eps), tl.rsqrt(k_sum / (HEADS * D) + eps)
        to_q, to_k = turned_query + row * (HEADS * D), turned_key + row * (HEADS * D)
        now = batch * time_stride + latent * TABLES * D
        cos_now, sin_now = time_cos + now, time_sin + now
        c, s = _table(cos_now, sin_now, 0, column, timed, HEADS, STRIDE, FIRST, D)
        c, s = c + space_ca, s + space_sa
        _turn(qa, q_factor, query_weight, c, s, to_q, 0, column, HEADS, FIRST, D)
        _turn(ka, k_factor, key_weight, c, s, to_k, 0, column, HEADS, FIRST, D)
        if REST:
            cb, sb = _table(cos_now, sin_now, FIRST, column, timed, HEADS, STRIDE, REST, D)
            cb, sb = cb + space_cb, sb + space_sb
            _turn(qb, q_factor, query_weight, cb, sb, to_q, FIRST, column, HEADS, REST, D)
            _turn(kb, k_factor, key_weight, cb, sb, to_k, FIRST, column, HEADS, REST, D)


@torch.library.custom_op("worldwire::turned_rows", mutates_args=())
def turned_rows(
    query: Tensor,
    key: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    time_cos: Tensor,
    time_sin: Tensor,
    space_cos: Tensor,
    space_sin: Tensor,
    timed: int,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """`reference` by the kernel, for tables whose first `timed` columns turn with time and the others do not.

    Queries and keys may be parts of one tensor of wider rows.
    """
    batches, latents, tokens, width = query.shape
    tables = [table.contiguous() for table in (time_cos, time_sin, space_cos, space_sin)]
    head = space_cos.shape[-1]
    heads, own_tables = width // head, space_cos.shape[-2]
    rows = [_rows(x) for x in (query, key)]
    made = [query.new_empty(*query.shape[:3], heads, head, dtype=dtype) for _ in rows]
    first, rest = two_tiles(heads)
    at_once = min(LATENTS, latents)
    parts = triton.cdiv(latents, at_once)
    turned_kernel[(tokens * parts * batches,)](
        *rows,
        query_weight,
        key_weight,
        *tables,
        *made,
        latents,
        tokens,
        parts,
        batches,
        *(x.stride(0) for x in rows),
        latents * own_tables * head if time_cos.shape[0] > 1 else 0,
        eps,
        TIMED=timed,
        HEADS=heads,
        TABLES=own_tables,
        D=head,
        FIRST=first,
        REST=rest,
        LATENTS=at_once,
        num_warps=WARPS,
    )
    return made[0], made[1]


def _rows(x: Tensor) -> Tensor:
    """[B, F, N, d] as [B * F * N, d], without a copy where rows lie at equal distances."""
    rows = x.flatten(0, 2)
    return rows if rows.stride(1) == 1 else rows.contiguous()


@turned_rows.register_fake
def _(
    query: Tensor,
    key: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    time_cos: Tensor,
    time_sin: Tensor,
    space_cos: Tensor,
    space_sin: Tensor,
    timed: int,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    head = space_cos.shape[-1]
    shape = (*query.shape[:3], query.shape[3] // head, head)
    return query.new_empty(shape, dtype=dtype), key.new_empty(shape, dtype=dtype)
