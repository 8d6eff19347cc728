"""A real server with the FakeWorld: handshake, limits, turns, failing sessions, odd peers."""

import socket
import threading
import time

import numpy as np
import pytest
import zmq
from fake_world import FakeWorld
from server_fixture import LOOPBACK, RawPeer, serving, wait_until

import worldwire
from worldwire.errors import BusyError, ConfigError, ImageError, MachineError, StateError, WorldwireError
from worldwire.inputs import Inputs
from worldwire.protocol import (
    VERSION,
    Bye,
    Credit,
    Done,
    ErrorMessage,
    FrameMessage,
    Hello,
    Input,
    Open,
    Opened,
    Pause,
    Ping,
    Pong,
    Reset,
    Save,
    Saved,
    Start,
    Status,
    StatusReport,
    Step,
    Welcome,
)
from worldwire_runtime.server import Server, loop
from worldwire_runtime.server.pixels import PictureEncoder

FORWARD = Inputs(frozenset({"forward"}))


@pytest.fixture
def server():
    with serving() as running:
        yield running


def open_raw(peer: RawPeer, window: int | None = None, formats: tuple[str, ...] = ("rgb",)) -> int:
    """A session that was reset, and is live if there is a window."""
    peer.send(Open(request=10, formats=formats))
    opened = peer.receive()
    assert isinstance(opened, Opened)
    peer.send(Reset(request=11, session=opened.session))
    assert isinstance(peer.receive(), FrameMessage)
    assert isinstance(peer.receive(), Done)
    if window is not None:
        peer.send(Start(request=12, session=opened.session, window=window))
        assert isinstance(peer.receive(), Done)
    return opened.session


def test_hello_is_welcomed_with_world_and_limits(server):
    with RawPeer(server.endpoint) as peer:
        welcome = peer.welcome
        assert isinstance(welcome, Welcome)
        assert (welcome.version, welcome.world.name, welcome.limits.sessions) == (VERSION, "fake", 4)


def test_another_major_version_is_refused_with_both_versions(server):
    with RawPeer(server.endpoint, greet=False) as peer:
        peer.send(Hello(request=7, version=(VERSION[0] + 1, 0), client="from the future"))
        answer = peer.receive()
    assert isinstance(answer, ErrorMessage)
    assert (answer.code, answer.request) == ("version_mismatch", 7)
    assert answer.expected == ".".join(map(str, VERSION))
    assert str(VERSION[0] + 1) in (answer.got or "")


def test_nothing_works_before_hello_but_status_and_ping(server):
    with RawPeer(server.endpoint, greet=False) as peer:
        peer.send(Open(request=3))
        refused = peer.receive()
        assert isinstance(refused, ErrorMessage)
        assert (refused.code, refused.request) == ("bad_state", 3)
        peer.send(Status(request=4))
        assert isinstance(peer.receive(), StatusReport)
        peer.send(Ping(t_ns=5))
        pong = peer.receive()
        assert isinstance(pong, Pong)
        assert pong.t_ns == 5


def test_the_session_limit_is_kept_and_a_closed_one_makes_room():
    with serving(sessions=1) as server, worldwire.connect(server.endpoint) as client:
        first = client.session()
        with pytest.raises(BusyError, match="no room"):
            client.session()
        first.close()
        client.session().close()


def test_a_session_of_another_client_cannot_be_touched(server):
    with RawPeer(server.endpoint) as owner, RawPeer(server.endpoint) as thief:
        session = open_raw(owner)
        thief.send(Step(request=5, session=session, inputs=()))
        thief.send(Reset(request=6, session=session))
        codes = [
            (answer.code, answer.request)
            for answer in thief.receive_many(2)
            if isinstance(answer, ErrorMessage)
        ]
    assert codes == [("bad_message", 5), ("bad_state", 6)]


