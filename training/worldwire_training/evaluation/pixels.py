"""What the metrics measure in pictures: uint8 [height, width, 3] RGB in, plain numbers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

PEAK = 255.0
IDENTICAL_PSNR_DB = 60.0
"""Reported for pictures that differ by less than this; a PSNR without a ceiling would swamp every mean."""

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


def nearest(picture: Picture, candidates: Sequence[Picture] | Picture) -> int:
    """Index of the candidate with the highest PSNR to the picture (the first of equals)."""
    differences = np.asarray(candidates, np.float32) - picture.astype(np.float32)
    return int(np.square(differences).mean(axis=(1, 2, 3)).argmin())
