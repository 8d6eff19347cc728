"""Where one can walk: free places, and straight ways between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldwire_training.data_engine.solids import Solids

Array = NDArray[np.float64]
FREE_MARGIN_M = 0.6
GRID_M = 0.25


def free_points(
    solids: Solids, rng: np.random.Generator, count: int, reach_m: float, margin_m: float = FREE_MARGIN_M
) -> Array:
    """Up to `count` random places [n, 2] in a disc that keep the margin to every footprint."""
    radius, azimuth = reach_m * np.sqrt(rng.random(count * 6)), rng.uniform(0, 2 * np.pi, count * 6)
    points = np.stack([radius * np.sin(azimuth), radius * np.cos(azimuth)], axis=-1)
    return np.asarray(points[solids.clearance_m(points) > margin_m][:count])


def roomiest_points(solids: Solids, x_m: tuple[float, float], z_m: tuple[float, float]) -> Array:
    """Places [n, 2] of a grid in a rectangle that keep `FREE_MARGIN_M`, or else the best one (n >= 1)."""
    x, z = np.meshgrid(np.arange(*x_m, GRID_M), np.arange(*z_m, GRID_M))
    points = np.stack([x.ravel(), z.ravel()], axis=-1)
    room = solids.clearance_m(points)
    return np.asarray(points[room >= min(FREE_MARGIN_M, room.max())])
