"""A GPU's decoding lane: with streams and events that stand for a GPU's, and on one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from fake_lane import fake_lane
from server_fixture import serving
from test_server import collect
from worlds import write_random_world

import worldwire
from worldwire.inputs import Inputs
from worldwire_runtime.decoder import SETTLED_CALLS, Landing, Lane
from worldwire_runtime.speed import Speed
from worldwire_runtime.world import World

FORWARD = Inputs(frozenset({"forward"}))


class FakeLatents:
    """Latents that a stream may be told of."""

    def __init__(self, numbers):
        self.numbers = numbers

    def split(self, _):
        return [FakeLatents([number]) for number in self.numbers]

    def record_stream(self, _stream):
        pass


@pytest.fixture
def lane(monkeypatch) -> Lane:
    return fake_lane(monkeypatch)


def number_of(latent: FakeLatents) -> Landing:
    return Landing(torch.tensor(latent.numbers[0]))


def test_latents_are_shown_in_order_after_what_their_caller_had_launched(lane):
    first = lane.each(number_of, FakeLatents([1, 2, 3]))
    second = lane.each(number_of, FakeLatents([4, 5]))
    assert lane.stream.waited == []  # nothing is decoded before somebody asks
    assert [int(each) for shown in (first, second) for each in shown] == [1, 2, 3, 4, 5]
    events, threads = zip(*lane.stream.waited, strict=True)
    assert events == (1, 1, 1, 2, 2)
    assert len(set(threads)) == 1
    assert threads[0].startswith("worldwire-decoder")
    assert lane.stream.priority < 0


def test_a_failure_comes_out_where_the_frames_are_taken_and_the_lane_lives_on(lane):
    def fails_at_2(latent):
        if latent.numbers == [2]:
            raise RuntimeError("broken")
        return number_of(latent)

    shown = lane.each(fails_at_2, FakeLatents([1, 2, 3]))
    assert int(next(shown)) == 1
    with pytest.raises(RuntimeError, match="broken"):
        next(shown)
    assert [int(each) for each in lane.each(number_of, FakeLatents([7]))] == [7]


def test_what_nobody_takes_any_more_is_not_decoded(lane):
    taken, gate, done = threading.Event(), threading.Event(), []

    def work(latent):
        done.append(latent.numbers[0])
        if latent.numbers == [2]:
            taken.set()
            gate.wait(5)
        return number_of(latent)

    shown = lane.each(work, FakeLatents([1, 2, 3, 4]))
    next(shown)
    assert taken.wait(5)
    shown.close()
    gate.set()
    assert [int(each) for each in lane.each(work, FakeLatents([5]))] == [5]
    assert done == [1, 2, 5]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_session_on_a_gpu_is_decoded_in_the_lane(tmp_path):
    """The same frames as without it, while steps overlap."""
    folder = write_random_world(tmp_path)
    plain = World.load(folder, "cuda", "float32", speed=Speed(compiled=False, graphs=False, overlap=False))
    fast = World.load(folder, "cuda", "float32", speed=Speed(compiled=False))
    local = plain.session()
    local.reset(seed=3)
    expected = [frame for _ in range(SETTLED_CALLS) for frame in local.step(FORWARD)]
    with serving(fast) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset(seed=3)
        session.send_input({"forward"})
        session.start()
        frames = collect(session, len(expected), timeout_s=60)
        session.restore(session.save())
    assert [frame.index for frame in frames[: len(expected)]] == [frame.index for frame in expected]
    for ours, theirs in zip(expected, frames, strict=False):
        assert abs(ours.pixels.astype(int) - theirs.pixels).max() <= 2
        assert all(np.isfinite(ms) and ms >= 0 for ms in theirs.timings_ms.values())
