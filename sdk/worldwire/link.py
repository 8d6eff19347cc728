"""One connection to a server: a small I/O thread owns the socket, so that heartbeats never stop.

Every method of `Link` may be called from any thread. Frames of live sessions go to their `Inbox`; answers go
to whoever asked. When the connection is lost, everybody who waits gets the same ConnectionLostError.
"""

from __future__ import annotations

import itertools
import logging
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

import zmq
from zmq.utils.monitor import recv_monitor_message

from worldwire.errors import ConnectionLostError, ProtocolError, WorldwireError
from worldwire.protocol import (
    HEARTBEAT_S,
    LIVENESS_S,
    Bye,
    ErrorMessage,
    FrameMessage,
    Ping,
    Pong,
    decode,
    encode,
)
from worldwire.schema import Message

log = logging.getLogger(__name__)

POLL_MS: Final = 200
LINGER_MS: Final = 300
JOIN_S: Final = 2.0
ROUND_TRIPS_KEPT: Final = 16
START_REMEDY: Final = "start one with `worldwire serve`, or check the address"


class Arrival(NamedTuple):
    """A message, its payload and when it came (local monotonic clock)."""

    message: Message
    payload: Any
    received_ns: int


@dataclass(frozen=True)
class RoundTrip:
    """One ping: its duration, and how far the server's clock is ahead of ours."""

    duration_ns: int
    offset_ns: int


