"""Walks that go on from a model's own latents: what sessions do, along episodes whose truth is known.

A walk is a copy of an episode. What a model generates takes the place of the episode's latents, so that the
clips cut out of it afterwards have the model's own past, and its own latents among their memory, while the
latents still to come are the truth at the same poses.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.model.sampler import Velocity, euler, flow_schedule
from worldwire_training.base_model import BaseModel
from worldwire_training.clip_sampler import (
    FULL_PAST,
    ClipBatch,
    ClipSampler,
    DropRates,
    Places,
    Shape,
    Told,
)
from worldwire_training.experts import ExpertPair
from worldwire_training.latents import LatentStore
from worldwire_training.rolling_context import rolling_cache


def opening(shape: Shape) -> Shape | None:
    """The clip with which a session begins whose second clip has this shape; None for every other shape.

    Such a past is too short to be walked up to: its first latents are the picture's, the rest that clip's.
    """
    second = not shape.memory and not shape.rolled and shape.new < shape.past < FULL_PAST
    return Shape(0, shape.past - shape.new, shape.new) if second else None


def segments_behind(shape: Shape, own: int) -> int:
    """Segments that `Walks.begin` needs room for when a clip stands behind `own` of the model's making."""
    return 1 if opening(shape) else 1 + own


class Walks:
    """B walks in step with each other; the window of segment s starts s * new latents behind the first.

    latents: [B, L, C, h, w], the truth up to where each walk begins, and behind it until `write` replaces it.
    """

    def __init__(
        self, store: LatentStore, world: WorldConfig, places: Places, told: Told, random_memory: float = 0.0
    ) -> None:
        rows = store.take(places.episode)
        self.latents = rows.latents
        self._sampler = ClipSampler(rows, world, random_memory)
        self._places = replace(places, episode=torch.arange(len(places.episode), device=store.device))
        self._told = told

    @classmethod
    def begin(
        cls,
        sampler: ClipSampler,
        shape: Shape,
        segments: int,
        samples: int,
        generator: torch.Generator,
        drops: DropRates,
    ) -> Walks:
        """`samples` walks at random places with room for `segments` segments of `shape`."""
        places = sampler.places(shape, samples, generator, ahead=(segments - 1) * shape.new)
        told = sampler.told(shape, samples, generator, drops)
        return cls(sampler.store, sampler.world, places, told, sampler.random_memory)

    def clip(self, shape: Shape, segment: int, generator: torch.Generator | None = None) -> ClipBatch:
        """The clip of a segment, as `ClipSampler.cut` makes it; its new latents are the truth."""
        start = self._places.start + segment * shape.new
        return self._sampler.cut(shape, replace(self._places, start=start), self._told, generator)

    def write(self, shape: Shape, segment: int, new: Tensor) -> None:
        """The walks hold `new` [B, C, n, h, w] as the latents of a segment from now on."""
        first = self._places.start + segment * shape.new + shape.window - shape.new
        index = first[:, None] + torch.arange(shape.new, device=first.device)
        self.latents[self._places.episode[:, None], index] = new.transpose(1, 2).to(self.latents.dtype)


def new_noise(batch: ClipBatch, generator: torch.Generator) -> Tensor:
    """What the new latents of clips are generated from: [B, C, n, h, w], float32."""
    replaced = batch.latents[:, :, batch.shape.context :]
    return torch.randn(replaced.shape, generator=generator, device=replaced.device)


@torch.no_grad()
def generate(
    model: BaseModel | ExpertPair, batch: ClipBatch, steps: int, shift: float, noise: Tensor
) -> Tensor:
    """New latents [B, C, n, h, w] of clips, float32, from `new_noise` by the sampler that sessions use."""
    new = euler(clip_velocity(model, batch), noise, flow_schedule(steps, shift))
    forget_casts()
    return new


def forget_casts() -> None:
    """To be called after work without gradients that a pass with gradients may follow under one autocast.

    Autocast keeps the weights that it has cast until its block ends. Before PyTorch learnt to tell them
    apart, those cast without gradients served the trained pass too, whose weights then learnt nothing.
    """
    torch.clear_autocast_cache()


def clip_velocity(model: BaseModel | ExpertPair, batch: ClipBatch) -> Velocity:
    """The network as a function of the new latents and the timestep; the context is encoded once."""
    if isinstance(model, ExpertPair):
        return model.velocity(batch, clip_velocity)
    conditions, context = model.conditions(batch), batch.latents[:, :, : batch.shape.context]
    if not (model.dit.config.attention == "rolling" and batch.shape.context):
        return Denoiser(model.dit, 1.0).velocity(conditions, context)
    prepared = model.dit.prepare(conditions)
    cache = rolling_cache(model.dit, context, prepared, batch.shape)
    new = prepared.part(batch.shape.context, prepared.latents)

    def velocity(x: Tensor, timestep: float) -> Tensor:
        times = torch.full((len(x), batch.shape.new), timestep, device=x.device)
        return model.dit.denoise(x.to(context.dtype), times, new, cache).float()

    return velocity


def walk_on(
    model: BaseModel,
    walks: Walks,
    shape: Shape,
    segments: int,
    *,
    steps: int,
    shift: float,
    generator: torch.Generator,
) -> None:
    """Generate the first `segments` segments of the walks, each on top of those before it."""
    for segment in range(segments):
        batch = walks.clip(shape, segment, generator)
        new = generate(model, batch, steps, shift, new_noise(batch, generator))
        walks.write(shape, segment, new)


def behind_own(
    model: BaseModel,
    walks: Walks,
    shape: Shape,
    own: int,
    *,
    steps: int,
    shift: float,
    generator: torch.Generator,
) -> ClipBatch:
    """The clips to train on, whose past ends in `own` segments that the model generates here.

    Where a shape has an `opening`, that clip is all there is to generate, whatever `own` above 0 says. The
    walks have room for `segments_behind` segments.
    """
    first = opening(shape)
    segments = min(own, 1) if first else own
    walk_on(model, walks, first or shape, segments, steps=steps, shift=shift, generator=generator)
    return walks.clip(shape, 0 if first else own, generator)
