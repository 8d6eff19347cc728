"""Held-out scenes as the metrics see them: places to start, walks, and their rendered truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

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

    def start(self, reach: Sequence[Offset]) -> PlayerPose:
        """A place and a level look from which straight ways to all of these offsets are free."""
        ...

    def walk(self, start: PlayerPose, inputs: Sequence[Inputs], view: str) -> Walk:
        """Scripted inputs from a start, without obstacles."""
        ...

    def render(self, walk: Walk, frames: Sequence[int]) -> NDArray[np.uint8]:
        """The truth at these frames of a walk, [n, height, width, 3]."""
        ...


class Studio(Protocol):
    """Where stages come from."""

    motion: MotionModel

    def stage(self, seed: int, kind: str | None = None, time_of_day: str | None = None) -> Stage:
        """The scene of a seed; its kind and time of day are drawn from the seed if None."""
        ...


class OpenPlaces:
    """Finds starts with free ways around them among random places and looks; the same for the same seed.

    Looks keep within `INWARD_DEG` of the middle of the scene, where there is something to see.
    """

    SEED_STREAM = 0xE7A1
    CANDIDATES = 400
    MARGIN_M = 0.35
    SPREAD_M = 2.0
    INWARD_DEG = 75.0

    def __init__(self, solids: Any, meeting_points: NDArray[np.float64], seed: int):
        self._solids, self._meeting_points, self._seed = solids, meeting_points, seed

    def find(self, reach: Sequence[Offset]) -> tuple[float, float, float]:
        """x, z (metres) and yaw (degrees) of the first candidate with all ways free, or with most."""
        rng = np.random.default_rng((self.SEED_STREAM, self._seed))
        best, most = (0.0, 0.0, 0.0), -1
        middle = self._meeting_points.mean(axis=0)
        for point in self._candidates(rng):
            inward_deg = np.degrees(np.arctan2(*(middle - point)))
            yaw_deg = float(inward_deg + rng.uniform(-self.INWARD_DEG, self.INWARD_DEG))
            free = sum(self._free(point, yaw_deg, offset) for offset in reach)
            if free > most:
                best, most = (float(point[0]), float(point[1]), yaw_deg), free
            if most == len(reach):
                break
        return best

    def _candidates(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """The policy's meeting points first, then places about them; all of them free."""
        centres = self._meeting_points[rng.integers(0, len(self._meeting_points), self.CANDIDATES)]
        spread = rng.normal(0, 1.0, centres.shape) * np.linspace(0, self.SPREAD_M, self.CANDIDATES)[:, None]
        points = centres + spread
        return np.asarray(points[self._solids.clearance_m(points) > self.MARGIN_M])

    def _free(self, point: NDArray[np.float64], yaw_deg: float, offset: Offset) -> bool:
        yaw = np.radians(yaw_deg)
        right, ahead = offset
        step = right * np.array([np.cos(yaw), -np.sin(yaw)]) + ahead * np.array([np.sin(yaw), np.cos(yaw)])
        return bool(self._solids.free_line(point, point + step, self.MARGIN_M))
