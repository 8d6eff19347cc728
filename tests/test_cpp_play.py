"""The C++ client against real servers: play, resume, a crash, keys; and against peers that are none."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import zmq
import zmq.auth
from cpp_fixture import Play, cause, needs_compiler, needs_libzmq, play, probe, run, world_server
from fake_world import FakeWorld
from server_fixture import serving

import worldwire
from worldwire.protocol import (
    VERSION,
    ErrorMessage,
    Hello,
    Limits,
    StatusReport,
    Welcome,
    WireWorld,
    decode,
    encode,
)
from worldwire.schema import Message

pytestmark = needs_compiler
__all__ = ["probe"]

PATTERN = ("--preset", "test-pattern", "--size", "320x192")
FRAMES_PER_S_AT_LEAST = 50  # of a small picture on a busy machine; benchmarks/wire.py measures properly


# ------------------------------------------------------------------------------------------ a real world


def test_a_walk_through_the_tiny_world_that_outlives_its_server(probe, tmp_path):
    script = "ready wish frames:100 prompt:snow reset:village frames:16 pause step save step restore step"
    script += " keep step restore-kept step branch step start frames:8 close"
    with world_server(tmp_path, "--preset", "tiny", "--device", "cpu") as server:
        address = server.address
        said = play(probe, address, *script.split())
        steps = {index: line.get("checksum") for index, line in enumerate(said) if line["verb"] == "step"}
        assert said[0]["world"] == "tiny"
        walk = said[2]
        assert (walk["frames"], walk["first"], walk["gaps"]) == (100, 0, 0)
        assert walk["ack"] > 0
        assert said[4]["epoch"] == 2
        first, after_save, restored, after_keep, of_kept, of_branch = steps.values()
        assert after_save == restored
        assert after_keep == of_kept
        assert of_branch not in (first, of_kept)

        with Play(probe, address, "wish", "frames:20", "lost", "back", "frames:20") as player:
            player.line("wish")
            player.line("frames")
            server.kill()
            assert player.line("lost")["cause"] in ("closed", "nothing_listens")
            with world_server(tmp_path, "--preset", "tiny", "--device", "cpu", bind=address):
                assert player.line("back") == {"verb": "back", "result": "ok", "resumed": 0, "opened": 2}
                assert player.line("frames")["first"] == 0


# ------------------------------------------------------------------------------------------ synthetic worlds


@contextmanager
def fragile_way(address: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """A way to the server that can be cut: its address, and the scissors."""
    host, port = address.removeprefix("tcp://").split(":")
    listener = socket.create_server(("127.0.0.1", 0))
    pairs: list[socket.socket] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass

    def accept() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection((host, int(port)))
            pairs.extend((near, far))
            for ends in ((near, far), (far, near)):
                threading.Thread(target=pump, args=ends, daemon=True).start()

    def cut() -> None:
        while pairs:
            end = pairs.pop()
            with suppress(OSError):  # the other half has gone already
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}", cut
    finally:
        cut()
        listener.close()


def test_a_cut_connection_is_resumed_where_it_was(probe):
    script = ("wish", "frames:20", "lost", "back", "frames:20")
    with (
        serving(FakeWorld()) as server,
        fragile_way(server.endpoint) as (address, cut),
        Play(probe, address, *script) as player,
    ):
        player.line("wish")
        before = player.line("frames")
        cut()
        assert player.line("lost")["cause"] == "closed"
        assert player.line("back") == {"verb": "back", "result": "ok", "resumed": 1, "opened": 1}
        after = player.line("frames")
    assert after["first"] > before["last"]  # the same walk: the world goes on
    assert after["seq"] > before["seq"]


def test_a_client_that_stalls_gets_the_newest_frame(probe):
    with serving(FakeWorld()) as server:
        stalled, after = play(probe, server.endpoint, "wish", "frames:10", "stall:1500", "frames:10")[2:]
    assert stalled["waiting"] > 1
    assert stalled["left"] == 0
    assert after["skipped"] == stalled["waiting"] - 1


def test_a_full_server_is_told_apart_and_waited_for(probe):
    with serving(FakeWorld(), sessions=1) as server, worldwire.connect(server.endpoint) as other:
        session = other.session()
        with Play(probe, server.endpoint, "ready", "ask", "cause", "opened") as player:
            player.line("ready")
            player.line("ask")
            assert player.line("cause")["cause"] == "busy"
            session.close()
            assert player.line("opened")["cause"] == "ok"


def test_a_refused_seed_image_leaves_the_session_as_it_was(probe):
    with serving(FakeWorld()) as server:
        done = run(probe, "play", server.endpoint, "open", "reset", "bad-image", "step")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers[2]["code"] == "bad_image"
    assert answers[3]["frames"] > 0


def test_the_example_writes_its_walk(probe, tmp_path):
    with serving(FakeWorld()) as server:
        run(probe.with_name("worldwire_walk"), server.endpoint, "10", tmp_path)
        with worldwire.connect(server.endpoint) as client:
            info = client.info
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.ppm", "00008.ppm"]
    picture = (tmp_path / "00008.ppm").read_bytes()
    assert picture.startswith(f"P6\n{info.width} {info.height}\n255\n".encode())


def test_a_threaded_client_gets_every_frame(probe):
    with serving(FakeWorld()) as server:
        report = json.loads(run(probe, "threaded", server.endpoint, "60").stdout)
    assert (report["frames"], report["gaps"]) == (60, 0)


@pytest.mark.parametrize("form", ["rgb", "rgba", "bgra"])
def test_bench_counts_frames_and_no_allocation(probe, tmp_path, form):
    with world_server(tmp_path, *PATTERN, "--rate", "0") as server:
        report = json.loads(run(probe, "bench", server.address, "0.5", form).stdout)
    assert report["frames"] > FRAMES_PER_S_AT_LEAST * report["seconds"]
    assert report["allocations"] == 0
    assert report["p50_ms"] <= report["p99_ms"]


# ------------------------------------------------------------------------------------------ keys


@needs_libzmq
def test_keys(probe, tmp_path):
    run(sys.executable, "-m", "worldwire", "serve", "--new-key", tmp_path / "key")
    run(sys.executable, "-m", "worldwire", "serve", "--new-key", tmp_path / "other")
    right, wrong = (f"server-key={public_key(tmp_path / name)}" for name in ("key", "other"))
    with world_server(tmp_path, *PATTERN, "--key", str(tmp_path / "key_secret")) as server:
        assert play(probe, server.address, right, "wish", "frames:20")[1]["frames"] == 20
        assert cause(probe, server.address, wrong)["cause"] == "wrong_key"
        assert cause(probe, server.address)["cause"] == "wrong_key"
        assert cause(probe, server.address, "server-key=short")["cause"] == "wrong_key"
    with serving(FakeWorld()) as server:
        assert cause(probe, server.endpoint, right)["cause"] == "wrong_key"
    assert cause(probe, free_address(), right)["cause"] == "nothing_listens"


def public_key(file) -> str:
    """What the server's public certificate says."""
    key, _ = zmq.auth.load_certificate(file)
    return key.decode()


