"""How the inputs of a live session are spread over the frames of its next step. Pure: no sockets, no tensors.

* Keys: what is held stays held; each press and release of a key takes effect in a frame of its own, in order,
  so that a tap between two steps still shows for one frame. What a step has no frame for waits for the next.
* Look: what has gathered since the last step is spread evenly over the frames of the next.
* Pose: the camera goes evenly from where it is to the newest pose, and stays there until an input without a
  pose comes.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyquaternion import Quaternion

from worldwire.camera import from_quaternion, to_quaternion
from worldwire.errors import BusyError, ProtocolError
from worldwire.inputs import KEYS, MAX_LOOK_DEG, Inputs
from worldwire.protocol import Input

MAX_WAITING_EDGES: Final = 256
"""Presses and releases of one key that may wait for frames."""

Pose = NDArray[np.float64]


class Edge(NamedTuple):
    """A key goes down or up. `before` is the newest input that came before the one with this edge."""

    held: bool
    before: int


class Planned(NamedTuple):
    """The inputs of one frame, and the newest input that it shows in full."""

    inputs: Inputs
    ack: int


class LiveInputs:
    """What a player did and no frame has shown yet."""

    def __init__(self) -> None:
        self._held = dict.fromkeys(KEYS, False)
        self._edges: dict[str, deque[Edge]] = {key: deque() for key in KEYS}
        self._newest_held: frozenset[str] = frozenset()
        self._look_deg = np.zeros(2)
        self._pose: Pose | None = None
        self._newest = 0

    @property
    def newest(self) -> int:
        """The sequence number of the newest input, 0 before the first."""
        return self._newest

    def add(self, message: Input) -> None:
        """Takes note of an input.

        Raises InputError for bad values, ProtocolError for a sequence number that is not new, BusyError for
        keys that toggle faster than frames can show. After an error nothing of the message counts.
        """
        inputs = message.inputs()
        if message.seq <= self._newest:
            raise ProtocolError(
                "an input is late or came twice", expected=f"seq above {self._newest}", got=str(message.seq)
            )
        changed = inputs.keys ^ self._newest_held
        if any(len(self._edges[key]) >= MAX_WAITING_EDGES for key in changed):
            raise BusyError(
                "keys toggle faster than frames can show",
                expected=f"at most {MAX_WAITING_EDGES} presses and releases waiting",
                remedy="send inputs at the rate of a player",
            )
        for key in changed:
            self._edges[key].append(Edge(key in inputs.keys, self._newest))
        self._newest_held, self._newest = inputs.keys, message.seq
        self._look_deg += (inputs.yaw_deg, inputs.pitch_deg)
        self._pose = inputs.c2w

    def take(self, frames: int, camera: Pose | None) -> list[Planned]:
        """The next `frames` frames. camera: the pose of the newest frame [4, 4], None if it is not known."""
        most = MAX_LOOK_DEG * frames
        look_deg = np.clip(self._look_deg, -most, most)  # the rest turns in the step after
        self._look_deg = self._look_deg - look_deg
        yaw_deg, pitch_deg = (look_deg / frames).tolist()
        poses: list[Pose] | list[None] = [None] * frames
        if self._pose is not None:
            poses = between(self._pose if camera is None else camera, self._pose, frames)
        return [Planned(Inputs(self._next_keys(), yaw_deg, pitch_deg, pose), self._shown()) for pose in poses]

    def forget(self) -> None:
        """A reset: what waits is dropped; what is held stays held, for hands do not reset."""
        for key, edges in self._edges.items():
            edges.clear()
            self._held[key] = key in self._newest_held
        self._look_deg, self._pose = np.zeros(2), None

    def _next_keys(self) -> frozenset[str]:
        for key, edges in self._edges.items():
            if edges:
                self._held[key] = edges.popleft().held
        return frozenset(key for key, held in self._held.items() if held)

    def _shown(self) -> int:
        """The newest input of which no edge waits any more."""
        return min((edges[0].before for edges in self._edges.values() if edges), default=self._newest)


def between(start: Pose, end: Pose, steps: int) -> list[Pose]:
    """`steps` poses that go evenly from `start` (left out) to `end` (the last one)."""
    (from_m, from_xyzw), (to_m, to_xyzw) = to_quaternion(start), to_quaternion(end)
    turn_from, turn_to = _quaternion(from_xyzw), _quaternion(to_xyzw)
    path: list[Pose] = []
    for step in range(1, steps):
        part = step / steps
        w, x, y, z = Quaternion.slerp(turn_from, turn_to, part).elements
        path.append(
            from_quaternion((np.array(from_m) * (1 - part) + np.array(to_m) * part).tolist(), (x, y, z, w))
        )
    return [*path, end]


def _quaternion(xyzw: list[float]) -> Any:
    x, y, z, w = xyzw
    return Quaternion(w, x, y, z)
