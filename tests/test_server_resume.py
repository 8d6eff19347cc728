"""A lost connection keeps its sessions for a while: taken over by token, in time, by nobody else."""

import threading
import time

import pytest
from fake_world import FakeWorld
from server_fixture import RawPeer, serving, wait_until, watch_steps
from test_server import open_raw

from worldwire.protocol import (
    VERSION,
    Bye,
    Control,
    Done,
    ErrorMessage,
    FrameMessage,
    Hello,
    Input,
    Open,
    Opened,
    Start,
    Status,
    StatusReport,
    Step,
    Welcome,
)
from worldwire_runtime.server.sessions import NO_CLIENT


def controls(count: int) -> tuple[Control, ...]:
    return tuple(Control() for _ in range(count))


def hello(peer: RawPeer, token: str | None) -> Welcome:
    peer.send(Hello(request=900, version=VERSION, client="raw", resume=token))
    while not isinstance(answer := peer.receive(), Welcome):
        assert answer is not None
    return answer


def lose(peer: RawPeer) -> str:
    """Cuts the connection without a goodbye; the token of its sessions."""
    peer.close()
    return peer.welcome.token


def sessions_of(server, within_s: float = 30.0, want: int = 0) -> int:
    """How many sessions are open, as soon as it is `want`."""
    deadline = time.monotonic() + within_s
    with RawPeer(server.endpoint) as peer:
        while True:
            peer.send(Status(request=5))
            report = peer.receive()
            assert isinstance(report, StatusReport)
            if report.sessions == want or time.monotonic() > deadline:
                return report.sessions
            time.sleep(0.02)


def test_a_lost_client_takes_its_session_over_and_goes_on():
    with serving() as server:
        first = RawPeer(server.endpoint)
        session = open_raw(first)
        first.send(Input(session=session, seq=7, keys=("forward",)))
        first.send(Step(request=20, session=session, inputs=controls(8)))
        last = first.receive_until(lambda answer: isinstance(answer, Done))[-2]
        assert isinstance(last, FrameMessage)
        with RawPeer(server.endpoint, greet=False) as second:
            welcome = hello(second, lose(first))
            (resumed,) = welcome.resumed
            assert (resumed.session, resumed.epoch, resumed.seq, resumed.format) == (session, 1, 7, "rgb")
            assert welcome.token not in ("", first.welcome.token)
            second.send(Step(request=21, session=session, inputs=controls(resumed.frames_per_step)))
            assert second.receive().index == last.index + 1


def test_a_resumed_session_is_ready_and_not_live():
    with serving(FakeWorld(step_s=0.02)) as server:
        first = RawPeer(server.endpoint)
        session = open_raw(first, window=12)
        token = lose(first)
        time.sleep(0.3)  # frames come until the server notices
        with RawPeer(server.endpoint, greet=False) as second:
            assert [resumed.session for resumed in hello(second, token).resumed] == [session]
            assert second.receive_all(0.2) == []
            second.send(Start(request=30, session=session, window=4))
            assert isinstance(second.receive(), Done)
            frames = second.receive_many(4)
            assert all(isinstance(frame, FrameMessage) and frame.request is None for frame in frames)


def test_the_older_connection_gets_a_goodbye_and_nothing_else_works_there():
    with serving() as server, RawPeer(server.endpoint) as first:
        session = open_raw(first)
        with RawPeer(server.endpoint, greet=False) as second:
            assert len(hello(second, first.welcome.token).resumed) == 1
            assert isinstance(first.receive(), Bye)
            first.send(Start(request=40, session=session, window=4))
            assert first.receive().code == "bad_state"
            third = hello(second, first.welcome.token)  # the answer might have been lost: said again
            assert [resumed.session for resumed in third.resumed] == [session]


def test_a_missed_welcome_leaves_the_token_before_it_valid_and_older_ones_void():
    with serving() as server, RawPeer(server.endpoint) as first:
        session = open_raw(first)
        tokens, peers = [first.welcome.token], []
        for _ in range(3):
            peers.append(RawPeer(server.endpoint, greet=False))
            welcome = hello(peers[-1], tokens[-1])
            assert [resumed.session for resumed in welcome.resumed] == [session]
            tokens.append(welcome.token)
        with RawPeer(server.endpoint, greet=False) as late:
            assert hello(late, tokens[1]).resumed == ()  # given before the one that was named last
            assert len(hello(late, tokens[2]).resumed) == 1  # as if the last welcome had been missed
        for peer in peers:
            peer.close()


