"""Plücker maps: what the transformer is told about the cameras, as features of each latent cell.

A ray is (camera centre xyz, unit direction xyz) in the frame of a reference camera; the released model is
fed the centre itself, not the moment. A latent cell holds `rays_per_cell` x `rays_per_cell` rays through the
centres of an even grid: with as many rays as pixels (16 for a 16x16 VAE) these are the pixel centres.

Products of poses are written elementwise: a matrix product would be rounded under autocast or TF32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worldwire.camera import Intrinsics


def compose(first: Tensor, second: Tensor) -> Tensor:
    """The matrix product of [..., n, k] and [..., k, m], in full precision in any context."""
    return (first[..., :, :, None] * second[..., None, :, :]).sum(-2)


def invert(c2w: Tensor) -> Tensor:
    """Inverse of rigid motions [..., 4, 4]; reflections (the released convention has them) are fine."""
    rotation = c2w[..., :3, :3].transpose(-1, -2)
    inverse = torch.zeros_like(c2w)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -compose(rotation, c2w[..., :3, 3:])
    inverse[..., 3, 3] = 1
    return inverse


def turned_deg(one_c2w: Tensor, other_c2w: Tensor) -> float:
    """The angle in degrees between the orientations of two cameras [4, 4]; waits for their device."""
    cosine = (float((one_c2w[:3, :3] * other_c2w[:3, :3]).sum()) - 1) / 2
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def relative(c2w: Tensor, reference: Tensor) -> Tensor:
    """Cameras [..., 4, 4] in the frame of `reference` [..., 4, 4] (leading dimensions broadcast)."""
    return compose(invert(reference), c2w)


def cell_rays(
    intrinsics: Intrinsics,
    latent_hw: tuple[int, int],
    rays_per_cell: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Unit directions [rays_per_cell**2, h, w, 3] in camera axes; row-major within a cell."""
    rows = _centres(latent_hw[0], rays_per_cell, intrinsics.height, device, dtype)
    columns = _centres(latent_hw[1], rays_per_cell, intrinsics.width, device, dtype)
    y = ((rows - intrinsics.cy) / intrinsics.fy)[:, None, :, None]
    x = ((columns - intrinsics.cx) / intrinsics.fx)[None, :, None, :]
    shape = (rays_per_cell, rays_per_cell, *latent_hw)
    directions = torch.stack([x.expand(shape), y.expand(shape), x.new_ones(shape)], dim=-1)
    return torch.nn.functional.normalize(directions, dim=-1).flatten(0, 1)


def _centres(
    cells: int, rays: int, pixels: int, device: torch.device | str | None, dtype: torch.dtype
) -> Tensor:
    """Pixel coordinates [rays, cells] of the rays along one side of the image."""
    centres = (torch.arange(cells * rays, device=device, dtype=dtype) + 0.5) * (pixels / (cells * rays))
    return centres.view(cells, rays).T


def plucker_map(c2w: Tensor, rays: Tensor) -> Tensor:
    """Features [..., 6 * R, h, w] of cameras [..., 4, 4] (already relative) for `rays` [R, h, w, 3].

    Channel order: ray channel, then row and column in the cell. The transformer's patching appends its 2x2
    latent offsets as the fastest index: the released order ((c * 16 + py) * 16 + px) * 4 + 2 * dy + dx.
    """
    rows = c2w[..., :3, :, None, None, None].to(rays.dtype)  # [..., 3, 4, 1, 1, 1]
    x, y, z = rays.unbind(-1)
    directions = rows[..., 0, :, :, :] * x + rows[..., 1, :, :, :] * y + rows[..., 2, :, :, :] * z
    centres = rows[..., 3, :, :, :].expand_as(directions)
    return torch.cat([centres, directions], dim=-4).flatten(-4, -3)
