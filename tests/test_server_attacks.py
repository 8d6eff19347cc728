"""What a hostile client may try; another one keeps playing, and the server ends in good health."""

import json
import socket
import threading
import time
from pathlib import Path

import msgpack
import pytest
from fake_world import FakeSession, FakeWorld
from server_fixture import RawPeer, serving

import worldwire
from worldwire.errors import ConfigError, MachineError, StateError
from worldwire.protocol import (
    Bye,
    Done,
    ErrorMessage,
    Hello,
    Limits,
    Open,
    Opened,
    Ping,
    Pong,
    Reset,
    Restore,
    Start,
    encode,
)
from worldwire.schema import Message
from worldwire_runtime.commands.serve import serve_until_stopped
from worldwire_runtime.server import Server, backlog
from worldwire_runtime.server import clients as clients_module
from worldwire_runtime.server.clients import Clients
from worldwire_runtime.server.pixels import PictureEncoder
from worldwire_runtime.server.security import KeyPair, write_new_keys
from worldwire_runtime.server.sessions import Sessions
from worldwire_runtime.test_pattern import PatternWorld

FRAMES_AT_LEAST = 10
GIVE_UP_S = 60.0


def open_session(peer: RawPeer) -> int:
    peer.send(Open(request=2))
    return next(m.session for m in iter(peer.receive, None) if isinstance(m, Opened))


def still_plays(endpoint: str) -> bool:
    with worldwire.connect(endpoint) as client, client.session() as session:
        session.reset()
        return bool(session.step(worldwire.Inputs()))


def frames_during(endpoint: str, attack) -> int:
    """Runs an attack in a thread; how many frames a live session gets until it is over."""
    failures: list[BaseException] = []
    over = threading.Event()

    def run() -> None:
        try:
            attack()
        except BaseException as error:
            failures.append(error)
        finally:
            over.set()

    with worldwire.connect(endpoint) as client, client.session() as session:
        session.reset()
        session.start()
        thread = threading.Thread(target=run)
        thread.start()
        frames = 0
        while not over.is_set():
            frames += len(session.poll_frames(timeout_s=0.05))
        thread.join()
        if failures:
            raise failures[0]
        return frames


def receive_error(peer: RawPeer, code: str) -> ErrorMessage:
    """The first error of this code."""
    deadline_s = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline_s:
        message = peer.receive(1.0)
        if isinstance(message, ErrorMessage) and message.code == code:
            return message
    raise AssertionError(f"no error {code!r} came")


def wait_until_read(peer: RawPeer) -> None:
    """Until the server has read all that a peer has sent; a ping, too, may be one message too many."""
    deadline_s = time.monotonic() + GIVE_UP_S
    while time.monotonic() < deadline_s:
        peer.send(Ping(t_ns=1))
        if any(isinstance(message, Pong) for message in iter(lambda: peer.receive(1.0), None)):
            return
    raise AssertionError("the server did not read everything")


def test_messages_that_are_slow_to_read_do_not_keep_the_loop():
    """4 kB that say a step of 4096 frames take 20 ms to read."""
    slow = msgpack.packb({"type": "step", "request": 3, "session": 1, "inputs": [{}] * 4096})
    with serving(PatternWorld(96, 160), rate=40.0) as server, RawPeer(server.endpoint) as peer:

        def attack() -> None:
            for _ in range(200):
                peer.send_parts([slow])
            wait_until_read(peer)
            peer.receive_all(quiet_s=1.0)

        assert frames_during(server.endpoint, attack) >= FRAMES_AT_LEAST
        assert still_plays(server.endpoint)


def test_a_message_that_keeps_the_loop_counts_as_several():
    now_s = [0.0]
    clients = Clients(Limits(messages_per_second=100), lambda: now_s[0])
    heard = 0
    while client := clients.heard(b"slow"):
        clients.charge(client, 0.02)  # with half of the time for one client: four messages at 100 a second
        heard += 1
    assert heard == 25
    now_s[0] += 1
    assert clients.heard(b"slow")


def test_a_message_of_very_many_parts_is_refused_and_not_kept():
    with serving(PatternWorld(96, 160), rate=40.0) as server, RawPeer(server.endpoint) as peer:

        def attack() -> None:
            peer.send_parts([b"x", *[b""] * 200_000])
            assert receive_error(peer, "bad_message").got == "3 parts"

        frames_during(server.endpoint, attack)
        peer.send(Ping(t_ns=7))
        assert isinstance(peer.receive(GIVE_UP_S), Pong)
        assert still_plays(server.endpoint)


def test_opening_and_leaving_in_a_loop_leaves_nothing_and_is_held_to_the_rate():
    world = FakeWorld(step_s=0.01)
    with serving(world, messages_per_second=100) as server, RawPeer(server.endpoint) as peer:
        for _ in range(400):
            peer.send(Hello(request=1, version=(1, 0), client="x"))
            peer.send(Open(request=2))
            peer.send(Bye())
        answers = peer.receive_until(lambda m: isinstance(m, ErrorMessage) and m.code == "busy")
        answers += peer.receive_all()
        assert sum(m.kind == "welcome" for m in answers) < 300
        assert still_plays(server.endpoint)
    assert world.open_sessions == 0


class TamperedSession(FakeSession):
    """Restores whatever it is told to, like a world that does not check its states enough."""

    def restore(self, state: bytes) -> None:
        facts = json.loads(state)
        if "problem" in facts:
            raise StateError(facts["problem"], got=facts["problem"])
        self._index = facts["index"]


class TamperedWorld(FakeWorld):
    def session(self, plan=None):
        self.open_sessions += 1
        return TamperedSession(self, "low-latency")


