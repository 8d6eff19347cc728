"""A world without a network, for tests of everything around it: a colour gradient that moves with the camera.

Run as a program it serves such a world: python tests/fake_world.py --address tcp://127.0.0.1:0 --ready-file F
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from worldwire.api import Frame, WorldInfo
from worldwire.errors import ConfigError, ImageError, StateError
from worldwire.inputs import Inputs, per_frame
from worldwire.motion import MotionModel, PlayerPose

FRAMES_PER_LATENT = 4
CLIP_PLANS = {
    "low-latency": {"first": 3, "past": 4, "new": 2, "memory": 5},
    "paper": {"first": 15, "past": 4, "new": 10, "memory": 5},
}
SEED_IMAGES = ("red", "blue")


@dataclass
class FakeWorld:
    """step_s: how long a step takes. height, width: pixels. fail_at: the frame at which a session breaks.

    plan: of sessions that name none.
    """

    height: int = 32
    width: int = 48
    step_s: float = 0.0
    fail_at: int | None = None
    open_sessions: int = 0
    plan: str = "low-latency"

    @property
    def info(self) -> WorldInfo:
        chosen = CLIP_PLANS[self.plan]
        return WorldInfo(
            name="fake",
            height=self.height,
            width=self.width,
            frames_per_second=16.0,
            frames_per_step=chosen["new"] * FRAMES_PER_LATENT,
            horizontal_fov_deg=80.0,
            trained_keys=("forward", "back", "left", "right"),
            views=("first", "third"),
            seed_images=SEED_IMAGES,
            extra={
                "clip_plan": chosen,
                "attention": "cached",
                "precision": "float32",
                "vae_pruning": 0.0,
                "steps": 1,
                "device": "cpu",
            },
        )

    def session(self, plan: str | None = None) -> FakeSession:
        if plan not in (None, *CLIP_PLANS):
            raise ConfigError("unknown clip plan", expected=" or ".join(CLIP_PLANS), got=repr(plan))
        self.open_sessions += 1
        return FakeSession(self, plan or self.plan)


class FakeSession:
    """Deterministic; `save` is JSON. `played` records the inputs of every frame."""

    def __init__(self, world: FakeWorld, plan: str):
        self.world, self.plan = world, CLIP_PLANS[plan]
        self.played: list[Inputs] = []
        self._index = -1
        self._hue = 0
        self._player = PlayerPose()
        self._motion = MotionModel()
        self._closed = False

    @property
    def frames_per_step(self) -> int:
        return (self.plan["first"] - 1 if self._index <= 0 else self.plan["new"]) * FRAMES_PER_LATENT

    def reset(self, prompt=None, image=None, seed=0, view=None) -> Frame:
        if isinstance(image, np.ndarray) and image.shape != (self.world.height, self.world.width, 3):
            raise ImageError("a seed image has the wrong size", got=str(image.shape))
        if view not in (None, "first", "third"):
            raise ConfigError("unknown view", expected="first or third", got=view)
        if isinstance(image, str) and image not in SEED_IMAGES:
            raise ConfigError("unknown seed image", expected="red or blue", got=image)
        self._hue = int(image.mean()) if isinstance(image, np.ndarray) else seed % 256
        self._index, self._player = 0, PlayerPose()
        return self._frame()

    def set_prompt(self, prompt: str) -> None:
        if self._index < 0:
            raise StateError("the session has not started", remedy="call reset() first")
        self.prompt = prompt

    def step(self, inputs) -> list[Frame]:
        return list(self.stream(inputs))

    def stream(self, inputs) -> Iterator[Frame]:
        if self._index < 0:
            raise StateError("the session has not started", remedy="call reset() first")
        listed = per_frame(inputs, self.frames_per_step)
        for first in range(0, len(listed), FRAMES_PER_LATENT):
            latent_s = self.world.step_s * FRAMES_PER_LATENT / len(listed)
            time.sleep(latent_s)
            for item in listed[first : first + FRAMES_PER_LATENT]:
                yield self._advance(item, latent_s)

    def _advance(self, item: Inputs, latent_s: float) -> Frame:
        self.played.append(item)
        self._index += 1
        if self._index == self.world.fail_at:
            raise RuntimeError("the fake world broke, as it was told to")
        moved = self._motion.advance(self._player, item)
        self._player = moved if item.c2w is None else self._motion.player(item.c2w, "first")
        last = self._index % FRAMES_PER_LATENT == 0
        return self._frame({"denoise": latent_s * 1000} if last else {})

    def _frame(self, timings_ms: dict[str, float] | None = None) -> Frame:
        rows = np.arange(self.world.height)[:, None] + 8 * self._player.z_m
        columns = np.arange(self.world.width)[None, :] + self._player.yaw_deg
        channels = np.broadcast_arrays(rows, columns, float(self._hue + self._index))
        pixels = (np.stack(channels, axis=-1) % 256).astype(np.uint8)
        return Frame(self._index, pixels, self._player.c2w, 0, (0,), timings_ms or {})

    def save(self) -> bytes:
        state = {"index": self._index, "hue": self._hue, "player": asdict(self._player)}
        return json.dumps(state).encode()

    def restore(self, state: bytes) -> None:
        try:
            facts = json.loads(state)
            self._index, self._hue = facts["index"], facts["hue"]
            self._player = PlayerPose(**facts["player"])
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"a saved state cannot be read: {error}") from error

    def branch(self) -> FakeSession:
        self.world.open_sessions += 1
        other = FakeSession(self.world, "low-latency")
        other.plan = self.plan
        other.restore(self.save())
        return other

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.world.open_sessions -= 1


def main() -> int:
    from worldwire_runtime.commands.serve import serve_until_stopped
    from worldwire_runtime.server import Server

    parser = argparse.ArgumentParser()
    parser.add_argument("--address", default="tcp://127.0.0.1:0")
    parser.add_argument("--ready-file", type=Path, required=True)
    parser.add_argument("--step-s", type=float, default=0.01)
    args = parser.parse_args()
    world = FakeWorld(step_s=args.step_s)
    serve_until_stopped(Server(lambda: world, args.address), args.ready_file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
