"""Threads in which everything runs that touches a world: one job after another, as the schedule says.

One for the steps and all else that changes a session, a second one for frames that a world can decode
meanwhile (`OverlappingSession`).
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, SessionLike, WorldInfo
from worldwire.inputs import Inputs
from worldwire_runtime.server.live import Planned

log = logging.getLogger(__name__)

STOP_S: Final = 10.0


@dataclass(frozen=True)
class Imagined:
    """The frames of a live step can be shown while the next one begins.

    pictures: decodes them as it is taken. count: how many. camera: the pose of the last [4, 4].
    """

    pictures: Iterator[Frame]
    count: int
    camera: NDArray[np.float64]


Emit = Callable[[Frame | Imagined], None]
Job = Callable[[Emit], Any]


class ServedSession(SessionLike, Protocol):
    """What the server needs of a session beyond `SessionLike`."""

    def stream(self, inputs: list[Inputs]) -> Iterator[Frame]:
        """A step that yields each frame as soon as it is decoded."""
        ...

    def set_prompt(self, prompt: str) -> None:
        """What the world is told from the next step on; everything else goes on."""
        ...

    def branch(self) -> ServedSession:
        """A second session that goes on from here."""
        ...


class Begun(Protocol):
    """The first half of a step."""

    @property
    def c2w(self) -> NDArray[np.float64]:
        """The cameras of its frames [F, 4, 4]."""
        ...

    @property
    def frames(self) -> Iterator[Frame]:
        """They may be taken in another thread, in the order of the steps."""
        ...


@runtime_checkable
class OverlappingSession(Protocol):
    """A session that can decode the frames of a step while the next one runs."""

    @property
    def overlaps(self) -> bool:
        """Whether it can do so now."""
        ...

    def begin(self, inputs: list[Inputs]) -> Begun:
        """Half of a step; `finish` is the other, and all frames are taken before any other call."""
        ...

    def finish(self) -> None:
        """Ends when the next step may begin."""
        ...


class ServedWorld(Protocol):
    """What the server needs of a world."""

    @property
    def info(self) -> WorldInfo:
        """What clients are told."""
        ...

    def session(self, plan: str | None = None) -> ServedSession:
        """A new session under a clip plan; None is the world's own, ConfigError one that it does not have."""
        ...


@dataclass(frozen=True)
class Finished:
    """The job under way is done; what it returned, and how long it took."""

    result: Any
    seconds: float = 0.0


@dataclass(frozen=True)
class Failed:
    """The job under way raised."""

    error: Exception


Event = Frame | Imagined | Finished | Failed


class Worker:
    """Runs jobs and reports their frames and their end; `report` is called in the worker's thread."""

    def __init__(self, report: Callable[[Event], None], name: str = "worldwire-worker"):
        self._report = report
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a job."""
        self._jobs.put(job)

    def stop(self) -> bool:
        """Ends the thread at its next frame; False if it did not end in STOP_S and is left to the process."""
        self._stopping = True
        self._jobs.put(None)
        self._thread.join(STOP_S)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopping:
            start_s = time.monotonic()
            try:
                result = job(self._emit)
            except _StoppedError:
                return
            except Exception as error:  # the loop answers it; the server lives
                self._report(Failed(error))
            else:
                self._report(Finished(result, time.monotonic() - start_s))

    def _emit(self, event: Frame | Imagined) -> None:
        if self._stopping:
            raise _StoppedError
        self._report(event)


class _StoppedError(Exception):
    """Unwinds a job when the server stops."""


def with_acks(frames: Iterable[Frame], planned: list[Planned]) -> Iterator[Frame]:
    """Each frame of a live step with the newest input that it shows."""
    for frame, plan in zip(frames, planned, strict=True):
        yield Frame(frame.index, frame.pixels, frame.c2w, plan.ack, frame.memory_latents, frame.timings_ms)
