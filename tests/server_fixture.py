"""A real server in a thread, with the FakeWorld; and a raw DEALER for messages that no client would send.

Whatever must happen is waited for with much patience, for machines are slow at times; what must not, briefly.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq
from fake_world import FakeSession, FakeWorld

from worldwire.protocol import VERSION, Hello, Limits, decode, encode
from worldwire.schema import Message
from worldwire_runtime.server import Server
from worldwire_runtime.server.worker import ServedWorld

LOOPBACK = "tcp://127.0.0.1:0"
PATIENCE_S = 30.0


@contextmanager
def serving(world: ServedWorld | None = None, rate: float = 0.0, **limits) -> Iterator[Server]:
    """A server that is ready; it is stopped and joined at the end, and must not have failed."""
    server = Server(lambda: world or FakeWorld(), LOOPBACK, limits=Limits(**limits), rate=rate)
    with running(server):
        yield server


@contextmanager
def running(server: Server) -> Iterator[None]:
    """Runs a server in a thread; it is ready inside."""
    ready = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            server.run(ready.set)
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(60)
        yield
    finally:
        server.stop()
        thread.join(60)
    assert not thread.is_alive()
    assert not failure


def wait_until(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Returns as soon as a condition holds, as it must in good time."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)


def watch_steps(monkeypatch) -> tuple[threading.Event, threading.Event]:
    """Two events: a FakeSession has begun a step, and has made the last frame of one."""
    begun, ended, stream = threading.Event(), threading.Event(), FakeSession.stream

    def watched(session: FakeSession, inputs):
        begun.set()
        yield from stream(session, inputs)
        ended.set()

    monkeypatch.setattr(FakeSession, "stream", watched)
    return begun, ended


class RawPeer:
    """A DEALER socket without any manners."""

    def __init__(self, endpoint: str, greet: bool = True):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.connect(endpoint)
        if greet:
            self.send(Hello(request=1, version=VERSION, client="raw"))
            self.welcome = self.receive()

    def send(self, message: Message, payload: bytes | None = None) -> None:
        self.send_parts([encode(message)] + ([] if payload is None else [payload]))

    def send_parts(self, parts: list[bytes]) -> None:
        self._socket.send_multipart(parts)

    def receive(self, timeout_s: float = PATIENCE_S) -> Message | None:
        """The next message, None if there is none in time."""
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return decode(self._socket.recv_multipart())[0]

    def receive_many(self, count: int) -> list[Message]:
        """The next messages, as many as must come."""
        found: list[Message] = []
        while len(found) < count:
            message = self.receive()
            assert message is not None, f"{count} messages must come, and these came: {found}"
            found.append(message)
        return found

    def receive_until(self, is_last: Callable[[Message], bool]) -> list[Message]:
        """The next messages, up to the first of which `is_last`."""
        found = self.receive_many(1)
        deadline_s = time.monotonic() + PATIENCE_S
        while not is_last(found[-1]):
            assert time.monotonic() < deadline_s, f"the last one did not come, but these: {found}"
            found += self.receive_many(1)
        return found

    def receive_all(self, quiet_s: float = 0.3) -> list[Message]:
        """Everything that comes until nothing comes any more."""
        found = []
        while (message := self.receive(quiet_s)) is not None:
            found.append(message)
        return found

    def drain(self) -> None:
        """Throws away what has come."""
        while self._socket.poll(0):
            self._socket.recv_multipart()

    def close(self) -> None:
        self._socket.close()
        self._context.term()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
