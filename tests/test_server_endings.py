"""What a session's end leaves nobody waiting for: requests, sessions that are being made, worlds."""

import threading
import time

import pytest
from fake_world import FakeSession, FakeWorld
from server_fixture import PATIENCE_S, RawPeer, serving, wait_until
from test_server import open_raw

import worldwire
from worldwire.channel import Arrival
from worldwire.errors import WorldwireError
from worldwire.protocol import (
    Branch,
    Bye,
    Close,
    Done,
    ErrorMessage,
    Opened,
    Ping,
    Pong,
    Save,
    Start,
)
from worldwire.switchboard import Switchboard


class Gate:
    """Stops a call of FakeSession inside, until it is opened."""

    def __init__(self, monkeypatch, name: str, when=lambda *_: True):
        self.reached, self.opened = threading.Event(), threading.Event()
        plain = getattr(FakeSession, name)

        def stopped(session, *args):
            if when(session):
                self.reached.set()
                assert self.opened.wait(PATIENCE_S)
            return plain(session, *args)

        monkeypatch.setattr(FakeSession, name, stopped)


def read_so_far(peer: RawPeer) -> None:
    """Returns when the server has read what was sent before."""
    peer.send(Ping(t_ns=7))
    peer.receive_until(lambda message: isinstance(message, Pong))


def test_requests_that_wait_while_the_last_step_fails_are_refused_behind_its_error(monkeypatch):
    gate = Gate(monkeypatch, "_advance", lambda session: session._index == 19)
    with serving(FakeWorld(fail_at=20)) as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer)
        peer.send(Start(request=12, session=session, window=64))
        assert gate.reached.wait(PATIENCE_S)
        peer.send(Save(request=13, session=session))
        peer.send(Close(request=14, session=session))
        read_so_far(peer)
        gate.opened.set()
        answers = peer.receive_until(lambda message: getattr(message, "request", None) == 14)
    errors = [(each.request, each.fatal) for each in answers if isinstance(each, ErrorMessage)]
    assert errors == [(None, True), (13, False), (14, False)]


def test_requests_behind_a_close_are_refused_behind_its_answer(monkeypatch):
    gate = Gate(monkeypatch, "close")
    with serving() as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer)
        for request, kind in ((20, Close), (21, Save), (22, Close)):
            peer.send(kind(request=request, session=session))
        read_so_far(peer)
        gate.opened.set()
        answers = peer.receive_until(lambda message: getattr(message, "request", None) == 22)
    assert [(type(each), each.request) for each in answers] == [
        (Done, 20),
        (ErrorMessage, 21),
        (ErrorMessage, 22),
    ]


def test_a_player_whose_session_breaks_does_not_wait_for_its_state(monkeypatch):
    gate = Gate(monkeypatch, "_advance", lambda session: session._index == 19)
    with serving(FakeWorld(fail_at=20)) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset()
        session.start()
        while not gate.reached.is_set():
            session.poll_frames(timeout_s=0.1)
        begun_s = time.monotonic()
        threading.Timer(0.2, gate.opened.set).start()
        with pytest.raises(WorldwireError, match="the fake world broke"):
            session.save()
        session.close()
    assert time.monotonic() - begun_s < PATIENCE_S  # the time-out of a request is 300 s


def test_a_fatal_error_reaches_everybody_who_waits_for_its_session():
    board = Switchboard("tcp://nowhere")
    mine, also_mine, anothers = (
        board.expect(number, session) for number, session in ((1, 5), (2, 5), (3, 6))
    )
    assert board.complain(ErrorMessage(code="error", problem="it broke", request=1, session=5, fatal=True))
    for answers in (mine, also_mine):
        error = answers.get_nowait()
        assert not isinstance(error, Arrival)
        assert "it broke" in str(error)
    assert anothers.empty()


def test_a_session_that_was_opened_has_a_channel_before_its_caller_is_back():
    board = Switchboard("tcp://nowhere")
    board.expect(1, None)
    opened = Opened(request=1, session=5, frames_per_step=8, format="rgb")
    board.deliver(Arrival(opened, None, 0))
    assert 5 in board._channels
    assert board.attach(opened) is board._channels[5]


def test_a_branch_whose_client_left_is_closed(monkeypatch):
    world, gate = FakeWorld(), Gate(monkeypatch, "branch")
    with serving(world) as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer)
        peer.send(Branch(request=13, session=session))
        assert gate.reached.wait(PATIENCE_S)
        peer.send(Bye(reason="enough"))
        read_so_far(peer)
        gate.opened.set()
        wait_until(lambda: not world.open_sessions)
    assert world.open_sessions == 0