def test_typed_errors_refuse_the_request_and_leave_the_session(server):
    with worldwire.connect(server.endpoint) as client, client.session() as session:
        with pytest.raises(StateError, match="not started"):
            session.step(FORWARD)
        with pytest.raises(ImageError, match="wrong size"):
            session.reset(image=np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(ConfigError, match="unknown seed image"):
            session.reset(image="green")
        with pytest.raises(ConfigError, match="unknown clip plan"):
            client.session(plan="leisurely")
        with pytest.raises(ConfigError, match="no common frame format"):
            client.session(formats=["h265"])
        assert session.reset(image="red").index == 0
        assert len(session.step(FORWARD)) == 8


def test_a_session_that_breaks_is_closed_and_others_go_on():
    world = FakeWorld(fail_at=12)
    with serving(world) as server, worldwire.connect(server.endpoint) as client:
        broken, other = client.session(), client.session()
        for session in (broken, other):
            session.reset()
            session.step(FORWARD)
        with pytest.raises(WorldwireError, match="the fake world broke"):
            broken.step(FORWARD)
        with pytest.raises(WorldwireError):
            broken.step(FORWARD)
        assert other.reset().index == 0
        assert len(other.step(FORWARD)) == 8
        broken.close()
        other.close()
        assert client.status().sessions == 0
    assert world.open_sessions == 0


def test_a_live_session_that_breaks_tells_its_player():
    with serving(FakeWorld(fail_at=20)) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset()
        session.start()
        with pytest.raises(WorldwireError, match="the fake world broke"):
            collect(session, 100, timeout_s=30)


def test_pictures_in_the_encoder_are_sent_before_the_error_that_ends_their_session():
    with serving(FakeWorld(fail_at=20)) as server, worldwire.connect(server.endpoint) as client:
        session = client.session(formats=["jpeg"])
        session.reset()
        session.start()
        frames, error = until_it_fails(session)
    assert "the fake world broke" in error
    assert [frame.index for frame in frames] == list(range(1, 20))


def test_what_crosses_the_end_of_a_session_is_not_answered_before_it(monkeypatch):
    encode, gate = PictureEncoder.encode, threading.Event()

    def encode_when_the_gate_is_open(*args):
        gate.wait(60)
        return encode(*args)

    monkeypatch.setattr(PictureEncoder, "encode", encode_when_the_gate_is_open)
    with serving(FakeWorld(fail_at=20)) as server, RawPeer(server.endpoint) as peer:
        gate.set()
        session = open_raw(peer, formats=("jpeg",))
        gate.clear()
        peer.send(Start(request=12, session=session, window=64))
        assert isinstance(peer.receive(), Done)
        while open_sessions(peer):  # until it failed; that is said behind the pictures in the encoder
            time.sleep(0.01)
        peer.send(Credit(session=session, frames=1))
        peer.send(Input(session=session, seq=1, keys=("forward",)))
        peer.send(Save(request=13, session=session))
        peer.send(Ping(t_ns=7))
        while not isinstance(answer := peer.receive(), Pong):  # what was sent before it has been read
            assert not isinstance(answer, ErrorMessage)
        gate.set()
        answers = peer.receive_until(lambda answer: getattr(answer, "request", None) == 13)
        answers += peer.receive_all()
    errors = [(answer.request, answer.fatal) for answer in answers if isinstance(answer, ErrorMessage)]
    assert [answer.index for answer in answers[:19]] == list(range(1, 20))
    assert errors == [(None, True), (13, False)]


def test_silent_clients_lose_their_sessions_when_none_comes_back():
    world = FakeWorld()
    with serving(world, liveness_s=2, resume_s=0.2) as server, RawPeer(server.endpoint) as peer:
        open_raw(peer)
        assert world.open_sessions == 1
        (bye,) = peer.receive_many(1)
        assert isinstance(bye, Bye)
        assert "nothing was heard" in bye.reason
        wait_until(lambda: world.open_sessions == 0)
        assert peer.receive_all() == []


def test_heartbeats_alone_keep_a_session():
    with (
        serving(heartbeat_s=0.2, liveness_s=2) as server,
        worldwire.connect(server.endpoint) as client,
        client.session() as session,
    ):
        session.reset()
        time.sleep(2.6)
        assert len(session.step(FORWARD)) == 8


def test_the_sessions_of_a_vanished_client_end():
    world = FakeWorld(step_s=0.02)
    with serving(world, resume_s=0) as server:
        with RawPeer(server.endpoint) as peer:
            open_raw(peer, window=4096)
        wait_until(lambda: world.open_sessions == 0)


def test_a_stalled_client_stops_its_world_and_then_gets_the_newest_frame():
    with serving() as server, RawPeer(server.endpoint) as stalled:
        session = open_raw(stalled, window=1)
        first = stalled.receive()
        assert isinstance(first, FrameMessage)
        stalled.send(Save(request=13, session=session))
        assert isinstance(stalled.receive(), Saved)  # the step is over
        assert stalled.receive(0.3) is None  # no credit, no frames, no backlog
        stalled.send(Credit(session=session, frames=1))
        newest = stalled.receive()
        assert isinstance(newest, FrameMessage)
        assert (first.index, newest.index, newest.dropped) == (1, 8, 6)


def test_a_wide_window_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(loop, "BACKLOG_BYTES", 12 * 32 * 48 * 4)
    with serving() as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer, window=4096)
        before = [frame.index for frame in peer.receive_many(8) + peer.receive_all(0.2)]
        peer.send(Credit(session=session, frames=4096))
        after = [frame.index for frame in peer.receive_many(8) + peer.receive_all(0.2)]
    assert before + after == list(range(1, 17))  # of the twelve that may be under way a step takes eight
    assert len(before) == 8


