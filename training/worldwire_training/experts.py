"""Two experts by noise level (paper 3.5): which trains where, and both as one network.

The high-noise expert lays out a clip: it is trained at noise levels from the boundary up, on data with exact
actions, for each view apart. The low-noise expert finishes it: levels below, on data whose actions are not
told. Each is a run of the base model of its own (`noise.lowest`, `noise.highest`, `data.view`,
`drops.keys`), so they train at the same time on different machines.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from worldwire.errors import ConfigError
from worldwire_runtime.model.sampler import TRAIN_STEPS, Velocity, flow_schedule
from worldwire_training.base_model import BaseModel
from worldwire_training.clip_sampler import ClipBatch


def expert_boundary(steps: int, shift: float, high_steps: int = 1) -> float:
    """The noise level half-way between the last step of the high-noise expert and the first of the other.

    Of a sampler of `steps` steps bent by `shift`, the first `high_steps` belong to the high-noise expert.
    """
    if not 0 < high_steps < steps:
        raise ConfigError(
            "each expert needs a step", expected=f"high_steps from 1 to {steps - 1}", got=str(high_steps)
        )
    levels = flow_schedule(steps, shift).sigmas
    return (levels[high_steps - 1] + levels[high_steps]) / 2


class ExpertPair(nn.Module):
    """Both experts in the place of one `BaseModel`: noise levels from `boundary` up go to `high`."""

    def __init__(self, high: BaseModel, low: BaseModel, boundary: float) -> None:
        super().__init__()
        self.high, self.low, self.boundary = high, low, boundary

    def at(self, sigma: float) -> BaseModel:
        """The expert of a noise level."""
        return self.high if sigma >= self.boundary else self.low

    def forward(self, batch: ClipBatch, context: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
        """As `BaseModel.forward`; all noise levels of a batch are on one side of the boundary."""
        sides = (sigma >= self.boundary).unique()
        if len(sides) != 1:
            raise ConfigError("a batch has noise levels of both experts", expected="levels of one side")
        return self.at(float(sigma[0]))(batch, context, noisy, sigma)

    def velocity(self, batch: ClipBatch, make: Callable[[BaseModel, ClipBatch], Velocity]) -> Velocity:
        """The pair as a function of noisy latents and timestep; an expert is made at its first step."""
        made: dict[int, Velocity] = {}

        def velocity(x: Tensor, timestep: float) -> Tensor:
            expert = self.at(timestep / TRAIN_STEPS)
            if id(expert) not in made:
                made[id(expert)] = make(expert, batch)
            return made[id(expert)](x, timestep)

        return velocity
