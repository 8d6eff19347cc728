"""Episodes as latents that live on the training device: encoded once, then only indexed.

Each latent k also has a twin that the VAE made of frame 4k alone, as it makes a seed image: with it any
latent of an episode can be the beginning of a session.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from worldwire.errors import DataError
from worldwire_runtime.camera.frustum import NEAR_M, overlap, sample_frustum
from worldwire_runtime.camera.plucker import relative
from worldwire_runtime.conditioning import mouse_vector
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.memory import POINT_SEED, POINTS
from worldwire_runtime.model.vae import FRAMES_PER_LATENT, VAE
from worldwire_training.common import load_checkpoint, save_checkpoint

log = logging.getLogger(__name__)

READ_AHEAD = 2
"""Batches of frames that are copied from disk while the device encodes."""
ENCODED_TOGETHER = 4
"""Lone images per video that fit in memory where that video's frames do."""

T = TypeVar("T")


class FramesByEpisode(Protocol):
    """Frames uint8 [F, H, W, 3] by episode number, F = 1 + 4n; `shape` is [E, F, H, W, 3]."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, episode: int, /) -> NDArray[np.uint8]: ...


class EpisodeBatches(Protocol):
    """Episodes of equal length as arrays that are indexed by episode first (memory maps are fine)."""

    @property
    def frames(self) -> FramesByEpisode: ...

    @property
    def keys(self) -> NDArray[np.bool_]: ...  # [E, F, 6]

    @property
    def look_deg(self) -> NDArray[np.float32]: ...  # [E, F, 2] yaw, pitch

    @property
    def c2w(self) -> NDArray[np.float64]: ...  # [E, F, 4, 4]

    @property
    def prompts(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class LatentStore:
    """E episodes of F = 4 (L - 1) + 1 frames on one device."""

    latents: Tensor  # [E, L, C, h, w] bfloat16
    images: Tensor  # [E, L, C, h, w] bfloat16: frame 4k alone
    keyboard: Tensor  # [E, F, 6] float32
    mouse: Tensor  # [E, F, 2] float32, the network's (pitch, yaw)
    c2w: Tensor  # [E, L, 4, 4] float64, relative to the first
    overlaps: Tensor  # [E, L, L] float32: share of the row's frustum that the column's camera sees
    prompt_tokens: Tensor  # [E, T] int64

    @property
    def device(self) -> torch.device:
        return self.latents.device

    @property
    def episodes(self) -> int:
        return self.latents.shape[0]

    @property
    def latents_per_episode(self) -> int:
        return self.latents.shape[1]

    def first(self, episodes: int) -> LatentStore:
        """The store of the first so many episodes."""
        return LatentStore(**{item.name: getattr(self, item.name)[:episodes] for item in fields(self)})

    def take(self, episodes: Tensor) -> LatentStore:
        """A copy of these episodes [B] (repeats allowed), one row for each."""
        return LatentStore(**{item.name: getattr(self, item.name)[episodes] for item in fields(self)})

    @property
    def gibibytes(self) -> float:
        return sum(getattr(self, item.name).nbytes for item in fields(self)) / 2**30

    def save(self, path: Path) -> None:
        """One file that `load` reads back."""
        save_checkpoint(path, {item.name: getattr(self, item.name) for item in fields(self)})

    @classmethod
    def load(cls, path: Path, device: torch.device) -> LatentStore:
        """Raises CheckpointError for a missing or damaged file."""
        return cls(**load_checkpoint(path, device))


@torch.inference_mode()
def encode_episodes(
    source: EpisodeBatches,
    episodes: Sequence[int],
    vae: VAE,
    *,
    tokenize: Callable[[Sequence[str]], Tensor],
    world: WorldConfig,
    batch: int = 8,
) -> LatentStore:
    """Encode the `episodes` of `source`, `batch` at a time, on the VAE's device and in its data type.

    Raises DataError when there is no episode or a length does not fit the VAE.
    """
    _check(source, episodes, vae)
    device = next(vae.parameters()).device
    started = time.monotonic()
    videos, images = [], []
    groups = _groups(episodes, batch)
    seen = tqdm(
        _read_ahead(source.frames, groups, device), "encoding", len(groups), disable=_is_one_of_others()
    )
    for frames in seen:
        videos.append(_encode(vae, frames))
        images.append(_encode_alone(vae, frames))
    chosen = list(episodes)
    c2w = torch.from_numpy(source.c2w[chosen][:, ::FRAMES_PER_LATENT].astype(np.float64)).to(device)
    c2w = relative(c2w, c2w[:, :1])
    store = LatentStore(
        latents=torch.cat(videos),
        images=torch.cat(images),
        keyboard=torch.from_numpy(source.keys[chosen].astype(np.float32)).to(device),
        mouse=mouse_vector(torch.from_numpy(source.look_deg[chosen].astype(np.float32))).to(device),
        c2w=c2w,
        overlaps=view_overlaps(c2w, world),
        prompt_tokens=tokenize([source.prompts[index] for index in chosen]).to(device),
    )
    frames_done, seconds = len(chosen) * source.frames.shape[1], time.monotonic() - started
    log.info(
        "encoded %d frames in %.1f s (%.0f/s), %.2f GiB of latents",
        frames_done,
        seconds,
        frames_done / seconds,
        store.gibibytes,
    )
    return store


def _is_one_of_others() -> bool:
    """Whether another process of this run shows the progress."""
    return dist.is_initialized() and dist.get_rank() > 0


def view_overlaps(c2w: Tensor, world: WorldConfig) -> Tensor:
    """Overlap [E, L, L] of each latent's frustum with every other of its episode, as memory sees it."""
    camera, far_m = world.intrinsics, world.memory_far_m
    generator = torch.Generator().manual_seed(POINT_SEED)
    points = sample_frustum(camera, NEAR_M, far_m, POINTS, generator).to(c2w.device)
    return torch.stack([overlap(one, one, points, camera, NEAR_M, far_m) for one in c2w])


