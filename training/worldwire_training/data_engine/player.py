"""A player in a scene: the project's one motion model, stopped by what is solid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from worldwire.inputs import Inputs
from worldwire.motion import MotionModel, PlayerPose
from worldwire_training.data_engine.scene import EYE_HEIGHT_M, Scene
from worldwire_training.data_engine.solids import PLAYER_RADIUS_M

Array = NDArray[np.float64]
TOUCH_M = 1e-4
STILL_M, STILL_DEG = 1e-4, 1e-3


class Player:
    """Walks by inputs; slides along solids, and stands still where there is no way."""

    def __init__(
        self, scene: Scene, x_m: float, z_m: float, yaw_deg: float, motion: MotionModel | None = None
    ):
        self.scene = scene
        self.motion = motion or MotionModel()
        self.pose = PlayerPose(x_m, -EYE_HEIGHT_M, z_m, yaw_deg)
        self.bumps = 0

    def step(self, inputs: Inputs) -> PlayerPose:
        """The pose one frame later."""
        wanted = self.motion.advance(self.pose, inputs)
        x, z = self.scene.solids.slide(wanted.x_m, wanted.z_m)
        if abs(x - wanted.x_m) + abs(z - wanted.z_m) > TOUCH_M:
            self.bumps += 1
            if self.scene.solids.clearance_m(np.array([x, z])) < PLAYER_RADIUS_M - TOUCH_M:
                x, z = self.pose.x_m, self.pose.z_m
            wanted = replace(wanted, x_m=x, z_m=z)
        self.pose = wanted
        return wanted

    def place(self) -> Array:
        """(x, z) in metres."""
        return np.array([self.pose.x_m, self.pose.z_m])

    def ahead(self, distance_m: float, aside_deg: float = 0.0) -> Array:
        """The place (x, z) at a distance along the view, or turned aside from it (+ right)."""
        yaw = np.radians(self.pose.yaw_deg + aside_deg)
        return self.place() + distance_m * np.array([np.sin(yaw), np.cos(yaw)])


def track_rows(poses: list[PlayerPose]) -> Array:
    """[F, 5] x, y, z (m), yaw, pitch (degrees)."""
    return np.array([(p.x_m, p.y_m, p.z_m, p.yaw_deg, p.pitch_deg) for p in poses], dtype=np.float64)


def moving_share(track: Array) -> float:
    """Share of the frames (after the first) in which the pose changes."""
    change = np.abs(np.diff(track, axis=0))
    change[:, 3] = np.minimum(change[:, 3], 360 - change[:, 3])
    return float(((change[:, :3].max(axis=1) > STILL_M) | (change[:, 3:].max(axis=1) > STILL_DEG)).mean())
