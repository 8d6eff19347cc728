"""What a client's link knows of one session: frames that nobody has taken, and how to go on after a loss."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, NamedTuple, cast

from worldwire.errors import SessionLostError, WorldwireError
from worldwire.pictures import StreamDecoder
from worldwire.protocol import FORMAT_H264, FrameMessage, Input, ResumedSession
from worldwire.schema import Message


class Arrival(NamedTuple):
    """A message, its payload and when it came (local monotonic clock)."""

    message: Message
    payload: Any
    received_ns: int


class Channel:
    """One session at the client's end. Any thread; its frames are bounded by the credit that we gave.

    frames_per_step: of the next step. window: the credit of a live session, 0 while it is not live.
    newest_input: the last one that the player made, whether it went out or not.
    """

    def __init__(self, frames_per_step: int) -> None:
        self.frames_per_step = frames_per_step
        self.window = 0
        self.newest_input: Input | None = None
        self._changed = threading.Condition()
        self._arrivals: deque[Arrival] = deque()
        self._epoch = 0
        self._failure: WorldwireError | None = None
        self._fatal = False
        self._decoder = StreamDecoder()

    def prepare(self, arrival: Arrival) -> Arrival:
        """Decodes a frame of a video stream, for every one must be, in order; leaves others alone."""
        frame = cast(FrameMessage, arrival.message)
        if frame.format != FORMAT_H264:
            return arrival
        return arrival._replace(payload=self._decoder.decode(frame, arrival.payload))

    def deliver(self, arrival: Arrival) -> None:
        """Adds a frame that nobody asked for by a request."""
        frame = cast(FrameMessage, arrival.message)
        with self._changed:
            self._advance(frame.epoch)
            if frame.epoch == self._epoch:
                self._arrivals.append(arrival)
                self._changed.notify_all()

    def advance(self, epoch: int) -> None:
        """Forgets frames from before a reset."""
        with self._changed:
            self._advance(epoch)

    def _advance(self, epoch: int) -> None:
        if epoch > self._epoch:
            self._epoch = epoch
            self._arrivals.clear()

    def resume(self, session: ResumedSession) -> Input | None:
        """Goes on after a loss, without what lay here; returns the input that the server has missed."""
        with self._changed:
            self._epoch = max(self._epoch, session.epoch)
            self._arrivals.clear()
            self.frames_per_step = session.frames_per_step
            missed = self.newest_input
            return missed if missed is not None and missed.seq > session.seq else None

    def fail(self, error: WorldwireError, fatal: bool) -> None:
        """Makes the next `take` or `check` raise; a fatal error stays, and the first one wins."""
        with self._changed:
            if not self._fatal:
                self._failure, self._fatal = error, fatal
            self._changed.notify_all()

    def check(self) -> None:
        """Raises what went wrong since the last call."""
        with self._changed:
            self._raise_failure()

    def take(self, timeout_s: float, limit: int | None) -> list[Arrival]:
        """Up to `limit` frames in their order, as soon as there is one; none after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: self._arrivals or self._failure, timeout_s)
            if not self._arrivals:
                self._raise_failure()
            count = min(len(self._arrivals), limit if limit is not None else len(self._arrivals))
            return [self._arrivals.popleft() for _ in range(count)]

    def drop_all_but_newest(self) -> int:
        """Forgets a backlog; returns how many frames that were."""
        with self._changed:
            stale = max(0, len(self._arrivals) - 1)
            for _ in range(stale):
                self._arrivals.popleft()
            return stale

    def _raise_failure(self) -> None:
        failure = self._failure
        if failure is not None:
            if not self._fatal:
                self._failure = None
            raise failure.with_traceback(None)


def session_lost(address: str) -> SessionLostError:
    """A server that came back no longer has a session."""
    return SessionLostError(
        f"the connection to {address} is back, but this session is over",
        remedy="open another one: the server was restarted, or the connection was away for too long",
    )
