"""A thread that owns the connection to a world, so that a window never waits for the network.

The window puts requests in and takes events out; both are plain values, and nothing else is shared.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, SessionLike, WorldInfo
from worldwire.errors import ConfigError, ImageError, InputError, StateError, WorldwireError
from worldwire.inputs import Inputs
from worldwire.pacing import Pacer
from worldwire.viewer.images import seed_image
from worldwire.viewer.script import walk

log = logging.getLogger(__name__)

POLL_S: Final = 0.006
JOIN_TIMEOUT_S: Final = 10.0


class LiveSession(SessionLike, Protocol):
    """What a remote session has beyond `SessionLike`: frames keep coming while inputs are sent."""

    def start(self) -> None:
        """Lets the world run."""
        ...

    def pause(self) -> None:
        """Stops it after the step that it is in."""
        ...

    def send_input(
        self,
        keys: frozenset[str],
        yaw_deg: float = 0.0,
        pitch_deg: float = 0.0,
        c2w: NDArray[np.float64] | None = None,
    ) -> int:
        """What is held from now on, and the look since the last call; returns its sequence number."""
        ...

    def poll_frames(self, timeout_s: float, limit: int | None = None) -> list[Frame]:
        """Up to `limit` frames that came; waits up to `timeout_s` for one. What is left slows the world."""
        ...


class Host(Protocol):
    """Where a world is found: a server process of our own, or an address."""

    def open(
        self, report: Callable[[str], None], cancelled: Callable[[], bool]
    ) -> AbstractContextManager[tuple[WorldInfo, LiveSession]]:
        """Connects. Calls `report` with a line for the player while that takes long; stops if `cancelled`."""
        ...


@dataclass(frozen=True)
class Start:
    """How a walk begins. image: a seed image's name or a picture file. view: None is the seed image's own."""

    prompt: str | None = None
    image: str | None = None
    seed: int = 0
    view: str | None = None


@dataclass(frozen=True)
class Hold:
    """Request: the keys that are held from now on and the look since the last request; made at `at_s`."""

    keys: frozenset[str]
    yaw_deg: float
    pitch_deg: float
    at_s: float


@dataclass(frozen=True)
class Pause:
    """Request: stop or go on."""

    paused: bool


@dataclass(frozen=True)
class Opening:
    """Event: what the connection waits for."""

    text: str


@dataclass(frozen=True)
class Opened:
    """Event: connected to this world."""

    info: WorldInfo


@dataclass(frozen=True)
class Started:
    """Event: a walk began with this frame."""

    start: Start
    frame: Frame


@dataclass(frozen=True)
class Arrived:
    """Event: frames came; in a scripted walk with the inputs that led to them."""

    frames: tuple[Frame, ...]
    inputs: Inputs | None = None


@dataclass(frozen=True)
class Sent:
    """Event: an input that the player made at `at_s` got this sequence number."""

    seq: int
    at_s: float


@dataclass(frozen=True)
class Refused:
    """Event: the world did not take a start; the walk goes on as it was."""

    error: WorldwireError


@dataclass(frozen=True)
class Lost:
    """Event: the connection is over; the last event of a link."""

    error: Exception


@dataclass(frozen=True)
class Finished:
    """Event: the script has been walked to its end."""


T = TypeVar("T")
Request = Start | Hold | Pause
Event = Opening | Opened | Started | Arrived | Sent | Refused | Lost | Finished


class Link:
    """One connection and its thread. Begins to connect at once; `close` ends it within seconds."""

    def __init__(self, host: Host, start: Start, script: Sequence[Inputs] = ()):
        """start: the first walk. script: walk this, step by step, instead of live."""
        self._host, self._script = host, list(script)
        self._requests: SimpleQueue[Request] = SimpleQueue()
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._closing = threading.Event()
        self._live = False
        self._requests.put(start)
        self._thread = threading.Thread(target=self._run, name="worldwire-link", daemon=True)
        self._thread.start()

    def put(self, request: Request) -> None:
        """Asks the world for something; the answer comes as an event."""
        self._requests.put(request)

    def take(self) -> list[Event]:
        """The events since the last call, oldest first."""
        return _drain(self._events)

    def close(self) -> None:
        """Ends the connection, and the server if it is our own."""
        self._closing.set()
        self._thread.join(JOIN_TIMEOUT_S)

    def _run(self) -> None:
        try:
            with self._host.open(
                lambda text: self._events.put(Opening(text)), self._closing.is_set
            ) as opened:
                info, session = opened
                self._events.put(Opened(info))
                self._play(info, session)
        except WorldwireError as error:
            self._events.put(Lost(error))
        except Exception as error:  # the border of the thread: the window must hear of everything
            log.exception("the connection's thread failed")
            self._events.put(Lost(error))

    def _play(self, info: WorldInfo, session: LiveSession) -> None:
        pacer = Pacer(info.frames_per_second, info.frames_per_step)
        while not self._closing.is_set():
            for request in _drain(self._requests):
                self._answer(request, info, session)
            allowance = pacer.allowance(time.monotonic())
            if not (self._live and allowance):
                self._closing.wait(POLL_S)
                continue
            frames = session.poll_frames(POLL_S, allowance)
            if frames:
                pacer.taken(len(frames))
                self._events.put(Arrived(tuple(frames)))

    def _answer(self, request: Request, info: WorldInfo, session: LiveSession) -> None:
        if isinstance(request, Start):
            self._begin(request, info, session)
        elif isinstance(request, Hold) and self._live:
            seq = session.send_input(request.keys, request.yaw_deg, request.pitch_deg)
            self._events.put(Sent(seq, request.at_s))
        elif isinstance(request, Pause):
            session.pause() if request.paused else session.start()

    def _begin(self, start: Start, info: WorldInfo, session: LiveSession) -> None:
        try:
            image = seed_image(start.image, info)
            frame = session.reset(prompt=start.prompt, image=image, seed=start.seed, view=start.view)
        except (ImageError, InputError, ConfigError, StateError) as error:
            self._events.put(Refused(error))
            return
        self._events.put(Started(start, frame))
        if self._script:
            self._walk(session)
        else:
            session.start()
            self._live = True

    def _walk(self, session: LiveSession) -> None:
        for inputs, frame in walk(session, self._script):
            self._events.put(Arrived((frame,), inputs))
            if self._closing.is_set():
                return
        self._events.put(Finished())


def _drain(queue: SimpleQueue[T]) -> list[T]:
    items: list[T] = []
    while True:
        try:
            items.append(queue.get_nowait())
        except Empty:
            return items
