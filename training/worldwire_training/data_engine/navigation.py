"""Where one can walk: free places, and straight ways between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from worldwire_training.data_engine.solids import Solids

Array = NDArray[np.float64]
FREE_MARGIN_M = 0.6


def free_points(
    solids: Solids, rng: np.random.Generator, count: int, reach_m: float, margin_m: float = FREE_MARGIN_M
) -> Array:
    """Up to `count` random places [n, 2] in a disc that keep the margin to every footprint."""
    radius, azimuth = reach_m * np.sqrt(rng.random(count * 6)), rng.uniform(0, 2 * np.pi, count * 6)
    points = np.stack([radius * np.sin(azimuth), radius * np.cos(azimuth)], axis=-1)
    return np.asarray(points[solids.clearance_m(points) > margin_m][:count])
