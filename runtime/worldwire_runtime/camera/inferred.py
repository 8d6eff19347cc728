"""From where a player went to the keys and look that would have led there: the inverse of the motion model.

A network that was never trained on camera poses alone needs to be told what they mean.
"""

from __future__ import annotations

import math

from worldwire.inputs import MAX_LOOK_DEG, Inputs
from worldwire.motion import MotionModel, PlayerPose

LEAST_STEP = 0.5
"""Below half a step of the motion model no key is held."""
_OCTANT = math.pi / 4
# Keys by octant of the direction, from straight ahead over right to ahead-left.
_KEYS: tuple[frozenset[str], ...] = (
    frozenset({"forward"}),
    frozenset({"forward", "right"}),
    frozenset({"right"}),
    frozenset({"back", "right"}),
    frozenset({"back"}),
    frozenset({"back", "left"}),
    frozenset({"left"}),
    frozenset({"forward", "left"}),
)


def inferred_inputs(before: PlayerPose, after: PlayerPose, motion: MotionModel) -> Inputs:
    """The inputs of one frame that come nearest to leading from one pose to the next.

    Exact for steps that the motion model can make. Directions are rounded to the eight that keys can hold;
    speed and height have no key: a fast step holds the same keys as a walking one.
    """
    yaw_deg = _wrapped(after.yaw_deg - before.yaw_deg)
    ahead_m, aside_m = _local_step_m(before, after, yaw_deg)
    step_m = motion.walking_speed_m_per_s / motion.frames_per_second
    moved = math.hypot(ahead_m, aside_m) >= LEAST_STEP * step_m
    octant = round(math.atan2(aside_m, ahead_m) / _OCTANT) % len(_KEYS)
    pitch_deg = after.pitch_deg - before.pitch_deg
    return Inputs(_KEYS[octant] if moved else frozenset(), yaw_deg, pitch_deg)


def _local_step_m(before: PlayerPose, after: PlayerPose, yaw_deg: float) -> tuple[float, float]:
    """The step ahead and to the right, seen along the mean of old and new yaw as motion models take it."""
    dx, dz = after.x_m - before.x_m, after.z_m - before.z_m
    yaw = math.radians(before.yaw_deg + yaw_deg / 2)
    return math.sin(yaw) * dx + math.cos(yaw) * dz, math.cos(yaw) * dx - math.sin(yaw) * dz


def _wrapped(degrees: float) -> float:
    """The same turn within ±180 degrees."""
    return (degrees + MAX_LOOK_DEG) % (2 * MAX_LOOK_DEG) - MAX_LOOK_DEG
