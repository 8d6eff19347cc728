"""Where scripted walks can start: open places, with something to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from worldwire_training.data_engine.solids import Solids
from worldwire_training.evaluation.stages import Offset

Array = NDArray[np.float64]

SEED_STREAM = 0x0BE4
CANDIDATES = 300
LOOKS_PER_PLACE = 6
SPREAD_M = 2.0
MARGIN_M = 0.35
INWARD_DEG = 75.0
"""Looks keep within this of the middle of the scene, where there is something to see."""


def find_open_place(
    solids: Solids, starts: Array, reach: Sequence[Offset], seed: int
) -> tuple[float, float, float] | None:
    """x, z (metres) and yaw (degrees) from which the straight ways to all offsets are free, or None.

    starts: [n, 2] places (x, z) where players may begin; places about them are tried as well, as long as one
    can walk there. The same seed gives the same place.
    """
    rng = np.random.default_rng((SEED_STREAM, seed))
    middle = starts.mean(axis=0)
    for place in _places(solids, starts, rng):
        inward_deg = np.degrees(np.arctan2(*(middle - place)))
        for yaw_deg in inward_deg + rng.uniform(-INWARD_DEG, INWARD_DEG, LOOKS_PER_PLACE):
            if all(solids.free_line(place, place + _turned(offset, yaw_deg), MARGIN_M) for offset in reach):
                return float(place[0]), float(place[1]), float(yaw_deg)
    return None


def _places(solids: Solids, starts: Array, rng: np.random.Generator) -> Iterator[Array]:
    """The starts themselves first, then places farther and farther from them."""
    for spread_m in np.linspace(0, SPREAD_M, CANDIDATES):
        start = starts[rng.integers(len(starts))]
        place = start + rng.normal(0, 1, 2) * spread_m
        if solids.free_line(start, place, MARGIN_M):
            yield place


def _turned(offset: Offset, yaw_deg: float) -> Array:
    """An offset (right, ahead) of a player who looks along `yaw_deg`, as (x, z)."""
    right, ahead = offset
    cos, sin = np.cos(np.radians(yaw_deg)), np.sin(np.radians(yaw_deg))
    return np.array([right * cos + ahead * sin, ahead * cos - right * sin])
