"""Held-out scenes as the metrics see them: places to start, walks, and their rendered truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldwire import Inputs, MotionModel, PlayerPose
from worldwire_training.evaluation.walks import Walk

FIRST_HELD_OUT_SEED = 1_000_000
CLASSES = (("village", "day"), ("village", "dusk"), ("rooms", "day"), ("rooms", "dusk"))

Offset = tuple[float, float]
"""Metres to the right of and ahead of a player."""


class Stage(Protocol):
    """One scene with a renderer at hand."""

    seed: int
    kind: str
    time_of_day: str

    def prompt(self, view: str) -> str:
        """The sentence that says what is there."""
        ...

    def wander(self, frames: int, view: str) -> Walk:
        """What the data engine's policy does in `frames` frames, collisions and all."""
        ...

    def start(self, reach: Sequence[Offset] = ()) -> PlayerPose | None:
        """A place and level look from which straight ways to all offsets are free, if there is one."""
        ...

    def walk(self, start: PlayerPose, inputs: Sequence[Inputs], view: str) -> Walk:
        """Scripted inputs from a start, without obstacles."""
        ...

    def render(self, walk: Walk, frames: Sequence[int]) -> NDArray[np.uint8]:
        """The truth at these frames of a walk, [n, height, width, 3]."""
        ...

    def shared(self, walk: Walk, frame: int) -> NDArray[np.bool_]:
        """Which pixels of the truth at a frame show what the walk's first picture shows, [height, width]."""
        ...


class Studio(Protocol):
    """Where stages come from."""

    motion: MotionModel

    def stage(self, seed: int, kind: str | None = None, time_of_day: str | None = None) -> Stage:
        """The scene of a seed; its kind and time of day are drawn from the seed if None."""
        ...
