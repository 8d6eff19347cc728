"""A scene: everything that a renderer, a policy and a prompt need, made from one seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import ConfigError
from worldwire_training.data_engine.atmosphere import Atmosphere, Colour
from worldwire_training.data_engine.solids import Solids

KINDS = ("village", "rooms")
TIMES_OF_DAY = ("day", "dusk")
EYE_HEIGHT_M = 1.6
MAX_LAMPS = 16
SEED_STREAM = 0x5CE7E


@dataclass(frozen=True)
class Ground:
    """The painted ground; see `ground.GroundPaint`."""

    half_extent_m: float
    base: Colour
    second: Colour
    decals: NDArray[Any]
    lights: NDArray[Any]
    sun_reach_m: float


@dataclass(frozen=True)
class Scene:
    """One world, before any graphics card has seen it.

    vertices: triangles as `mesh.VERTEX`. lamps: [16, 8] x, y, z, reach, linear rgb, 0; row 0 is dark.
    coat, hat: the avatar's colours. meeting_points: [n, 2] free places (x, z) that policies walk between;
    starts: those (indices) where an episode may begin. crowns: [n, 3] x, z, radius of leaves over one's head,
    which stop a third-person camera but no player.
    """

    seed: int
    kind: str
    time_of_day: str
    prompt: str
    vertices: NDArray[Any]
    atmosphere: Atmosphere
    ground: Ground
    lamps: NDArray[np.float32]
    solids: Solids
    coat: tuple[str, Colour]
    hat: Colour
    meeting_points: NDArray[np.float64]
    starts: NDArray[np.intp]
    crowns: NDArray[np.float64]


def build_scene(seed: int, kind: str | None = None, time_of_day: str | None = None) -> Scene:
    """The scene of a seed. kind ('village' or 'rooms') and time_of_day ('day' or 'dusk') are drawn if None.

    Raises ConfigError for another kind or time.
    """
    from worldwire_training.data_engine.rooms import build_rooms  # both import this module
    from worldwire_training.data_engine.village import build_village

    rng = np.random.default_rng((SEED_STREAM, seed))
    drawn_kind, drawn_time = KINDS[int(rng.random() < 0.5)], TIMES_OF_DAY[int(rng.random() < 0.5)]
    kind, time_of_day = kind or drawn_kind, time_of_day or drawn_time
    _check("kind", kind, KINDS)
    _check("time_of_day", time_of_day, TIMES_OF_DAY)
    build = build_village if kind == "village" else build_rooms
    return build(seed, rng, time_of_day)


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"unknown {name}", expected=" or ".join(allowed), got=repr(value))
