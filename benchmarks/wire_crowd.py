"""Many players of one server, a few processes, one socket each: is every press of a key shown, and how fast?

Each player toggles a key all the time. Its pictures say which keys were held, so the presses and releases
that were shown can be counted; `ack` must arrive at the last input.
"""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import zmq
from wire_peer import WARM_UP_S, Peer, percentiles, serving

from worldwire_runtime.test_pattern import read_pattern

HEIGHT, WIDTH = 192, 320
FPS: Final = 24
RATE: Final = 25.0
"""Frames a second that the world is asked for: a little more than what each client must get."""
PROCESSES: Final = 2
WINDOW: Final = 6
TOGGLE_S: Final = 0.15
KEYS: Final = ("forward", "left", "jump")
SETTLE_S: Final = 5.0


@dataclass
class Player:
    """One client and what it saw. changes: presses and releases that its frames showed."""

    peer: Peer
    seq: int = 0
    held: frozenset[str] = frozenset()
    edges: int = 0
    shown: frozenset[str] = frozenset()
    changes: int = 0
    ack: int = 0
    dropped: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    def toggle(self) -> None:
        """Presses or releases the next key."""
        self.held ^= {KEYS[self.seq % len(KEYS)]}
        self.seq += 1
        self.edges += 1
        self.peer.send("input", session=self.peer.session, seq=self.seq, keys=sorted(self.held))

    def take(self, counted: bool) -> None:
        """Takes one frame."""
        header, payload, now_ns = self.peer.next_frame()
        picture = np.frombuffer(payload, np.uint8).reshape(header["height"], header["width"], 3)
        keys = read_pattern(picture).keys
        self.changes += len(keys ^ self.shown)
        self.shown, self.ack = keys, header["ack"]
        self.dropped += header["dropped"]
        if counted:
            self.latencies_ms.append((now_ns - header["t_ns"]) / 1e6)


def play(address: str, count: int, seconds: float, results: Any, barrier: Any) -> None:
    """Plays for `count` clients at once, in this process."""
    context = zmq.Context()
    players = [Player(Peer(address, context)) for _ in range(count)]
    poller = zmq.Poller()
    by_socket = {}
    for player in players:
        player.peer.play("rgb", WINDOW)
        poller.register(player.peer.socket, zmq.POLLIN)
        by_socket[player.peer.socket] = player
    barrier.wait()
    start_s = time.monotonic() + WARM_UP_S
    end_s = start_s + seconds
    next_toggle_s = [time.monotonic() + TOGGLE_S * number / count for number in range(count)]
    while (now_s := time.monotonic()) < end_s + SETTLE_S:
        for socket, _ in poller.poll(5):
            by_socket[socket].take(start_s <= now_s < end_s)
        for number, player in enumerate(players):
            if next_toggle_s[number] <= now_s < end_s:
                next_toggle_s[number] += TOGGLE_S
                player.toggle()
        if now_s > end_s and all(player.ack == player.seq for player in players):
            break
    results.put([_summary(player, seconds) for player in players])
    for player in players:
        player.peer.close()
    context.term()


def _summary(player: Player, seconds: float) -> dict[str, Any]:
    return {
        "fps": len(player.latencies_ms) / seconds,
        "edges": player.edges,
        "lost": player.edges - player.changes,
        "unacknowledged": player.seq - player.ack,
        "dropped": player.dropped,
        "latencies_ms": player.latencies_ms,
    }


def crowd(clients: int, seconds: float) -> dict[str, Any]:
    """Plays with many clients; frames/s of the slowest, and how many edges were lost."""
    spawn = multiprocessing.get_context("spawn")
    results, barrier = spawn.Queue(), spawn.Barrier(PROCESSES)
    options = ["--size", f"{WIDTH}x{HEIGHT}", "--rate", f"{RATE:g}", "--sessions", str(clients)]
    with serving(*options) as address:
        shares = [clients // PROCESSES + (number < clients % PROCESSES) for number in range(PROCESSES)]
        processes = [
            spawn.Process(target=play, args=(address, share, seconds, results, barrier)) for share in shares
        ]
        for process in processes:
            process.start()
        found = [player for _ in processes for player in results.get(timeout=120)]
        for process in processes:
            process.join()
    rates = [player["fps"] for player in found]
    return {
        "clients": clients,
        "slowest_fps": round(min(rates), 2),
        "all_fps": round(sum(rates), 1),
        "edges": sum(player["edges"] for player in found),
        "lost_edges": sum(abs(player["lost"]) for player in found),
        "unacknowledged": sum(player["unacknowledged"] for player in found),
        "dropped": sum(player["dropped"] for player in found),
        **percentiles([value for player in found for value in player["latencies_ms"]]),
    }
