"""Frames are decoded while the next step runs, and nobody who looks on can tell but by the clock."""

from __future__ import annotations

import dataclasses
import threading
import time

import numpy as np
import pytest
from fake_lane import fake_lane
from server_fixture import RawPeer, serving
from slow_decoder import SlowDecoderWorld
from test_server import collect, open_raw, until_it_fails
from worlds import write_random_world

import worldwire
from worldwire.errors import StateError, WorldwireError
from worldwire.inputs import Inputs
from worldwire.protocol import Close, Credit, Done, ErrorMessage, FrameMessage, Save, Saved
from worldwire_runtime.decoder import DecoderStream
from worldwire_runtime.session import Session
from worldwire_runtime.world import World

FORWARD = Inputs(frozenset({"forward"}))


def close(session):
    session.close()


@pytest.fixture
def world() -> SlowDecoderWorld:
    return SlowDecoderWorld(step_s=0.1, decode_s=0.08)


AHEAD = 64  # a window in which no step has to wait for its client


def live(client, window: int | None = None, **options):
    session = client.session(**options)
    session.reset()
    session.start(window)
    return session


def wait_until(is_true) -> bool:
    """Whether it became true in good time."""
    deadline = time.monotonic() + 30
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_true()


def begun_before_the_last_frame(world: SlowDecoderWorld) -> list[bool]:
    """Of every step but the first, whether it began before the frames of the one before were decoded."""
    places = {event: place for place, event in enumerate(world.log)}
    steps = [step for what, step in world.log if what == "begin"]
    return [
        ("decoded", 8 * (step - 1)) not in places or places["begin", step] < places["decoded", 8 * (step - 1)]
        for step in steps[1:]
    ]


def test_the_next_step_begins_while_frames_are_decoded(world):
    """No frame of the first five steps is decoded before the step after it has begun."""
    world.steps_ahead_until = 6
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        session = live(client, AHEAD)
        seq = session.send_input({"forward"})
        frames = collect(session, 48, timeout_s=60)
        session.close()
    assert [frame.index for frame in frames] == list(range(1, len(frames) + 1))
    acks = [frame.ack for frame in frames]
    assert acks == sorted(acks)
    assert acks[-1] == seq
    assert all(begun_before_the_last_frame(world)[:5])


def test_poses_go_on_from_frames_that_nobody_has_seen_yet(world):
    target = np.eye(4)
    target[2, 3] = 4.0
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset()
        session.send_input(c2w=target)
        session.start()
        frames = collect(session, 32, timeout_s=60)
    ahead_m = [frame.c2w[2, 3] for frame in frames[:32]]
    np.testing.assert_allclose(ahead_m[:8], np.linspace(0.5, 4, 8), atol=1e-6)
    np.testing.assert_allclose(ahead_m[8:], 4.0, atol=1e-6)


@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.save(),
        lambda session: session.branch(),
        lambda session: session.set_prompt("rain"),
        lambda session: session.restore(session.save()),
        lambda session: session.reset(),
        lambda session: (session.pause(), session.step(FORWARD)),
        close,
    ],
    ids=["save", "branch", "prompt", "restore", "reset", "step", "close"],
)
def test_every_other_call_waits_for_the_frames(world, call):
    world.steps_ahead_until = 3
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        session = live(client, AHEAD)
        collect(session, 20, timeout_s=60)
        call(session)
        if call is close:
            assert world.log[-1] == ("close with steps to show", 0)
    assert world.open_sessions == 0
    assert any(begun_before_the_last_frame(world))


def test_what_is_decoded_for_a_stalled_client_does_not_pile_up(world):
    world.steps_ahead_until = 2
    with serving(world) as server, RawPeer(server.endpoint) as stalled:
        session = open_raw(stalled, window=8)
        first = [message.index for message in stalled.receive_many(8) + stalled.receive_all(quiet_s=0.6)]
        assert first == list(range(1, 9))
        assert [what for what, _ in world.log].count("begin") == 2  # one step ahead, as latents
        assert ("decoded", 9) not in world.log
        stalled.send(Credit(session=session, frames=8))
        second = stalled.receive_many(8) + stalled.receive_all(quiet_s=0.6)
    assert [message.index for message in second] == list(range(9, 17))
    assert not any(message.dropped for message in second)
    assert [what for what, _ in world.log].count("begin") <= 4


