"""A client's link to a server: an I/O thread that greets, keeps alive, delivers, and resumes after a loss.

    connect -> hello -> welcome -> (lost -> connect -> hello with the token -> welcome) … -> over

Every method of `Link` may be called from any thread. While the connection is away requests wait and inputs
are not sent; when it is over everybody who waits gets the same error.
"""

from __future__ import annotations

import itertools
import logging
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import zmq

from worldwire.channel import Arrival, Channel
from worldwire.connection import START_REMEDY, Connection, Received, listens
from worldwire.errors import BusyError, ConnectionLostError, ProtocolError, WorldwireError
from worldwire.keys import ClientKeys
from worldwire.protocol import (
    HEARTBEAT_S,
    VERSION,
    Bye,
    Credit,
    ErrorMessage,
    FrameMessage,
    Hello,
    Input,
    Opened,
    Ping,
    Pong,
    StatusReport,
    Welcome,
    check_version,
    decode,
    encode,
)
from worldwire.release import release
from worldwire.schema import Message
from worldwire.switchboard import Answers, Switchboard

log = logging.getLogger(__name__)

POLL_MS: Final = 200
JOIN_S: Final = 2.0
ROUND_TRIPS_KEPT: Final = 16
LOADING_PAUSE_S: Final = 0.2
"""A server that loads its world is greeted again after this pause."""
WAIT_TURN_S: Final = 0.1
CLIENT_NAME: Final = f"worldwire-python {release()}"

OnWait = Callable[[StatusReport | None], None]


@dataclass(frozen=True)
class RoundTrip:
    """One ping: its duration, and how far the server's clock is ahead of ours."""

    duration_ns: int
    offset_ns: int