def _encode(vae: VAE, frames: Tensor) -> Tensor:
    """Frames uint8 [B, F, H, W, 3] to latents [B, L, C, h, w] in bfloat16."""
    dtype = next(vae.parameters()).dtype
    video = frames.permute(0, 4, 1, 2, 3).to(dtype) / 127.5 - 1
    return vae.encode(video).transpose(1, 2).bfloat16()


def _encode_alone(vae: VAE, frames: Tensor) -> Tensor:
    """Every fourth frame of [B, F, H, W, 3] as a video of its own: [B, L, C, h, w]."""
    alone = frames[:, ::FRAMES_PER_LATENT]
    parts = alone.flatten(0, 1).unsqueeze(1).split(ENCODED_TOGETHER * alone.shape[1])
    return torch.cat([_encode(vae, part) for part in parts]).unflatten(0, alone.shape[:2]).squeeze(2)


def _read_ahead(
    frames: FramesByEpisode, groups: Sequence[Sequence[int]], device: torch.device
) -> Iterator[Tensor]:
    """Batches of `frames` on the device; the next ones are read from disk meanwhile."""
    pinned = device.type == "cuda"

    def read(group: Sequence[int]) -> Tensor:
        batch = torch.empty(len(group), *frames.shape[1:], dtype=torch.uint8, pin_memory=pinned)
        for place, index in enumerate(group):
            batch[place].numpy()[...] = frames[index]
        return batch

    def begin() -> None:
        if pinned:
            torch.cuda.set_device(device)  # a new thread would pin for the first one

    with ThreadPoolExecutor(READ_AHEAD, initializer=begin) as pool:
        waiting = iter(groups)
        ahead = deque(pool.submit(read, group) for group in islice(waiting, READ_AHEAD))
        while ahead:
            batch = ahead.popleft().result()
            ahead.extend(pool.submit(read, group) for group in islice(waiting, 1))
            yield batch.to(device, non_blocking=True)


def _groups(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _check(source: EpisodeBatches, episodes: Sequence[int], vae: VAE) -> None:
    if not episodes:
        raise DataError(
            "there is no episode to encode",
            expected="at least one episode for each process",
            remedy="record more episodes or start fewer processes",
        )
    length, rate = source.frames.shape[1], vae.config.temporal_factor
    if length % rate != 1:
        raise DataError(
            "episodes do not fill latents", expected=f"1 + {rate}n frames", got=f"{length} frames"
        )
