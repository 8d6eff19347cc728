"""What a network is told of a clip and how it is sampled: the rules that its training fixed.

`Session` knows players, cameras and latents; a `Rules` words them for one kind of network. `OwnRules` are
those of the worlds trained here; `worldwire_runtime.released.rules` has those of the released model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worldwire.inputs import KEYS, Inputs
from worldwire.motion import PlayerPose
from worldwire_runtime.camera.plucker import cell_rays
from worldwire_runtime.conditioning import (
    action_window,
    anchor_plucker,
    mouse_vector,
    null_keyboard,
    null_mouse,
)
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.model.sampler import Solver, Velocity

ACTION_SIZE = len(KEYS) + 2
MEMORY_QUERIES = 2


@dataclass(frozen=True)
class Clip:
    """One clip as a session knows it. Cameras [n, 4, 4] float64 in the session's world, on the host."""

    text: Tensor  # [1, T, text_dim]
    view: str
    memory_c2w: Tensor
    window_c2w: Tensor  # of the clean past and the new latents
    query_c2w: Tensor  # that asked the memory, the most important one first
    slots: tuple[int, ...]  # indices of the memory latents
    first: int  # index of the window's first latent
    past: int  # how many latents of the window are clean
    actions: Tensor  # [1, F, 8] on the CPU, what was told of each frame up to the clip's last one
    poses_told: bool = True
    # Under rolling attention, see `worldwire_runtime.rolling`; else the clip's own: its newest clean latent,
    # places that count from 0, slots in their order.
    anchor_c2w: Tensor | None = None  # [4, 4]
    position: int = 0
    slot_numbers: tuple[int, ...] | None = None

    @property
    def new(self) -> int:
        """Latents to generate."""
        return len(self.window_c2w) - self.past


class Sampling(Protocol):
    """What rules ask of a denoiser, of one network or of experts that take turns."""

    def velocity(self, conditions: ClipConditions, context: Tensor) -> Velocity:
        """The network as a function of noisy latents [B, C, n, h, w] and timestep, for one clip."""
        ...

    def sample(self, conditions: ClipConditions, context: Tensor, noise: Tensor, solver: Solver) -> Tensor:
        """New latents [B, C, n, h, w] from noise of that shape; context: [B, C, c, h, w], memory first."""
        ...

    def generate(self, conditions: ClipConditions, context: Tensor, noise: Tensor, steps: int) -> Tensor:
        """New latents [n, C, h, w] by the few-step sampler of the worlds trained here."""
        ...


class Rules(Protocol):
    """How one kind of network is used."""

    conditionings: tuple[str, ...]
    """The values of `Session.reset(conditioning=...)` that the network was trained for."""
    draws_first_picture: bool
    """Whether a prompt alone can start a session."""

    def queries(self, latent_c2w: Tensor) -> Tensor:
        """The cameras [Q, 4, 4] that ask the memory, of the new latents' [n, 4, 4]."""
        ...

    def told(self, inputs: Sequence[Inputs], players: Sequence[PlayerPose], conditioning: str) -> Tensor:
        """Keyboard and mouse vectors [F, 8] of new frames; players: before them, then after each."""
        ...

    def noise(self, clip: Clip, generator: torch.Generator) -> Tensor:
        """Noise [n, C, h, w] for the new latents of a clip."""
        ...

    def conditions(self, clip: Clip) -> ClipConditions:
        """What the network is told."""
        ...

    def generate(
        self, denoiser: Sampling, conditions: ClipConditions, context: Tensor, noise: Tensor
    ) -> Tensor:
        """Clean new latents [n, C, h, w]; context: memory and past [c, C, h, w]."""
        ...


class OwnRules:
    """Cameras in metres in the frame of the newest clean latent, clip-relative times, real action history."""

    conditionings: tuple[str, ...] = ("both", "keys", "poses")
    draws_first_picture = True

    def __init__(self, config: WorldConfig, device: torch.device, dtype: torch.dtype) -> None:
        self._config, self._device, self._dtype = config, device, dtype
        self._rays = cell_rays(config.intrinsics, config.latent_hw, config.dit.rays_per_cell, device)

    def queries(self, latent_c2w: Tensor) -> Tensor:
        return latent_c2w.flip(0)[:: max(1, len(latent_c2w) // MEMORY_QUERIES)]

    def told(
        self,
        inputs: Sequence[Inputs],
        players: Sequence[PlayerPose],  # noqa: ARG002 - the rules of others need them
        conditioning: str,
    ) -> Tensor:
        """Keys and look as they were given; "unknown" where poses alone steer."""
        actions = action_vectors(inputs)
        steered_by_poses = all(item.c2w is not None for item in inputs) and not actions.any()
        if conditioning == "poses" or steered_by_poses:
            keys, mouse = actions.split([len(KEYS), 2], dim=1)
            return torch.cat([null_keyboard(keys), null_mouse(mouse)], dim=1)
        return actions

    def noise(self, clip: Clip, generator: torch.Generator) -> Tensor:
        return draw_noise(self._config, clip.new, generator)

    def conditions(self, clip: Clip) -> ClipConditions:
        config, window, memory = self._config, len(clip.window_c2w), len(clip.memory_c2w)
        slots, places = clip.slot_numbers or range(memory), range(clip.position, clip.position + window)
        numbers = torch.tensor([*slots, *places], dtype=torch.int64)
        # Few and small, all from the host and before anything is computed: nothing waits for the device.
        actions, numbers, pose_known = (
            told.to(self._device, non_blocking=True)
            for told in (
                action_window(clip.actions, window).to(self._dtype),
                numbers,
                torch.tensor([clip.poses_told]),
            )
        )
        anchor = clip.window_c2w[max(0, clip.past - 1)] if clip.anchor_c2w is None else clip.anchor_c2w
        plucker = anchor_plucker(
            torch.cat([clip.memory_c2w, clip.window_c2w])[None], anchor[None], self._rays
        )
        return ClipConditions(
            text=clip.text,
            plucker=plucker.to(self._dtype),
            keyboard=actions[..., : len(KEYS)],
            mouse=actions[..., len(KEYS) :],
            memory_times=numbers[:memory],
            window_times=numbers[memory:] + config.window_time_start,
            pose_known=pose_known,
            action_times=numbers,
        )

    def generate(
        self, denoiser: Sampling, conditions: ClipConditions, context: Tensor, noise: Tensor
    ) -> Tensor:
        return denoiser.generate(conditions, context, noise, self._config.sampler.steps)


def action_vectors(inputs: Sequence[Inputs]) -> Tensor:
    """Keys and look of frames as the network's [F, 8]: six keys, mouse (pitch, yaw)."""
    keys = torch.from_numpy(np.stack([item.key_vector() for item in inputs]))
    look = torch.tensor([[item.yaw_deg, item.pitch_deg] for item in inputs])
    return torch.cat([keys, mouse_vector(look)], dim=1)


def draw_noise(config: WorldConfig, latents: int, generator: torch.Generator) -> Tensor:
    """Standard normal latents [n, C, h, w] on the generator's device."""
    shape = (latents, config.dit.in_dim, *config.latent_hw)
    return torch.randn(shape, generator=generator, device=generator.device)
