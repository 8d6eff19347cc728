"""Thousands of mutated messages against a real server, while another session must keep getting frames."""

import random
import threading
import time

import msgpack
import psutil
from fake_world import FakeWorld
from server_fixture import RawPeer, serving

import worldwire
from protocol_vectors import VECTORS
from worldwire.protocol import Open, Opened, encode
from worldwire.schema import unpack_map

MESSAGES = 4000
PEERS = 4
LONGEST_GAP_S = 2.0
LARGEST_GROWTH_BYTES = 150 * 2**20
NASTY = (
    None,
    True,
    -1,
    0,
    1,
    2**53,
    2**63,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    b"\x00",
    [],
    [[]],
    {},
    {"a": 1},
)


class Fuzzer:
    """Mutates valid messages of a client; the seed makes a run repeatable."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def parts(self, session: int) -> list[bytes]:
        """One message, more or less."""
        choose = self._random
        values = unpack_map(encode(choose.choice(list(VECTORS.values()))))
        if "session" in values and choose.random() < 0.8:
            values["session"] = session
        if choose.random() < 0.5:
            values[choose.choice(sorted(values))] = choose.choice(NASTY)
        if choose.random() < 0.1:
            values.pop(choose.choice(sorted(values)))
        data = self._damage(bytearray(msgpack.packb(values)))
        parts = [bytes(data)] + [choose.randbytes(choose.choice((0, 1, 4608, 50_000)))] * (
            choose.random() < 0.3
        )
        return parts if choose.random() < 0.97 else parts * choose.randint(2, 5)

    def _damage(self, data: bytearray) -> bytearray:
        choose = self._random
        if choose.random() < 0.3:
            for _ in range(choose.randint(1, 6)):
                data[choose.randrange(len(data))] = choose.randrange(256)
        if choose.random() < 0.1:
            del data[choose.randrange(len(data)) :]
        return data + choose.randbytes(choose.randint(1, 20)) if choose.random() < 0.05 else data


def attack(endpoint: str, seed: int, sent: list[int]) -> None:
    fuzzer = Fuzzer(seed)
    with RawPeer(endpoint) as peer:
        peer.send(Open(request=2))
        session = next((m.session for m in peer.receive_all(0.2) if isinstance(m, Opened)), 1)
        for number in range(MESSAGES // PEERS):
            peer.send_parts(fuzzer.parts(session))
            if number % 50 == 0:
                peer.receive_all(0.001)
        sent.append(number + 1)


def test_garbage_from_some_clients_leaves_the_others_in_peace():
    world = FakeWorld(step_s=0.01)
    with (
        serving(world, sessions=32, messages_per_second=100_000) as server,
        worldwire.connect(server.endpoint) as client,
        client.session() as session,
    ):
        session.reset()
        session.start()
        memory = psutil.Process().memory_info().rss
        sent: list[int] = []
        attackers = [
            threading.Thread(target=attack, args=(server.endpoint, seed, sent)) for seed in range(PEERS)
        ]
        for attacker in attackers:
            attacker.start()
        newest, longest_gap_s, last = 0, 0.0, time.monotonic()
        while any(attacker.is_alive() for attacker in attackers):
            for frame in session.poll_frames(timeout_s=0.5):
                assert frame.index == newest + 1
                newest = frame.index
                longest_gap_s, last = max(longest_gap_s, time.monotonic() - last), time.monotonic()
        assert sum(sent) == MESSAGES
        assert newest >= 20
        assert longest_gap_s < LONGEST_GAP_S
        session.pause()
        assert len(session.branch().step(worldwire.Inputs())) == 8
        assert psutil.Process().memory_info().rss - memory < LARGEST_GROWTH_BYTES
    assert world.open_sessions == 0