def test_a_stalled_client_does_not_slow_another_one():
    with serving(FakeWorld(step_s=0.02)) as server, RawPeer(server.endpoint) as stalled:
        open_raw(stalled, window=8)
        with worldwire.connect(server.endpoint) as client, client.session() as session:
            session.reset()
            session.start()
            assert len(collect(session, 80, timeout_s=30)) >= 80


def test_sessions_take_turns():
    with serving(FakeWorld(step_s=0.02)) as server, worldwire.connect(server.endpoint) as client:
        sessions = [client.session() for _ in range(3)]
        for session in sessions:
            session.reset()
        for session in sessions:
            session.start(window=64)
        frames = [[] for _ in sessions]
        deadline = time.monotonic() + 30
        while min(map(len, frames)) < 80 and time.monotonic() < deadline:
            for seen, session in zip(frames, sessions, strict=True):
                seen.extend(session.poll_frames(timeout_s=0.01))
    assert min(map(len, frames)) >= 80
    first_ns, last_ns = max(seen[0].sent_ns for seen in frames), min(seen[-1].sent_ns for seen in frames)
    counts = [sum(first_ns <= frame.sent_ns <= last_ns for frame in seen) for seen in frames]
    assert min(counts) > 0.7 * max(counts)  # of the time in which all three ran


def test_a_pause_is_answered_after_the_step_under_way():
    with serving(FakeWorld(step_s=2)) as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer, window=64)
        assert isinstance(peer.receive(), FrameMessage)
        peer.send(Pause(request=30, session=session))
        answers = peer.receive_until(lambda answer: isinstance(answer, Done)) + peer.receive_all(quiet_s=1.3)
    assert [type(answer) for answer in answers] == [FrameMessage] * 7 + [Done]


def test_inputs_out_of_order_are_answered_and_not_played():
    world = FakeWorld()
    with serving(world) as server, RawPeer(server.endpoint) as peer:
        session = open_raw(peer)
        for seq, keys in ((2, ("forward",)), (1, ("back",)), (3, ("fly",))):
            peer.send(Input(session=session, seq=seq, keys=keys))
        errors = [answer for answer in peer.receive_many(2) if isinstance(answer, ErrorMessage)]
        assert [(error.code, error.seq) for error in errors] == [("bad_message", 1), ("bad_input", 3)]
        peer.send(Start(request=20, session=session, window=8))
        answers = peer.receive_many(9) + peer.receive_all()
    frames = [answer for answer in answers if isinstance(answer, FrameMessage)]
    assert len(frames) == 8
    assert all(frame.ack == 2 for frame in frames)


def test_too_many_messages_are_dropped_with_a_word():
    with serving(messages_per_second=50) as server, RawPeer(server.endpoint) as peer:
        for _ in range(500):
            peer.send(Ping(t_ns=1))
        answers = peer.receive_until(lambda answer: isinstance(answer, ErrorMessage)) + peer.receive_all()
    assert sum(isinstance(answer, Pong) for answer in answers) < 500
    complaints = [answer for answer in answers if isinstance(answer, ErrorMessage)]
    assert {answer.code for answer in complaints} == {"busy"}


