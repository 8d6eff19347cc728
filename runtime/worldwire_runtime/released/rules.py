"""How the released model is told of a clip, and how it is sampled: the ways of the official pipeline.

Sources: fact sheet of the official code, sections 1 (noise), 2.5 (action windows), 2.6 (cameras), 2.7
(times), 3 (sampler) and 4.2 (queries). `docs/released_checkpoints.md` lists where we differ on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from worldwire.inputs import KEYS, Inputs
from worldwire.motion import PlayerPose
from worldwire_runtime.camera.inferred import inferred_inputs
from worldwire_runtime.camera.plucker import cell_rays
from worldwire_runtime.camera.released import QUERY_STRIDE
from worldwire_runtime.conditioning import null_keyboard, null_mouse, released_plucker
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.action import released_padding
from worldwire_runtime.model.config import ActionConfig
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.model.sampler import Schedule, UniPCSolver, Velocity, guided, released_schedule
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_runtime.rules import Clip, Sampling, action_vectors

EncodePrompt = Callable[[str], Tensor]
MOUSE_SIGNS = (-1.0, 1.0)  # its positive mouse pitch turns the camera down (section 4.1), ours looks up
QUERY_LATENTS = QUERY_STRIDE // FRAMES_PER_LATENT


class ReleasedRules:
    """Window-relative cameras, shifted and padded actions, absolute times, UniPC.

    The model was never trained on cameras alone, nor without them: keys and look are inferred from given
    poses, and there is no conditioning on keys alone.
    """

    conditionings: tuple[str, ...] = ("both", "poses")
    draws_first_picture = False

    def __init__(
        self, config: WorldConfig, device: torch.device, dtype: torch.dtype, encode_prompt: EncodePrompt
    ) -> None:
        self._config, self._device, self._dtype = config, device, dtype
        self._encode_prompt = encode_prompt
        self._rays = cell_rays(config.intrinsics, config.latent_hw, config.dit.rays_per_cell, device)

    def queries(self, latent_c2w: Tensor) -> Tensor:
        """The cameras of every eighth frame, from the clip's last one back."""
        return latent_c2w.flip(0)[::QUERY_LATENTS]

    def told(self, inputs: Sequence[Inputs], players: Sequence[PlayerPose], conditioning: str) -> Tensor:
        """Keys and look as they were given; where a pose came alone, those that would have led to it."""
        motion = self._config.motion
        spoken = [
            inferred_inputs(before, after, motion) if _steered_by_pose(item, conditioning) else item
            for item, (before, after) in zip(inputs, pairwise(players), strict=True)
        ]
        actions = action_vectors(spoken)
        actions[:, len(KEYS) :] *= torch.tensor(MOUSE_SIGNS)
        return actions

    def noise(self, clip: Clip, generator: torch.Generator) -> Tensor:
        """Drawn for the whole window, in bfloat16, as the official code draws it; only the end is used."""
        shape = (self._config.dit.in_dim, len(clip.window_c2w), *self._config.latent_hw)
        window = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.bfloat16)
        return window.transpose(0, 1)[clip.past :].float()

    def conditions(self, clip: Clip) -> ClipConditions:
        config, window = self._config, range(clip.first, clip.first + len(clip.window_c2w))
        numbers = torch.tensor([*clip.slots, *window], dtype=torch.int64)
        numbers = numbers.to(self._device, non_blocking=True)
        plucker = released_plucker(
            clip.window_c2w[None],
            clip.memory_c2w[None],
            _query_of_each_slot(clip)[None],
            self._rays,
        )
        actions = released_window(clip, config.dit.action_config).to(self._dtype)
        actions = actions.to(self._device, non_blocking=True)
        return ClipConditions(
            text=clip.text,
            plucker=plucker.to(self._dtype),
            keyboard=actions[..., : len(KEYS)],
            mouse=actions[..., len(KEYS) :],
            memory_times=numbers[: len(clip.slots)],
            window_times=numbers[len(clip.slots) :],
        )

    def generate(
        self, denoiser: Sampling, conditions: ClipConditions, context: Tensor, noise: Tensor
    ) -> Tensor:
        """By UniPC; with guidance where the sampler says so (base model)."""
        sampler = self._config.sampler
        context, start = context.transpose(0, 1)[None], noise.transpose(0, 1)[None]
        solver = UniPCSolver(official_schedule(sampler.steps, sampler.shift))
        if sampler.guidance == 1.0:
            return denoiser.sample(conditions, context, start, solver)[0].transpose(0, 1)
        told = denoiser.velocity(conditions, context)
        slots = conditions.memory_times.shape[-1]
        untold = denoiser.velocity(self._null(conditions, slots), context[:, :, slots:])
        return solver(_guided(told, untold, sampler.guidance), start.float())[0].transpose(0, 1)

    def _null(self, conditions: ClipConditions, slots: int) -> ClipConditions:
        """The null branch: the negative prompt, no actions, no memory; the window's cameras stay."""
        return replace(
            conditions,
            text=self._negative_text,
            plucker=conditions.plucker[:, slots:],
            keyboard=null_keyboard(conditions.keyboard),
            mouse=null_mouse(conditions.mouse),
            memory_times=conditions.memory_times[:0],
        )

    @cached_property
    def _negative_text(self) -> Tensor:
        return self._encode_prompt(self._config.sampler.negative_prompt)


def official_schedule(steps: int, shift: float) -> Schedule:
    """The released noise levels with the timesteps that the network really sees: rounded to bfloat16."""
    schedule = released_schedule(steps, shift)
    seen = torch.tensor(schedule.timesteps).bfloat16().tolist()
    return Schedule(schedule.sigmas, tuple(seen))


def released_window(clip: Clip, config: ActionConfig | None) -> Tensor:
    """The padded per-frame actions [1, 4 * (W + 2), 8] of a clip's window.

    The official action f leads from frame f to f + 1, ours to frame f: theirs are ours one frame later. The
    action that leads out of the clip is not known yet: the last one is held. Before a window's first frame
    its action is repeated, twelve times where the window starts with the image, else eight times.
    """
    window = len(clip.window_c2w)
    frames = FRAMES_PER_LATENT * window - (FRAMES_PER_LATENT - 1 if clip.first == 0 else 0)
    later = torch.cat([clip.actions[:, 1:], clip.actions[:, -1:]], dim=1)[:, -frames:]
    return released_padding(later, config) if config is not None else later


def _steered_by_pose(item: Inputs, conditioning: str) -> bool:
    """Whether the network must be told what the pose means: it came alone, or all else is to be ignored."""
    silent = not (item.keys or item.yaw_deg or item.pitch_deg)
    return conditioning == "poses" or (item.c2w is not None and silent)


def _query_of_each_slot(clip: Clip) -> Tensor:
    """The camera [M, 4, 4] that each memory latent is seen from; queries come round again for more slots."""
    slots = len(clip.memory_c2w)
    return clip.query_c2w[torch.arange(slots) % max(1, len(clip.query_c2w))] if slots else clip.memory_c2w


def _guided(told: Velocity, untold: Velocity, scale: float) -> Velocity:
    def velocity(x: Tensor, timestep: float) -> Tensor:
        return guided(told(x, timestep), untold(x, timestep), scale)

    return velocity
