"""Measures the wire with a synthetic world: throughput, latency, a stalled client, a crowd.

    python benchmarks/wire.py throughput [--client "mono Bench.exe"] [--format rgb] [--json FILE]
    python benchmarks/wire.py latency
    python benchmarks/wire.py stall
    python benchmarks/wire.py crowd [--clients 64]
    python benchmarks/wire.py all --json benchmarks/wire.json

Every figure is the median of `--repeats` runs, with all runs beside it. `throughput` and `latency` also say
how bare ZeroMQ moves the same bytes right after, for machines differ and are shared: compare the ratio.

A client in another language is a program that is run as `CLIENT bench ADDRESS SECONDS FORMAT [WINDOW]`: it
greets, opens a session with this one format, resets, starts with the window, takes each frame and gives its
credit back; it throws the first 0.5 s away, counts for SECONDS, says `bye` and prints one line of JSON:

    {"frames": 1234, "seconds": 5.0, "p50_ms": 1.2, "p99_ms": 2.3, "gen0": 0}

p50_ms, p99_ms: from a frame's `t_ns` to the moment when all of it was here, both on the machine's monotonic
clock. gen0: garbage collections meanwhile, in languages that have them. More fields are passed on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import zmq
from wire_crowd import crowd
from wire_peer import DEFAULT_WINDOW, Peer, percentiles, serving

SIZE: Final = "1280x704"
FRAME_BYTES: Final = 1280 * 704 * 3
PYTHON_CLIENT: Final = f"{shlex.quote(sys.executable)} {Path(__file__).with_name('wire_peer.py')}"
CLIENT_S: Final = 120.0
PLAYING_FPS: Final = 40
STALL_S: Final = 10.0

Record = dict[str, Any]


def say(text: str) -> None:
    """Progress for people."""
    sys.stderr.write(text + "\n")


def run_client(client: str, address: str, args: argparse.Namespace) -> Record:
    """Runs a client program and returns what it measured."""
    command = [*shlex.split(client), "bench", address, str(args.seconds), args.format, str(args.window)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}{done.stdout}")
    found: Record = json.loads(done.stdout.strip().splitlines()[-1])
    found["fps"] = round(found["frames"] / found["seconds"], 1)
    return found


def median_of(runs: list[Record]) -> Record:
    """The median of each number, and all runs."""
    numbers = [name for name, value in runs[0].items() if isinstance(value, (int, float))]
    return {name: statistics.median(run[name] for run in runs) for name in numbers} | {"runs": runs}


def repeat(what: str, args: argparse.Namespace, run: Callable[[], Record]) -> Record:
    """Runs a measurement several times."""
    runs = []
    for number in range(args.repeats):
        runs.append(run())
        say(f"  {what} {number + 1}/{args.repeats}: {json.dumps(runs[-1])}")
    return median_of(runs)


def bare_zmq(seconds: float, fps: float = 0.0) -> Record:
    """The same bytes from thread to thread over loopback, without a protocol; fps 0: as fast as it goes."""
    context = zmq.Context()
    sender, receiver = context.socket(zmq.PUSH), context.socket(zmq.PULL)
    for socket in (sender, receiver):
        socket.set_hwm(DEFAULT_WINDOW)
        socket.linger = 0
    receiver.connect(f"tcp://127.0.0.1:{sender.bind_to_random_port('tcp://127.0.0.1')}")
    stop = threading.Event()

    def send() -> None:
        picture = bytes(FRAME_BYTES)
        while not stop.wait(1 / fps if fps else 0):
            if sender.poll(100, zmq.POLLOUT):
                sender.send(time.monotonic_ns().to_bytes(8, "big"), zmq.SNDMORE)
                sender.send(picture, copy=False)

    thread = threading.Thread(target=send)
    thread.start()
    latencies_ms, start_s = [], time.monotonic()
    while time.monotonic() < start_s + seconds:
        sent, _ = receiver.recv_multipart(copy=False)
        latencies_ms.append((time.monotonic_ns() - int.from_bytes(sent.bytes, "big")) / 1e6)
    stop.set()
    thread.join()
    context.destroy(0)
    return {"fps": round(len(latencies_ms) / seconds, 1), **percentiles(latencies_ms)}


def throughput(args: argparse.Namespace) -> Record:
    """Frames/s as fast as the client takes them."""
    with serving("--size", SIZE, "--rate", "0") as address:
        found = repeat(
            f"{args.format} to {args.client}", args, lambda: run_client(args.client, address, args)
        )
    bare = repeat("bare ZeroMQ", args, lambda: bare_zmq(args.seconds))
    return found | {"bare_zmq_fps": bare["fps"], "of_bare_zmq": round(found["fps"] / bare["fps"], 3)}


def latency(args: argparse.Namespace) -> Record:
    """Added latency at a playing rate: from the server's send to the whole frame at the client."""
    with serving("--size", SIZE, "--rate", str(PLAYING_FPS)) as address:
        what = f"{args.format} at {PLAYING_FPS} frames/s to {args.client}"
        found = repeat(what, args, lambda: run_client(args.client, address, args))
    bare = repeat("bare ZeroMQ", args, lambda: bare_zmq(args.seconds, PLAYING_FPS))
    return found | {"bare_zmq_p50_ms": bare["p50_ms"], "bare_zmq_p99_ms": bare["p99_ms"]}


