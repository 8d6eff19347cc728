"""The ROUTER socket of a server: bytes in, bytes out; never blocks on a client."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import zmq

from worldwire.errors import ConfigError, MachineError, WorldwireError
from worldwire.protocol import encode
from worldwire.schema import Message
from worldwire_runtime.server.backlog import LARGE_BYTES, Backlog
from worldwire_runtime.server.security import ZAP_DOMAIN, Gate, KeyPair, require_curve

log = logging.getLogger(__name__)

READ_S: Final = 0.01
"""So long messages are read before the loop looks at anything else."""
MOST_PARTS: Final = 3
"""Parts of a message that are kept: one more than any has, so that it shows. The others are thrown away."""
QUEUED_MESSAGES: Final = 1000
LINGER_MS: Final = 200
UNREAD_MS: Final = 60_000
"""The system cuts a connection whose other side has taken nothing for so long; what waits for it is freed."""


class Router:
    """A bound ROUTER socket and a way to wake its thread. Only `wake` may be called from other threads.

    keys, clients: see `Server`. Raises MachineError and ConfigError as it does.
    """

    def __init__(
        self,
        address: str,
        max_message_bytes: int,
        *,
        insecure: bool = False,
        keys: KeyPair | None = None,
        clients: Path | None = None,
    ):
        host = _host(address)
        if keys is None and not insecure:
            _check_loopback(address, host)
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._wake_in.setblocking(False)
        self._is_woken = False
        self._backlog = Backlog()
        self._parts: list[zmq.Frame] = []
        """The address and the parts so far of the message that is being read."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        # No ZMTP heartbeats: with a full queue and a peer that went away, libzmq 4.3.5 aborts the process
        # when it sends one (libzmq issue 4364). The pings of the protocol do that work.
        for option, value in {
            zmq.ROUTER_MANDATORY: 1,  # tells when a client is gone, instead of dropping in silence
            zmq.MAXMSGSIZE: max_message_bytes,
            zmq.SNDHWM: QUEUED_MESSAGES,
            zmq.RCVHWM: QUEUED_MESSAGES,
            zmq.LINGER: LINGER_MS,
            zmq.TCP_MAXRT: UNREAD_MS,
        }.items():
            self._socket.setsockopt(option, value)
        self._gate: Gate | None = None
        try:
            self._lock(keys, clients)
            self._bind(address)
        except WorldwireError:
            self.close()
            raise
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._wake_in, zmq.POLLIN)
        if self._gate is not None:
            self._poller.register(self._gate.socket, zmq.POLLIN)

    @property
    def endpoint(self) -> str:
        """The real address, with the port that the system chose for port 0."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def wait(self, timeout_ms: int) -> None:
        """Returns when something came, `wake` was called, or the time is over."""
        ready = dict(self._poller.poll(timeout_ms))
        if self._gate is not None:
            self._gate.answer()
        if self._wake_in.fileno() in ready:
            self._wake_in.recv(4096)
        self._is_woken = False  # after the bytes are gone: whoever sets it again sends a new one

    def wake(self) -> None:
        """Makes `wait` return; from any thread."""
        if self._is_woken:
            return
        self._is_woken = True
        try:
            self._wake_out.send(b"\0")
        except (BlockingIOError, OSError):
            return  # enough wake-ups wait already, or the socket is closed

    def receive(self) -> Iterator[tuple[bytes, list[memoryview]]]:
        """The client and the parts of each message that is there, as far as READ_S goes.

        The time counts what the caller does with them. A message of millions of parts is read in many turns.
        """
        end_s = time.monotonic() + READ_S
        while time.monotonic() < end_s:
            try:
                part = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            if len(self._parts) <= MOST_PARTS:
                self._parts.append(part)
            if not part.more:
                (client, *parts), self._parts = self._parts, []
                yield client.bytes, [part.buffer for part in parts]

    def send(self, client: bytes, message: Message, payload: Any = None) -> bool:
        """Sends without waiting or copying; False when the client is gone or does not read."""
        parts = [client, encode(message)] + ([] if payload is None else [payload])
        large = payload is not None and len(payload) >= LARGE_BYTES
        if large:
            parts[-1] = zmq.Frame(payload, track=True, copy=False)
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        if large:
            self._backlog.add(client, parts[-1].tracker, len(payload))
        return True

    def crowded(self) -> frozenset[bytes]:
        """The clients that get no more pictures until they have read those that wait for them."""
        return self._backlog.crowded()

    def close(self) -> None:
        """Sends what is queued for a moment, then frees the address."""
        self._socket.close(LINGER_MS)
        if self._gate is not None:
            self._gate.close()
        self._context.term()
        self._wake_in.close()
        self._wake_out.close()

    def _lock(self, keys: KeyPair | None, clients: Path | None) -> None:
        """Encrypts, and refuses clients whose key is not in the folder `clients`."""
        if keys is not None:
            require_curve()
            self._socket.curve_server = True
            self._socket.curve_publickey, self._socket.curve_secretkey = keys
            self._socket.zap_domain = ZAP_DOMAIN
        if clients is not None:
            self._gate = Gate(self._context, clients)

    def _bind(self, address: str) -> None:
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            taken = error.errno == errno.EADDRINUSE
            raise MachineError(
                f"{address} is taken" if taken else f"cannot listen at {address}",
                expected="a free address; tcp://127.0.0.1:0 takes any port",
                got=str(error),
                remedy="stop the other server, or choose another port with --bind"
                if taken
                else "choose another address with --bind",
            ) from error


def _host(address: str) -> str | None:
    """The host of a TCP address, None where no other machine comes in; ConfigError for what is no address."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(address)
        if parts.scheme in ("ipc", "inproc"):
            return None
        if parts.scheme == "tcp" and parts.hostname:
            return parts.hostname
    raise ConfigError(
        "this is no address to listen at",
        expected="tcp://HOST:PORT, such as tcp://127.0.0.1:5555",
        got=repr(address),
    )


def _check_loopback(address: str, host: str | None) -> None:
    """MachineError unless only this machine can reach the address."""
    if host is None or host == "localhost" or _is_loopback(host):
        return
    raise MachineError(
        f"{address} can be reached from other machines, and the connection is not encrypted",
        expected="keys, or a loopback address such as tcp://127.0.0.1:5555",
        remedy="make keys with `worldwire serve --new-key FILE` and serve with --key FILE_secret; "
        "or say --insecure on a network that you trust",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