def test_a_stalled_client_is_answered_all_the_same(world):
    world.steps_ahead_until = 2
    with serving(world) as server, RawPeer(server.endpoint) as stalled:
        session = open_raw(stalled, window=8)
        assert len(stalled.receive_many(8) + stalled.receive_all(quiet_s=0.6)) == 8
        stalled.send(Save(request=40, session=session))
        answers = stalled.receive_many(1) + stalled.receive_all(quiet_s=0.6)
        assert [type(answer) for answer in answers] == [Saved]
        stalled.send(Credit(session=session, frames=1))
        newest = stalled.receive()
        assert isinstance(newest, FrameMessage)
        assert (newest.index, newest.dropped) == (16, 7)
        stalled.send(Close(request=41, session=session))
        stalled.receive_until(lambda answer: isinstance(answer, Done))


def test_a_slow_client_does_not_make_the_world_run_ahead(world):
    """One that still has frames of the last step gets its next inputs in as late as ever."""
    world.step_s = world.decode_s = 0.02
    with serving(world) as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer, window=12)
        for _ in range(3):
            peer.receive_many(8)
            peer.send(Credit(session=session, frames=6))
        assert peer.receive_all(quiet_s=0.3) == []
    assert not any(begun_before_the_last_frame(world)[1:])


def test_a_client_may_take_the_frames_before_while_the_next_are_decoded(world):
    """Credit comes bit by bit: what counts is that the last of it is there when a step may begin."""
    world.steps_ahead_until = 3
    with serving(world) as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer, window=12)
        peer.receive_many(8)
        peer.send(Credit(session=session, frames=4))  # enough for the frames of the second step to begin
        assert wait_until(lambda: ("show", 2) in world.log)
        peer.send(Credit(session=session, frames=4))  # now it has taken all of the first
        assert [message.index for message in peer.receive_many(8)] == list(range(9, 17))


def test_a_failing_decoder_ends_its_session_alone():
    world = SlowDecoderWorld(step_s=0.02, decode_s=0.02, broken_at=20)
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        broken = live(client)
        with pytest.raises(WorldwireError, match="the fake decoder broke"):
            collect(broken, 100, timeout_s=60)
        world.broken_at = None
        other = live(client)
        assert len(collect(other, 40, timeout_s=60)) >= 40
        other.close()
        assert wait_until(lambda: not world.open_sessions)


@pytest.mark.parametrize("breaks_late", [False, True], ids=["first half", "second half"])
@pytest.mark.parametrize("frame_format", ["rgb", "jpeg"])
def test_what_was_made_before_a_step_failed_is_shown_before_the_error(breaks_late, frame_format):
    """A second half that fails leaves latents of its own step: these are shown, too."""
    world = SlowDecoderWorld(broken_step=3, breaks_late=breaks_late)
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        session = live(client, AHEAD, formats=[frame_format])
        frames, error = until_it_fails(session)
        assert wait_until(lambda: not world.open_sessions)
    assert [frame.index for frame in frames] == list(range(1, 25 if breaks_late else 17))
    assert "the fake denoiser broke" in error
    assert ("begin", 4) not in world.log


def test_a_client_that_stalls_gets_the_frames_before_the_error_when_it_has_room():
    world = SlowDecoderWorld(broken_step=2, breaks_late=True)
    with serving(world) as server, RawPeer(server.endpoint) as stalled:
        session = open_raw(stalled, window=8)
        world.has_failed.wait(30)
        first = [stalled.receive(30) for _ in range(8)]
        assert [message.index for message in first] == list(range(1, 9))
        assert stalled.receive(0.3) is None
        stalled.send(Credit(session=session, frames=8))
        second = [stalled.receive(30) for _ in range(8)]
        assert [(message.index, message.dropped) for message in second] == [(n, 0) for n in range(9, 17)]
        assert isinstance(last := stalled.receive(30), ErrorMessage)
        assert last.fatal
        assert last.session == session


def test_of_a_step_and_the_decoder_that_both_fail_the_first_is_named():
    world = SlowDecoderWorld(broken_step=3, broken_at=12)
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        frames, error = until_it_fails(live(client, AHEAD))
    assert "the fake denoiser broke" in error
    assert [frame.index for frame in frames] == list(range(1, 12))


