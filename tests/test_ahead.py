"""The next clip is prepared while the one before is computed: when a step ends, and what waits for what."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from worlds import write_random_world

from worldwire.inputs import Inputs
from worldwire_runtime.ahead import HAND_OVER_S, MOST_LEAD, REMEMBERED, SLACK, Ahead, lead
from worldwire_runtime.speed import Speed
from worldwire_runtime.world import World

GPU = torch.device("cuda")
FORWARD = Inputs(frozenset({"forward"}), yaw_deg=2.0)


class FakeClock:
    """Time that passes only where somebody sleeps or waits."""

    def __init__(self):
        self.now_s = 100.0

    def sleep(self, seconds):
        self.now_s += seconds


@dataclass
class FakeDevice:
    """A GPU whose clips take `clip_s`, one after another, and their pictures `decoding_s` behind each.

    done_s, busy_until_s: when it has done the last clip, and its pictures too.
    """

    clock: FakeClock
    clip_s: float
    decoding_s: float = 0.0
    done_s: float = 0.0
    busy_until_s: float = 0.0
    waits: list[str] = field(default_factory=list)

    def event(self, **_):
        return FakeEvent(self)


class FakeEvent:
    """Happens when the device has done the clips that were launched before it was recorded."""

    def __init__(self, device):
        self.device = device

    def record(self, *_):
        self.at_s = max(self.device.clock.now_s, self.device.done_s)

    def query(self):
        return self.device.clock.now_s >= self.at_s

    def synchronize(self):
        self.device.clock.now_s = max(self.device.clock.now_s, self.at_s)

    def elapsed_time(self, other):
        return (other.at_s - self.at_s) * 1000


class FakeFlag:
    """One that nobody raises while it is waited for."""

    def __init__(self, clock):
        self.clock, self.is_up = clock, False

    def set(self):
        self.is_up = True

    def wait(self, timeout_s):
        if not self.is_up:
            self.clock.sleep(timeout_s)


class FakeStream:
    def __init__(self, device, name):
        self.device, self.name = device, name

    def wait_stream(self, other):
        self.device.waits.append(f"{self.name} for {other.name}")


@pytest.fixture
def device(monkeypatch) -> FakeDevice:
    clock = FakeClock()
    found = FakeDevice(clock, clip_s=0.1)

    @contextmanager
    def stream(_):
        yield

    for name, fake in {
        "Stream": lambda *_, **__: FakeStream(found, "side"),
        "Event": found.event,
        "stream": stream,
        "current_stream": lambda *_: FakeStream(found, "main"),
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(threading, "Event", lambda: FakeFlag(clock))
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now_s)
    monkeypatch.setattr(time, "sleep", clock.sleep)
    return found


def play(
    ahead: Ahead, device: FakeDevice, preparing_s: float, plan: str = "clip", is_seen: bool = False
) -> float:
    """A clip; how long before the device has done it and its pictures the step ends, in seconds.

    is_seen: the pictures are taken before the step ends.
    """
    with ahead.preparing():
        device.clock.sleep(preparing_s)
    with ahead.computing(plan, 3) as decoding:
        device.done_s = max(device.clock.now_s, device.busy_until_s) + device.clip_s
        device.busy_until_s = device.done_s + device.decoding_s
    if is_seen:
        device.clock.sleep(max(0, device.busy_until_s - device.clock.now_s))
        decoding.over(1000 * device.decoding_s)
    ahead.wait()
    left_s = device.busy_until_s - device.clock.now_s
    if not is_seen:
        decoding.over(1000 * device.decoding_s)
    return left_s


def test_a_step_ends_as_long_before_its_clip_as_the_next_takes_to_prepare(device):
    ahead = Ahead(GPU, is_on=True)
    assert play(ahead, device, 0.01) == 0  # nothing is known of such clips yet
    for _ in range(4):
        assert play(ahead, device, 0.01) == pytest.approx(SLACK * 0.01 + HAND_OVER_S, abs=1e-3)


def test_the_device_never_stands_still_then(device):
    ahead = Ahead(GPU, is_on=True)
    for _ in range(3):
        play(ahead, device, 0.01)
    begun_s = device.busy_until_s
    for _ in range(10):
        play(ahead, device, 0.01)
    assert device.busy_until_s - begun_s == pytest.approx(10 * device.clip_s, abs=1e-6)


def test_clips_of_several_forms_end_by_their_own_time(device):
    """Two sessions in turn: what the short clips of one take says nothing of the other's long ones."""
    ahead = Ahead(GPU, is_on=True)
    for _ in range(4):
        for device.clip_s, plan in ((1.0, "long"), (0.1, "short")):
            left_s = play(ahead, device, 0.01, plan)
            assert left_s <= SLACK * 0.01 + HAND_OVER_S + 1e-3


