"""Sun, sky, fog and season of a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]
"""sRGB, 0..1."""


@dataclass(frozen=True)
class Atmosphere:
    """Light of a scene. Directions are (x, up, z); colours are sRGB, the three lights are linear gains."""

    to_sun: tuple[float, float, float]
    sun_light: Colour
    sky_light: Colour
    ground_light: Colour
    zenith: Colour
    horizon: Colour
    glow: Colour
    cloud: Colour
    cloud_cover: float
    hills: tuple[Colour, Colour]
    fog_distance_m: float
    phase: float


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return tuple(float(x + (y - x) * share) for x, y in zip(a, b, strict=True))  # type: ignore[return-value]


def _direction(azimuth_deg: float, elevation_deg: float) -> tuple[float, float, float]:
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat = math.cos(elevation)
    return (math.sin(azimuth) * flat, math.sin(elevation), math.cos(azimuth) * flat)


def day(rng: np.random.Generator, hills: Colour) -> Atmosphere:
    """A bright day with a warm sun and soft clouds."""
    zenith = _mix((0.20, 0.45, 0.86), (0.30, 0.58, 0.90), rng.random())
    horizon = _mix((0.74, 0.87, 0.96), (0.90, 0.90, 0.84), rng.random())
    return Atmosphere(
        to_sun=_direction(rng.uniform(0, 360), rng.uniform(32, 55)),
        sun_light=(1.28, 1.14, 0.90),
        sky_light=(0.50, 0.60, 0.76),
        ground_light=(0.34, 0.31, 0.24),
        zenith=zenith,
        horizon=horizon,
        glow=(1.0, 0.95, 0.78),
        cloud=(1.0, 0.99, 0.97),
        cloud_cover=rng.uniform(0.25, 0.6),
        hills=(_mix(hills, horizon, 0.35), _mix(hills, horizon, 0.62)),
        fog_distance_m=rng.uniform(130, 200),
        phase=rng.uniform(0, 100),
    )


def dusk(rng: np.random.Generator, hills: Colour) -> Atmosphere:
    """Just before the sun goes: orange horizon, deep blue zenith, long shadows."""
    horizon = _mix((0.98, 0.58, 0.30), (0.93, 0.50, 0.46), rng.random())
    zenith = _mix((0.10, 0.14, 0.36), (0.18, 0.16, 0.42), rng.random())
    return Atmosphere(
        to_sun=_direction(rng.uniform(0, 360), rng.uniform(9, 14)),
        sun_light=(0.78, 0.40, 0.17),
        sky_light=(0.26, 0.27, 0.46),
        ground_light=(0.20, 0.14, 0.14),
        zenith=zenith,
        horizon=horizon,
        glow=(1.0, 0.72, 0.36),
        cloud=(0.95, 0.52, 0.48),
        cloud_cover=rng.uniform(0.3, 0.6),
        hills=(
            _mix(_mix(hills, (0.16, 0.13, 0.26), 0.7), horizon, 0.10),
            _mix(_mix(hills, (0.22, 0.16, 0.32), 0.8), horizon, 0.35),
        ),
        fog_distance_m=rng.uniform(110, 170),
        phase=rng.uniform(0, 100),
    )


def atmosphere(rng: np.random.Generator, time_of_day: str, hills: Colour) -> Atmosphere:
    """The light of a 'day' or a 'dusk' over far hills of a colour."""
    return day(rng, hills) if time_of_day == "day" else dusk(rng, hills)