def test_the_sessions_of_a_vanished_client_end():
    world = SlowDecoderWorld(step_s=0.05, decode_s=0.05)
    with serving(world, resume_s=0) as server:
        with RawPeer(server.endpoint) as peer:
            open_raw(peer, window=4096)
            peer.receive()
        assert wait_until(lambda: not world.open_sessions)


def test_sessions_take_turns_and_keep_their_order(world):
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        sessions = [live(client) for _ in range(2)]
        frames = [[], []]
        deadline = time.monotonic() + 30
        while min(map(len, frames)) < 24 and time.monotonic() < deadline:
            for seen, session in zip(frames, sessions, strict=True):
                seen.extend(session.poll_frames(timeout_s=0.01))
        for session in sessions:
            session.close()
    for seen in frames:
        assert [frame.index for frame in seen] == list(range(1, len(seen) + 1))
        assert len(seen) >= 24
    assert min(map(len, frames)) > 0.3 * max(map(len, frames))


# ------------------------------------------------------------------ the real session, on a CPU


@pytest.fixture
def overlapping(tmp_path, monkeypatch) -> World:
    """A world that overlaps as on a GPU; its decoder runs in the thread that takes the frames."""
    world = World.load(write_random_world(tmp_path), device="cpu", precision="float32")
    world.speed = dataclasses.replace(world.speed, overlap=True)
    monkeypatch.setattr(DecoderStream, "is_settled", True)
    return world


def started(world: World) -> Session:
    session = world.session()
    session.reset(seed=3)
    return session


def test_a_real_world_shows_the_same_frames(overlapping):
    local = started(overlapping)
    expected = [frame for _ in range(4) for frame in local.step(FORWARD)]
    with serving(overlapping) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset(seed=3)
        session.send_input({"forward"})
        session.start()
        frames = collect(session, len(expected), timeout_s=60)
        state = session.save()
        session.restore(state)
    for ours, theirs in zip(expected, frames[: len(expected)], strict=True):
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        assert (ours.index, ours.memory_latents) == (theirs.index, theirs.memory_latents)
        assert ours.timings_ms.keys() <= theirs.timings_ms.keys()


def test_halves_of_steps_give_what_steps_give(overlapping):
    plain, session = started(overlapping), started(overlapping)
    expected = [frame.pixels for _ in range(2) for frame in plain.step(FORWARD)]
    first = session.begin(FORWARD)
    with pytest.raises(StateError, match="left before its end"):
        session.begin(FORWARD)
    session.finish()
    second = session.begin(FORWARD)
    session.finish()
    with pytest.raises(StateError, match="left before its end"):
        session.save()
    frames = [*first.frames, *second.frames]
    np.testing.assert_array_equal(expected, [frame.pixels for frame in frames])
    assert [frame.index for frame in frames] == list(range(1, 17))
    np.testing.assert_array_equal(plain.step(FORWARD)[0].pixels, session.branch().step(FORWARD)[0].pixels)


def test_frames_in_the_lane_outlive_a_step_that_fails(overlapping, monkeypatch):
    """The real session and lane: the second step fails while the first one's frames are in the lane."""
    plain = started(overlapping)
    expected = plain.step(FORWARD)
    overlapping._decoder.lane = fake_lane(monkeypatch)
    failed, decode, generate = threading.Event(), overlapping._decoder.decode, overlapping.rules.generate
    steps = iter((1, 2))

    def decode_late(latents, cache, recurs):
        assert cache is None or failed.wait(30)
        return decode(latents, cache, recurs)

    def break_the_second(*args):
        if next(steps) == 2:
            failed.set()
            raise RuntimeError("the denoiser broke, as it was told to")
        return generate(*args)

    monkeypatch.setattr(overlapping._decoder, "decode", decode_late)
    monkeypatch.setattr(overlapping.rules, "generate", break_the_second)
    with serving(overlapping) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset(seed=3)
        session.send_input({"forward"})
        session.start(AHEAD)
        frames, error = until_it_fails(session)
    assert "the denoiser broke" in error
    assert [frame.index for frame in frames] == [frame.index for frame in expected]
    for ours, theirs in zip(expected, frames, strict=True):
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
