"""How keys and look move a player: the one integrator of the data engine and of every session.

Collisions are the data engine's; a session that is steered by keys alone dead-reckons with this model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worldwire.camera import invert, make_c2w, rotation_from_yaw_pitch, yaw_pitch_from_rotation
from worldwire.errors import ConfigError
from worldwire.inputs import Inputs

VIEWS = ("first", "third")


@dataclass(frozen=True)
class PlayerPose:
    """Where a player's eyes are (metres, y down) and where they look (degrees)."""

    x_m: float = 0.0
    y_m: float = 0.0
    z_m: float = 0.0
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0

    @property
    def c2w(self) -> NDArray[np.float64]:
        """Camera-to-world of the eyes, [4, 4]."""
        return make_c2w(rotation_from_yaw_pitch(self.yaw_deg, self.pitch_deg), (self.x_m, self.y_m, self.z_m))


@dataclass(frozen=True)
class MotionModel:
    """Walking at a constant speed in the plane, turning by the look.

    walking_speed_m_per_s: speed while any direction is held; diagonals are not faster.
    pitch_limit_deg: looking up and down stops here, as a neck does; the pose of a frame reports it.
    boom_m: where a third-person camera hangs, in the axes of the player's view (x right, y down, z forward).
    """

    frames_per_second: float = 16.0
    walking_speed_m_per_s: float = 2.0
    pitch_limit_deg: float = 30.0
    boom_m: tuple[float, float, float] = (0.0, -0.4, -2.6)

    def turn(self, pose: PlayerPose, inputs: Inputs) -> PlayerPose:
        """The pose after the look of one frame; yaw stays within ±180."""
        yaw_deg = (pose.yaw_deg + inputs.yaw_deg + 180) % 360 - 180
        limit = self.pitch_limit_deg
        pitch_deg = min(max(pose.pitch_deg + inputs.pitch_deg, -limit), limit)
        return replace(pose, yaw_deg=yaw_deg, pitch_deg=pitch_deg)

    def displacement_m(self, pose: PlayerPose, inputs: Inputs) -> tuple[float, float]:
        """The (x, z) step that the held keys ask for from `pose`, along the mean of old and new yaw."""
        ahead = ("forward" in inputs.keys) - ("back" in inputs.keys)
        aside = ("right" in inputs.keys) - ("left" in inputs.keys)
        if not (ahead or aside):
            return 0.0, 0.0
        scale = self.walking_speed_m_per_s / self.frames_per_second / math.hypot(ahead, aside)
        yaw = math.radians(pose.yaw_deg + inputs.yaw_deg / 2)
        return (
            scale * (math.sin(yaw) * ahead + math.cos(yaw) * aside),
            scale * (math.cos(yaw) * ahead - math.sin(yaw) * aside),
        )

    def advance(self, pose: PlayerPose, inputs: Inputs) -> PlayerPose:
        """The player's pose one frame later, without obstacles; a pose in `inputs` is not looked at."""
        dx, dz = self.displacement_m(pose, inputs)
        return replace(self.turn(pose, inputs), x_m=pose.x_m + dx, z_m=pose.z_m + dz)

    def camera(self, pose: PlayerPose, view: str) -> NDArray[np.float64]:
        """Camera-to-world [4, 4] of a player seen in the `view` 'first' or 'third'."""
        return pose.c2w @ self._boom(view)

    def player(self, c2w: NDArray[np.float64], view: str) -> PlayerPose:
        """The player whose camera is `c2w` (its roll is dropped: keys cannot roll a head)."""
        eyes = c2w @ invert(self._boom(view))
        yaw_deg, pitch_deg = yaw_pitch_from_rotation(eyes[:3, :3])
        x, y, z = (float(value) for value in eyes[:3, 3])
        return PlayerPose(x, y, z, yaw_deg, pitch_deg)

    def _boom(self, view: str) -> NDArray[np.float64]:
        if view not in VIEWS:
            raise ConfigError("unknown view", expected=" or ".join(VIEWS), got=repr(view))
        return make_c2w(np.eye(3), self.boom_m if view == "third" else (0.0, 0.0, 0.0))
