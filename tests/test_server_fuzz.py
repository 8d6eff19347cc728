"""Thousands of damaged messages against a real server, while another session must keep getting frames.

`benchmarks/fuzz.py` does the same with a hundred thousand, and feeds the decoders of the other clients.
"""

import json
import struct
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from mutations import Mutator, golden
from server_fixture import RawPeer, serving

import worldwire
from worldwire.errors import ProtocolError
from worldwire.protocol import Open, Opened, decode
from worldwire_runtime.test_pattern import PatternWorld

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
MESSAGES = 3000
PEERS = 3
LARGEST_GROWTH_BYTES = 150 * 2**20


def attack(endpoint: str, seed: int, sent: list[int]) -> None:
    mutator = Mutator(seed)
    with RawPeer(endpoint) as peer:
        peer.send(Open(request=2))
        session = peer.receive_until(lambda message: isinstance(message, Opened))[-1].session
        for number in range(MESSAGES // PEERS):
            peer.send_parts(mutator.parts(session=session))
            if number % 50 == 0:
                peer.drain()
        sent.append(number + 1)


def test_damaged_messages_from_some_clients_leave_the_others_in_peace():
    with (
        serving(PatternWorld(96, 160, frames_per_step=4), sessions=64, messages_per_second=100_000) as server,
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
        newest = 0
        while any(attacker.is_alive() for attacker in attackers):
            for frame in session.poll_frames(timeout_s=0.5):
                assert frame.index == newest + 1
                newest = frame.index
        assert sum(sent) == MESSAGES
        assert newest >= 20
        session.pause()
        assert len(session.branch().step(worldwire.Inputs())) == 4
        assert psutil.Process().memory_info().rss - memory < LARGEST_GROWTH_BYTES


def test_damaged_messages_are_read_or_refused_and_nothing_else():
    mutator, refused = Mutator(0), 0
    for _ in range(MESSAGES):
        try:
            decode(mutator.parts())
        except ProtocolError:
            refused += 1
    assert 0.5 * MESSAGES < refused < 0.95 * MESSAGES


@pytest.mark.parametrize("seed", range(3))
def test_a_seed_repeats_its_damage_and_most_of_it_is_damage(seed):
    first, second = Mutator(seed), Mutator(seed)
    cases = [first.parts(session=1) for _ in range(200)]
    assert cases == [second.parts(session=1) for _ in range(200)]
    assert sum(parts[0] in golden() for parts in cases) < 100


def test_a_file_of_cases_is_what_the_readme_says(tmp_path):
    file = tmp_path / "cases"
    subprocess.run([sys.executable, FUZZ, "file", file, "--cases", "50"], check=True)
    data, found = file.read_bytes(), []
    while data:
        (size,) = struct.unpack_from("<I", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    mutator = Mutator(0)
    assert found == [mutator.header() for _ in range(50)]


def test_the_decoder_is_measured(tmp_path):
    record = tmp_path / "record.json"
    subprocess.run([sys.executable, FUZZ, "decoder", "--cases", "200", "--json", record], check=True)
    found = json.loads(record.read_text())["decoder"]
    assert found["refused"] + found["accepted"] == 200
