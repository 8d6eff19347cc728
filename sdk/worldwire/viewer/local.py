"""A `worldwire serve` process of our own on a free port of this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from worldwire.errors import ConnectionLostError

SERVE_VERB: Final = "serve"
SERVE: Final = (sys.executable, "-m", "worldwire.viewer.guarded", SERVE_VERB)
LOOPBACK: Final = "127.0.0.1"
STOP_TIMEOUT_S: Final = 5.0
END_TIMEOUT_S: Final = 3.0
LOG_TAIL_LINES: Final = 12


class LocalServer:
    """Starts the process at once; `stop` (or leaving the context) ends it. Its output goes to a log file."""

    def __init__(self, arguments: Sequence[str], launcher: Sequence[str] = SERVE):
        """arguments: what `worldwire serve` gets besides its address, for example `--preset tiny`.

        launcher: the command itself.
        """
        self.address = f"tcp://{LOOPBACK}:{free_port()}"
        self._folder = tempfile.TemporaryDirectory(prefix="worldwire-")
        self._log_path = Path(self._folder.name) / "serve.log"
        command = [*launcher, *arguments, "--bind", self.address]  # of two addresses the last one counts
        with self._log_path.open("wb") as log:
            # Its own process group: Ctrl-C reaches the viewer alone, which then stops the server in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """The id of the server's process."""
        return self._process.pid

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """A connection that is lost because the server ended gets the server's own word for it."""
        try:
            yield
        except ConnectionLostError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_TIMEOUT_S)  # its address goes before it does
            self.check()
            raise

    def check(self) -> None:
        """ConnectionLostError with the end of the server's log, if the process is gone."""
        status = self._process.poll()
        if status is None:
            return
        raise ConnectionLostError(
            f"the local server ended with status {status}",
            got="\n".join(self.log_tail()) or "no word from it",
        )

    def log_tail(self, lines: int = LOG_TAIL_LINES) -> list[str]:
        """The last lines that the server wrote."""
        with contextlib.suppress(OSError):
            text = self._log_path.read_text(encoding="utf-8", errors="replace")
            return [line.split("\r")[-1].rstrip() for line in text.splitlines() if line.strip()][-lines:]
        return []

    def stop(self) -> None:
        """Ends the process, politely first; stopping twice is fine."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._folder.cleanup()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port
