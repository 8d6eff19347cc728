"""Multi-segment rollouts with a gradient (paper 3.3; Self-Forcing, Huang et al. 2025).

A student walks on for some segments as a session does: the tail of its last segment is its past, and what it
made itself is among the memory. Only the last segment is trained, and of its sampling steps only one: the
data estimate of a step drawn at random is the student's sample, and no gradient goes further back.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldwire_runtime.model.sampler import Schedule, flow_schedule
from worldwire_training.base_model import BaseModel
from worldwire_training.clip_sampler import ClipBatch, Shape
from worldwire_training.losses import estimate_data
from worldwire_training.segments import Walks, behind_own, clip_velocity, forget_casts, new_noise


class Segment(NamedTuple):
    """A clip (own context, true new latents), and what the student makes of `noise`: both [B, C, n, h, w]."""

    batch: ClipBatch
    noise: Tensor
    sample: Tensor


def last_segment(
    student: BaseModel,
    walks: Walks,
    shape: Shape,
    segments: int,
    *,
    steps: int,
    shift: float,
    exit_step: int,
    generator: torch.Generator,
) -> Segment:
    """The last of `segments` segments; of two, the first is a shape's `opening` where it has one.

    Its sample, float32, is the data estimate of step `exit_step` (0 ... steps - 1); the gradient, where
    gradients are on, is that of this one evaluation.
    """
    batch = behind_own(student, walks, shape, segments - 1, steps=steps, shift=shift, generator=generator)
    noise = new_noise(batch, generator)
    return Segment(batch, noise, sample_until(student, batch, flow_schedule(steps, shift), exit_step, noise))


def sample_until(
    student: BaseModel, batch: ClipBatch, schedule: Schedule, exit_step: int, noise: Tensor
) -> Tensor:
    """The data estimate [B, C, n, h, w] at step `exit_step` of the sampler, whose earlier steps are fixed."""
    context = batch.latents[:, :, : batch.shape.context]
    x = _first_steps(student, batch, noise, schedule, exit_step) if exit_step else noise
    sigma = torch.full((len(x),), schedule.sigmas[exit_step], device=x.device)
    velocity = student(batch, context, x.to(batch.latents.dtype), sigma)
    return estimate_data(x, velocity.float(), sigma)


@torch.no_grad()
def _first_steps(
    student: BaseModel, batch: ClipBatch, noise: Tensor, schedule: Schedule, count: int
) -> Tensor:
    """Where the sampler's first `count` steps lead, computed as sessions do."""
    velocity = clip_velocity(student, batch)
    x, levels = noise, schedule.sigmas
    for step in range(count):
        x = x + (levels[step + 1] - levels[step]) * velocity(x, schedule.timesteps[step])
    forget_casts()
    return x
