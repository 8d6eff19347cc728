"""The client against a real server with the FakeWorld: the interface as in process, and what can go wrong."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from fake_world import FakeSession, FakeWorld
from server_fixture import LOOPBACK, serving, wait_until

import worldwire
from worldwire.errors import (
    BusyError,
    ConnectionLostError,
    ImageError,
    InputError,
    ProtocolError,
    StateError,
    VersionError,
)
from worldwire.inputs import Inputs
from worldwire_runtime.server import Loading, Server

FORWARD = Inputs(frozenset({"forward"}), yaw_deg=2.0)
HERE = Path(__file__).parent


@pytest.fixture
def client():
    with serving() as server, worldwire.connect(server.endpoint) as connected:
        yield connected


@pytest.fixture
def session(client):
    with client.session() as opened:
        yield opened


def test_over_the_wire_and_in_process_frames_are_the_same(session):
    local = FakeWorld().session()
    pairs = [(local.reset(seed=5), session.reset(seed=5))]
    for inputs in (FORWARD, [FORWARD] * 8, Inputs(c2w=np.eye(4))):
        assert session.frames_per_step == local.frames_per_step == 8
        pairs += zip(local.step(inputs), session.step(inputs), strict=True)
    for ours, theirs in pairs:
        assert ours.index == theirs.index
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_allclose(ours.c2w, theirs.c2w, atol=1e-12)


def test_frames_tell_where_their_time_went(session):
    session.reset()
    frame = session.step(FORWARD)[-1]
    assert {"denoise", "encode", "transport"} <= frame.timings_ms.keys()
    assert frame.timings_ms["transport"] < 30_000
    assert frame.memory_latents == (0,)


def test_streamed_frames_come_one_by_one(session, monkeypatch):
    go_on, advance = threading.Event(), FakeSession._advance

    def advance_when_told(local, item, latent_s):
        assert local._index < 4 or go_on.wait(30)
        return advance(local, item, latent_s)

    monkeypatch.setattr(FakeSession, "_advance", advance_when_told)
    session.reset()
    frames = session.stream(FORWARD)
    first = [next(frames).index for _ in range(4)]  # before the second latent is made
    go_on.set()
    assert first + [frame.index for frame in frames] == list(range(1, 9))


def test_save_restore_and_branch(session, client):
    session.reset(seed=9)
    session.step(FORWARD)
    state, kept = session.save(), session.keep()
    with session.branch() as other:
        expected = session.step(FORWARD)[-1].pixels
        np.testing.assert_array_equal(other.step(FORWARD)[-1].pixels, expected)
        for saved in (state, kept):
            other.restore(saved)
            np.testing.assert_array_equal(other.step(FORWARD)[-1].pixels, expected)
    with pytest.raises(StateError, match="cannot be read"):
        session.restore(b"garbage")
    with pytest.raises(StateError, match="keeps no such state"):
        session.restore(worldwire.client.SavedState("ffff", 3))


def test_a_state_larger_than_a_message_says_what_to_do():
    with serving(message_bytes=90) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset()
        with pytest.raises(StateError, match=r"keep\(\)"):
            session.save()


def test_seed_images_travel(session):
    assert session.reset(image=np.full((32, 48, 3), 40, np.uint8)).pixels[0, 0, 2] == 40
    with pytest.raises(ImageError, match="wrong form"):
        session.reset(image=np.zeros((32, 48), np.float32))


def test_jpeg_frames(client):
    with client.session(formats=["jpeg", "rgb"], jpeg_quality=95) as session:
        assert session.format == "jpeg"
        frame = session.reset(seed=3)
        truth = FakeWorld().session().reset(seed=3).pixels
        assert frame.pixels.shape == truth.shape
        assert np.abs(frame.pixels.astype(int) - truth).mean() < 8


def test_live_frames_are_in_order_and_acknowledge(session):
    session.reset()
    session.start()
    first_seq = session.send_input({"forward"}, yaw_deg=4)
    frames = take(session, 40)
    assert [frame.index for frame in frames] == list(range(1, len(frames) + 1))
    assert all(frame.ack in (0, first_seq) for frame in frames)
    assert frames[-1].ack == first_seq
    session.pause()
    session.poll_frames()
    while session.poll_frames(timeout_s=0.1):
        pass
    assert len(session.step(FORWARD)) == 8


def test_a_tap_shorter_than_a_step_moves_the_player_one_frame():
    with serving(FakeWorld(step_s=0.2)) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset()
        session.start()
        take(session, 1)
        session.send_input({"forward"})
        seq = session.send_input()
        frames = take(session, 24)
        assert frames[-1].ack == seq
        assert frames[-1].c2w[2, 3] == pytest.approx(2.0 / 16)


def test_a_step_while_live_is_refused(session):
    session.reset()
    session.start()
    with pytest.raises(StateError, match="live"):
        session.step(FORWARD)


def test_a_reset_while_live_begins_at_frame_zero_without_old_frames(session):
    session.reset()
    session.start(window=32)
    take(session, 20)
    assert session.reset(seed=1).index == 0
    frames = take(session, 8)
    assert frames[0].index == 1


def test_a_caller_that_takes_slowly_slows_the_world(session):
    session.reset()
    session.start(window=12)
    newest = 0
    for _ in range(10):
        newest = session.poll_frames(timeout_s=30, limit=1)[-1].index
        time.sleep(0.02)
    assert newest == 10


def test_a_caller_that_stalls_gets_the_newest_frame(session, monkeypatch):
    monkeypatch.setattr("worldwire.remote.STALL_S", 0.2)
    session.reset()
    session.start(window=16)
    wait_until(lambda: len(session._channel._arrivals) == 16)
    time.sleep(0.3)
    frames = session.poll_frames(timeout_s=30)
    monkeypatch.setattr("worldwire.remote.STALL_S", 60.0)
    assert [frame.index for frame in frames] == [16]
    assert take(session, 8)[0].index == 17


def test_bad_inputs_are_refused_before_they_are_sent(session):
    session.reset()
    session.start()
    for bad in ({"keys": {"fly"}}, {"yaw_deg": float("nan")}, {"c2w": np.full((4, 4), np.nan)}):
        with pytest.raises(InputError):
            session.send_input(**bad)
    with pytest.raises(InputError, match="8 Inputs"):
        session.step([FORWARD] * 3)


def test_values_that_the_wire_cannot_carry_are_refused(session):
    with pytest.raises(ProtocolError, match="seed"):
        session.reset(seed=-1)
    with pytest.raises(ProtocolError, match="prompt"):
        session.reset(prompt="x" * 5000)


def test_inputs_may_come_from_another_thread(session):
    session.reset()
    session.start()
    sender = threading.Thread(target=lambda: [session.send_input({"left"}, yaw_deg=0.1) for _ in range(200)])
    sender.start()
    take(session, 60)
    sender.join()
    assert take(session, 40)[-1].ack > 0


def test_closing_twice_is_fine(client):
    session = client.session()
    session.close()
    session.close()
    client.close()
    client.close()
    with pytest.raises(ConnectionLostError, match="closed"):
        client.status()


def test_no_server_says_how_to_start_one():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionLostError, match=r"no server.*worldwire serve"):
        worldwire.connect(f"tcp://127.0.0.1:{port}", timeout_s=0.4)


def test_another_service_is_told_apart():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConnectionLostError, match=r"no server|does not answer"):
            worldwire.connect(f"tcp://127.0.0.1:{other.getsockname()[1]}", timeout_s=0.4)


@pytest.mark.parametrize("address", ["127.0.0.1:5555", "tcp://", "http://localhost:1", ""])
def test_no_address_is_named(address):
    with pytest.raises(ConnectionLostError, match="no address"):
        worldwire.connect(address, timeout_s=0.3)


def test_a_loading_server_is_waited_for_and_named():
    loading = threading.Event()

    def load() -> FakeWorld:
        loading.wait(60)
        return FakeWorld()

    server = Server(load, LOOPBACK)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with pytest.raises(BusyError, match="still loading"):
            worldwire.connect(server.endpoint, timeout_s=3)
        threading.Timer(0.3, loading.set).start()
        worldwire.connect(server.endpoint, timeout_s=30).close()
    finally:
        loading.set()
        server.stop()
        thread.join(60)


def test_while_a_server_loads_its_progress_is_told():
    told, go_on = [], threading.Event()
    loading = Loading()

    def load() -> FakeWorld:
        loading.tell(0.25, "reading weights")
        go_on.wait(60)
        return FakeWorld()

    def on_wait(report):
        told.append(report)
        if report is not None and report.stage:
            go_on.set()

    server = Server(load, LOOPBACK, loading=loading)
    with loading_server(server, go_on), pytest.raises(BusyError, match=r"25%.*reading weights"):
        worldwire.connect(server.endpoint, timeout_s=3)
    go_on.clear()
    server = Server(load, LOOPBACK, loading=loading)
    with loading_server(server, go_on):
        worldwire.connect(server.endpoint, timeout_s=30, on_wait=on_wait).close()
    assert (told[-1].state, told[-1].progress, told[-1].stage) == ("loading", 0.25, "reading weights")


@contextmanager
def loading_server(server, go_on):
    """A server that runs; at the end its world may go on loading."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        go_on.set()
        server.stop()
        thread.join(60)


