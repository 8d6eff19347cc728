"""Stages made by the data engine: its scenes, its renderer, its policies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from worldwire import Inputs, Intrinsics, MotionModel, PlayerPose
from worldwire_training.data_engine.avatar import avatar_track
from worldwire_training.data_engine.prompts import third_person
from worldwire_training.data_engine.renderer import Renderer
from worldwire_training.data_engine.scene import EYE_HEIGHT_M, Scene, build_scene
from worldwire_training.evaluation.stages import Offset, OpenPlaces
from worldwire_training.evaluation.walks import Walk, integrate

KEPT_SCENES = 4


class SceneStage:
    """Implements `stages.Stage`. Players are [F, 5]: x, y, z (metres), yaw, pitch (degrees)."""

    def __init__(self, scene: Scene, renderer: Renderer, motion: MotionModel):
        self.seed, self.kind, self.time_of_day = scene.seed, scene.kind, scene.time_of_day
        self._scene, self._renderer, self._motion = scene, renderer, motion
        self._places = OpenPlaces(scene.solids, scene.meeting_points, scene.seed)

    def prompt(self, view: str) -> str:
        """The scene's sentence; in third person it names the walker."""
        return (
            self._scene.prompt if view == "first" else third_person(self._scene.prompt, self._scene.coat[0])
        )

    def start(self, reach: Sequence[Offset]) -> PlayerPose:
        """An open place at eye height."""
        x, z, yaw_deg = self._places.find(reach)
        return PlayerPose(x, -EYE_HEIGHT_M, z, yaw_deg)

    def walk(self, start: PlayerPose, inputs: Sequence[Inputs], view: str) -> Walk:
        """Scripted inputs from a start, without obstacles."""
        poses = integrate(self._motion, start, inputs)
        c2w = np.stack([self._motion.camera(pose, view) for pose in poses])
        players = np.array([(p.x_m, p.y_m, p.z_m, p.yaw_deg, p.pitch_deg) for p in poses])
        return Walk(view, tuple(inputs), c2w, players)

    def render(self, walk: Walk, frames: Sequence[int]) -> NDArray[np.uint8]:
        """The truth at these frames; the walker's limbs swing with the way walked so far."""
        chosen = list(frames)
        avatar = avatar_track(walk.players)[chosen] if walk.view == "third" else None
        return self._renderer.render(self._scene, walk.c2w[chosen], avatar)


class DataEngineStudio:
    """Implements `stages.Studio` with one renderer; the last few scenes are kept."""

    def __init__(self, intrinsics: Intrinsics, motion: MotionModel):
        self.motion = motion
        self._renderer = Renderer(intrinsics.height, intrinsics.width, intrinsics=intrinsics)
        self.stage = lru_cache(maxsize=KEPT_SCENES)(self._build)

    def _build(self, seed: int, kind: str | None = None, time_of_day: str | None = None) -> SceneStage:
        return SceneStage(build_scene(seed, kind, time_of_day), self._renderer, self.motion)