class Link:
    """The way to a server for as long as it can be had."""

    def __init__(self, address: str, keys: ClientKeys | None = None, resume_s: float | None = None):
        """Begins to connect. ConnectionLostError if `address` is none.

        resume_s: how long to try to get a lost connection back; None is as long as the server keeps sessions.
        """
        self.address = address
        self._keys, self._patience_s = keys, resume_s
        self._ids = itertools.count(1)
        self._changed = threading.Condition()  # guards what callers and the thread share
        self._board = Switchboard(address)
        self._outgoing: queue.SimpleQueue[tuple[bytes, Any]] = queue.SimpleQueue()
        self._round_trips: deque[RoundTrip] = deque(maxlen=ROUND_TRIPS_KEPT)
        self._greeted = self._closing = False
        self._welcome: Welcome | None = None
        self._report: StatusReport | None = None
        self._lost: WorldwireError | None = None
        self._away: tuple[WorldwireError, float] | None = None  # why, and until when it may come back
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._context = zmq.Context()
        try:
            self._connect()
        except WorldwireError:
            self._free()
            raise
        self._thread = threading.Thread(target=self._run, name="worldwire-link", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------ for callers, any thread

    def greet(self, timeout_s: float, on_wait: OnWait | None = None) -> Welcome:
        """Waits until a server that is ready has said welcome.

        on_wait: called several times a second meanwhile, with what a loading server reports, or None.
        Raises ConnectionLostError (nothing there, or no answer), BusyError (loading), VersionError,
        WrongKeyError.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            left_s = deadline_s - time.monotonic()
            with self._changed:
                self._changed.wait_for(self._decided, max(0.0, min(left_s, WAIT_TURN_S)))
                welcome, lost, report = self._welcome, self._lost, self._report
            if lost is not None:
                raise lost.with_traceback(None)
            if welcome is not None:
                return welcome
            if left_s <= 0:
                raise self._no_welcome(timeout_s, report)
            if on_wait is not None:
                on_wait(report)

    def next_id(self) -> int:
        """A number for a new request."""
        return next(self._ids)

    def send(self, message: Message, payload: Any = None) -> None:
        """Queues a message; raises what ended the connection, if anything did.

        While the connection is away credits are void, and only the newest input is sent when it is back.
        """
        data = encode(message)
        with self._changed:
            if self._lost is not None:
                raise self._lost.with_traceback(None)
            if isinstance(message, Input):
                self._board.note_input(message)
            if self._greeted or not isinstance(message, (Input, Credit)):
                self._outgoing.put((data, payload))
        self._wake()

    def exchange(self, message: Any, timeout_s: float, payload: Any = None) -> Iterator[Arrival]:
        """Sends a request and yields its answers; the last one is the first that is no frame.

        Raises the error that the server answers, RequestLostError when the connection was lost before the
        answer and is there again, and ConnectionLostError after `timeout_s` of silence.
        """
        answers = self._board.expect(message.request, getattr(message, "session", None))
        try:
            self.send(message, payload)
            while True:
                answer = self._next_answer(answers, message.kind, timeout_s)
                yield answer
                if not isinstance(answer.message, FrameMessage):
                    return
        finally:
            self._board.forget(message.request)

    def request(self, message: Any, timeout_s: float, payload: Any = None) -> Arrival:
        """Sends a request and returns its one answer."""
        *_, last = self.exchange(message, timeout_s, payload)
        return last

    def attach(self, opened: Opened) -> Channel:
        """The channel of a session that was just opened."""
        return self._board.attach(opened)

    def detach(self, session: int) -> None:
        """Forgets a closed session."""
        self._board.detach(session)

    @property
    def welcome(self) -> Welcome:
        """The newest one; there is one after `greet`."""
        assert self._welcome is not None
        return self._welcome

    @property
    def connected(self) -> bool:
        """Whether the server can be reached now; False too while a lost connection may come back."""
        return self._greeted and self._lost is None

    @property
    def best_round_trip(self) -> RoundTrip | None:
        """The quickest of the last pings."""
        return min(self._round_trips.copy(), key=lambda trip: trip.duration_ns, default=None)

    @property
    def lost(self) -> WorldwireError | None:
        """What ended the connection for good, or None."""
        return self._lost

    def close(self) -> None:
        """Says goodbye and frees the socket; closing twice is fine."""
        if not self._closing:
            self._outgoing.put((encode(Bye(reason="closed")), None))
            self._closing = True
            self._wake()
            self._thread.join(JOIN_S)
            self._lose(ConnectionLostError("the client is closed", remedy="connect() again"))

    # ------------------------------------------------------------------ the I/O thread

    def _connect(self) -> None:
        """Begins a new connection; it is greeted once it is up."""
        proven = self._welcome is not None
        self._connection = Connection(self._context, self.address, self._keys, proven)
        self._poller = zmq.Poller()
        for source in (self._connection.socket, self._connection.monitor, self._wake_in):
            self._poller.register(source, zmq.POLLIN)
        self._hello = 0  # the request that greeted this connection
        self._last_beat_s = 0.0
        self._next_hello_s = self._last_heard_s = time.monotonic()

    def _run(self) -> None:
        try:
            while self._lost is None and not (self._closing and not self._something_to_send()):
                self._turn()
        except WorldwireError as error:
            self._lose(error)
        except Exception as error:  # whatever broke, those who wait must hear of it
            log.exception("the connection to %s broke", self.address)
            self._lose(ConnectionLostError(f"the connection broke: {error}", remedy="connect() again"))
        finally:
            self._connection.close()
            self._free()

    def _turn(self) -> None:
        """Waits for something to happen, reads, then writes."""
        self._poller.poll(min(POLL_MS, int(self._heartbeat_s * 500)))
        self._drain_wakes()
        connection = self._connection
        up_still = connection.watch()
        for received in connection.receive():
            self._read(received)
            if self._connection is not connection or self._lost is not None:
                return
        if not up_still:
            self._interrupt(self._went_away())
            return
        if connection.up:
            self._keep_alive(time.monotonic())
        self._check_patience(time.monotonic())
        self._write()

    def _read(self, received: Received) -> None:
        self._last_heard_s = time.monotonic()
        try:
            message, payload = decode(received.parts)
        except ProtocolError as error:
            log.warning("dropped a message of %s: %s", self.address, error)
        else:
            self._dispatch(Arrival(message, payload, received.received_ns))

    def _write(self) -> None:
        while self._something_to_send():
            if not self._connection.send(*self._outgoing.get()):
                problem = f"the server at {self.address} takes no more messages"
                self._interrupt(ConnectionLostError(problem, remedy="connect() again"))

    def _something_to_send(self) -> bool:
        return self._greeted and not self._outgoing.empty()

    def _keep_alive(self, now_s: float) -> None:
        """Greets, pings, and notices a server that is silent."""
        if not self._greeted and now_s >= self._next_hello_s:
            self._say_hello()
        if now_s - self._last_beat_s >= self._heartbeat_s:
            self._last_beat_s = now_s
            self._connection.send(encode(Ping(t_ns=time.monotonic_ns())))
        if self._welcome is not None and now_s - self._last_heard_s > self._welcome.limits.liveness_s:
            self._interrupt(self._silence(now_s - self._last_heard_s))

    def _say_hello(self) -> None:
        """The first word; after a loss the word that takes the sessions over."""
        self._hello, self._next_hello_s = self.next_id(), float("inf")
        token = None if self._welcome is None else self._welcome.token
        hello = Hello(request=self._hello, version=VERSION, client=CLIENT_NAME, resume=token or None)
        self._connection.send(encode(hello))

    def _dispatch(self, arrival: Arrival) -> None:
        """Does what a message says, or hands it to whoever waits for it."""
        message = arrival.message
        greeting = not self._greeted and getattr(message, "request", None) == self._hello
        match message:
            case Pong():
                self._note_round_trip(message, arrival.received_ns)
            case Bye():
                self._on_bye(message)
            case Welcome() if greeting:
                self._on_welcome(message)
            case StatusReport() if greeting:
                self._report, self._next_hello_s = message, time.monotonic() + LOADING_PAUSE_S
            case ErrorMessage():
                if greeting or not self._board.complain(message):
                    self._lose(message.exception())
            case _:
                self._board.deliver(arrival)

    def _on_welcome(self, message: Welcome) -> None:
        check_version(message.version, "client")
        with self._changed:
            again = self._welcome is not None
            self._welcome, self._away, self._greeted = message, None, True
            waited = self._take_outgoing()
            for first in self._board.resume(message, self.next_id) if again else []:
                self._outgoing.put((encode(first), None))
            for later in waited:
                self._outgoing.put(later)
            self._changed.notify_all()
        if again:
            log.info("the connection to %s is back with %d sessions", self.address, len(message.resumed))

    def _on_bye(self, message: Bye) -> None:
        error = ConnectionLostError(f"the server said goodbye: {message.reason}", remedy=START_REMEDY)
        if message.resume:
            self._interrupt(error)
        else:
            self._lose(error)

    def _note_round_trip(self, pong: Pong, received_ns: int) -> None:
        middle_ns = (pong.t_ns + received_ns) // 2
        self._round_trips.append(RoundTrip(received_ns - pong.t_ns, pong.server_t_ns - middle_ns))

    # ------------------------------------------------------------------ losing the connection

    def _interrupt(self, error: WorldwireError) -> None:
        """The connection is lost: tries to get it back, if there is anything to come back to."""
        patience_s = self._resume_s
        if self._closing or not patience_s:
            self._lose(error)
            return
        log.warning("%s; trying to resume for %g s", error.problem, patience_s)
        with self._changed:
            self._greeted = False
            self._away = self._away or (error, time.monotonic() + patience_s)
            self._board.cut_off()
            self._take_outgoing()
        self._round_trips.clear()
        self._connection.close(linger_ms=0)
        self._connect()

    @property
    def _resume_s(self) -> float:
        """How long to try; 0 when nothing can be resumed."""
        if self._welcome is None or not self._welcome.token:
            return 0.0
        return self._welcome.limits.resume_s if self._patience_s is None else self._patience_s

    def _check_patience(self, now_s: float) -> None:
        if self._away is not None and now_s > self._away[1]:
            error, _ = self._away
            problem = f"{error.problem}, and could not be reached again for {self._resume_s:g} s"
            self._lose(ConnectionLostError(problem, remedy=error.remedy))

    def _lose(self, error: WorldwireError) -> None:
        """Ends the connection for good; everybody who waits gets the first error that did."""
        with self._changed:
            self._lost = lost = self._lost or error
            self._changed.notify_all()
        self._board.end(lost)

    def _went_away(self) -> ConnectionLostError:
        return ConnectionLostError(
            f"the server at {self.address} went away",
            remedy="start it again with `worldwire serve`, then connect() again",
        )

    def _silence(self, seconds: float) -> ConnectionLostError:
        return ConnectionLostError(
            f"the server at {self.address} was silent for {seconds:.0f} s",
            expected=f"an answer to the ping of every {self._heartbeat_s:g} s",
            remedy="look at the server's log, then connect() again",
        )

    def _no_welcome(self, timeout_s: float, report: StatusReport | None) -> WorldwireError:
        """Why nobody said welcome in time."""
        if report is not None:
            part = "" if report.progress is None else f" ({report.progress:.0%})"
            return BusyError(
                f"the server at {self.address} is still loading its world{part}",
                got=report.stage,
                remedy="wait, or give connect() a longer timeout_s",
            )
        if self._connection.up or listens(self.address):
            return ConnectionLostError(
                f"something listens at {self.address} but does not answer as a worldwire server",
                remedy="check the address; look at the server's log",
            )
        return ConnectionLostError(f"no server at {self.address} within {timeout_s:g} s", remedy=START_REMEDY)

    # ------------------------------------------------------------------ parts

    def _decided(self) -> bool:
        return self._welcome is not None or self._lost is not None

    @property
    def _heartbeat_s(self) -> float:
        return HEARTBEAT_S if self._welcome is None else self._welcome.limits.heartbeat_s

    def _next_answer(self, answers: Answers, kind: str, timeout_s: float) -> Arrival:
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

    def _take_outgoing(self) -> list[tuple[bytes, Any]]:
        taken = []
        while not self._outgoing.empty():
            taken.append(self._outgoing.get())
        return taken

    def _wake(self) -> None:
        with suppress(OSError):  # wake-ups enough are waiting, or the thread has ended
            self._wake_out.send(b"\0")

    def _drain_wakes(self) -> None:
        try:
            while self._wake_in.recv(4096):
                pass
        except BlockingIOError:
            return

    def _free(self) -> None:
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()