def test_waiting_can_be_given_up():
    class EnoughError(Exception):
        pass

    def on_wait(report):
        raise EnoughError

    started = time.monotonic()
    with pytest.raises(EnoughError):
        worldwire.connect("tcp://127.0.0.1:1", timeout_s=60, on_wait=on_wait)
    assert time.monotonic() - started < 30


def test_a_prompt_while_playing(session):
    with pytest.raises(StateError, match="not started"):
        session.set_prompt("it snows")
    session.reset()
    session.set_prompt("it snows")
    assert session.step(FORWARD)[0].index == 1
    session.start()
    session.set_prompt("and night falls")
    assert session.live


def test_another_version_is_named(monkeypatch):
    with serving() as server:
        monkeypatch.setattr("worldwire.link.VERSION", (9, 1))
        with pytest.raises(VersionError, match=r"another version.*9"):
            worldwire.connect(server.endpoint, timeout_s=30)


class Process:
    """A server process with the FakeWorld."""

    def __init__(self, folder: Path):
        self.ready_file = folder / "ready"
        program = [sys.executable, str(HERE / "fake_world.py"), "--ready-file", str(self.ready_file)]
        self.process = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not self.ready_file.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        self.endpoint = self.ready_file.read_text()


@pytest.fixture
def process(tmp_path):
    running = Process(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


def test_a_server_killed_mid_play_ends_every_wait_at_once(process):
    with worldwire.connect(process.endpoint, resume_s=0) as client:
        session = client.session()
        session.reset()
        session.start()
        take(session, 8)
        started = time.monotonic()
        process.process.kill()
        with pytest.raises(ConnectionLostError, match=r"went away.*worldwire serve"):
            poll_until(session, started + 30)
        with pytest.raises(ConnectionLostError):
            session.send_input()
        with pytest.raises(ConnectionLostError):
            client.status()
        session.close()
        assert time.monotonic() - started < 9  # long before a silence would tell


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_server_cleanly(process, name):
    with worldwire.connect(process.endpoint) as client:
        session = client.session()
        session.reset()
        os.kill(process.process.pid, name)
        assert process.process.wait(60) == 0
        assert not process.ready_file.exists()
        with pytest.raises(ConnectionLostError, match=r"goodbye|went away"):
            list(map(session.step, [FORWARD] * 3))
    assert process.endpoint in process.process.stdout.read()


def poll_until(session, deadline: float) -> None:
    while time.monotonic() < deadline:
        session.poll_frames(timeout_s=1)


def take(session, count: int, timeout_s: float = 30.0) -> list[worldwire.Frame]:
    frames: list[worldwire.Frame] = []
    deadline = time.monotonic() + timeout_s
    while len(frames) < count and time.monotonic() < deadline:
        frames += session.poll_frames(timeout_s=0.2)
    return frames