# ------------------------------------------------------------------------------------------ other peers


def free_address() -> str:
    """Where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"tcp://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def answering(answer: Callable[[Message], Message | None]) -> Iterator[str]:
    """A ROUTER that answers as it is told, and says nothing to what gives None; its address."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.linger = 0
    port = router.bind_to_random_port("tcp://127.0.0.1")
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            if not router.poll(50):
                continue
            peer, *parts = router.recv_multipart()
            reply = answer(decode(parts)[0])
            if reply is not None:
                router.send_multipart([peer, encode(reply)])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"tcp://127.0.0.1:{port}"
    finally:
        over.set()
        thread.join()
        context.destroy(0)


WORLD = WireWorld(
    name="fake",
    height=8,
    width=8,
    frames_per_second=16.0,
    frames_per_step=4,
    horizontal_fov_deg=80.0,
    trained_keys=(),
    views=(),
    seed_images=(),
)


def welcome(hello: Hello, version=VERSION, limits=None) -> Welcome:
    return Welcome(
        request=hello.request,
        version=version,
        server="fake",
        world=WORLD,
        limits=limits or Limits(),
        token="t",
    )


def to_hello(answer: Callable[[Hello], Message]) -> Callable[[Message], Message | None]:
    """Answers a hello and nothing else."""
    return lambda message: answer(message) if isinstance(message, Hello) else None


def test_another_version_is_told_with_both(probe):
    def refusal(hello: Hello) -> Message:
        return ErrorMessage(
            code="version_mismatch", problem="no", expected="2.0", got="[1, 0]", request=hello.request
        )

    for answer in (refusal, lambda hello: welcome(hello, version=(2, 0))):
        with answering(to_hello(answer)) as address:
            found = cause(probe, address)
        assert found["cause"] == "version_mismatch"
        assert "2.0" in found["text"]
        assert "1.0" in found["text"]


def test_a_loading_server_is_waited_for_with_its_progress(probe):
    hellos = []

    def load(hello: Hello) -> Message:
        hellos.append(hello)
        if len(hellos) > 3:
            return welcome(hello)
        return StatusReport(
            request=hello.request,
            state="loading",
            version=VERSION,
            sessions=0,
            max_sessions=4,
            uptime_s=1.0,
            progress=0.25,
            stage="reading weights",
        )

    with answering(to_hello(load)) as address:
        found = play(probe, address, "cause", "ready")
    assert (found[0]["cause"], found[0]["progress"], found[0]["stage"]) == (
        "loading",
        0.25,
        "reading weights",
    )
    assert found[1]["cause"] == "ok"


def test_a_silent_server_is_given_up(probe):
    short = Limits(heartbeat_s=0.2, liveness_s=0.6)
    with answering(to_hello(lambda hello: welcome(hello, limits=short))) as address:
        assert play(probe, address, "ready", "lost")[1]["cause"] == "stalled"


def test_nothing_there_or_no_address(probe):
    assert cause(probe, free_address())["cause"] == "nothing_listens"
    assert cause(probe, "127.0.0.1:5555")["cause"] == "bad_address"
    assert cause(probe, "tcp://no-such-host.invalid:5555")["cause"] == "unreachable"


def test_something_else_that_listens(probe):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            near, _ = listener.accept()
            near.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(64))
            near.close()

        threading.Thread(target=greet, daemon=True).start()
        found = cause(probe, f"tcp://127.0.0.1:{listener.getsockname()[1]}")
    assert found["cause"] == "not_worldwire"
