"""Classifier-free guidance in every clip: what a base model is measured with before its distillation."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from worldwire_runtime.conditioning import null_keyboard, null_mouse
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.model.sampler import euler, flow_schedule, guided
from worldwire_runtime.world import CONFIG_FILE, World


class GuidedDenoiser:
    """In the place of a world's denoiser: guides away from unknown keys and an empty prompt.

    The poses stay in both branches. For worlds whose attention is `joint` or `cached`.
    """

    def __init__(self, plain: Denoiser, shift: float, guidance: float, no_text: Tensor) -> None:
        self._plain, self._shift, self._guidance, self._no_text = plain, shift, guidance, no_text

    def generate(self, conditions: ClipConditions, context: Tensor, noise: Tensor, steps: int) -> Tensor:
        """New latents [n, C, h, w], as `Denoiser.generate` makes them."""
        null = replace(
            conditions,
            text=self._no_text,
            keyboard=null_keyboard(conditions.keyboard),
            mouse=null_mouse(conditions.mouse),
        )
        clean = context.transpose(0, 1)[None]
        told, untold = (self._plain.velocity(each, clean) for each in (conditions, null))

        def velocity(x: Tensor, timestep: float) -> Tensor:
            return guided(told(x, timestep), untold(x, timestep), self._guidance)

        start = noise.transpose(0, 1)[None].float()
        return euler(velocity, start, flow_schedule(steps, self._shift))[0].transpose(0, 1)


def guide(world: World, guidance: float) -> None:
    """Let the sessions of a world guide every clip."""
    plain = world.denoiser
    guided_one = GuidedDenoiser(plain, world.config.sampler.shift, guidance, world.encode_prompt(""))
    world.denoiser = guided_one  # type: ignore[assignment]


def with_steps(world: Path, steps: int, copy: Path) -> Path:
    """A copy of a world's folder whose sessions take so many steps for each clip."""
    shutil.copytree(world, copy)
    config = WorldConfig.from_file(copy / CONFIG_FILE)
    sampler = replace(config.sampler, steps=steps)
    (copy / CONFIG_FILE).write_text(replace(config, sampler=sampler).to_json(), encoding="utf-8")
    return copy
