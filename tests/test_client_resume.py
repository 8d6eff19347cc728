"""The client when its connection breaks: sessions go on, or the error says what is over."""

import threading
import time

import pytest
from cable import Cable
from fake_world import FakeWorld
from server_fixture import serving, wait_until, watch_steps

import worldwire
from worldwire.errors import ConnectionLostError, RequestLostError, SessionLostError, StateError
from worldwire.inputs import Inputs

FORWARD = Inputs(frozenset({"forward"}))


@pytest.fixture
def world():
    return FakeWorld(step_s=0.02)


@pytest.fixture
def cable(world):
    with serving(world) as server, Cable(server.endpoint) as made:
        yield made


@pytest.fixture
def client(cable):
    with worldwire.connect(cable.endpoint) as connected:
        yield connected


def poll_until_over(session) -> None:
    for _ in range(60):
        session.poll_frames(timeout_s=0.5)


def break_off(client, cable) -> None:
    cable.pull()
    wait_until(lambda: not client.connected)
    cable.plug()


def test_lockstep_goes_on_where_it_was(client, cable):
    session = client.session()
    session.reset(seed=3)
    session.step(FORWARD)
    break_off(client, cable)
    frames = session.step(FORWARD)
    assert [frame.index for frame in frames] == list(range(9, 17))
    assert client.connected
    break_off(client, cable)  # a second time: the token is a fresh one
    assert session.step(FORWARD)[0].index == 17


def test_calls_wait_while_the_connection_is_away(client, cable):
    session = client.session()
    session.reset()
    cable.pull()
    wait_until(lambda: not client.connected)
    started = time.monotonic()
    threading.Timer(0.4, cable.plug).start()
    assert session.step(FORWARD)[0].index == 1
    assert time.monotonic() - started > 0.3


def test_a_live_session_goes_live_again_with_the_newest_keys(client, cable):
    session = client.session()
    session.reset()
    session.start()
    session.send_input({"left"})
    session.poll_frames(timeout_s=30)
    cable.pull()
    wait_until(lambda: not client.connected)
    session.send_input({"back"}, yaw_deg=7.0)
    seq = session.send_input({"forward"})  # what a hand does meanwhile: only where it ends counts
    session.poll_frames()
    cable.plug()
    deadline = time.monotonic() + 30
    frames = []
    while not (frames and frames[-1].ack == seq) and time.monotonic() < deadline:
        frames += session.poll_frames(timeout_s=0.2)
    assert frames[-1].ack == seq
    assert session.live
    session.pause()
    while session.poll_frames(timeout_s=0.1):
        pass
    ahead = session.step([Inputs()] * session.frames_per_step)
    assert abs(ahead[0].c2w[0, 2]) < 1e-6  # the look of a lost input is lost


def test_an_answer_that_was_lost_is_named_and_the_session_lives(cable, world, monkeypatch):
    world.step_s = 2.0
    begun, _ = watch_steps(monkeypatch)
    with worldwire.connect(cable.endpoint) as client:
        session = client.session()
        session.reset()

        def meddle() -> None:
            begun.wait(30)
            cable.pull()
            world.step_s = 0.0
            wait_until(lambda: not client.connected)
            cable.plug()

        threading.Thread(target=meddle).start()
        with pytest.raises(RequestLostError, match="ask again"):
            session.step(FORWARD)
        assert session.step(FORWARD)[0].index == 9  # the step that was lost was done


def test_a_server_that_was_started_anew_has_no_session(client, cable):
    session = client.session()
    session.reset()
    session.start()
    cable.pull()
    wait_until(lambda: not client.connected)
    with serving() as other:
        cable.plug(other.endpoint)
        with pytest.raises(SessionLostError, match="open another one"):
            poll_until_over(session)
        with pytest.raises(SessionLostError):
            session.step(FORWARD)
        session.close()
        with client.session() as fresh:  # the connection itself is as good as new
            assert fresh.reset().index == 0
        cable.pull()


def test_a_call_that_waits_hears_that_its_session_is_over(client, cable):
    session = client.session()
    session.reset()
    cable.pull()
    wait_until(lambda: not client.connected)
    with serving() as other:
        threading.Timer(0.2, cable.plug, [other.endpoint]).start()
        with pytest.raises(SessionLostError):
            session.step(FORWARD)
        cable.pull()


def test_a_connection_that_stays_away_is_given_up(cable):
    with worldwire.connect(cable.endpoint, resume_s=0.5) as client:
        session = client.session()
        session.reset()
        cable.pull()
        with pytest.raises(ConnectionLostError, match=r"could not be reached again for 0.5 s"):
            session.step(FORWARD)
        with pytest.raises(ConnectionLostError):
            client.status()
        session.close()


def test_resuming_can_be_left_out(cable):
    with worldwire.connect(cable.endpoint, resume_s=0) as client:
        session = client.session()
        session.reset()
        cable.pull()
        wait_until(lambda: not client.connected)
        cable.plug()
        with pytest.raises(ConnectionLostError, match="went away"):
            session.step(FORWARD)


def test_a_server_that_falls_silent_is_left_and_found_again(world):
    with (
        serving(world, liveness_s=3, heartbeat_s=0.1) as server,
        Cable(server.endpoint) as cable,
        worldwire.connect(cable.endpoint) as client,
    ):
        session = client.session()
        session.reset()
        cable.freeze()
        wait_until(lambda: not client.connected)
        cable.freeze(False)
        assert session.step(FORWARD)[0].index == 1


def test_a_session_that_was_closed_while_away_is_closed(client, cable, world):
    kept, closed = client.session(), client.session()
    kept.reset()
    cable.pull()
    wait_until(lambda: not client.connected)
    closed.close()
    cable.plug()
    assert kept.step(FORWARD)[0].index == 1
    wait_until(lambda: world.open_sessions == 1)
    with pytest.raises(StateError):
        closed.step(FORWARD)
