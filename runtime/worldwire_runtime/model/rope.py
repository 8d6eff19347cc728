"""Rotary positions: per-head perturbed tables of the trunk, time-only tables of the action modules."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

ROPE_THETA = 10000.0


class Rotary(NamedTuple):
    """Cosines and sines of the angles of adjacent pairs (float32): [..., heads, head_dim / 2]."""

    cos: Tensor
    sin: Tensor


def rotate(x: Tensor, rotary: Rotary) -> Tensor:
    """Rotates adjacent pairs of the last dimension of `x` [..., heads, head_dim]."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = rotary
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def trunk_rotary(
    times: Tensor, grid: tuple[int, int], heads: int, head_dim: int, sigma_theta: float
) -> Rotary:
    """Tables [b, F, rows * columns, heads or 1, head_dim / 2] for tokens at `times` [b, F] on a `grid`.

    Of the c pairs of a head, c - 2 (c // 3) turn with time, c // 3 with the row, c // 3 with the column.
    Head h has the base 10000 (1 + sigma_theta e_h), e_h evenly spaced from -1 to 1 (paper: head-wise
    perturbed RoPE).
    """
    rows, columns = grid
    pairs = head_dim // 2
    spatial = pairs // 3
    theta = _head_bases(heads, sigma_theta, times.device)
    clip = (times.shape[0], times.shape[1], rows, columns, theta.shape[0])
    row = torch.arange(rows, device=times.device)[:, None]
    column = torch.arange(columns, device=times.device)
    angles = (
        _angles(times, theta, pairs - 2 * spatial)[:, :, None, None],
        _angles(row, theta, spatial),
        _angles(column, theta, spatial),
    )
    cos = torch.cat([part.cos().float().expand(*clip, -1) for part in angles], dim=-1)
    sin = torch.cat([part.sin().float().expand(*clip, -1) for part in angles], dim=-1)
    return Rotary(cos.flatten(2, 3), sin.flatten(2, 3))


def action_rotary(times: Tensor, rotated: int, head_dim: int, theta: float) -> Rotary:
    """Tables [F, 1, head_dim / 2] for latents at `times` [F]: only the first `rotated` dimensions turn."""
    angles = _angles(times, torch.full((1,), theta, dtype=torch.float64, device=times.device), rotated // 2)
    still = angles.new_zeros(*angles.shape[:-1], (head_dim - rotated) // 2)
    angles = torch.cat((angles, still), dim=-1)
    return Rotary(angles.cos().float(), angles.sin().float())


def _head_bases(heads: int, sigma_theta: float, device: torch.device) -> Tensor:
    """One base per head, or a single shared one when nothing is perturbed (float64)."""
    count = heads if sigma_theta else 1
    spread = torch.linspace(-1.0, 1.0, count, dtype=torch.float64, device=device)
    return ROPE_THETA * (1.0 + sigma_theta * spread)


def _angles(positions: Tensor, theta: Tensor, pairs: int) -> Tensor:
    """Angles [*positions, heads, pairs] in float64; pair j turns at theta_h ** (-j / pairs)."""
    exponents = -torch.arange(pairs, dtype=torch.float64, device=positions.device) / max(pairs, 1)
    return positions.double()[..., None, None] * theta[:, None] ** exponents
