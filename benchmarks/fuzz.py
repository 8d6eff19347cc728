"""Feeds damaged messages (`mutations.py`) to a live server and to decoders: no crash, no hang, no growth.

    python benchmarks/fuzz.py server [--cases 100000] [--json FILE]   a real server; another client plays
    python benchmarks/fuzz.py decoder                                 the decoder of the Python client
    python benchmarks/fuzz.py client "mono Tests.exe"                 that of a client in another language
    python benchmarks/fuzz.py file FILE                               only writes the cases

A file of cases is a sequence of [u32, little endian: number of bytes][bytes of part 0]. A client is a program
that is run as `CLIENT fuzz FILE`, decodes each case and prints one line of JSON:

    {"cases": 100000, "refused": 98000, "accepted": 2000, "seconds": 3.1}
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shlex
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import psutil
import zmq
from mutations import Mutator
from wire_peer import Peer

from worldwire.errors import ProtocolError, WorldwireError
from worldwire.protocol import Limits, decode

CASES: Final = 100_000
PEERS: Final = 4
HEIGHT, WIDTH = 96, 160
READ_EVERY: Final = 25
RECONNECT_EVERY: Final = 2000
CLIENT_S: Final = 600.0
NEIGHBOUR_WINDOW: Final = 8
NEIGHBOUR_FPS: Final = 40.0

Record = dict[str, Any]


def say(text: str) -> None:
    """Progress for people."""
    sys.stderr.write(text + "\n")


def serve(pipe: Any) -> None:
    """A server of test patterns that drops no message for its number; runs in a process of its own."""
    import logging

    from worldwire_runtime.server import Server
    from worldwire_runtime.test_pattern import PatternWorld

    logging.disable(logging.WARNING)  # unexpected errors still show
    limits = Limits(sessions=256, messages_per_second=10**7, liveness_s=60, message_bytes=2**22)
    world = PatternWorld(HEIGHT, WIDTH, frames_per_step=2)
    server = Server(lambda: world, "tcp://127.0.0.1:0", limits=limits, rate=NEIGHBOUR_FPS)
    threading.Thread(target=lambda: (pipe.recv(), server.stop()), daemon=True).start()
    server.run(lambda: pipe.send(server.endpoint))


def attack(address: str, seed: int, cases: int, sent: Any) -> None:
    """Sends damaged messages of which most name a session that exists; connects anew now and then."""
    mutator, left = Mutator(seed), cases
    context = zmq.Context()
    while left:
        peer = Peer(address, context)
        peer.socket.sndtimeo = round(CLIENT_S * 1000)
        peer.play("rgb", NEIGHBOUR_WINDOW)
        for number in range(min(left, RECONNECT_EVERY)):
            peer.socket.send_multipart(mutator.parts(session=peer.session, request=number + 10))
            if number % READ_EVERY == 0:
                _read_all(peer)
        count = min(left, RECONNECT_EVERY)
        _wait_until_read(peer)
        left -= count
        with sent.get_lock():
            sent.value += count
        peer.socket.close(0)  # without a goodbye
    context.term()


def _read_all(peer: Peer) -> None:
    while peer.socket.poll(0):
        peer.socket.recv_multipart()


def _wait_until_read(peer: Peer) -> None:
    """Until the server has come to a last ping: then it has read everything before."""
    mark = time.monotonic_ns()
    peer.send("ping", t_ns=mark)
    while True:
        message, _ = peer.receive(CLIENT_S)
        if message["type"] == "pong" and message["t_ns"] == mark:
            return


def fuzz_server(cases: int, seed: int) -> Record:
    """Attacks a server with several clients, while another one plays on it."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    server = spawn.Process(target=serve, args=(theirs,))
    server.start()
    address = ours.recv()
    sent = spawn.Value("q", 0)
    shares = [cases // PEERS + (number < cases % PEERS) for number in range(PEERS)]
    attackers = [
        spawn.Process(target=attack, args=(address, seed + number, share, sent))
        for number, share in enumerate(shares)
    ]
    neighbour = Peer(address)
    neighbour.play("rgb", NEIGHBOUR_WINDOW)
    memory, start_s = Memory(server.pid or 0), time.monotonic()
    for attacker in attackers:
        attacker.start()
    gap_s = _play_meanwhile(neighbour, attackers, memory, sent, cases)
    seconds = time.monotonic() - start_s
    _check_good_session(address)
    alive = server.is_alive()
    ours.send("stop")
    server.join(60)
    return {
        "cases": sent.value,
        "seconds": round(seconds, 1),
        "alive_and_serving": alive and server.exitcode == 0 and sent.value == cases,
        "longest_gap_of_a_neighbour_s": round(gap_s, 3),
        **memory.record(),
    }


def _play_meanwhile(neighbour: Peer, attackers: list[Any], memory: Memory, sent: Any, cases: int) -> float:
    """Takes frames until the attackers are done; the longest time without one, in seconds."""
    longest_s, last_s, told = 0.0, time.monotonic(), 0
    while any(attacker.is_alive() for attacker in attackers):
        neighbour.next_frame()
        now_s = time.monotonic()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
        memory.note(sent.value / cases)
        if sent.value * 10 // cases > told:
            told = sent.value * 10 // cases
            say(f"  {sent.value} of {cases} messages, server {memory.now_mib:.0f} MiB")
    neighbour.close()
    return longest_s


def _check_good_session(address: str) -> None:
    peer = Peer(address)
    peer.play("jpeg", 2)
    for _ in range(5):
        peer.next_frame()
    peer.close()


class Memory:
    """Resident memory of a process over the course of an attack."""

    def __init__(self, pid: int):
        self._process = psutil.Process(pid)
        self._noted: list[tuple[float, float]] = []

    @property
    def now_mib(self) -> float:
        """Resident now."""
        return float(self._process.memory_info().rss) / 2**20

    def note(self, part: float) -> None:
        """Remembers the memory when `part` of the attack is over."""
        self._noted.append((part, self.now_mib))

    def record(self) -> Record:
        """The memory after a fifth, when caches and pools are warm, and at the end; MiB."""
        warm = [mib for part, mib in self._noted if part >= 0.2] or [self._noted[-1][1]]
        return {
            "memory_start_mib": round(self._noted[0][1], 1),
            "memory_after_a_fifth_mib": round(warm[0], 1),
            "memory_end_mib": round(warm[-1], 1),
        }


def fuzz_decoder(cases: int, seed: int) -> Record:
    """Decodes damaged messages in this process; every one is read or refused with a ProtocolError."""
    mutator = Mutator(seed)
    refused, slowest_s, memory = 0, 0.0, Memory(psutil.Process().pid)
    start_s = time.monotonic()
    for number in range(cases):
        parts = mutator.parts()
        before_s = time.perf_counter()
        try:
            decode(parts)
        except ProtocolError:
            refused += 1
        slowest_s = max(slowest_s, time.perf_counter() - before_s)
        if number % 1000 == 0:
            memory.note(number / cases)
    found = {"cases": cases, "refused": refused, "accepted": cases - refused}
    found |= {"seconds": round(time.monotonic() - start_s, 1), "slowest_ms": round(slowest_s * 1000, 2)}
    return found | memory.record()


def write_cases(path: Path, cases: int, seed: int) -> None:
    """Writes damaged parts 0 as length-prefixed records."""
    mutator = Mutator(seed)
    with path.open("wb") as file:
        for _ in range(cases):
            header = mutator.header()
            file.write(struct.pack("<I", len(header)) + header)


def fuzz_client(client: str, cases: int, seed: int) -> Record:
    """Lets a client of another language decode the cases; compares its verdicts' number with ours."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cases"
        write_cases(path, cases, seed)
        command = [*shlex.split(client), "fuzz", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=CLIENT_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    found: Record = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"accepted_by_python": count_accepted(cases, seed)}


def count_accepted(cases: int, seed: int) -> int:
    """How many of the cases of a file the Python decoder reads."""
    mutator, accepted = Mutator(seed), 0
    for _ in range(cases):
        try:
            decode([mutator.header()])
        except WorldwireError:
            continue
        accepted += 1
    return accepted


def main() -> int:
    verbatim = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=verbatim)
    parser.add_argument("what", choices=["server", "decoder", "client", "file"])
    parser.add_argument("target", nargs="?", help="the command of a client, or a file")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", help="what the record calls this (default: what was fuzzed)")
    parser.add_argument("--json", type=Path, help="add the record to this file")
    args = parser.parse_args()
    if args.what in ("client", "file") and not args.target:
        parser.error(f"`{args.what}` needs a target")
    if args.what == "file":
        write_cases(Path(args.target), args.cases, args.seed)
        return 0
    if args.what == "client":
        record = fuzz_client(args.target, args.cases, args.seed)
    else:
        record = {"server": fuzz_server, "decoder": fuzz_decoder}[args.what](args.cases, args.seed)
    if args.json is not None:
        known = json.loads(args.json.read_text()) if args.json.exists() else {}
        args.json.write_text(json.dumps(known | {args.name or args.what: record}, indent=2) + "\n")
    sys.stdout.write(json.dumps(record) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