class Inbox:
    """The frames of one live session that nobody has taken yet; bounded by the credit that we gave."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._arrivals: deque[Arrival] = deque()
        self._epoch = 0
        self._failure: WorldwireError | None = None
        self._fatal = False

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


class Link:
    """A DEALER socket and its thread."""

    def __init__(self, address: str):
        self.address = address
        self.heartbeat_s, self.liveness_s = HEARTBEAT_S, LIVENESS_S
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Arrival | WorldwireError]] = {}
        self._inboxes: dict[int, Inbox] = {}
        self._outgoing: queue.SimpleQueue[tuple[bytes, Any]] = queue.SimpleQueue()
        self._round_trips: deque[RoundTrip] = deque(maxlen=ROUND_TRIPS_KEPT)
        self._lost: WorldwireError | None = None
        self._ever_connected = False
        self._closing = False
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._context = zmq.Context()
        self._socket, self._monitor = self._open_socket()
        self._thread = threading.Thread(target=self._run, name="worldwire-link", daemon=True)
        self._thread.start()

    def _open_socket(self) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
        dealer = self._context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, LINGER_MS)
        monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        try:
            dealer.connect(self.address)
        except zmq.ZMQError as error:
            self._free(dealer, monitor)
            raise ConnectionLostError(
                f"{self.address!r} is no address",
                expected="tcp://HOST:PORT",
                got=str(error),
                remedy=START_REMEDY,
            ) from error
        return dealer, monitor

    # ------------------------------------------------------------------ for callers, any thread

    def next_id(self) -> int:
        """A number for a new request."""
        return next(self._ids)

    def send(self, message: Message, payload: Any = None) -> None:
        """Queues a message; raises what ended the connection, if anything did."""
        if self._lost is not None:
            raise self._lost.with_traceback(None)
        self._outgoing.put((encode(message), payload))
        self._wake()

    def exchange(self, message: Any, timeout_s: float, payload: Any = None) -> Iterator[Arrival]:
        """Sends a request and yields its answers; the last one is the first that is no frame.

        Raises the error that the server answers, and ConnectionLostError after `timeout_s` of silence.
        """
        answers: queue.SimpleQueue[Arrival | WorldwireError] = queue.SimpleQueue()
        with self._lock:
            self._waiting[message.request] = answers
        try:
            self.send(message, payload)
            while True:
                answer = self._next_answer(answers, message.kind, timeout_s)
                yield answer
                if not isinstance(answer.message, FrameMessage):
                    return
        finally:
            with self._lock:
                self._waiting.pop(message.request, None)

    def request(self, message: Any, timeout_s: float, payload: Any = None) -> Arrival:
        """Sends a request and returns its one answer."""
        *_, last = self.exchange(message, timeout_s, payload)
        return last

    def attach(self, session: int) -> Inbox:
        """The inbox of a session that was just opened."""
        with self._lock:
            return self._inboxes.setdefault(session, Inbox())

    def detach(self, session: int) -> None:
        """Forgets a closed session."""
        with self._lock:
            self._inboxes.pop(session, None)

    @property
    def best_round_trip(self) -> RoundTrip | None:
        """The quickest of the last pings."""
        return min(self._round_trips.copy(), key=lambda trip: trip.duration_ns, default=None)

    @property
    def lost(self) -> WorldwireError | None:
        """What ended the connection, or None while it lives."""
        return self._lost

    @property
    def ever_connected(self) -> bool:
        """Whether anything that speaks ZeroMQ has answered at the address."""
        return self._ever_connected

    def close(self) -> None:
        """Says goodbye and frees the socket; closing twice is fine."""
        if not self._closing:
            self._closing = True
            self._outgoing.put((encode(Bye(reason="closed")), None))
            self._wake()
            self._thread.join(JOIN_S)
            self._lose(ConnectionLostError("the client is closed", remedy="connect() again"))

    # ------------------------------------------------------------------ the I/O thread

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._socket, self._monitor, self._wake_in):
            poller.register(source, zmq.POLLIN)
        last_heard = last_beat = time.monotonic()
        try:
            while self._lost is None and not (self._closing and self._outgoing.empty()):
                ready = dict(poller.poll(min(POLL_MS, int(self.heartbeat_s * 500))))
                if self._monitor in ready:
                    self._watch_connection()
                if self._socket in ready:
                    self._receive_all()
                    last_heard = time.monotonic()
                now = time.monotonic()
                if self._ever_connected and now - last_beat >= self.heartbeat_s:
                    last_beat = now
                    self._outgoing.put((encode(Ping(t_ns=time.monotonic_ns())), None))
                if self._ever_connected and now - last_heard > self.liveness_s:
                    self._lose(self._silence(now - last_heard))
                self._send_all()
        except Exception as error:  # whatever broke, those who wait must hear of it
            log.exception("the connection to %s broke", self.address)
            self._lose(ConnectionLostError(f"the connection broke: {error}", remedy="connect() again"))
        finally:
            self._free(self._socket, self._monitor)

    def _send_all(self) -> None:
        self._drain_wakes()
        while True:
            try:
                header, payload = self._outgoing.get_nowait()
            except queue.Empty:
                return
            parts = [header] if payload is None else [header, payload]
            try:
                self._socket.send_multipart(parts, zmq.NOBLOCK, copy=payload is None)
            except zmq.Again:
                self._lose(ConnectionLostError("the server takes no more messages", remedy="connect() again"))

    def _receive_all(self) -> None:
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            try:
                message, payload = decode([part.buffer for part in parts])
            except ProtocolError as error:
                log.warning("dropped a message of %s: %s", self.address, error)
                continue
            self._dispatch(Arrival(message, payload, time.monotonic_ns()))

    def _dispatch(self, arrival: Arrival) -> None:
        """Hands a message to whoever waits for it."""
        message = arrival.message
        if isinstance(message, Pong):
            self._note_round_trip(message, arrival.received_ns)
        elif isinstance(message, Bye):
            self._lose(ConnectionLostError(f"the server said goodbye: {message.reason}", remedy=START_REMEDY))
        elif isinstance(message, ErrorMessage):
            self._dispatch_error(message)
        else:
            self._dispatch_answer(arrival)

    def _dispatch_answer(self, arrival: Arrival) -> None:
        message = arrival.message
        with self._lock:
            waiting = self._waiting.get(getattr(message, "request", None) or 0)
            inbox = self._inboxes.get(getattr(message, "session", 0))
        if inbox is not None and hasattr(message, "epoch"):
            inbox.advance(message.epoch)
        if waiting is not None:
            waiting.put(arrival)
        elif inbox is not None and isinstance(message, FrameMessage) and message.request is None:
            inbox.deliver(arrival)

    def _dispatch_error(self, message: ErrorMessage) -> None:
        error = message.exception()
        with self._lock:
            waiting = self._waiting.get(message.request or 0)
            inbox = self._inboxes.get(message.session or 0)
        if waiting is not None:
            waiting.put(error)
        if inbox is not None and (message.fatal or waiting is None):
            inbox.fail(error, message.fatal)
        elif message.fatal and message.session is None:
            self._lose(error)
        elif waiting is None:
            log.warning("the server complains: %s", error)

    def _watch_connection(self) -> None:
        event = recv_monitor_message(self._monitor)["event"]
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._ever_connected = True
            self._outgoing.put((encode(Ping(t_ns=time.monotonic_ns())), None))
        elif event == zmq.EVENT_DISCONNECTED and not self._closing:
            self._lose(
                ConnectionLostError(
                    f"the server at {self.address} went away",
                    remedy="start it again with `worldwire serve`, then connect() again",
                )
            )

    def _note_round_trip(self, pong: Pong, received_ns: int) -> None:
        middle_ns = (pong.t_ns + received_ns) // 2
        self._round_trips.append(RoundTrip(received_ns - pong.t_ns, pong.server_t_ns - middle_ns))

    def _silence(self, seconds: float) -> ConnectionLostError:
        return ConnectionLostError(
            f"the server at {self.address} was silent for {seconds:.0f} s",
            expected=f"an answer to the ping of every {self.heartbeat_s:g} s",
            remedy="look at the server's log, then connect() again",
        )

    def _lose(self, error: WorldwireError) -> None:
        """Ends the connection; everybody who waits gets `error`."""
        with self._lock:
            if self._lost is None:
                self._lost = error
            waiting, inboxes = list(self._waiting.values()), list(self._inboxes.values())
        for answers in waiting:
            answers.put(self._lost)
        for inbox in inboxes:
            inbox.fail(self._lost, fatal=True)

    def _next_answer(
        self, answers: queue.SimpleQueue[Arrival | WorldwireError], kind: str, timeout_s: float
    ) -> Arrival:
        try:
            answer = answers.get(timeout=timeout_s)
        except queue.Empty:
            raise ConnectionLostError(
                f"no answer to {kind!r} from {self.address} in {timeout_s:g} s",
                remedy="look at the server's log, or give connect() a longer timeout",
            ) from None
        if isinstance(answer, WorldwireError):
            raise answer
        return answer

    def _wake(self) -> None:
        with suppress(OSError):  # wake-ups enough are waiting, or the thread has ended
            self._wake_out.send(b"\0")

    def _drain_wakes(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except BlockingIOError:
            return

    def _free(self, dealer: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
        dealer.disable_monitor()
        monitor.close(0)
        dealer.close(LINGER_MS)
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()
