"""The ground as painted layers: a base, decals on it, soft shade under things, pools of lamp light.

The renderer paints them once per scene into a mipmapped texture, sun shadows included: near detail stays
soft, far detail cannot shimmer, and a ground pixel costs one texture read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire_training.data_engine.atmosphere import Colour

DECAL = np.dtype([("place", "<f4", 4), ("shape", "<f4", 4), ("colour", "<f4", 4), ("accent", "<f4", 4)])
"""place: x, z, half width, half depth (m). shape: yaw (rad), corner radius, edge softness, edge wobble (m).
colour: sRGB and opacity. accent: a second sRGB colour and the pattern."""

DECAL_FORMAT = "4f4 4f4 4f4 4f4/i"


class Pattern(IntEnum):
    """What a decal is filled with; the accent colour is the second one."""

    PLAIN = 0
    PLANKS = 1
    TILES = 2
    COBBLES = 3
    RUG = 4
    FLOWERS = 5


@dataclass
class GroundPaint:
    """Gathers the layers of one ground.

    half_extent_m: the painted square reaches this far from the origin. base, second: colours the bare ground
    drifts between.
    """

    half_extent_m: float
    base: Colour
    second: Colour
    decals: list[tuple[Any, ...]] = field(default_factory=list)
    lights: list[tuple[Any, ...]] = field(default_factory=list)

    def patch(
        self,
        x: float,
        z: float,
        half: tuple[float, float],
        colour: Colour,
        *,
        yaw_deg: float = 0.0,
        corner: float = 0.0,
        soft: float = 0.03,
        wobble: float = 0.0,
        opacity: float = 1.0,
        pattern: Pattern = Pattern.PLAIN,
        accent: Colour = (1.0, 1.0, 1.0),
    ) -> None:
        """A rounded rectangle of a colour over what is there."""
        self.decals.append(
            (
                (x, z, *half),
                (math.radians(yaw_deg), corner, soft, wobble),
                (*colour, opacity),
                (*accent, float(pattern)),
            )
        )

    def disc(self, x: float, z: float, radius: float, colour: Colour, **options: Any) -> None:
        """A round patch."""
        self.patch(x, z, (radius, radius), colour, corner=radius, **options)

    def path(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        width: float,
        colour: Colour,
        **options: Any,
    ) -> None:
        """A patch along a line, with round ends."""
        dx, dz = end[0] - start[0], end[1] - start[1]
        half_length = math.hypot(dx, dz) / 2 + width / 2
        self.patch(
            (start[0] + end[0]) / 2,
            (start[1] + end[1]) / 2,
            (width / 2, half_length),
            colour,
            yaw_deg=math.degrees(math.atan2(dx, dz)),
            corner=width / 2,
            **options,
        )

    def shade(
        self,
        x: float,
        z: float,
        half: tuple[float, float],
        *,
        yaw_deg: float = 0.0,
        round_: bool = False,
        strength: float = 0.55,
        soft: float = 0.7,
    ) -> None:
        """Keeps sky light away around the foot of a thing."""
        corner = min(half) if round_ else min(*half, 0.1)
        self.lights.append(
            (
                (x, z, *half),
                (math.radians(yaw_deg), corner, soft, 0.0),
                (0.0, 0.0, 0.0, 1.0 - strength),
                (0.0, 0.0, 0.0, 0.0),
            )
        )

    def pool(self, x: float, z: float, radius: float, light: Colour) -> None:
        """A pool of lamp light (linear gain) that fades out at the radius."""
        self.lights.append(
            ((x, z, 0.01, 0.01), (0.0, 0.01, radius, 0.0), (*light, 1.0), (0.0, 0.0, 0.0, 0.0))
        )

    def packed(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """(decals, lights) as arrays of `DECAL`."""
        return np.array(self.decals, DECAL), np.array(self.lights, DECAL)
