"""What the metrics measure in pictures: uint8 [height, width, 3] RGB in, plain numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldwire.camera import Intrinsics

Picture = NDArray[np.uint8]

PEAK = 255.0
IDENTICAL_PSNR_DB = 60.0
"""Reported for pictures that differ by less than this; a PSNR without a ceiling would swamp every mean."""

LEAST_DEPTH_M = 0.05
SAME_DEPTH_M, SAME_DEPTH_SHARE = 0.05, 0.03
"""Two depths are of one surface when they differ by less."""
LUMA_REC601 = (0.299, 0.587, 0.114)


def psnr_db(picture: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio over all pixels and channels in dB, at most `IDENTICAL_PSNR_DB`."""
    error = float(np.mean(np.square(picture.astype(np.float32) - truth.astype(np.float32))))
    if error == 0:
        return IDENTICAL_PSNR_DB
    return min(IDENTICAL_PSNR_DB, 10 * float(np.log10(PEAK**2 / error)))


def ssim(picture: Picture, truth: Picture) -> float:
    """Structural similarity (Wang et al. 2004), 7x7 windows, mean over the channels; 1 is identical."""
    from skimage.metrics import structural_similarity

    rate: Callable[..., float] = structural_similarity  # scikit-image has no types
    return float(rate(picture, truth, channel_axis=2, data_range=PEAK))


def luma(picture: Picture) -> NDArray[np.float32]:
    """Brightness [height, width], 0..255 (Rec. 601 weights)."""
    return np.asarray(picture.astype(np.float32) @ np.array(LUMA_REC601, np.float32))


def sharpness(picture: Picture) -> float:
    """Mean length of the brightness gradient, levels per pixel."""
    down, right = np.gradient(luma(picture))
    return float(np.hypot(down, right).mean())


def contrast(picture: Picture) -> float:
    """Standard deviation of the brightness, levels."""
    return float(luma(picture).std())


def shrink(picture: Picture, height: int, width: int) -> Picture:
    """The picture averaged down to height x width."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BOX))


def seen_before(
    intrinsics: Intrinsics, c2w: NDArray[np.float64], depths_m: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which pixels of the second of two pictures show a surface that the first one shows too [H, W].

    c2w [2, 4, 4], depths_m [2, H, W] along the view.
    """
    k, (first, second) = intrinsics, c2w
    rows, columns = np.mgrid[0 : k.height, 0 : k.width] + 0.5
    rays = np.stack([(columns - k.cx) / k.fx, (rows - k.cy) / k.fy, np.ones_like(rows)], axis=-1)
    points = (rays * depths_m[1][..., None]) @ second[:3, :3].T + second[:3, 3]
    x, y, z = np.moveaxis((points - first[:3, 3]) @ first[:3, :3], -1, 0)
    ahead = np.maximum(z, LEAST_DEPTH_M)
    column = np.floor(x / ahead * k.fx + k.cx).astype(int)
    row = np.floor(y / ahead * k.fy + k.cy).astype(int)
    inside = (z > LEAST_DEPTH_M) & (column >= 0) & (column < k.width) & (row >= 0) & (row < k.height)
    there = depths_m[0][row.clip(0, k.height - 1), column.clip(0, k.width - 1)]
    return np.asarray(inside & (np.abs(there - z) < SAME_DEPTH_M + SAME_DEPTH_SHARE * z))


def nearest_where(picture: Picture, candidates: Sequence[Picture], masks: Sequence[NDArray[np.bool_]]) -> int:
    """Index of the candidate that the picture is nearest to, each compared in its own mask's pixels."""
    differences = [
        np.square(candidate.astype(np.float32) - picture)[mask].mean()
        for candidate, mask in zip(candidates, masks, strict=True)
    ]
    return int(np.argmin(differences))


def nearest(picture: Picture, candidates: Sequence[Picture] | Picture) -> int:
    """Index of the candidate with the highest PSNR to the picture (the first of equals)."""
    differences = np.asarray(candidates, np.float32) - picture.astype(np.float32)
    return int(np.square(differences).mean(axis=(1, 2, 3)).argmin())
