"""A real server in a thread, with the FakeWorld; and a raw DEALER for messages that no client would send."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import zmq
from fake_world import FakeWorld

from worldwire.protocol import VERSION, Hello, Limits, decode, encode
from worldwire.schema import Message
from worldwire_runtime.server import Server
from worldwire_runtime.server.worker import ServedWorld

LOOPBACK = "tcp://127.0.0.1:0"


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
        assert ready.wait(5)
        yield
    finally:
        server.stop()
        thread.join(15)
    assert not thread.is_alive()
    assert not failure


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

    def receive(self, timeout_s: float = 5.0) -> Message | None:
        """The next message, None if there is none in time."""
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        return decode(self._socket.recv_multipart())[0]

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
