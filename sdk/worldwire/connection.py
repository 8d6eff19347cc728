"""One ZeroMQ connection: it is made, it comes up, it is lost; a lost one is closed and never used again."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import zmq
from zmq.utils.monitor import recv_monitor_message

from worldwire.errors import ConnectionLostError, WrongKeyError
from worldwire.keys import ClientKeys

LINGER_MS: Final = 300
PROBE_TIMEOUT_S: Final = 1.0
CONFIRMING_FAILURES: Final = 3
"""Handshakes that must fail before a key is called wrong: a network that breaks in one looks just like it."""
START_REMEDY: Final = "start one with `worldwire serve`, or check the address"

MECHANISM_NULL: Final = "NULL"
MECHANISM_CURVE: Final = "CURVE"
GREETING_START: Final = b"\xff" + bytes(8) + b"\x7f\x03"
"""What a side of ZMTP 3 says first, up to the version; it then hears the other side's whole greeting."""
GREETING_BYTES: Final = 64
MECHANISM_BYTES: Final = slice(12, 32)

WATCHED: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)


class Received(NamedTuple):
    """The parts of a message and when it came (local monotonic clock)."""

    parts: list[memoryview]
    received_ns: int


class Connection:
    """A DEALER socket with its monitor; for one thread."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        keys: ClientKeys | None,
        proven: bool = False,
    ):
        """Begins to connect; libzmq tries again by itself until something answers.

        proven: these keys have fitted this server before. ConnectionLostError if `address` is none.
        """
        self.address, self._keys, self._proven = address, keys, proven
        self._failures = 0
        self.up = False
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, LINGER_MS)
        if keys is not None:
            self.socket.curve_serverkey = keys.server
            self.socket.curve_publickey, self.socket.curve_secretkey = keys.own.public, keys.own.secret
        self.monitor = self.socket.get_monitor_socket(WATCHED)
        try:
            self.socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConnectionLostError(
                f"{address!r} is no address", expected="tcp://HOST:PORT", got=str(error), remedy=START_REMEDY
            ) from error

    def watch(self) -> bool:
        """Reads the monitor; False when a connection that was up is lost. WrongKeyError if keys differ."""
        while self.monitor.poll(0):
            event = recv_monitor_message(self.monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.up = True
            elif event != zmq.EVENT_DISCONNECTED:
                self._failures += 1
                sure = self._failures >= CONFIRMING_FAILURES and not self._proven
                check_keys(self.address, self._keys, event == zmq.EVENT_HANDSHAKE_FAILED_AUTH, sure)
            elif self.up:
                return False
        return True

    def send(self, header: bytes, payload: Any = None) -> bool:
        """Sends without waiting; False if the server takes no more."""
        parts = [header] if payload is None else [header, payload]
        try:
            self.socket.send_multipart(parts, zmq.NOBLOCK, copy=payload is None)
        except zmq.Again:
            return False
        return True

    def receive(self) -> Iterator[Received]:
        """The messages that are there; their parts are not copied."""
        while True:
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            yield Received([part.buffer for part in parts], time.monotonic_ns())

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Frees the sockets; what was sent may still go out for `linger_ms`."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(linger_ms)


def check_keys(address: str, keys: ClientKeys | None, refused: bool, sure: bool) -> None:
    """WrongKeyError that says what does not fit, after a ZMTP handshake has failed.

    sure: it was no accident of the network, so a key that seems to fit does not.

    libzmq tells only that a server refused the key of a client (`refused`). A wrong server key and a missing
    one on either side look alike: the server hangs up. Its greeting, though, says whether it encrypts.
    """
    if refused:
        raise WrongKeyError(
            f"the server at {address} does not take this client's key",
            expected="a client key that the server lists",
            got=f"public key {keys.own.public.decode()}" if keys else "none",
            remedy="give the server's administrator your public key file, for `worldwire serve --clients`",
        )
    theirs = mechanism(address)
    if theirs == MECHANISM_CURVE and keys is None:
        raise WrongKeyError(
            f"the server at {address} encrypts and wants its key",
            expected="server_key, the public key of the server",
            got="none",
            remedy="copy the public key file from the server; --server-key FILE on the command line",
        )
    if theirs == MECHANISM_NULL and keys is not None:
        raise WrongKeyError(
            f"the server at {address} has no keys and does not encrypt",
            got=f"server key {keys.server.decode()}",
            remedy="check the address, start the server with --key, or leave the server key out",
        )
    if theirs == MECHANISM_CURVE and keys is not None and sure:
        raise WrongKeyError(
            f"the server at {address} has another key",
            got=f"server key {keys.server.decode()}",
            remedy="copy the public key file from the server again; be careful if it should not have changed",
        )


def mechanism(address: str) -> str | None:
    """What the server at a tcp address speaks: "NULL", "CURVE", or None if that cannot be told."""
    parts = urlsplit(address)
    try:
        if parts.scheme != "tcp" or parts.hostname is None or parts.port is None:
            return None
        with socket.create_connection((parts.hostname, parts.port), PROBE_TIMEOUT_S) as probe:
            probe.settimeout(PROBE_TIMEOUT_S)
            probe.sendall(GREETING_START)  # and no more: libzmq hangs up on another mechanism at once
            came = b""
            while len(came) < GREETING_BYTES and (more := probe.recv(GREETING_BYTES - len(came))):
                came += more
    except (OSError, ValueError):
        return None
    if len(came) < GREETING_BYTES or not came.startswith(GREETING_START[:1]):
        return None
    return came[MECHANISM_BYTES].rstrip(b"\0").decode("ascii", "replace")


def listens(address: str) -> bool:
    """Whether anything takes a connection at a tcp address."""
    parts = urlsplit(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0), PROBE_TIMEOUT_S):
            return True
    except (OSError, ValueError):
        return False
