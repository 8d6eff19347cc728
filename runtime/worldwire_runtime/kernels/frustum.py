"""Triton: how many points of a frustum another camera sees, for very many pairs of cameras.

Five queries against 20,000 cameras are 26 million point tests: arithmetic that fits into registers, where
plain torch writes and reads every intermediate number.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

PAIRS, POINTS = 64, 32  # of one program, and of one turn of its loop


@triton.jit(do_not_specialize=["pairs"])  # it grows with every clip
def count_kernel(
    rows, points, counts, pairs, number, near_m, far_m, PAIRS: tl.constexpr, POINTS: tl.constexpr
):
    """`rows` [12, pairs]: the 3x4 matrix of each pair; `points` [3, number]."""
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    known = pair < pairs
    a0 = tl.load(rows + 0 * pairs + pair, mask=known, other=0.0)[:, None]
    a1 = tl.load(rows + 1 * pairs + pair, mask=known, other=0.0)[:, None]
    a2 = tl.load(rows + 2 * pairs + pair, mask=known, other=0.0)[:, None]
    a3 = tl.load(rows + 3 * pairs + pair, mask=known, other=0.0)[:, None]
    b0 = tl.load(rows + 4 * pairs + pair, mask=known, other=0.0)[:, None]
    b1 = tl.load(rows + 5 * pairs + pair, mask=known, other=0.0)[:, None]
    b2 = tl.load(rows + 6 * pairs + pair, mask=known, other=0.0)[:, None]
    b3 = tl.load(rows + 7 * pairs + pair, mask=known, other=0.0)[:, None]
    c0 = tl.load(rows + 8 * pairs + pair, mask=known, other=0.0)[:, None]
    c1 = tl.load(rows + 9 * pairs + pair, mask=known, other=0.0)[:, None]
    c2 = tl.load(rows + 10 * pairs + pair, mask=known, other=0.0)[:, None]
    c3 = tl.load(rows + 11 * pairs + pair, mask=known, other=0.0)[:, None]
    seen = tl.zeros((PAIRS,), tl.int32)
    for start in range(0, number, POINTS):
        point = start + tl.arange(0, POINTS)
        here = point < number
        px = tl.load(points + point, mask=here, other=0.0)[None, :]
        py = tl.load(points + number + point, mask=here, other=0.0)[None, :]
        pz = tl.load(points + 2 * number + point, mask=here, other=0.0)[None, :]
        x = a0 * px + a1 * py + a2 * pz + a3
        y = b0 * px + b1 * py + b2 * pz + b3
        z = c0 * px + c1 * py + c2 * pz + c3
        nearest = tl.maximum(tl.maximum(tl.abs(x), tl.abs(y)), near_m)
        inside = (nearest <= z) & (z <= far_m) & here[None, :]
        seen += tl.sum(inside.to(tl.int32), axis=1)
    tl.store(counts + pair, seen, mask=known)


def share_inside(rows: Tensor, points: Tensor, near_m: float, far_m: float) -> Tensor:
    """Share [P] of homogeneous `points` [4, N] inside the image after the float32 `rows` [3, P, 4]."""
    pairs, number = rows.shape[1], points.shape[1]
    counts = torch.empty(pairs, dtype=torch.int32, device=rows.device)
    if pairs:
        columns = rows.permute(0, 2, 1).reshape(12, pairs).contiguous()
        count_kernel[(triton.cdiv(pairs, PAIRS),)](
            columns, points[:3].contiguous(), counts, pairs, number, near_m, far_m, PAIRS, POINTS
        )
    return counts / number
