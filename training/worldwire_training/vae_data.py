"""Frames for the VAE: episodes in one uint8 array, sampled on the device that holds it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldwire.errors import DataError

COLOURS = 3
UINT8_TO_UNIT = 127.5
"""u8 / 127.5 - 1 is in [-1, 1]."""


class FrameSource(Protocol):
    """Where training pictures come from."""

    def sample_images(self, count: int) -> Tensor:
        """Random single frames, u8 [count, H, W, 3]."""
        ...

    def sample_clips(self, count: int, frames: int) -> Tensor:
        """Random runs of consecutive frames, u8 [count, frames, H, W, 3]."""
        ...


class MemoryFrames:
    """Episodes of equal length in one uint8 tensor [E, F, H, W, 3], on any device.

    Random draws use torch's global generator of that device, so a checkpoint's random state covers them.
    """

    def __init__(self, episodes: Tensor) -> None:
        if episodes.dtype != torch.uint8 or episodes.dim() != 5 or episodes.shape[-1] != COLOURS:
            raise DataError(
                "these are no frames",
                expected="uint8 [episodes, frames, H, W, 3]",
                got=f"{episodes.dtype} {list(episodes.shape)}",
            )
        if not episodes.numel():
            raise DataError("there is no episode", expected="at least one", got=str(list(episodes.shape)))
        self.episodes = episodes

    def __len__(self) -> int:
        return self.episodes.shape[0]

    def sample_images(self, count: int) -> Tensor:
        """Random single frames, u8 [count, H, W, 3]."""
        frames = self.episodes.flatten(0, 1)
        return frames[torch.randint(frames.shape[0], (count,), device=frames.device)]

    def sample_clips(self, count: int, frames: int) -> Tensor:
        """Random runs of consecutive frames, u8 [count, frames, H, W, 3].

        Raises:
            DataError: the episodes are shorter than that.
        """
        length, device = self.episodes.shape[1], self.episodes.device
        if frames > length:
            raise DataError("the episodes are too short", expected=f">= {frames} frames", got=f"{length}")
        episode = torch.randint(len(self), (count, 1), device=device)
        start = torch.randint(length - frames + 1, (count, 1), device=device)
        return self.episodes[episode, start + torch.arange(frames, device=device)]


def load_frames(
    folder: Path, device: torch.device, *, part: int = 0, parts: int = 1, held_out: int = 0
) -> tuple[MemoryFrames, MemoryFrames]:
    """Read `*frames*.npy` (uint8 [E, F, H, W, 3] each) of `folder` onto `device`: for training and held out.

    The last `held_out` episodes of the last file, in name order, are held out. Of the others, this is every
    `parts`-th one from `part` on: ranks of one run share an epoch between them.

    Raises:
        DataError: no such files, or their shapes differ.
    """
    paths = sorted(folder.glob("*frames*.npy"))
    if not paths:
        raise DataError(f"no frames (*frames*.npy) in {folder}", remedy="render episodes there first")
    arrays = [np.load(path, mmap_mode="r") for path in paths]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) != 1 or held_out >= arrays[-1].shape[0]:
        raise DataError(
            f"the frames in {folder} cannot be used together",
            expected=f"one frame size and length, and more than {held_out} episodes in the last file",
            got=str([array.shape for array in arrays]),
        )
    kept_back = arrays[-1][arrays[-1].shape[0] - held_out :]
    arrays[-1] = arrays[-1][: arrays[-1].shape[0] - held_out]
    training = _gather(arrays, device, part, parts)
    return MemoryFrames(training), MemoryFrames(torch.from_numpy(np.array(kept_back)).to(device))


def _gather(arrays: list[NDArray[np.uint8]], device: torch.device, part: int, parts: int) -> Tensor:
    """Every `parts`-th episode, copied file by file so that host memory holds one file at a time."""
    total = sum(array.shape[0] for array in arrays)
    count = len(range(part, total, parts))
    out = torch.empty((count, *arrays[0].shape[1:]), dtype=torch.uint8, device=device)
    filled, seen = 0, 0
    for array in arrays:
        piece = np.array(array[(part - seen) % parts :: parts])
        out[filled : filled + piece.shape[0]] = torch.from_numpy(piece).to(device)
        filled, seen = filled + piece.shape[0], seen + array.shape[0]
    return out


def to_video(frames: Tensor) -> Tensor:
    """u8 [B, T, H, W, 3], or [B, H, W, 3] for images, to float [B, 3, T, H, W] in [-1, 1]."""
    if frames.dim() == 4:
        frames = frames.unsqueeze(1)
    return frames.permute(0, 4, 1, 2, 3).float() / UINT8_TO_UNIT - 1.0


def augment(video: Tensor, colour_jitter: float) -> Tensor:
    """Mirror half of the videos and shift the colours of half of them, each in its own way.

    The jitter mixes the colour channels a little and scales contrast and brightness by up to `colour_jitter`.
    """
    B, device = video.shape[0], video.device
    mirrored = torch.rand(B, 1, 1, 1, 1, device=device) < 0.5
    video = torch.where(mirrored, video.flip(-1), video)
    strength = colour_jitter * (torch.rand(B, 1, 1, device=device) < 0.5)
    mix = torch.eye(COLOURS, device=device) + strength * (
        torch.rand(B, COLOURS, COLOURS, device=device) - 0.5
    )
    shift = strength * (torch.rand(B, COLOURS, 1, device=device) - 0.5)
    mixed = sum(mix[:, :, c, None, None, None] * video[:, c : c + 1] for c in range(COLOURS))
    return (mixed + shift[..., None, None]).clamp(-1.0, 1.0)
