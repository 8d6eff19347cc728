"""Stages made by the data engine: its scenes, its renderer, its policies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from worldwire import Inputs, Intrinsics, MotionModel, PlayerPose
from worldwire.inputs import KEYS
from worldwire_training.data_engine.avatar import avatar_track
from worldwire_training.data_engine.episode import cameras, plan_walk
from worldwire_training.data_engine.player import track_rows
from worldwire_training.data_engine.prompts import third_person
from worldwire_training.data_engine.renderer import Renderer
from worldwire_training.data_engine.scene import EYE_HEIGHT_M, Scene, build_scene
from worldwire_training.evaluation.pixels import seen_before
from worldwire_training.evaluation.places import find_open_place
from worldwire_training.evaluation.stages import Offset
from worldwire_training.evaluation.walks import Walk, integrate

KEPT_SCENES = 4
WANDER_STREAM = 0xE7A1


class SceneStage:
    """Implements `stages.Stage`. Players are [F, 5]: x, y, z (metres), yaw, pitch (degrees)."""

    def __init__(self, scene: Scene, renderer: Renderer, motion: MotionModel):
        self.seed, self.kind, self.time_of_day = scene.seed, scene.kind, scene.time_of_day
        self._scene, self._renderer, self._motion = scene, renderer, motion

    def prompt(self, view: str) -> str:
        """The scene's sentence; in third person it names the walker."""
        prompt = self._scene.prompt
        return third_person(prompt, self._scene.coat[0]) if view == "third" else prompt

    def wander(self, frames: int, view: str) -> Walk:
        """A walk of the data engine's policies, drawn from the scene's seed."""
        rng = np.random.default_rng((WANDER_STREAM, self.seed))
        walked = plan_walk(self._scene, rng, frames, view)
        inputs = tuple(
            Inputs(
                frozenset(key for key, held in zip(KEYS, keys, strict=True) if held), float(yaw), float(pitch)
            )
            for keys, (yaw, pitch) in zip(walked.keys, walked.look_deg, strict=True)
        )
        return Walk(view, inputs, cameras(walked.player, view, self._motion), walked.player)

    def start(self, reach: Sequence[Offset] = ()) -> PlayerPose | None:
        """An open place at eye height, if there is one."""
        scene = self._scene
        place = find_open_place(scene.solids, scene.meeting_points[scene.starts], reach, scene.seed)
        return None if place is None else PlayerPose(place[0], -EYE_HEIGHT_M, *place[1:])

    def walk(self, start: PlayerPose, inputs: Sequence[Inputs], view: str) -> Walk:
        """Scripted inputs from a start, without obstacles."""
        players = track_rows(integrate(self._motion, start, inputs))
        return Walk(view, tuple(inputs), cameras(players, view, self._motion), players)

    def render(self, walk: Walk, frames: Sequence[int]) -> NDArray[np.uint8]:
        """The truth at these frames; the walker's limbs swing with the way walked so far."""
        chosen = list(frames)
        avatar = avatar_track(walk.players)[chosen] if walk.view == "third" else None
        return self._renderer.render(self._scene, walk.c2w[chosen], avatar)

    def shared(self, walk: Walk, frame: int) -> NDArray[np.bool_]:
        """Pixels of the truth at a frame that show what the first picture shows, walkers left out."""
        cameras_of_both = walk.c2w[[0, frame]]
        depths = self._renderer.depths_m(self._scene, cameras_of_both)
        return seen_before(self._renderer.intrinsics, cameras_of_both, depths)


class DataEngineStudio:
    """Implements `stages.Studio` with one renderer; the last few scenes are kept."""

    def __init__(self, intrinsics: Intrinsics, motion: MotionModel):
        self.motion = motion
        self._renderer = Renderer(intrinsics.height, intrinsics.width, intrinsics=intrinsics)
        self.stage = lru_cache(maxsize=KEPT_SCENES)(self._build)

    def _build(self, seed: int, kind: str | None = None, time_of_day: str | None = None) -> SceneStage:
        return SceneStage(build_scene(seed, kind, time_of_day), self._renderer, self.motion)