def test_a_hello_said_again_keeps_a_live_session():
    with serving(FakeWorld(step_s=0.02)) as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer, window=4096)
        for token in (None, peer.welcome.token):
            peer.send(Hello(request=99, version=VERSION, client="raw", resume=token))
            while not isinstance(answer := peer.receive(), Welcome):
                assert isinstance(answer, FrameMessage)
            assert [resumed.session for resumed in answer.resumed] == [session]
        assert any(isinstance(message, FrameMessage) for message in (peer.receive(), peer.receive()))


def test_a_wrong_token_is_a_normal_welcome():
    with serving() as server, RawPeer(server.endpoint) as first:
        open_raw(first)
        with RawPeer(server.endpoint, greet=False) as second:
            for token in ("0" * 32, "", "x"):
                assert hello(second, token).resumed == ()


def test_a_goodbye_ends_the_sessions_for_good():
    world = FakeWorld()
    with serving(world) as server:
        first = RawPeer(server.endpoint)
        open_raw(first)
        first.send(Bye())
        assert sessions_of(server) == 0
        with RawPeer(server.endpoint, greet=False) as second:
            assert hello(second, lose(first)).resumed == ()


def test_nobody_waits_longer_than_the_limit():
    world = FakeWorld()
    with serving(world, liveness_s=2, resume_s=0.5) as server:
        first = RawPeer(server.endpoint)
        open_raw(first)
        token = lose(first)
        assert sessions_of(server) == 0
        with RawPeer(server.endpoint, greet=False) as second:
            assert hello(second, token).resumed == ()
        wait_until(lambda: world.open_sessions == 0)


def test_the_oldest_orphan_makes_place():
    world = FakeWorld()
    with serving(world, sessions=2, liveness_s=2, resume_s=60) as server:
        tokens = []
        for _ in range(2):
            peer = RawPeer(server.endpoint)
            open_raw(peer)
            tokens.append(lose(peer))
        wait_until(lambda: all(slot.client == NO_CLIENT for slot in server._sessions))
        with RawPeer(server.endpoint) as guest:
            guest.send(Open(request=50))
            assert isinstance(guest.receive(), Opened)
        with RawPeer(server.endpoint, greet=False) as peer:
            assert len(hello(peer, tokens[0]).resumed) == 0
            assert len(hello(peer, tokens[1]).resumed) == 1
        assert world.open_sessions <= 2


def test_answers_to_a_lost_client_reach_nobody(monkeypatch):
    world = FakeWorld(step_s=2)
    begun, ended = watch_steps(monkeypatch)
    with serving(world) as server:
        first = RawPeer(server.endpoint)
        session = open_raw(first)
        first.send(Step(request=60, session=session, inputs=controls(8)))
        assert begun.wait(30)
        with RawPeer(server.endpoint, greet=False) as second:
            (resumed,) = hello(second, first.welcome.token).resumed  # comes when the step is over
            assert ended.is_set()
            assert resumed.frames_per_step == 8
            assert second.receive_all(0.3) == []
            world.step_s = 0.02
            second.send(Step(request=61, session=session, inputs=controls(8)))
            answers = second.receive_until(lambda answer: isinstance(answer, Done))
            frames = [message for message in answers if isinstance(message, FrameMessage)]
            assert [frame.request for frame in frames] == [61] * 8
        first.close()


def test_a_session_that_was_being_opened_ends_with_its_client():
    world = SlowWorld()
    with serving(world) as server:
        first = RawPeer(server.endpoint)
        first.send(Open(request=70))
        assert world.begun.wait(30)
        with RawPeer(server.endpoint, greet=False) as second:
            second.send(Hello(request=71, version=VERSION, client="raw", resume=first.welcome.token))
            assert isinstance(first.receive(), Bye)
            world.go_on.set()
            welcome = second.receive()
            assert isinstance(welcome, Welcome)
            assert welcome.resumed == ()
            assert sessions_of(server) == 0
        first.close()
        wait_until(lambda: world.made and world.open_sessions == 0)  # it is made, then closed


@pytest.mark.parametrize("full", [False, True])
def test_status_tells_whether_there_is_room(full):
    with serving(sessions=1) as server, RawPeer(server.endpoint) as peer:
        if full:
            open_raw(peer)
        peer.send(Status(request=80))
        report = peer.receive()
        assert isinstance(report, StatusReport)
        assert (report.state, report.queue) == ("busy" if full else "ready", 0)
        peer.send(Open(request=81))
        answer = peer.receive()
        assert isinstance(answer, ErrorMessage if full else Opened)


class SlowWorld(FakeWorld):
    """Makes a session when it may go on."""

    def __init__(self):
        super().__init__()
        self.begun, self.go_on, self.made = threading.Event(), threading.Event(), 0

    def session(self, plan=None):
        self.begun.set()
        assert self.go_on.wait(30)
        session = super().session(plan)
        self.made += 1
        return session
