"""A client without manners: it sends anything, hears everything, and says what it missed."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgpack
import zmq

from worldwire.connection import Connection
from worldwire.errors import ProtocolError, WorldwireError
from worldwire.keys import ClientKeys
from worldwire.protocol import (
    VERSION,
    Bye,
    Credit,
    Done,
    ErrorMessage,
    FrameMessage,
    Hello,
    Input,
    Open,
    Opened,
    Ping,
    Pong,
    Reset,
    StatusReport,
    Welcome,
    decode,
    encode,
)
from worldwire.schema import Message

CLIENT_NAME: Final = "worldwire-conformance"
POLL_S: Final = 0.05
PING_EVERY_S: Final = 0.5
KEEP_ALIVE_NS: Final = 1
"""`t_ns` of the pings that only keep the connection; their pongs are not shown."""

M = TypeVar("M", bound=Message)


class NotKeptError(Exception):
    """The server does not keep a clause; says how."""


class NotCheckedError(Exception):
    """A clause cannot be checked here; says why."""


def expect(condition: bool, problem: str) -> None:
    """NotKeptError(problem) unless the condition holds."""
    if not condition:
        raise NotKeptError(problem)


class Arrival(NamedTuple):
    """A message of the server and its payload."""

    message: Message
    payload: bytes | None


@dataclass
class Answer:
    """All that came for one request: frames, then the last word."""

    last: Message
    payload: bytes | None
    shown: list[tuple[FrameMessage, bytes]]

    @property
    def frames(self) -> list[FrameMessage]:
        """Its frames."""
        return [frame for frame, _ in self.shown]


class Peer:
    """One connection; it pings by itself while it waits. `drop` or `leave` it."""

    def __init__(self, address: str, keys: ClientKeys | None, patience_s: float, resume: str | None = None):
        """patience_s: how long an answer may take. resume: a token for `hello`."""
        self._patience_s = patience_s
        self._context = zmq.Context()
        self._connection = Connection(self._context, address, keys)
        self._next_request = 0
        self._next_ping_s = 0.0
        self.keep_alive = True
        self.strays: list[Arrival] = []
        self._resume = resume

    # ------------------------------------------------------------------ sending

    def next_id(self) -> int:
        """The number of a new request."""
        self._next_request += 1
        return self._next_request

    def say(self, message: Message | dict[str, Any], payload: bytes | None = None) -> None:
        """Sends a message, or a map that need not be one."""
        data = msgpack.packb(message) if isinstance(message, dict) else encode(message)
        self.say_parts([data] if payload is None else [data, payload])

    def say_parts(self, parts: list[bytes]) -> None:
        """Sends any parts."""
        if not self._connection.socket.poll(int(self._patience_s * 1000), zmq.POLLOUT):
            self._connection.watch()  # a wrong key is better told than this
            raise NotKeptError(f"the server took no message for {self._patience_s:g} s")
        self._connection.socket.send_multipart(parts)

    def input(self, session: int, seq: int, **fields: Any) -> None:
        """Sends an `input`."""
        self.say(Input(session=session, seq=seq, **fields))

    def credit(self, session: int, frames: int) -> None:
        """Sends `credit`."""
        self.say(Credit(session=session, frames=frames))

    # ------------------------------------------------------------------ hearing

    def hear(self, timeout_s: float) -> Arrival | None:
        """The next message; None if there is none in time. NotKeptError for one that is no message."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            now_s = time.monotonic()
            if self.keep_alive and now_s >= self._next_ping_s:
                self._next_ping_s = now_s + PING_EVERY_S
                self.say(Ping(t_ns=KEEP_ALIVE_NS))
            wait_s = min(POLL_S, max(0.0, deadline_s - now_s))
            if self._connection.socket.poll(int(wait_s * 1000)):
                arrival = self._receive()
                if not (isinstance(arrival.message, Pong) and arrival.message.t_ns == KEEP_ALIVE_NS):
                    return arrival
            elif now_s >= deadline_s:
                self._connection.watch()  # a wrong key is better told than silence
                return None

    def _receive(self) -> Arrival:
        parts = self._connection.socket.recv_multipart()
        try:
            message, payload = decode(parts)
        except ProtocolError as error:
            raise NotKeptError(f"the server sent what is no message: {error}") from error
        return Arrival(message, None if payload is None else bytes(payload))

    def await_message(self, kind: type[M], where: Callable[[M], bool] = lambda _: True) -> M:
        """The next message of a kind; others are kept in `strays`."""
        deadline_s = time.monotonic() + self._patience_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            arrival = self.hear(left_s)
            if arrival is None:
                break
            if isinstance(arrival.message, kind) and where(arrival.message):
                return arrival.message
            self.strays.append(arrival)
        raise NotKeptError(f"no {kind.kind!r} in {self._patience_s:g} s{self._instead()}")

    def live_frames(self, session: int, quiet_s: float, most: int = 10_000) -> list[FrameMessage]:
        """Live frames of a session, those in `strays` first: `most`, or until none comes for `quiet_s`."""
        found = [arrival for arrival in self.strays if _is_live(arrival.message, session)]
        self.strays = [arrival for arrival in self.strays if not _is_live(arrival.message, session)]
        while len(found) < most and (arrival := self.hear(quiet_s)) is not None:
            (found if _is_live(arrival.message, session) else self.strays).append(arrival)
        return [cast(FrameMessage, arrival.message) for arrival in found]

    def errors(self, quiet_s: float) -> list[ErrorMessage]:
        """The errors that come until nothing comes for `quiet_s`, and those that came before."""
        while (arrival := self.hear(quiet_s)) is not None:
            self.strays.append(arrival)
        found = [item.message for item in self.strays if isinstance(item.message, ErrorMessage)]
        self.strays = [item for item in self.strays if not isinstance(item.message, ErrorMessage)]
        return found

    def _instead(self) -> str:
        kinds = [arrival.message.kind for arrival in self.strays[-3:]]
        return f"; instead came {', '.join(kinds)}" if kinds else ""

    # ------------------------------------------------------------------ requests

    def ask(self, message: Any, payload: bytes | None = None) -> Answer:
        """Sends a request and gathers its answer; messages for others go to `strays`."""
        self.say(message, payload)
        request = message["request"] if isinstance(message, dict) else message.request
        return self.answer(request, message["type"] if isinstance(message, dict) else message.kind)

    def answer(self, request: int, kind: str = "a request") -> Answer:
        """What comes for a request that was sent."""
        return self.answers([request], kind)[request]

    def answers(self, requests: list[int], kind: str = "a request") -> dict[int, Answer]:
        """What comes for requests that were sent, in the order of their last words."""
        frames: dict[int, list[tuple[FrameMessage, bytes]]] = {request: [] for request in requests}
        done: dict[int, Answer] = {}
        while len(done) < len(requests):
            arrival = self.hear(self._patience_s)
            if arrival is None:
                raise NotKeptError(f"no answer to {kind!r} in {self._patience_s:g} s{self._instead()}")
            message = arrival.message
            request = getattr(message, "request", None)
            if request not in frames or request in done:
                self.strays.append(arrival)
            elif isinstance(message, FrameMessage):
                frames[request].append((message, arrival.payload or b""))
            else:
                done[request] = Answer(message, arrival.payload, frames[request])
        return done

    def get(self, kind: type[M], message: Any, payload: bytes | None = None) -> M:
        """The last word to a request, which must be of a kind."""
        return self.checked(kind, self.ask(message, payload))

    @staticmethod
    def checked(kind: type[M], answer: Answer) -> M:
        """The last word of an answer; NotKeptError if it is of another kind."""
        if isinstance(answer.last, kind):
            return answer.last
        got = answer.last
        told = f": {got.code}, {got.problem}" if isinstance(got, ErrorMessage) else ""
        raise NotKeptError(f"wanted {kind.kind!r}, got {got.kind!r}{told}")

    def refused(self, code: str, message: Any, payload: bytes | None = None) -> ErrorMessage:
        """The error that a request must get."""
        error = self.get(ErrorMessage, message, payload)
        expect(error.code == code, f"wanted the error {code!r}, got {error.code!r} ({error.problem})")
        expect(bool(error.problem), "an error without a problem")
        expect(not error.fatal, f"{code!r} was fatal")
        return error

    # ------------------------------------------------------------------ whole steps

    def hello(self) -> Welcome:
        """Says hello, again while the server loads."""
        deadline_s = time.monotonic() + self._patience_s
        while True:
            hello = Hello(request=self.next_id(), version=VERSION, client=CLIENT_NAME, resume=self._resume)
            last = self.ask(hello).last
            if isinstance(last, Welcome):
                return last
            if not isinstance(last, StatusReport) or time.monotonic() > deadline_s:
                raise NotKeptError(f"wanted 'welcome', got {last.kind!r}")
            time.sleep(POLL_S)

    def open(self, **fields: Any) -> Opened:
        """Opens a session."""
        return self.get(Opened, Open(request=self.next_id(), **fields))

    def begin(self, **fields: Any) -> Opened:
        """Opens a session and resets it."""
        opened = self.open(**fields)
        self.get(Done, Reset(request=self.next_id(), session=opened.session))
        return opened

    def drop(self) -> None:
        """Loses the connection without a word."""
        self._connection.close(linger_ms=0)
        self._context.term()

    def leave(self) -> None:
        """Says goodbye, so that nothing of this connection stays at the server."""
        self._patience_s = POLL_S
        with suppress(NotKeptError, WorldwireError):  # it may be gone already
            self.say(Bye())
        self._connection.close()
        self._context.term()


def _is_live(message: Message, session: int) -> bool:
    return isinstance(message, FrameMessage) and message.session == session and message.request is None
