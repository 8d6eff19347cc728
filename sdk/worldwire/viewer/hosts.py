"""Where a world is found: a server process of our own, or an address that somebody gave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from worldwire.api import WorldInfo
from worldwire.client import Client, RemoteSession, connect
from worldwire.connection import START_REMEDY
from worldwire.errors import ConnectionLostError
from worldwire.protocol import StatusReport
from worldwire.viewer.local import SERVE, LocalServer

LOCAL_TIMEOUT_S: Final = 900.0
"""A first start may compile the networks for minutes."""
REMOTE_TIMEOUT_S: Final = 10.0

Report = Callable[[str], None]
Cancelled = Callable[[], bool]


@dataclass(frozen=True)
class LocalHost:
    """Starts `worldwire serve` with these arguments on a free port, and stops it afterwards."""

    arguments: Sequence[str]
    launcher: Sequence[str] = SERVE

    @contextmanager
    def open(self, report: Report, cancelled: Cancelled) -> Iterator[tuple[WorldInfo, RemoteSession]]:
        """See `worldwire.viewer.link.Host`. ConnectionLostError with the server's last lines if it ends."""
        with LocalServer(self.arguments, self.launcher) as server, server.explained():

            def watch(status: StatusReport | None) -> None:
                server.check()
                last_line = (server.log_tail(1) or ["starting the server"])[0]
                report(last_line if status is None or status.stage is None else _progress(status))

            client = _connect(server.address, LOCAL_TIMEOUT_S, watch, cancelled, resume_s=0)
            with client, client.session() as session:
                yield client.info, session


@dataclass(frozen=True)
class RemoteHost:
    """A server that runs already. For the keys see `worldwire.connect`."""

    address: str
    server_key: str | None = None
    client_key: str | None = None

    @contextmanager
    def open(self, report: Report, cancelled: Cancelled) -> Iterator[tuple[WorldInfo, RemoteSession]]:
        """See `worldwire.viewer.link.Host`."""

        def watch(status: StatusReport | None) -> None:
            report(f"connecting to {self.address}" if status is None else _progress(status))

        keys = {"server_key": self.server_key, "client_key": self.client_key}
        client = _connect(self.address, REMOTE_TIMEOUT_S, watch, cancelled, **keys)
        with client, client.session() as session:
            yield client.info, session


def _connect(
    address: str,
    timeout_s: float,
    watch: Callable[[StatusReport | None], None],
    cancelled: Cancelled,
    **options: Any,
) -> Client:
    """Connects within `timeout_s`, or LOCAL_TIMEOUT_S to a server that loads; hears `cancelled` meanwhile."""
    deadline_s = time.monotonic() + timeout_s

    def on_wait(status: StatusReport | None) -> None:
        watch(status)
        if cancelled():
            raise ConnectionLostError("connecting was given up")
        if status is None and time.monotonic() > deadline_s:
            problem = f"no server answered at {address} within {timeout_s:g} s"
            raise ConnectionLostError(problem, remedy=START_REMEDY)

    return connect(address, timeout_s=LOCAL_TIMEOUT_S, on_wait=on_wait, **options)


def _progress(status: StatusReport) -> str:
    """How far a server that loads is, in a line for the player."""
    part = "" if status.progress is None else f", {status.progress:.0%}"
    return f"{status.stage or 'the server loads its world'}{part}"
