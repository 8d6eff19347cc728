"""Triton: how many points of a frustum another camera sees, for very many pairs, and which see most.

Five queries against 20,000 cameras are 26 million point tests: arithmetic that fits into registers, where
plain torch writes and reads every intermediate number. The choice among them stands before each clip, where
launches cost more than the arithmetic: the kernels read the cameras as they are stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

PAIRS, POINTS = 64, 32  # of one program, and of one turn of its loop
BLOCKS = 512  # of PAIRS candidates, that `best_kernel` can tell apart; more are a kernel of their own
# A key is a score's bits, the last ones replaced by the candidate's column: one maximum gives both. What is
# left of a score tells 4e-9 apart; of equal scores the newer candidate wins, as it does by its recency.
COLUMN_BITS = 24


@triton.jit
def _count(
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, points, number, near_m, far_m, PAIRS: tl.constexpr,
    POINTS: tl.constexpr,
):  # fmt: skip
    """How many `points` [number, 3] are in the image after matrices whose entries are [PAIRS]: [PAIRS]."""
    # Pairs along a warp: a thread keeps the matrix of one pair or two, and adds up its points by itself.
    seen = tl.zeros((POINTS, PAIRS), tl.int32)
    for start in range(0, number, POINTS):
        point = start + tl.arange(0, POINTS)
        here = point < number
        px = tl.load(points + 3 * point, mask=here, other=0.0)[:, None]
        py = tl.load(points + 3 * point + 1, mask=here, other=0.0)[:, None]
        pz = tl.load(points + 3 * point + 2, mask=here, other=0.0)[:, None]
        x = a0[None, :] * px + a1[None, :] * py + a2[None, :] * pz + a3[None, :]
        y = b0[None, :] * px + b1[None, :] * py + b2[None, :] * pz + b3[None, :]
        z = c0[None, :] * px + c1[None, :] * py + c2[None, :] * pz + c3[None, :]
        nearest = tl.maximum(tl.maximum(tl.abs(x), tl.abs(y)), near_m)
        seen += ((nearest <= z) & (z <= far_m) & here[:, None]).to(tl.int32)
    return tl.sum(seen, axis=0)


@triton.jit(do_not_specialize=["pairs"])
def count_kernel(
    rows, points, counts, pairs, number, near_m, far_m, PAIRS: tl.constexpr, POINTS: tl.constexpr
):
    """`rows` [12, pairs]: the 3x4 matrix of each pair."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    known = pair < pairs
    a0 = tl.load(rows + 0 * pairs + pair, mask=known, other=0.0)
    a1 = tl.load(rows + 1 * pairs + pair, mask=known, other=0.0)
    a2 = tl.load(rows + 2 * pairs + pair, mask=known, other=0.0)
    a3 = tl.load(rows + 3 * pairs + pair, mask=known, other=0.0)
    b0 = tl.load(rows + 4 * pairs + pair, mask=known, other=0.0)
    b1 = tl.load(rows + 5 * pairs + pair, mask=known, other=0.0)
    b2 = tl.load(rows + 6 * pairs + pair, mask=known, other=0.0)
    b3 = tl.load(rows + 7 * pairs + pair, mask=known, other=0.0)
    c0 = tl.load(rows + 8 * pairs + pair, mask=known, other=0.0)
    c1 = tl.load(rows + 9 * pairs + pair, mask=known, other=0.0)
    c2 = tl.load(rows + 10 * pairs + pair, mask=known, other=0.0)
    c3 = tl.load(rows + 11 * pairs + pair, mask=known, other=0.0)
    seen = _count(
        a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, points, number, near_m, far_m, PAIRS, POINTS
    )
    tl.store(counts + pair, seen, mask=known)


@triton.jit
def _row(row, origin, known):
    """A row of cameras [4, 4], its last number from `origin` on: float64 up to there, float32 from there."""
    r0, r1 = tl.load(row, mask=known, other=0.0), tl.load(row + 1, mask=known, other=0.0)
    r2, place = tl.load(row + 2, mask=known, other=0.0), tl.load(row + 3, mask=known, other=0.0)
    return r0.to(tl.float32), r1.to(tl.float32), r2.to(tl.float32), (place - origin).to(tl.float32)


