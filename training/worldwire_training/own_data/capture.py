"""Records what a session shows and what the player does, as episodes of the data format.

    with worldwire.connect(address) as client, client.session() as session:
        with capture(session, client.info, Path("data/mine"), prompt="a village by day") as played:
            played.reset(prompt="a village by day")
            played.step(Inputs({"forward"}))           # or played.start(), send_input, poll_frames: live

`played` is the session, with every call passed on. Keys are those that the world acknowledged with a frame;
the look is the turn from pose to pose, so poses that steer are recorded as a look too. An episode ends when
it is `frames` long, at a reset, where frames were dropped, and at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, SessionLike, WorldInfo
from worldwire.camera import Intrinsics, yaw_pitch_from_rotation
from worldwire.inputs import KEYS, Inputs, per_frame
from worldwire_training.data_engine.checks import check_episode
from worldwire_training.data_engine.episode import Episode
from worldwire_training.data_engine.shards import write_shard

log = logging.getLogger(__name__)

EPISODE_FRAMES = 161
SHORTEST_FRAMES = 9
"""Three latents: less than that nothing can be trained on."""
KIND = "capture"

Array = NDArray[np.float64]


@contextmanager
def capture(
    session: SessionLike, info: WorldInfo, out: Path, *, prompt: str, frames: int = EPISODE_FRAMES
) -> Iterator[Captured]:
    """The session, recorded into shards in `out`; what was played is whole there after the block.

    prompt: what is to be seen, where `reset` does not say it. frames: the longest episode, 1 + 4n.
    """
    recorder = Recorder(info, out, prompt, frames)
    try:
        yield Captured(session, recorder)
    finally:
        recorder.finish()


class Captured:
    """A session whose frames and inputs are recorded; everything else is the session's own."""

    def __init__(self, session: Any, recorder: Recorder) -> None:
        self._session, self._recorder = session, recorder
        self._held: dict[int, frozenset[str]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def reset(self, prompt: str | None = None, *args: Any, **named: Any) -> Frame:
        """As the session's; begins an episode."""
        frame: Frame = self._session.reset(prompt, *args, **named)
        self._held.clear()
        self._recorder.begin(frame, prompt, named.get("view"))
        return frame

    def step(self, inputs: Inputs | Sequence[Inputs]) -> list[Frame]:
        """As the session's."""
        listed = per_frame(inputs, self._session.frames_per_step)
        frames: list[Frame] = self._session.step(inputs)
        for frame, item in zip(frames, listed, strict=True):
            self._recorder.add(frame, item.keys)
        return frames

    def stream(self, inputs: Inputs | Sequence[Inputs]) -> Iterator[Frame]:
        """As the session's."""
        listed = per_frame(inputs, self._session.frames_per_step)
        for frame, item in zip(self._session.stream(inputs), listed, strict=True):
            self._recorder.add(frame, item.keys)
            yield frame

    def send_input(self, keys: Sequence[str] = (), *args: Any, **named: Any) -> int:
        """As the session's; the keys count for the frames that acknowledge them."""
        number: int = self._session.send_input(keys, *args, **named)
        self._held[number] = frozenset(keys)
        return number

    def poll_frames(self, *args: Any, **named: Any) -> list[Frame]:
        """As the session's."""
        frames: list[Frame] = self._session.poll_frames(*args, **named)
        for frame in frames:
            self._recorder.add(frame, self._held.get(frame.ack, frozenset()))
            self._held = {number: keys for number, keys in self._held.items() if number >= frame.ack}
        return frames

    def restore(self, state: Any) -> None:
        """As the session's; the picture jumps, so an episode ends."""
        self._recorder.finish()
        self._session.restore(state)


class Recorder:
    """Collects frames into episodes and writes each as a shard of its own."""

    def __init__(self, info: WorldInfo, out: Path, prompt: str, frames: int) -> None:
        self._info, self._out, self._prompt, self._most = info, out, prompt, frames
        self._view = info.views[0]
        self._frames: list[Frame] = []
        self._keys: list[frozenset[str]] = []
        self._stem = time.strftime("capture-%Y%m%d-%H%M%S")
        self.written: list[Path] = []

    def begin(self, frame: Frame, prompt: str | None, view: str | None) -> None:
        """The first frame of a walk."""
        self.finish()
        self._prompt, self._view = prompt or self._prompt, view or self._info.views[0]
        self._start(frame)

    def add(self, frame: Frame, keys: frozenset[str]) -> None:
        """The next frame, and what was held on the way to it."""
        if not self._frames or frame.index != self._frames[-1].index + 1:
            if self._frames:
                log.warning("frames %d to %d were dropped", self._frames[-1].index + 1, frame.index - 1)
            self.finish()
            self._start(frame)
            return
        self._frames.append(frame)
        self._keys.append(keys)
        if len(self._frames) == self._most:
            self.finish()
            self._start(frame)

    def finish(self) -> None:
        """Writes the episode that is under way, cut to whole latents; one too short is dropped."""
        count = (len(self._frames) - 1) // 4 * 4 + 1
        frames, keys = self._frames[:count], self._keys[:count]
        self._frames, self._keys = [], []
        if count < SHORTEST_FRAMES:
            return
        name = f"{self._stem}-{len(self.written):03d}"
        episode = make_episode(frames, keys, self._info, self._prompt, self._view)
        check_episode(name, episode)
        self._out.mkdir(parents=True, exist_ok=True)
        self.written.append(self._out / f"{name}.tar")
        write_shard(self.written[-1], [(name, episode)])
        log.info("wrote %s: %d frames", self.written[-1], count)

    def _start(self, frame: Frame) -> None:
        self._frames, self._keys = [frame], [frozenset()]


def make_episode(
    frames: Sequence[Frame], keys: Sequence[frozenset[str]], info: WorldInfo, prompt: str, view: str
) -> Episode:
    """An episode of consecutive frames and of the keys that led to each."""
    c2w = np.stack([frame.c2w for frame in frames]).astype(np.float64)
    camera = Intrinsics.from_fov(info.height, info.width, info.horizontal_fov_deg)
    return Episode(
        frames=np.stack([frame.pixels for frame in frames]),
        keys=np.array([[name in held for name in KEYS] for held in keys], dtype=np.bool_),
        look_deg=look_between(c2w),
        c2w=c2w,
        player=None,
        intrinsics=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        prompt=prompt,
        view=view,
        kind=KIND,
        time_of_day="unknown",
        frames_per_second=info.frames_per_second,
    )


def look_between(c2w: Array) -> NDArray[np.float32]:
    """The turn [F, 2] (yaw, pitch, degrees) from each camera [F, 4, 4] to the next; zero for the first."""
    angles = np.array([yaw_pitch_from_rotation(one[:3, :3]) for one in c2w])
    turns = np.diff(angles, axis=0, prepend=angles[:1])
    turns[:, 0] = (turns[:, 0] + 180) % 360 - 180
    return turns.astype(np.float32)