def test_a_clip_that_is_shorter_than_the_last_is_not_waited_for_any_longer(device):
    ahead = Ahead(GPU, is_on=True)
    for clip_s in (0.1, 0.1, 0.02):
        device.clip_s = clip_s
        left_s = play(ahead, device, 0.01)
    assert -1e-3 < left_s <= 0


def test_a_slow_host_begins_no_earlier_than_in_the_middle(device):
    ahead = Ahead(GPU, is_on=True)
    for _ in range(3):
        left_s = play(ahead, device, 0.3)
    assert left_s == pytest.approx(MOST_LEAD * device.clip_s, abs=1e-3)
    assert lead(0.3, clip_s=0.1) == pytest.approx(MOST_LEAD * 0.1)


def test_what_was_prepared_is_waited_for(device):
    ahead = Ahead(GPU, is_on=True)
    ahead.hand_over(torch.zeros(1))
    assert device.waits == ["main for side"]


def test_elsewhere_it_changes_nothing(device):
    for place, left_s in ((GPU, 0), (torch.device("cpu"), device.clip_s)):  # a CPU is done when it returns
        ahead = Ahead(place, is_on=place.type == "cpu")
        assert play(ahead, device, 0.01) == pytest.approx(left_s)
        ahead.hand_over(torch.zeros(1))
    assert not device.waits


@pytest.mark.parametrize("decoding_s", [0.004, 0.02, 0.3])
def test_inputs_are_taken_as_late_as_decoding_allows(device, decoding_s):
    """The GPU has the last clip's pictures to decode while the next clip is prepared."""
    ahead, device.decoding_s = Ahead(GPU, is_on=True), decoding_s
    for _ in range(3):
        play(ahead, device, 0.01)
    begun_s = device.busy_until_s
    for _ in range(10):
        assert play(ahead, device, 0.01) == pytest.approx(SLACK * 0.01 + HAND_OVER_S, abs=2e-3)
    assert device.busy_until_s - begun_s == pytest.approx(10 * (device.clip_s + decoding_s), abs=1e-6)


@pytest.mark.parametrize("late_s", [0.0, 0.005, 0.02])
def test_a_host_that_comes_late_does_not_wait_for_longer(device, late_s):
    """Whatever stands between the launch and `wait` is no reason to take inputs later."""
    ahead, device.decoding_s = Ahead(GPU, is_on=True), 0.03
    for _ in range(3):
        play(ahead, device, 0.01)
    with ahead.preparing():
        device.clock.sleep(0.01)
    with ahead.computing("clip", 3):
        device.done_s = max(device.clock.now_s, device.busy_until_s) + device.clip_s
        device.busy_until_s = device.done_s + device.decoding_s
    device.clock.sleep(device.done_s - device.clock.now_s + late_s)
    ahead.wait()
    wanted_s = min(SLACK * 0.01 + HAND_OVER_S, device.decoding_s - late_s)
    assert device.busy_until_s - device.clock.now_s == pytest.approx(wanted_s, abs=3e-3)


def test_pictures_that_took_long_once_delay_nothing(device):
    ahead, device.decoding_s = Ahead(GPU, is_on=True), 0.02
    for _ in range(3):
        play(ahead, device, 0.01)
    device.decoding_s = 0.2  # beside somebody else's clip
    play(ahead, device, 0.01)
    device.decoding_s = 0.02
    for _ in range(2 * REMEMBERED):
        assert play(ahead, device, 0.01) == pytest.approx(SLACK * 0.01 + HAND_OVER_S, abs=1e-3)


def test_pictures_that_were_taken_are_not_waited_for(device):
    """In process a step gives all its pictures before it ends."""
    ahead, device.decoding_s = Ahead(GPU, is_on=True), 0.05
    for _ in range(3):
        assert play(ahead, device, 0.01, is_seen=True) == pytest.approx(0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attention", ["joint", "rolling"])
def test_a_session_is_the_same_and_waits_for_no_network(tmp_path, attention):
    folder = write_random_world(tmp_path, attention=attention)
    seen = {}
    for is_on in (False, True):
        speed = Speed(compiled=False, graphs=True, overlap=is_on)
        session = World.load(folder, "cuda", "float32", speed=speed).session()
        session.reset(seed=3)
        frames = [session.step(FORWARD) for _ in range(14)]
        seen[is_on] = torch.stack([torch.from_numpy(frame.pixels) for step in frames for frame in step])
    assert (seen[True].float() - seen[False].float()).abs().max() <= 1
    torch.cuda._sleep(1_000_000_000)  # half a second of somebody else's network
    busy = torch.cuda.Event()
    busy.record()
    begun = session.begin(FORWARD)
    assert not busy.query()
    assert len(list(begun.frames)) == len(frames[-1])
    session.finish()
