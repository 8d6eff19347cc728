"""The client: worlds of a server.

    with worldwire.connect("tcp://127.0.0.1:5555") as client, client.session() as session:
        session.reset(prompt="a village by day")
        frames = session.step(Inputs({"forward"}))                  # lockstep: as in process

        session.start()                                             # live: the world runs by itself
        seq = session.send_input({"forward"}, yaw_deg=2.0)
        for frame in session.poll_frames(timeout_s=0.1):
            show(frame.pixels)                                      # frame.ack >= seq: it shows that input

Threads: every method of `Client` may be called from any thread; for sessions see `worldwire.remote`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from worldwire.api import WorldInfo
from worldwire.keys import ClientKeys
from worldwire.link import Link, OnWait
from worldwire.pictures import check_decodable
from worldwire.protocol import (
    DEFAULT_ADDRESS,
    DEFAULT_JPEG_QUALITY,
    FORMAT_RGB,
    Limits,
    Open,
    Opened,
    Status,
    StatusReport,
)
from worldwire.remote import RemoteSession, SavedState

__all__ = ["Client", "RemoteSession", "SavedState", "connect"]

CONNECT_TIMEOUT_S: Final = 10.0
STEP_TIMEOUT_S: Final = 300.0


def connect(
    address: str = DEFAULT_ADDRESS,
    timeout_s: float = CONNECT_TIMEOUT_S,
    step_timeout_s: float = STEP_TIMEOUT_S,
    *,
    server_key: str | Path | None = None,
    client_key: str | Path | None = None,
    resume_s: float | None = None,
    on_wait: OnWait | None = None,
) -> Client:
    """Connects to `worldwire serve`; waits up to `timeout_s` for it to start and to load its world.

    step_timeout_s: how long a reset or step may take.
    server_key: the public key of a server that encrypts: 40 characters, or the file that
    `worldwire serve --new-key` wrote.
    client_key: the secret file of a key of our own, where the server lists the clients that it takes.
    resume_s: how long to try to get a lost connection and its sessions back; 0 is not at all, None as long as
    the server keeps them.
    on_wait: called several times a second while we wait: with None before a server answers, then with the
    report of one that loads (`progress`, `stage`). What it raises ends the waiting.
    Raises ConnectionLostError (nothing there, or no answer), VersionError, BusyError (still loading), and
    WrongKeyError (which says what does not fit).
    """
    return Client(
        address,
        timeout_s,
        step_timeout_s,
        server_key=server_key,
        client_key=client_key,
        resume_s=resume_s,
        on_wait=on_wait,
    )


class Client:
    """A connection to a server. Thread-safe. Use it as a context manager, or close() it."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        timeout_s: float = CONNECT_TIMEOUT_S,
        step_timeout_s: float = STEP_TIMEOUT_S,
        *,
        server_key: str | Path | None = None,
        client_key: str | Path | None = None,
        resume_s: float | None = None,
        on_wait: OnWait | None = None,
    ):
        """See `connect`."""
        self.address, self.timeout_s, self.step_timeout_s = address, timeout_s, step_timeout_s
        self._link = Link(address, ClientKeys.of(server_key, client_key), resume_s)
        try:
            self._link.greet(timeout_s, on_wait)
        except BaseException:
            self._link.close()
            raise

    @property
    def info(self) -> WorldInfo:
        """The world that the server plays."""
        return self._link.welcome.world.info()

    @property
    def limits(self) -> Limits:
        """What the server grants."""
        return self._link.welcome.limits

    @property
    def formats(self) -> tuple[str, ...]:
        """The frame formats that the server can send."""
        return self._link.welcome.formats

    @property
    def connected(self) -> bool:
        """Whether the server can be reached now; False too while a lost connection may come back."""
        return self._link.connected

    def session(
        self,
        plan: str | None = None,
        formats: Sequence[str] = (FORMAT_RGB,),
        jpeg_quality: int = DEFAULT_JPEG_QUALITY,
    ) -> RemoteSession:
        """Opens a session.

        plan: the name of a clip plan, None for the server's own.
        formats: "rgb", "rgba", "bgra", "jpeg", "h264", preferred first; the last two need the extra `play`.
        `Frame.pixels` is RGB whatever it is.
        Raises BusyError when the server has no room, ConfigError for an unknown plan or format.
        """
        check_decodable(tuple(formats))
        message = Open(
            request=self._link.next_id(), plan=plan, formats=tuple(formats), jpeg_quality=jpeg_quality
        )
        opened = cast(Opened, self._link.request(message, self.step_timeout_s).message)
        return RemoteSession(self._link, opened, self.timeout_s, self.step_timeout_s)

    def status(self) -> StatusReport:
        """How the server is doing."""
        arrival = self._link.request(Status(request=self._link.next_id()), self.timeout_s)
        return cast(StatusReport, arrival.message)

    @property
    def round_trip_ms(self) -> float | None:
        """The quickest of the last pings; None before the first answer."""
        trip = self._link.best_round_trip
        return None if trip is None else trip.duration_ns / 1e6

    def close(self) -> None:
        """Ends the connection; the server closes the sessions."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
