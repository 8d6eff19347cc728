"""Two transformers that take turns by noise level, and where the one that rests waits.

The high-noise expert lays out a clip, the low-noise one finishes it (paper: 28B); the former exists for each
view. Whichever is not at work may wait in the main memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldwire.errors import ConfigError
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.model.sampler import Euler, Solver, Velocity, flow_schedule

HIGH_OF_VIEW = {"first": "high_first", "third": "high_third"}
LOW = "low"


class Residence:
    """Brings a network's weights to a device and lets them go again; the main memory keeps them all along.

    Pinned there, they cross at the full rate of the bus, and nothing has to be written back.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._device, self._here = device, False
        self._kept = [
            (module, name, tensor.data.pin_memory() if device.type == "cuda" else tensor.data)
            for module in network.modules()
            for name, tensor in (
                *module.named_parameters(recurse=False),
                *module.named_buffers(recurse=False),
            )
        ]
        self.leave()

    def bring(self) -> None:
        """Puts the weights onto the device; does nothing if they are there."""
        if not self._here:
            for module, name, kept in self._kept:
                _put(module, name, kept.to(self._device, non_blocking=True))
            self._here = True

    def leave(self) -> None:
        """Frees the device's memory."""
        for module, name, kept in self._kept:
            _put(module, name, kept)
        self._here = False


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Gives a module another tensor under a name that it has."""
    is_buffer = name in dict(module.named_buffers(recurse=False))
    setattr(module, name, tensor if is_buffer else nn.Parameter(tensor, requires_grad=False))


@dataclass(frozen=True)
class Expert:
    """One transformer's denoiser; residence: None where it stays on the device."""

    denoiser: Denoiser
    residence: Residence | None = None


class ExpertDenoiser:
    """The experts of one view as one denoiser.

    boundary: timesteps from here on up are the high-noise expert's. shift: of the noise levels.
    """

    def __init__(self, high: Expert, low: Expert, boundary: float, shift: float) -> None:
        self._high, self._low, self._boundary, self._shift = high, low, boundary, shift

    def generate(self, conditions: ClipConditions, context: Tensor, noise: Tensor, steps: int) -> Tensor:
        """New latents [n, C, h, w] from noise of that shape; context: [c, C, h, w], memory first."""
        batch, start = context.transpose(0, 1)[None], noise.transpose(0, 1)[None]
        solver = Euler(flow_schedule(steps, self._shift))
        return self.sample(conditions, batch, start, solver)[0].transpose(0, 1)

    def sample(self, conditions: ClipConditions, context: Tensor, noise: Tensor, solver: Solver) -> Tensor:
        """New latents [B, C, n, h, w] from noise of that shape; context: [B, C, c, h, w], memory first."""
        return solver(self.velocity(conditions, context), noise.float())

    def velocity(self, conditions: ClipConditions, context: Tensor) -> Velocity:
        """The network as a function of noisy latents and timestep; an expert prepares at its first step.

        Only what one expert has prepared is kept (28B at 720p: 13 GiB), for noise levels only fall.
        """
        at_work: tuple[Expert, Velocity] | None = None

        def velocity(x: Tensor, timestep: float) -> Tensor:
            nonlocal at_work
            expert, other = self._by_noise(timestep)
            if at_work is None or at_work[0] is not expert:
                at_work = None
                if other.residence is not None:
                    other.residence.leave()
                if expert.residence is not None:
                    expert.residence.bring()
                at_work = expert, expert.denoiser.velocity(conditions, context)
            return at_work[1](x, timestep)

        return velocity

    def _by_noise(self, timestep: float) -> tuple[Expert, Expert]:
        pair = self._high, self._low
        return pair if timestep >= self._boundary else pair[::-1]


def expert_denoisers(experts: dict[str, Expert], boundary: float, shift: float) -> dict[str, ExpertDenoiser]:
    """A denoiser for each view whose high-noise expert is there."""
    return {
        view: ExpertDenoiser(experts[name], experts[LOW], boundary, shift)
        for view, name in HIGH_OF_VIEW.items()
        if name in experts
    }


def of_view(denoisers: dict[str, ExpertDenoiser], view: str) -> ExpertDenoiser:
    """The denoiser for a view; ConfigError if its expert was not loaded."""
    if view not in denoisers:
        raise ConfigError(
            "this world has no expert for the view", expected=" or ".join(denoisers), got=repr(view)
        )
    return denoisers[view]
