"""Whole walks generated from the first latent of encoded episodes, all scenes in one batch.

What a session does step by step for one player, with the poses and actions of the episodes: for watching a
training run. `worldwire eval` measures the shipped session itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worldwire_runtime.config import ClipPlan, WorldConfig
from worldwire_training.base_model import BaseModel
from worldwire_training.clip_sampler import ClipSampler, Places, Shape, Told
from worldwire_training.experts import ExpertPair
from worldwire_training.latents import LatentStore
from worldwire_training.segments import generate, new_noise


@dataclass(frozen=True)
class Step:
    """One step of a session: the shape of its clip and the first latent of its window."""

    shape: Shape
    start: int


def plan_steps(plan: ClipPlan, latents: int) -> Iterator[Step]:
    """The steps by which a session reaches `latents` latents; like it with all memory slots or none."""
    held = 1
    while held < latents:
        past = min(plan.past, held)
        start = held - past
        new = min(plan.new_latents(held), latents - held)
        yield Step(Shape(plan.memory if start >= plan.memory else 0, past, new), start)
        held += new


@torch.inference_mode()
def roll_out(
    model: BaseModel | ExpertPair,
    store: LatentStore,
    world: WorldConfig,
    latents: int,
    generator: torch.Generator,
) -> Tensor:
    """Latents [E, latents, C, h, w] of the episodes as the default plan generates them from their first."""
    walked = torch.zeros_like(store.latents)
    walked[:, 0] = store.images[:, 0]
    sampler = ClipSampler(replace(store, latents=walked), world)
    episode = torch.arange(store.episodes, device=store.device)
    told = Told.everything(store.episodes, store.device)
    for step in plan_steps(world.plan(), latents):
        start = torch.full_like(episode, step.start)
        batch = sampler.cut(step.shape, Places(episode, torch.zeros_like(episode), start), told)
        noise = new_noise(batch, generator)
        new = generate(model, batch, world.sampler.steps, world.sampler.shift, noise)
        first = step.start + step.shape.past
        walked[:, first : first + step.shape.new] = new.transpose(1, 2).to(walked.dtype)
    return walked[:, :latents]