def test_an_oversized_message_cuts_only_its_sender():
    with serving(message_bytes=100_000) as server, worldwire.connect(server.endpoint) as client:
        session = client.session()
        session.reset()
        with RawPeer(server.endpoint) as peer:
            peer.send_parts([b"\x80", bytes(200_000)])
            assert peer.receive(0.3) is None
        assert len(session.step(FORWARD)) == 8
        with pytest.raises(WorldwireError):
            session.restore(bytes(200_000))


def test_a_taken_port_is_named(server):
    with pytest.raises(MachineError, match=r"is taken.*--bind"):
        Server(FakeWorld, server.endpoint)


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.168.1.7:5555"])
def test_addresses_beyond_this_machine_are_refused(address):
    with pytest.raises(MachineError, match=r"other machines.*--insecure"):
        Server(FakeWorld, address)


def test_insecure_allows_them():
    server = Server(FakeWorld, "tcp://0.0.0.0:0", insecure=True)
    assert server.endpoint.startswith("tcp://0.0.0.0:")
    server.stop()
    server.run()


def test_no_address_is_a_typed_error():
    with pytest.raises(MachineError, match="cannot listen"):
        Server(FakeWorld, "tcp://localhost:port")
    for address in ("5555", "localhost:5555", "http://localhost:5555", "tcp://", "tcp://[::1:5555"):
        with pytest.raises(ConfigError, match="no address to listen at"):
            Server(FakeWorld, address, insecure=True)


def test_what_loading_raises_comes_out_of_run():
    def load() -> FakeWorld:
        raise ConfigError("no such preset")

    with pytest.raises(ConfigError, match="no such preset"):
        Server(load, LOOPBACK).run()


def test_plain_tcp_garbage_is_survived(server):
    host, port = server.endpoint.removeprefix("tcp://").split(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40, b""):
        with socket.create_connection((host, int(port))) as plain:
            plain.sendall(garbage)
    with worldwire.connect(server.endpoint) as client:
        assert client.status().state == "ready"


def test_a_goodbye_reaches_clients_when_the_server_stops():
    with serving() as server:
        peer = RawPeer(server.endpoint)
    assert isinstance(peer.receive(), Bye)
    peer.close()


def test_other_socket_types_get_an_error_and_no_crash(server):
    context = zmq.Context()
    with context.socket(zmq.REQ) as request:
        request.linger = 0
        request.connect(server.endpoint)
        request.send(b"hello?")
        assert request.poll(300) == 0  # REQ drops the answer: it has no empty delimiter
    context.term()
    with worldwire.connect(server.endpoint) as client:
        assert client.status().state == "ready"


def open_sessions(peer: RawPeer) -> int:
    peer.send(Status(request=99))
    report = peer.receive()
    assert isinstance(report, StatusReport)
    return report.sessions


def collect(session, count: int, timeout_s: float) -> list[worldwire.Frame]:
    frames: list[worldwire.Frame] = []
    deadline = time.monotonic() + timeout_s
    while len(frames) < count and time.monotonic() < deadline:
        frames += session.poll_frames(timeout_s=0.1)
    return frames


def until_it_fails(session) -> tuple[list[worldwire.Frame], str]:
    """All frames of a live session that end in an error, and its text."""
    frames: list[worldwire.Frame] = []
    while True:
        try:
            frames += collect(session, 1, timeout_s=30)
        except WorldwireError as error:
            return frames, str(error)


def test_a_seed_image_and_its_message_must_agree(server):
    with RawPeer(server.endpoint) as peer:
        session = open_raw(peer)
        sides = {"image_height": 32, "image_width": 48}
        for fields, payload in (
            (sides, None),
            (sides, bytes(5)),
            ({"image": "red"}, bytes(32 * 48 * 3)),
            ({}, bytes(32 * 48 * 3)),
        ):
            peer.send(Reset(request=40, session=session, **fields), payload)
            answer = peer.receive()
            assert isinstance(answer, ErrorMessage)
            assert (answer.code, answer.request) == ("bad_image", 40)
        peer.send(Reset(request=41, session=session, **sides), bytes(32 * 48 * 3))
        assert isinstance(peer.receive(), FrameMessage)
