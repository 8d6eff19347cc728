"""What the benchmarks of the wire share: a server process, and a client without comfort on a bare socket.

As a program it is the Python client that `wire.py` measures, with the command line that every client has:

    python benchmarks/wire_peer.py bench ADDRESS SECONDS FORMAT [WINDOW]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
import zmq

VERSION: Final = (1, 0)
WARM_UP_S: Final = 0.5
PING_S: Final = 2.0
ANSWER_S: Final = 20.0
START_S: Final = 60.0
DEFAULT_WINDOW: Final = 8


@contextmanager
def serving(*options: str) -> Iterator[str]:
    """`worldwire serve --preset test-pattern` with more options; gives its address when it is ready."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "address"
        command = [sys.executable, "-m", "worldwire", "serve", "--preset", "test-pattern", *options]
        command += ["--bind", "tcp://127.0.0.1:0", "--ready-file", str(ready)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            yield _wait_for(ready, process)
        finally:
            process.terminate()
            process.wait(30)


def _wait_for(ready: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the server did not start")
        time.sleep(0.05)
    return ready.read_text()


class Peer:
    """One session of one connection; messages are plain maps."""

    def __init__(self, address: str, context: zmq.Context[Any] | None = None):
        self._context = context or zmq.Context()
        self._owns_context = context is None
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect(address)
        self._requests = 0
        self.session = 0
        self.welcome = self.ask("hello", version=VERSION, client="worldwire benchmark")
        self._next_ping_s = time.monotonic() + PING_S

    def send(self, kind: str, **fields: Any) -> None:
        """Sends one message."""
        self.socket.send(msgpack.packb({"type": kind, **fields}))

    def ask(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Sends a request and returns its last answer; frames on the way are thrown away."""
        self._requests += 1
        self.send(kind, request=self._requests, **fields)
        while True:
            answer, _ = self.receive(ANSWER_S)
            if answer["type"] != "frame" and answer.get("request") == self._requests:
                if answer["type"] == "error":
                    raise SystemExit(f"the server refused {kind}: {answer}")
                return answer

    def receive(self, timeout_s: float) -> tuple[dict[str, Any], Any]:
        """The next message and its payload (None without one); ends the program after the time-out."""
        if not self.socket.poll(round(timeout_s * 1000)):
            raise SystemExit(f"the server was silent for {timeout_s:g} s")
        header, *payload = self.socket.recv_multipart(copy=False)
        return msgpack.unpackb(header.buffer), payload[0].buffer if payload else None

    def play(self, form: str, window: int) -> None:
        """Opens a session and goes live."""
        self.session = self.ask("open", formats=[form])["session"]
        self.ask("reset", session=self.session)
        self.ask("start", session=self.session, window=window)

    def next_frame(self, timeout_s: float = ANSWER_S) -> tuple[dict[str, Any], Any, int]:
        """Header, payload and time of arrival (ns) of the next live frame; gives its credit back."""
        while True:
            message, payload = self.receive(timeout_s)
            now_ns = time.monotonic_ns()
            self._stay_alive()
            if message["type"] == "frame":
                self.send("credit", session=self.session, frames=1)
                return message, payload, now_ns
            if message["type"] in ("error", "bye"):
                raise SystemExit(f"the server said {message}")

    def _stay_alive(self) -> None:
        if time.monotonic() > self._next_ping_s:
            self._next_ping_s = time.monotonic() + PING_S
            self.send("ping", t_ns=time.monotonic_ns())

    def close(self) -> None:
        """Says goodbye."""
        self.send("bye")
        self.socket.close(200)
        if self._owns_context:
            self._context.term()


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50_ms and p99_ms of milliseconds."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50_ms": round(float(p50), 3), "p99_ms": round(float(p99), 3)}


def bench(address: str, seconds: float, form: str, window: int = DEFAULT_WINDOW) -> dict[str, Any]:
    """Takes live frames for some seconds; latency is from `t_ns` to the whole frame being here."""
    peer = Peer(address)
    peer.play(form, window)
    latencies_ms: list[float] = []
    start_s = time.monotonic() + WARM_UP_S
    while (now_s := time.monotonic()) < start_s + seconds:
        header, _, arrived_ns = peer.next_frame()
        if now_s >= start_s:
            latencies_ms.append((arrived_ns - header["t_ns"]) / 1e6)
    peer.close()
    return {"frames": len(latencies_ms), "seconds": seconds, **percentiles(latencies_ms)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("verb", choices=["bench"])
    parser.add_argument("address")
    parser.add_argument("seconds", type=float)
    parser.add_argument("format")
    parser.add_argument("window", type=int, nargs="?", default=DEFAULT_WINDOW)
    args = parser.parse_args()
    sys.stdout.write(json.dumps(bench(args.address, args.seconds, args.format, args.window)) + "\n")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
