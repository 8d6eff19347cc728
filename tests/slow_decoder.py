"""A fake world that decodes slowly, and can do so while its next step runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from fake_world import FRAMES_PER_LATENT, FakeSession, FakeWorld

from worldwire.api import Frame
from worldwire.errors import StateError
from worldwire.inputs import Inputs, per_frame


@dataclass
class SlowDecoderWorld(FakeWorld):
    """decode_s: how long the frames of one step take. broken_at: the frame whose decoding fails.

    broken_step: the step that fails, in its first half, or in its second if `breaks_late`; no frame of the
    step before is decoded until it has.
    log: what happened, in order: ("begin", step), ("show", step), ("decoded", frame), ("save", frame), ...
    """

    decode_s: float = 0.0
    broken_at: int | None = None
    broken_step: int | None = None
    breaks_late: bool = False
    has_failed: threading.Event = field(default_factory=threading.Event)
    steps_ahead_until: int = 0
    """Of the steps before this one no frame is decoded until the next step has begun."""
    has_begun: threading.Condition = field(default_factory=threading.Condition)
    overlaps: bool = True
    log: list[tuple[str, int]] = field(default_factory=list)

    def session(self, plan: str | None = None) -> SlowDecoderSession:
        self.open_sessions += 1
        return SlowDecoderSession(self, plan or "low-latency")


class Begun(NamedTuple):
    c2w: np.ndarray
    frames: Iterator[Frame]


class SlowDecoderSession(FakeSession):
    """No call but `begin`, `finish` and `close` is taken while frames are still to be decoded."""

    world: SlowDecoderWorld

    def __init__(self, world, plan):
        super().__init__(world, plan)
        self._steps = self._unshown = 0
        self._half = False

    @property
    def overlaps(self) -> bool:
        return self.world.overlaps

    def begin(self, inputs) -> Begun:
        assert not self._half
        listed = per_frame(inputs, self.frames_per_step)
        self._steps += 1
        with self.world.has_begun:
            self.world.log.append(("begin", self._steps))
            self.world.has_begun.notify_all()
        time.sleep(self.world.step_s)
        self._break(late=False)
        self._half, self._unshown = True, self._unshown + 1
        frames = [self._advance(item, 0.0) for item in listed]
        return Begun(np.stack([frame.c2w for frame in frames]), self._decoded(frames, self._steps))

    def finish(self) -> None:
        assert self._half
        self._break(late=True)
        self._half = False

    def _break(self, late: bool) -> None:
        if self._steps == self.world.broken_step and late == self.world.breaks_late:
            self.world.has_failed.set()
            raise RuntimeError("the fake denoiser broke, as it was told to")

    def _wait_before_decoding(self, step: int) -> None:
        world = self.world
        if step + 1 == world.broken_step:
            assert world.has_failed.wait(30)
        if step < world.steps_ahead_until:
            with world.has_begun:
                assert world.has_begun.wait_for(lambda: ("begin", step + 1) in world.log, 30)

    def _decoded(self, frames: list[Frame], step: int) -> Iterator[Frame]:
        self.world.log.append(("show", step))
        self._wait_before_decoding(step)
        for place, frame in enumerate(frames):
            if place % FRAMES_PER_LATENT == 0:
                time.sleep(self.world.decode_s * FRAMES_PER_LATENT / len(frames))
            if frame.index == self.world.broken_at:
                raise RuntimeError("the fake decoder broke, as it was told to")
            if frame is frames[-1]:
                self._unshown -= 1
            self.world.log.append(("decoded", frame.index))
            yield frame

    def _drained(self, what: str) -> None:
        if self._unshown or self._half:
            raise StateError(f"{what} while frames are still to be decoded")
        self.world.log.append((what, self._index))

    def reset(self, *args, **options) -> Frame:
        self._drained("reset")
        return super().reset(*args, **options)

    def stream(self, inputs: list[Inputs]) -> Iterator[Frame]:
        self._drained("stream")
        return super().stream(inputs)

    def set_prompt(self, prompt: str) -> None:
        self._drained("prompt")
        super().set_prompt(prompt)

    def save(self) -> bytes:
        self._drained("save")
        return super().save()

    def restore(self, state: bytes) -> None:
        self._drained("restore")
        super().restore(state)

    def branch(self) -> SlowDecoderSession:
        self._drained("branch")
        self.world.open_sessions += 1
        other = SlowDecoderSession(self.world, "low-latency")
        other.restore(super().save())
        return other

    def close(self) -> None:
        self.world.log.append(("close with steps to show", self._unshown))
        super().close()