@triton.jit
def _after(a0, a1, a2, a3, camera, ox, oy, oz):
    """A row of a matrix, times the query's camera."""
    p0, p1, p2, p3 = _row(camera, ox, True)
    q0, q1, q2, q3 = _row(camera + 4, oy, True)
    r0, r1, r2, r3 = _row(camera + 8, oz, True)
    return (
        a0 * p0 + a1 * q0 + a2 * r0,
        a0 * p1 + a1 * q1 + a2 * r1,
        a0 * p2 + a1 * q2 + a2 * r2,
        a0 * p3 + a1 * q3 + a2 * r3 + a3,
    )


@triton.jit
def _share(
    asked, c2w, points, column, count, number, x_scale, x_shift, y_scale, y_shift, near_m, far_m,
    PAIRS: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """The share of this program's query that candidates `column` [PAIRS] see, as in `camera.frustum`."""
    camera = asked + tl.program_id(1) * 16
    ox, oy, oz = tl.load(asked + 3), tl.load(asked + 7), tl.load(asked + 11)
    candidate, known = c2w + column * 16, column < count
    r00, r01, r02, x = _row(candidate, ox, known)
    r10, r11, r12, y = _row(candidate + 4, oy, known)
    r20, r21, r22, z = _row(candidate + 8, oz, known)
    x, y, z = (
        -(r00 * x + r10 * y + r20 * z),
        -(r01 * x + r11 * y + r21 * z),
        -(r02 * x + r12 * y + r22 * z),
    )
    a0, a1, a2, a3 = _after(
        x_scale * r00 + x_shift * r02,
        x_scale * r10 + x_shift * r12,
        x_scale * r20 + x_shift * r22,
        x_scale * x + x_shift * z,
        camera, ox, oy, oz,
    )  # fmt: skip
    b0, b1, b2, b3 = _after(
        y_scale * r01 + y_shift * r02,
        y_scale * r11 + y_shift * r12,
        y_scale * r21 + y_shift * r22,
        y_scale * y + y_shift * z,
        camera, ox, oy, oz,
    )  # fmt: skip
    c0, c1, c2, c3 = _after(r02, r12, r22, z, camera, ox, oy, oz)
    seen = _count(
        a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, points, number, near_m, far_m, PAIRS, POINTS
    )
    return tl.div_rn(seen.to(tl.float32), number.to(tl.float32))


@triton.jit(do_not_specialize=["count", "number"])  # the first grows with every clip
def share_kernel(
    asked, c2w, points, shares, count, number, x_scale, x_shift, y_scale, y_shift, near_m, far_m,
    PAIRS: tl.constexpr, POINTS: tl.constexpr,
):  # fmt: skip
    """`shares` [Q, count] of the queries `asked` [Q, 4, 4] that cameras `c2w` [count, 4, 4] see."""
    column = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    share = _share(
        asked, c2w, points, column, count, number, x_scale, x_shift, y_scale, y_shift, near_m, far_m,
        PAIRS, POINTS,
    )  # fmt: skip
    tl.store(shares + tl.program_id(1) * count + column, share, mask=column < count)


@triton.jit(do_not_specialize=["count", "number", "held"])
def key_kernel(
    asked, c2w, points, keys, tops, count, number, held, x_scale, x_shift, y_scale, y_shift, near_m, far_m,
    NEWEST: tl.constexpr, HELD: tl.constexpr, COLUMN_BITS: tl.constexpr, PAIRS: tl.constexpr,
    POINTS: tl.constexpr,
):  # fmt: skip
    """`keys` [Q, count], -1 where nothing overlaps, and the largest of PAIRS each: `tops` [Q, blocks].

    After the queries, `asked` has the `held` columns that HELD is added for. The newest candidate is worth
    almost NEWEST more than the oldest.
    """
    query, block = tl.program_id(1), tl.program_id(0)
    column = block * PAIRS + tl.arange(0, PAIRS)
    share = _share(
        asked, c2w, points, column, count, number, x_scale, x_shift, y_scale, y_shift, near_m, far_m,
        PAIRS, POINTS,
    )  # fmt: skip
    stays = column < 0
    for place in range(held):
        stays |= column == tl.load(asked + tl.num_programs(1) * 16 + place).to(tl.int32)
    newer = NEWEST / count.to(tl.float64) * column.to(tl.float64)
    score = share.to(tl.float64) + tl.where(stays, newer + HELD, newer)
    key = (score.to(tl.int64, bitcast=True) >> COLUMN_BITS << COLUMN_BITS) | column
    key = tl.where(share > 0, key, -1)
    tl.store(keys + query * count + column, key, mask=column < count)
    tl.store(tops + query * tl.num_programs(0) + block, tl.max(key, axis=0))


@triton.jit(do_not_specialize=["count", "blocks", "reach"])
def best_kernel(
    keys, tops, best, count, blocks, reach, COLUMN_BITS: tl.constexpr, PAIRS: tl.constexpr,
    BLOCKS: tl.constexpr,
):  # fmt: skip
    """The largest `reach` keys of each query, in order, -1 where there are fewer: `best` [Q, reach].

    No two keys are equal: what is left of a block are its keys below the last that was taken.
    """
    query, block = tl.program_id(0), tl.arange(0, BLOCKS)
    left = tl.load(tops + query * blocks + block, mask=block < blocks, other=-1)
    for rank in range(reach):
        largest = tl.max(left, axis=0)
        tl.store(best + query * reach + rank, largest)
        taken = ((largest & ((1 << COLUMN_BITS) - 1)) // PAIRS).to(tl.int32)  # no block if largest is -1
        column = taken * PAIRS + tl.arange(0, PAIRS)
        key = tl.load(keys + query * count + column, mask=column < count, other=-1)
        left = tl.where(block == taken, tl.max(tl.where(key < largest, key, -1), axis=0), left)


def share_inside(rows: Tensor, points: Tensor, near_m: float, far_m: float) -> Tensor:
    """Share [P] of homogeneous `points` [4, N] inside the image after the float32 `rows` [3, P, 4]."""
    pairs, number = rows.shape[1], points.shape[1]
    counts = torch.empty(pairs, dtype=torch.int32, device=rows.device)
    if pairs:
        columns = rows.permute(0, 2, 1).reshape(12, pairs).contiguous()
        count_kernel[(triton.cdiv(pairs, PAIRS),)](
            columns, points[:3].T.contiguous(), counts, pairs, number, near_m, far_m, PAIRS, POINTS
        )
    return counts / number


def shares(
    query_c2w: Tensor,
    candidate_c2w: Tensor,
    points: Tensor,
    to_image: tuple[float, float, float, float],
    near_m: float,
    far_m: float,
) -> Tensor:
    """What `camera.frustum.overlap` gives, [Q, K]; to_image: scale and shift of x, then of y, of an image."""
    queries, count, number = len(query_c2w), len(candidate_c2w), len(points)
    found = torch.empty(queries, count, device=candidate_c2w.device)
    if queries and count:
        asked, c2w = query_c2w.double().contiguous(), candidate_c2w.double().contiguous()
        share_kernel[(triton.cdiv(count, PAIRS), queries)](
            asked, c2w, points.float().contiguous(), found, count, number, *to_image, near_m, far_m,
            PAIRS, POINTS,
        )  # fmt: skip
    return found


def best_columns(
    query_c2w: Tensor,
    candidate_c2w: Tensor,
    points: Tensor,
    to_image: tuple[float, float, float, float],
    near_m: float,
    far_m: float,
    *,
    reach: int,
    newest: float,
    held: Sequence[int],
    bonus: float,
) -> list[list[int]]:
    """For each query the up to `reach` candidates that overlap with it and score best, best first.

    A score is the share of `shares`, plus `newest` / K for each older candidate, plus `bonus` if `held`.
    query_c2w [Q, 4, 4] may be on the host; candidate_c2w [K, 4, 4], K < 2**24. One copy there, one back.
    """
    queries, count, device = len(query_c2w), len(candidate_c2w), candidate_c2w.device
    blocks = triton.cdiv(count, PAIRS)
    asked = query_c2w.double().flatten()
    if held:
        asked = torch.cat([asked, asked.new_tensor(held)])
    asked = asked.to(device, non_blocking=True)
    c2w = candidate_c2w.double().contiguous()
    keys, tops, best = (
        torch.empty(queries, length, dtype=torch.int64, device=device) for length in (count, blocks, reach)
    )
    key_kernel[(blocks, queries)](
        asked, c2w, points.float().contiguous(), keys, tops, count, len(points), len(held),
        *to_image, near_m, far_m, newest, bonus, COLUMN_BITS, PAIRS, POINTS,
    )  # fmt: skip
    best_kernel[(queries,)](
        keys, tops, best, count, blocks, reach, COLUMN_BITS, PAIRS,
        max(BLOCKS, triton.next_power_of_2(blocks)), num_warps=1,
    )  # fmt: skip
    return [[key & ((1 << COLUMN_BITS) - 1) for key in row if key > 0] for row in best.tolist()]