class Neighbour(threading.Thread):
    """Another player of the same server, who must not notice anything; notes when each frame came."""

    def __init__(self, address: str, form: str):
        super().__init__(daemon=True)
        self._peer = Peer(address)
        self._peer.play(form, DEFAULT_WINDOW)
        self._over = threading.Event()
        self.frames: list[tuple[float, float]] = []
        """Time of arrival in s, latency in ms."""

    def run(self) -> None:
        while not self._over.is_set():
            header, _, now_ns = self._peer.next_frame()
            self.frames.append((now_ns / 1e9, (now_ns - header["t_ns"]) / 1e6))

    def stop(self) -> None:
        """Ends the play."""
        self._over.set()
        self.join()
        self._peer.close()

    def between(self, start_s: float, end_s: float) -> Record:
        """Rate, latency and longest gap in a span of time."""
        inside = [frame for frame in self.frames if start_s <= frame[0] < end_s]
        gaps_ms = [(b[0] - a[0]) * 1000 for a, b in pairwise(inside)]
        return {
            "fps": round(len(inside) / (end_s - start_s), 1),
            "longest_gap_ms": round(max(gaps_ms), 1),
            **percentiles([frame[1] for frame in inside]),
        }


def stall(args: argparse.Namespace) -> Record:
    """A client of the SDK polls nothing for 10 s: what it gets then, and what its neighbour noticed."""
    import worldwire

    with serving("--size", SIZE, "--rate", str(PLAYING_FPS)) as address:
        neighbour = Neighbour(address, args.format)
        neighbour.start()
        with worldwire.connect(address) as client, client.session(formats=[args.format]) as session:
            session.reset()
            session.start()
            before_s = time.monotonic()
            newest = 0
            while time.monotonic() < before_s + args.seconds:
                for frame in session.poll_frames(timeout_s=0.1):
                    newest = frame.index
            stalled_s = time.monotonic()
            say(f"  the client stalls for {STALL_S:g} s")
            time.sleep(STALL_S)
            back_s = time.monotonic()
            first = session.poll_frames(timeout_s=1)
            following = session.poll_frames(timeout_s=1)
            fresh_ms = (time.monotonic() - back_s) * 1000
            session.pause()
        neighbour.stop()
    return {
        "frames_at_once_after_the_stall": len(first),
        "frames_left_out": first[-1].index - newest - 1,
        "next_frame_follows": following[0].index == first[-1].index + 1,
        "fresh_frame_after_ms": round(fresh_ms, 1),
        "neighbour_before": neighbour.between(before_s, stalled_s),
        "neighbour_meanwhile": neighbour.between(stalled_s, back_s),
    }


MEASUREMENTS: Final[dict[str, Callable[[argparse.Namespace], Record]]] = {
    "throughput": throughput,
    "latency": latency,
    "stall": stall,
    "crowd": lambda args: repeat(f"{args.clients} clients", args, lambda: crowd(args.clients, args.seconds)),
}


def machine() -> Record:
    """Where this ran, and how busy it was."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "nice": os.nice(0),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "zmq": zmq.zmq_version(),
        "python": platform.python_version(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*MEASUREMENTS, "all"])
    parser.add_argument("--client", default=PYTHON_CLIENT, help="command (default: a client in Python)")
    parser.add_argument("--name", default="python", help="what the record calls the client")
    parser.add_argument("--format", default="rgb")
    parser.add_argument("--window", type=int, default=DEFAULT_WINDOW)
    parser.add_argument("--clients", type=int, default=64, help="of `crowd`")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="add the record to this file")
    args = parser.parse_args()
    record: Record = {}
    for name in MEASUREMENTS if args.what == "all" else [args.what]:
        say(f"{name} ...")
        record[name] = {"client": args.name, "format": args.format, **MEASUREMENTS[name](args)}
    record["machine"] = machine()
    if args.json is not None:
        known = json.loads(args.json.read_text()) if args.json.exists() else {}
        args.json.write_text(
            json.dumps(known | {args.name: known.get(args.name, {}) | record}, indent=2) + "\n"
        )
    sys.stdout.write(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
