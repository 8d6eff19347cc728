"""Distribution matching distillation (paper 3.3; Yin et al. 2024): losses of the student and of its critic.

The student's sample is noised; a frozen teacher (the score of the data, with guidance) and a trained critic
(the score of what the student makes) estimate the data behind it. Where they differ, the student moves. Both
see the student's own context. Latents are [B, C, n, h, w].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from worldwire_runtime.model.sampler import guided, shifted
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.clip_sampler import ClipBatch
from worldwire_training.losses import add_noise, estimate_data
from worldwire_training.segments import forget_casts

SMALLEST_SCALE = 1e-3
"""Keeps a sample that the teacher agrees with from dividing by zero."""


@dataclass(frozen=True)
class ScoreConfig:
    """At which noise levels scores are compared (uniform from lowest to highest, then bent by shift), and the
    teacher's guidance away from unknown actions and an empty prompt (1: none, half the cost)."""

    lowest: float = 0.02
    highest: float = 0.98
    shift: float = 3.0
    guidance: float = 1.0


def dmd_direction(sample: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Where the sample should go, with the opposite sign: fake - real data estimates, per clip in units of
    the sample's mean distance from the real one (Yin et al. 2024, equation 8)."""
    scale = (sample - real).abs().flatten(1).mean(1).clamp_min(SMALLEST_SCALE)
    return (fake - real) / scale.view(-1, 1, 1, 1, 1)


def dmd_losses(sample: Tensor, direction: Tensor) -> Tensor:
    """Per clip [B] half the squared distance to `sample - direction`: its gradient is the direction."""
    target = (sample - direction).detach()
    return 0.5 * (sample - target).square().flatten(1).mean(1)


def regression_losses(sample: Tensor, target: Tensor) -> Tensor:
    """Per clip [B] half the mean squared distance from the data (or from a teacher's sample)."""
    return 0.5 * (sample - target.float()).square().flatten(1).mean(1)


@torch.no_grad()
def score_direction(
    sample: Tensor,
    batch: ClipBatch,
    teacher: BaseModel,
    critic: BaseModel,
    config: ScoreConfig,
    generator: torch.Generator,
) -> Tensor:
    """`dmd_direction` of a student's sample for the clips of `batch`."""
    uniform = torch.rand(len(sample), generator=generator, device=sample.device)
    sigma = shifted(config.lowest + (config.highest - config.lowest) * uniform, config.shift)  # type: ignore[arg-type]
    noise = torch.randn(sample.shape, generator=generator, device=sample.device)
    noisy = add_noise(sample.detach(), noise, sigma)  # type: ignore[arg-type]
    real = estimate_data(noisy, _guided_velocity(teacher, batch, noisy, sigma, config.guidance), sigma)  # type: ignore[arg-type]
    fake = estimate_data(noisy, _velocity(critic, batch, noisy, sigma), sigma)  # type: ignore[arg-type]
    forget_casts()  # the critic trains next
    return dmd_direction(sample.detach(), real, fake)


def critic_losses(
    critic: BaseModel, batch: ClipBatch, sample: Tensor, noise: NoiseConfig, generator: torch.Generator
) -> Tensor:
    """Flow matching [B * draws] on what the student made, given the context that it made it from."""
    context = batch.latents[:, :, : batch.shape.context]
    made = torch.cat([context, sample.detach().to(context.dtype)], dim=2)
    return clip_losses(critic, replace(batch, latents=made), noise, generator)


def untold(batch: ClipBatch) -> ClipBatch:
    """The clips without prompt and, where they know their poses, without actions; poses and memory stay.

    A clip that has lost its poses keeps its actions: training never hides both, so no network has learnt
    what such a clip would look like.
    """
    posed, null = batch.told.pose, batch.null_actions()
    told = replace(batch.told, keys=batch.told.keys & ~posed, prompt=torch.zeros_like(batch.told.prompt))
    keyboard, mouse = (
        torch.where(posed[:, None, None], hidden, known)
        for hidden, known in ((null.keyboard, batch.keyboard), (null.mouse, batch.mouse))
    )
    return replace(batch, keyboard=keyboard, mouse=mouse, told=told)


def _velocity(model: BaseModel, batch: ClipBatch, noisy: Tensor, sigma: Tensor) -> Tensor:
    context = batch.latents[:, :, : batch.shape.context]
    return model(batch, context, noisy.to(context.dtype), sigma).float()


def _guided_velocity(
    model: BaseModel, batch: ClipBatch, noisy: Tensor, sigma: Tensor, guidance: float
) -> Tensor:
    told = _velocity(model, batch, noisy, sigma)
    if guidance == 1.0:
        return told
    return guided(told, _velocity(model, untold(batch), noisy, sigma), guidance)
