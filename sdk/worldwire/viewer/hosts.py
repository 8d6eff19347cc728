"""Where a world is found: a server process of our own, or an address that somebody gave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from worldwire.api import WorldInfo
from worldwire.client import Client, RemoteSession, connect
from worldwire.errors import BusyError, ConnectionLostError
from worldwire.viewer.local import SERVE, LocalServer

ATTEMPT_S: Final = 0.5
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
        with LocalServer(self.arguments, self.launcher) as server:

            def watch() -> None:
                server.check()
                report((server.log_tail(1) or ["starting the server"])[0])

            client = _connect(server.address, LOCAL_TIMEOUT_S, watch, cancelled)
            with client, client.session() as session:
                yield client.info, session


@dataclass(frozen=True)
class RemoteHost:
    """A server that runs already."""

    address: str

    @contextmanager
    def open(self, report: Report, cancelled: Cancelled) -> Iterator[tuple[WorldInfo, RemoteSession]]:
        """See `worldwire.viewer.link.Host`."""
        client = _connect(
            self.address, REMOTE_TIMEOUT_S, lambda: report(f"connecting to {self.address}"), cancelled
        )
        with client, client.session() as session:
            yield client.info, session


def _connect(address: str, timeout_s: float, watch: Callable[[], None], cancelled: Cancelled) -> Client:
    """Tries again and again, in attempts so short that `cancelled` and `watch` are heard."""
    deadline_s = time.monotonic() + timeout_s
    loading_deadline_s = time.monotonic() + LOCAL_TIMEOUT_S
    while True:
        watch()
        if cancelled():
            raise ConnectionLostError("connecting was given up")
        try:
            return connect(address, timeout_s=ATTEMPT_S)
        except BusyError:  # it is there, and still loading its world
            if time.monotonic() > loading_deadline_s:
                raise
        except ConnectionLostError as error:
            if time.monotonic() > deadline_s:
                problem = f"no server answered at {address} within {timeout_s:g} s"
                raise ConnectionLostError(problem, remedy=error.remedy) from error
