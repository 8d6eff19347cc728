"""Worlds without a network: a checkered plane, ray-cast in numpy, so that motion is visible.

`FakeWorld` stands where `worldwire_runtime.World` would: it has `info`, `session()` and `close()`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from worldwire import Frame, Inputs, Intrinsics, MotionModel, PlayerPose, WorldInfo
from worldwire.errors import ConfigError, ImageError, StateError
from worldwire.inputs import KEYS, per_frame

EYE_HEIGHT_M = 1.6
INFO = WorldInfo(
    name="fake",
    height=48,
    width=80,
    frames_per_second=16.0,
    frames_per_step=8,
    horizontal_fov_deg=80.0,
    trained_keys=KEYS[:4],
    views=("first", "third"),
    seed_images=("meadow", "desert", "dusk"),
)
GROUND_RGB = {"meadow": (90, 160, 80), "desert": (200, 170, 110), "dusk": (90, 80, 130)}


class FakeSession:
    """Implements `worldwire.SessionLike`; a step may take `step_seconds` to imitate a slow network."""

    def __init__(self, info: WorldInfo, step_seconds: float = 0.0):
        self.info, self.step_seconds, self.closed = info, step_seconds, False
        self._motion = MotionModel(info.frames_per_second)
        self._state: dict | None = None

    @property
    def frames_per_step(self) -> int:
        return self.info.frames_per_step

    def reset(
        self,
        prompt: str | None = None,
        image: NDArray[np.uint8] | str | None = None,
        seed: int = 0,
        view: str = "first",
    ) -> Frame:
        if view not in self.info.views:
            raise ConfigError("unknown view", expected=" or ".join(self.info.views), got=repr(view))
        name = image if isinstance(image, str) else self.info.seed_images[seed % len(self.info.seed_images)]
        if name not in self.info.seed_images:
            raise ImageError("unknown seed image", expected=", ".join(self.info.seed_images), got=repr(name))
        if isinstance(image, np.ndarray) and image.shape != (self.info.height, self.info.width, 3):
            raise ImageError("a seed image has the wrong size", got=str(image.shape))
        self._state = {"index": 0, "pose": [0.0] * 5, "image": name, "view": view, "prompt": prompt}
        return self._frame()

    def step(self, inputs: Inputs | Sequence[Inputs]) -> list[Frame]:
        return list(self.stream(inputs))

    def stream(self, inputs: Inputs | Sequence[Inputs]) -> Iterator[Frame]:
        """A step that yields each frame as soon as it is there."""
        if self._state is None:
            raise StateError("a step came before a reset", remedy="call reset() first")
        for item in per_frame(inputs, self.frames_per_step):
            time.sleep(self.step_seconds / self.frames_per_step)
            yield self._advance(item)

    def save(self) -> bytes:
        return json.dumps(self._state).encode()

    def restore(self, state: bytes) -> None:
        self._state = json.loads(state)

    def branch(self) -> FakeSession:
        twin = FakeSession(self.info, self.step_seconds)
        twin.restore(self.save())
        return twin

    def close(self) -> None:
        self.closed = True

    def _advance(self, inputs: Inputs) -> Frame:
        assert self._state is not None
        pose = PlayerPose(*self._state["pose"])
        if inputs.c2w is None:
            pose = self._motion.advance(pose, inputs)
        else:
            pose = self._motion.player(inputs.c2w, self._state["view"])
        self._state["pose"] = [pose.x_m, pose.y_m, pose.z_m, pose.yaw_deg, pose.pitch_deg]
        self._state["index"] += 1
        return self._frame()

    def _frame(self) -> Frame:
        assert self._state is not None
        c2w = self._motion.camera(PlayerPose(*self._state["pose"]), self._state["view"])
        pixels = render(self.info, c2w, GROUND_RGB[self._state["image"]])
        latent = (self._state["index"] + 3) // 4
        memory = tuple(range(0, max(latent - 4, 0), 3))[-5:]
        return Frame(self._state["index"], pixels, c2w, memory_latents=memory)


class FakeWorld:
    """Makes `FakeSession`s and remembers them."""

    def __init__(self, step_seconds: float = 0.0, **changes: object):
        self.info = replace(INFO, **changes)  # type: ignore[arg-type]
        self.step_seconds = step_seconds
        self.sessions: list[FakeSession] = []

    def info_for(self, plan: str | None) -> WorldInfo:
        return self.info

    def session(self, plan: str | None = None) -> FakeSession:
        self.sessions.append(FakeSession(self.info, self.step_seconds))
        return self.sessions[-1]

    def close(self) -> None:
        for session in self.sessions:
            session.close()


def render(info: WorldInfo, c2w: NDArray[np.float64], ground_rgb: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The checkered plane and the sky as seen by a camera, uint8 [height, width, 3]."""
    camera = Intrinsics.from_fov(info.height, info.width, info.horizontal_fov_deg)
    v, u = np.mgrid[: info.height, : info.width] + 0.5
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1)
    rays = rays @ c2w[:3, :3].T
    distance = (EYE_HEIGHT_M - c2w[1, 3]) / np.maximum(rays[..., 1], 1e-6)
    x, z = c2w[0, 3] + distance * rays[..., 0], c2w[2, 3] + distance * rays[..., 2]
    checker = (np.floor(x / 2) + np.floor(z / 2)) % 2 * 0.35 + 0.65
    haze = np.exp(-distance / 40)[..., None]
    azimuth = np.arctan2(rays[..., 0], rays[..., 2])
    sky = np.stack([140 + 40 * np.sin(3 * azimuth), 170 + 30 * np.cos(2 * azimuth), 220 + 0 * azimuth], -1)
    ground = np.array(ground_rgb) * checker[..., None] * haze + sky * (1 - haze)
    return np.where((rays[..., 1] > 1e-6)[..., None], ground, sky).astype(np.uint8)
