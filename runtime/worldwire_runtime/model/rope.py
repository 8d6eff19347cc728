"""Rotary positions: per-head perturbed tables of the trunk, time-only tables of the action modules."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROPE_THETA = 10000.0


class Rotary(NamedTuple):
    """What adjacent pairs turn by (float32): [..., heads, head_dim], sines with the signs that they take."""

    cos: Tensor  # of a pair's angle, twice
    sin: Tensor  # of a pair's angle: -sin, sin

    @classmethod
    def of(cls, angles: Tensor) -> Rotary:
        """The tables of angles [..., heads, head_dim / 2]."""
        cos, sin = angles.cos().float(), angles.sin().float()
        return cls(cos.repeat_interleave(2, dim=-1), torch.stack((-sin, sin), dim=-1).flatten(-2))


class TrunkRotary(NamedTuple):
    """The tables of time and of rows and columns apart: together they would be as large as what they turn.

    Each leaves the pairs of the other as they are.
    """

    time: Rotary  # [b, F, 1, heads or 1, head_dim]
    space: Rotary  # [1, 1, N, heads or 1, head_dim]

    @property
    def latents(self) -> int:
        return self.time.cos.shape[1]

    def part(self, start: int, stop: int) -> TrunkRotary:
        """The latents start ... stop - 1."""
        return TrunkRotary(Rotary(*(table[:, start:stop] for table in self.time)), self.space)

    def joined(self) -> Rotary:
        """One table [b, F, N, heads or 1, head_dim]; exact, for one of the two factors is always 1."""
        return Rotary(self.time.cos * self.space.cos, self.time.sin + self.space.sin)


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotates adjacent pairs of the last dimension of `x` [..., heads, head_dim].

    Nothing is stacked, so that compilers make one pass of it and what stands before and after. Where there is
    no compiler, on a CPU, pairs are complex numbers: one pass instead of four.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling():
        turns = torch.complex(rotary.cos[..., ::2], rotary.sin[..., 1::2])
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2)
    exchanged = x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
    return x * rotary.cos + exchanged * rotary.sin


def timed_pairs(head_dim: int) -> int:
    """How many pairs of a head, the first ones, turn with time in the trunk."""
    pairs = head_dim // 2
    return pairs - 2 * (pairs // 3)


def trunk_rotary(
    times: Tensor, grid: tuple[int, int], heads: int, head_dim: int, sigma_theta: float
) -> TrunkRotary:
    """Tables for tokens at `times` [b, F] on a `grid` of rows and columns.

    Of the c pairs of a head, c - 2 (c // 3) turn with time, c // 3 with the row, c // 3 with the column.
    Head h has the base 10000 (1 + sigma_theta e_h), e_h evenly spaced from -1 to 1 (paper: head-wise
    perturbed RoPE).
    """
    rows, columns = grid
    pairs = head_dim // 2
    timed = timed_pairs(head_dim)
    spatial = (pairs - timed) // 2
    theta = _head_bases(heads, sigma_theta, times.device)
    cells = torch.arange(rows * columns, device=times.device)
    row, column = (_angles(place, theta, spatial) for place in (cells // columns, cells % columns))
    time = F.pad(_angles(times, theta, timed), (0, 2 * spatial))[:, :, None]
    space = F.pad(torch.cat((row, column), dim=-1), (timed, 0))[None, None]
    return TrunkRotary(Rotary.of(time), Rotary.of(space))


def action_rotary(times: Tensor, rotated: int, head_dim: int, theta: float) -> Rotary:
    """Tables [F, 1, head_dim] for latents at `times` [F]: only the first `rotated` dimensions turn."""
    angles = _angles(times, torch.full((1,), theta, dtype=torch.float64, device=times.device), rotated // 2)
    return Rotary.of(F.pad(angles, (0, (head_dim - rotated) // 2)))


def _head_bases(heads: int, sigma_theta: float, device: torch.device) -> Tensor:
    """One base per head, or a single shared one when nothing is perturbed (float64)."""
    count = heads if sigma_theta else 1
    spread = torch.linspace(-1.0, 1.0, count, dtype=torch.float64, device=device)
    return ROPE_THETA * (1.0 + sigma_theta * spread)


def _angles(positions: Tensor, theta: Tensor, pairs: int) -> Tensor:
    """Angles [*positions, heads, pairs] in float64; pair j turns at theta_h ** (-j / pairs)."""
    exponents = -torch.arange(pairs, dtype=torch.float64, device=positions.device) / max(pairs, 1)
    return positions.double()[..., None, None] * theta[:, None] ** exponents
