"""Training clips cut out of encoded episodes: indexed on the device, without waiting for the host.

A clip is [memory | past | new] latents of one episode. It pretends to be one step of a session that began at
latent `origin` of the episode: that latent is the one of the single image, no action is known before it, and
memory reaches back to it at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from worldwire.errors import ConfigError
from worldwire_runtime.camera.plucker import cell_rays
from worldwire_runtime.conditioning import (
    ACTION_WINDOW_LATENTS,
    anchor_plucker,
    null_keyboard,
    null_mouse,
)
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.memory import RECENCY, SPACING
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_training.latents import LatentStore

FULL_PAST = 4
"""Latents of a past that is fully grown; shorter ones occur only where a session begins."""
MEMORY_QUERIES = 2
"""Sessions ask their memory with about this many of the new cameras, the newest first."""
MOST_DRAWS = 1024
"""Attention kernels take at most 65,535 sequences, and an action module makes one of each token position."""
NEAR_RANK, BLIND_RANK = 2.0, 8.0
"""Latents next to a chosen one come after all others that overlap; those without overlap come last."""
MOST_POSES_DROPPED = 0.8
"""Of the clips without memory, at least the rest knows its poses."""


@dataclass(frozen=True)
class Shape:
    """How many latents a clip holds, and how often steps take this shape (relative weight).

    rolled: clean clips of `new` latents between past and new ones, for `rolling` attention alone.
    """

    memory: int
    past: int
    new: int
    weight: float = 1.0
    rolled: int = 0

    def __post_init__(self) -> None:
        if min(self.memory, self.past, self.rolled) < 0 or self.new < 1 or self.weight <= 0:
            raise ConfigError("a clip shape is impossible", got=str(self))
        if self.past == 0 and (self.memory or self.rolled or self.new != 1):
            raise ConfigError(
                "a clip without past starts a session from its prompt",
                expected="no memory and one new latent",
                got=str(self),
            )

    @property
    def context(self) -> int:
        """Clean latents in front of the new ones."""
        return self.memory + self.past + self.rolled * self.new

    @property
    def window(self) -> int:
        """Past and new latents."""
        return self.past + self.rolled * self.new + self.new

    @property
    def name(self) -> str:
        rolled = f"+{self.rolled}x{self.new}" if self.rolled else ""
        return f"{self.memory}+{self.past}{rolled}+{self.new}"


@dataclass(frozen=True)
class DropRates:
    """How often a sample is told less, as fractions of all samples that have something to be told.

    keys: keyboard and mouse become "unknown". pose: the camera features become zero; only samples without
    memory can lose them, so these lose theirs more often. prompt: the text becomes empty.
    """

    keys: float = 0.15
    pose: float = 0.15
    prompt: float = 0.1


@dataclass(frozen=True)
class Places:
    """Where clips are cut, [B] int64 each: an episode, the session's first latent, the window's first one."""

    episode: Tensor
    origin: Tensor
    start: Tensor


@dataclass(frozen=True)
class Told:
    """What each sample is told, each field [B] bool."""

    keys: Tensor
    pose: Tensor
    prompt: Tensor

    @classmethod
    def everything(cls, samples: int, device: torch.device) -> Told:
        known = torch.ones(samples, dtype=torch.bool, device=device)
        return cls(known, known, known)


@dataclass(frozen=True)
class ClipBatch:
    """B clips of one shape, on the device. Field shapes are those of `ClipConditions`."""

    shape: Shape
    latents: Tensor  # [B, C, M + P + n, h, w] clean, memory first
    plucker: Tensor
    keyboard: Tensor
    mouse: Tensor
    started: Tensor  # [B, 4 * (W + 2)] bool: frames of the session, not from before it
    prompt_tokens: Tensor  # [B, T] int64
    told: Told
    slots: Tensor  # [M] int64, the numbers of the memory slots
    position: int  # of the window's first latent in its era (0 unless attention is `rolling`)
    window_time_start: int

    def conditions(self, text: Tensor) -> ClipConditions:
        """What the model is told, with `text` [B, T, text_dim] from the text encoder."""
        places = torch.arange(self.shape.window, device=self.latents.device) + self.position
        return ClipConditions(
            text=text,
            plucker=self.plucker,
            keyboard=self.keyboard,
            mouse=self.mouse,
            memory_times=self.slots,
            window_times=places + self.window_time_start,
            pose_known=self.told.pose,
            action_times=torch.cat([self.slots, places]),
        )

    def null_actions(self) -> ClipBatch:
        """The same clips with unknown actions (zeros before a session began stay)."""
        keyboard, mouse = null_keyboard(self.keyboard), null_mouse(self.mouse)
        started = self.started[:, :, None]
        return replace(
            self, keyboard=torch.where(started, keyboard, 0.0), mouse=torch.where(started, mouse, 0.0)
        )


class ShapeSchedule:
    """Which shape a step has: on every rank the same, a pure function of seed and step (so a resume goes on).

    All steps hold about `latents_per_step` latents, so that short clips come in larger batches; `draws` is
    how often the new latents count.
    """

    def __init__(self, shapes: Sequence[Shape], *, latents_per_step: int, seed: int, draws: int = 1) -> None:
        if not shapes:
            raise ConfigError("no clip shapes are given", expected="at least one [[shapes]] table")
        self.shapes = tuple(shapes)
        self._budget, self._draws, self._seed = latents_per_step, draws, seed
        weights = np.array([shape.weight for shape in shapes])
        self._fractions = weights / weights.sum()

    def at(self, step: int) -> Shape:
        choice = np.random.default_rng((self._seed, step)).choice(len(self.shapes), p=self._fractions)
        return self.shapes[int(choice)]

    def samples(self, shape: Shape) -> int:
        """Clips in a step of this shape."""
        fitting = self._budget // (shape.context + self._draws * shape.new)
        return max(1, min(fitting, MOST_DRAWS // self._draws))

    def share(self, of: Sequence[Shape]) -> float:
        """Expected share of all clips that have one of these shapes."""
        clips = {s: p * self.samples(s) for s, p in zip(self.shapes, self._fractions, strict=True)}
        return float(sum(clips[shape] for shape in of) / sum(clips.values()))

    def drops(self, shape: Shape, overall: DropRates) -> DropRates:
        """Rates for one shape: only clips without memory lose poses, so often that the overall rate holds."""
        if shape.memory or not shape.past:
            return replace(overall, pose=0.0)
        free = self.share([s for s in self.shapes if s.past and not s.memory])
        steered = self.share([s for s in self.shapes if s.past])
        if overall.keys == 1:  # who has lost the keys keeps the pose
            return replace(overall, pose=0.0)
        wanted = overall.pose / (1 - overall.keys) * steered / free
        return replace(overall, pose=min(MOST_POSES_DROPPED, wanted))


class ClipSampler:
    """Draws clips from a store.

    random_memory: how often a memory slot holds any older latent instead of the best one.
    """

    def __init__(self, store: LatentStore, world: WorldConfig, random_memory: float = 0.0) -> None:
        self.store, self.world = store, world
        self.random_memory = random_memory
        self._rays = cell_rays(world.intrinsics, world.latent_hw, world.dit.rays_per_cell, store.device)

    def sample(
        self,
        shape: Shape,
        samples: int,
        generator: torch.Generator,
        drops: DropRates,
        position: int = 0,
    ) -> ClipBatch:
        """`samples` clips of one shape at random places; `drops` are the rates for this shape.

        position: so many latents before the window its era began (`rolling` attention).
        """
        places = self.places(shape, samples, generator, position=position)
        told = self.told(shape, samples, generator, drops)
        return self.cut(shape, places, told, generator, position)

    def cut(
        self,
        shape: Shape,
        places: Places,
        told: Told,
        generator: torch.Generator | None = None,
        position: int = 0,
    ) -> ClipBatch:
        """The clips at `places`; without a generator every memory slot holds the best latent, in order."""
        episode = places.episode[:, None]
        window = places.start[:, None] + torch.arange(shape.window, device=episode.device)
        chosen = torch.cat([self._recall(shape, places, generator), window], dim=1)
        frame = action_frames(places.start, shape.window)
        started = frame > FRAMES_PER_LATENT * places.origin[:, None]
        keyboard, mouse = self._actions(places.episode, frame, started, told.keys)
        anchor = window[:, max(shape.past - 1, 0)] - position
        return ClipBatch(
            shape=shape,
            latents=self._gather(places, chosen),
            plucker=self._plucker(self.store.c2w[episode, chosen], self.store.c2w[places.episode, anchor]),
            keyboard=keyboard,
            mouse=mouse,
            started=started,
            prompt_tokens=self.store.prompt_tokens[places.episode],
            told=told,
            slots=self._slots(shape, generator),
            position=position,
            window_time_start=self.world.window_time_start,
        )

    def places(
        self,
        shape: Shape,
        samples: int,
        generator: torch.Generator,
        *,
        position: int = 0,
        ahead: int = 0,
    ) -> Places:
        """Random places where a clip of this shape has enough before it, and `ahead` latents behind it."""
        device, store = self.store.device, self.store
        first = max(shape.memory, position)
        last = store.latents_per_episode - shape.window - ahead
        if last < first:
            raise ConfigError(
                f"episodes are too short for clips of the shape {shape.name}",
                expected=f"at least {first + shape.window + ahead} latents",
                got=str(store.latents_per_episode),
                remedy="record longer episodes or remove the shape",
            )
        episode = torch.randint(store.episodes, (samples,), generator=generator, device=device)
        start = torch.randint(first, last + 1, (samples,), generator=generator, device=device)
        if shape.past < FULL_PAST:
            return Places(episode, start - shape.memory, start)
        age = torch.rand(samples, generator=generator, device=device)
        return Places(episode, (age * (start - first + 1)).long(), start)

    def told(self, shape: Shape, samples: int, generator: torch.Generator, drops: DropRates) -> Told:
        """Who is told what; where nothing steers (a start from a prompt) only the prompt can be lost."""
        steered = bool(shape.past)
        keys = self._chance(1 - drops.keys * steered, samples, generator)
        pose_lost = self._chance(drops.pose * steered, samples, generator) & keys
        return Told(keys, ~pose_lost, self._chance(1 - drops.prompt, samples, generator))

    def _recall(self, shape: Shape, places: Places, generator: torch.Generator | None) -> Tensor:
        """Latent indices [B, memory] between the session's origin and the window."""
        start = places.start[:, None]
        if not shape.memory:
            return start[:, :0]
        queries = start + shape.window - shape.new + query_latents(shape.new, start.device)
        overlap = self.store.overlaps[places.episode[:, None], queries]
        latent = torch.arange(overlap.shape[-1], device=start.device)
        allowed = (latent >= places.origin[:, None]) & (latent < start)
        any_view = torch.zeros_like(overlap[:, 0])
        distracted = torch.zeros(len(start), shape.memory, dtype=torch.bool, device=start.device)
        if generator is not None:
            any_view = torch.rand(any_view.shape, generator=generator, device=start.device)
            distracted = self._chance(self.random_memory, distracted.shape, generator)
        return choose_memory(overlap, any_view, allowed, distracted)

    def _slots(self, shape: Shape, generator: torch.Generator | None) -> Tensor:
        """The numbers of the memory slots: under `rolling` attention, where they stay, in any order."""
        device = self.store.device
        if generator is None or self.world.dit.attention != "rolling":
            return torch.arange(shape.memory, device=device)
        return torch.randperm(shape.memory, generator=generator, device=device)

    def _gather(self, places: Places, chosen: Tensor) -> Tensor:
        """Latents [B, C, F, h, w]; the session's first one is that of the image alone."""
        episode = places.episode[:, None]
        is_first = (chosen == places.origin[:, None])[:, :, None, None, None]
        alone, in_video = self.store.images[episode, chosen], self.store.latents[episode, chosen]
        return torch.where(is_first, alone, in_video).transpose(1, 2)

    def _plucker(self, cameras: Tensor, anchor: Tensor) -> Tensor:
        return anchor_plucker(cameras, anchor, self._rays)

    def _actions(
        self, episode: Tensor, frame: Tensor, started: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Padded keyboard and mouse of the window; nothing was pressed up to the session's first frame."""

        def told(actions: Tensor, null: Callable[[Tensor], Tensor]) -> Tensor:
            real = actions[episode[:, None], frame.clamp_min(0)]
            shown = torch.where(known[:, None, None], real, null(real))
            return torch.where(started[:, :, None], shown, 0.0)

        return told(self.store.keyboard, null_keyboard), told(self.store.mouse, null_mouse)

    def _chance(self, rate: float, shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Booleans, True at `rate`."""
        return torch.rand(shape, generator=generator, device=self.store.device) < rate


def action_frames(start: Tensor, window: int) -> Tensor:
    """Frames [B, 4 * (window + 2)] whose actions the latents from `start` [B] on see; negative before all."""
    entries = FRAMES_PER_LATENT * (window + ACTION_WINDOW_LATENTS - 1)
    first = FRAMES_PER_LATENT * (start - ACTION_WINDOW_LATENTS) + 1
    return first[:, None] + torch.arange(entries, device=start.device)


def query_latents(new: int, device: torch.device) -> Tensor:
    """Which of the new latents [Q] ask the memory, the newest first, as sessions do."""
    return torch.arange(new - 1, -1, -max(1, new // MEMORY_QUERIES), device=device)


def choose_memory(overlap: Tensor, any_view: Tensor, allowed: Tensor, distracted: Tensor) -> Tensor:
    """Different latents for each slot, [B, slots]: `select_memory` for a batch, without leaving the device.

    overlap: [B, Q, K] with the queries. any_view: [B, K] random scores below 1, which count instead where
    `distracted` [B, slots] is. allowed: [B, K], at least `slots` per sample. Without overlap the newest
    latent is taken.
    """
    candidates, slots = overlap.shape[-1], distracted.shape[1]
    place = torch.arange(candidates, device=overlap.device)
    newest_first = RECENCY / candidates * place
    free, near, picks = allowed.clone(), torch.zeros_like(allowed), []
    for slot in range(slots):
        share = overlap[:, slot % overlap.shape[1]]
        best = share + newest_first - NEAR_RANK * near - BLIND_RANK * (share <= 0)
        score = torch.where(distracted[:, slot, None], any_view, best)
        pick = score.masked_fill(~free, -torch.inf).argmax(dim=1, keepdim=True)
        free.scatter_(1, pick, False)
        near = near | ((place - pick).abs() <= SPACING)
        picks.append(pick)
    return torch.cat(picks, dim=1)