@pytest.mark.parametrize("index", [10**30, -7, 1.5, None, 2**64 - 1])
@pytest.mark.parametrize("live", [False, True])
def test_a_frame_that_no_header_can_hold_ends_its_session_alone(index, live):
    with serving(TamperedWorld()) as server, RawPeer(server.endpoint) as peer:
        session = open_session(peer)
        peer.send(Restore(request=3, session=session), json.dumps({"index": index}).encode())
        restored = peer.receive()
        if isinstance(restored, Done):
            frames = ({},) * restored.frames_per_step
            if live:
                peer.send(Start(request=4, session=session, window=64))
            else:
                header = {"type": "step", "request": 4, "session": session, "inputs": list(frames)}
                peer.send_parts([msgpack.packb(header)])
            time.sleep(0.1)
            peer.drain()
        assert still_plays(server.endpoint)


@pytest.mark.parametrize("problem", ["\ud800 is no character", "x" * 5_000_000])
def test_an_error_that_quotes_anything_can_be_sent(problem):
    with serving(TamperedWorld()) as server, RawPeer(server.endpoint) as peer:
        session = open_session(peer)
        peer.send(Restore(request=3, session=session), json.dumps({"problem": problem}).encode())
        answer = peer.receive()
        assert isinstance(answer, ErrorMessage)
        assert (answer.code, answer.request) == ("bad_state", 3)
        assert len(answer.problem) <= 2000
        assert still_plays(server.endpoint)


def test_payloads_that_wait_are_bounded_and_those_that_nobody_asked_for_are_dropped():
    sessions = Sessions(Limits(message_bytes=1000, sessions=2))
    first, second = (sessions.add(b"a", PictureEncoder("rgb", 90)) for _ in range(2))
    sessions.enqueue(first, Restore(request=1, session=1), bytes(1000))
    sessions.enqueue(second, Restore(request=2, session=2), None)
    with pytest.raises(worldwire.errors.BusyError, match="payloads"):
        sessions.enqueue(second, Restore(request=3, session=2), bytes(1))
    first.take_request()
    sessions.enqueue(second, Restore(request=4, session=2), bytes(900))


def test_a_full_table_of_connections_makes_room_or_says_so(monkeypatch):
    monkeypatch.setattr(clients_module, "MAX_CLIENTS", 2)
    clients = Clients(Limits(), lambda: 1.0)
    quiet, greeted = clients.heard(b"quiet"), clients.heard(b"greeted")
    assert quiet
    assert greeted
    greeted.add_token(())
    newcomer = clients.heard(b"newcomer")
    assert newcomer
    assert clients.get(b"quiet") is None
    newcomer.add_token(())
    assert clients.heard(b"late") is None
    assert clients.may_complain(b"late")
    assert not clients.may_complain(b"later")


GREETING = bytes.fromhex("ff00000000000000007f0301") + b"NULL".ljust(52, b"\0")
READY = bytes.fromhex("041c0552454144590b536f636b65742d54797065000000064445414c4552")


def mute_peer(endpoint: str) -> socket.socket:
    """A ZMTP connection that will not read, behind a small window."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = endpoint.removeprefix("tcp://").split(":")
    peer.connect((host, int(port)))
    peer.sendall(GREETING)
    peer.recv(64, socket.MSG_WAITALL)
    peer.sendall(READY)
    peer.recv(2)
    return peer


def send_short(peer: socket.socket, message: Message) -> None:
    part = encode(message)
    peer.sendall(bytes([0, len(part)]) + part)


def waits_until(condition) -> bool:
    end_s = time.monotonic() + 60
    while not condition() and time.monotonic() < end_s:
        time.sleep(0.02)
    return condition()


def test_who_does_not_read_gets_no_more_made_and_others_play(monkeypatch):
    monkeypatch.setattr(backlog, "MOST_OF_ONE_BYTES", 2**23)
    with serving(PatternWorld(704, 1280)) as server, worldwire.connect(server.endpoint) as client:
        peer = mute_peer(server.endpoint)
        send_short(peer, Hello(request=1, version=(1, 0), client="mute"))
        send_short(peer, Open(request=2))
        for request in range(3, 43):
            send_short(peer, Reset(request=request, session=1))
        assert waits_until(lambda: client.status().queue > 0)
        with client.session() as session:
            session.reset()
            assert session.step(worldwire.Inputs())
        assert waits_until(lambda: len(server._router.crowded()) == 1)
        assert client.status().queue > 0
        peer.close()
        assert waits_until(lambda: not server._router.crowded() and not client.status().queue)


def test_a_key_file_with_40_other_characters_is_named(tmp_path):
    """It would end the server at the first handshake."""
    keys = write_new_keys(tmp_path / "key")
    file = tmp_path / "key_secret"
    file.write_text(file.read_text().replace(keys.public.decode(), "~" * 40))
    with pytest.raises(ConfigError, match="holds no key"):
        KeyPair.from_file(file)


def test_a_ready_file_that_cannot_be_written_is_named_and_nothing_stays():
    server = Server(FakeWorld, "tcp://127.0.0.1:0")
    with pytest.raises(MachineError, match="ready file"):
        serve_until_stopped(server, Path("/proc/no-such-folder/ready"))


def test_a_long_prompt_of_rare_characters_costs_what_shows_of_it():
    session = PatternWorld(704, 1280).session()
    session.reset(prompt="".join(map(chr, range(0x4E00, 0x4E00 + 2000))))
    start_s = time.process_time()
    for _ in range(10):
        session.step(worldwire.Inputs())
    assert time.process_time() - start_s < 0.5
