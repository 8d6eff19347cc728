"""The C# client against real servers: play, receipts, save, lost connections, versions, keys, stalls."""

import json
import socket
import threading
from pathlib import Path

import pytest
from cable import Cable
from fake_world import FakeWorld
from server_fixture import LOOPBACK, serving
from unity_build import Built, ServerProcess, Watcher, build, needs_mono, pattern_server, run

import worldwire
from worldwire_runtime.server import Loading, Server

pytestmark = needs_mono

NOBODY = "tcp://127.0.0.1:1"
BENCH_S = 2.0
LEAST_FPS = 50
"""Far below what is measured: machines that run tests are shared."""
LARGE = ("--size", "1280x704", "--rate", "0")
SMALL = ("--size", "320x192")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    return build(tmp_path_factory.getbasetemp() / "unity")


def test_a_walk_through_the_tiny_world(built, tmp_path):
    """Connect, start, 100 frames, prompt, reset, save, restore, branch, step: `PlayProgram` checks each."""
    with ServerProcess(tmp_path, "--preset", "tiny") as server:
        told = run("mono", built.client, "play", server.endpoint, "100")
    assert told.splitlines()[0] == "playing tiny rgba"
    assert told.splitlines()[-1] == "closed Closed"


def test_after_a_killed_server_the_same_world_begins_anew(built, tmp_path):
    pattern = ("--preset", "test-pattern", *SMALL)
    with ServerProcess(tmp_path, *pattern) as server, Watcher(built, server.endpoint) as watcher:
        watcher.wait_for("Playing")
        assert watcher.wait_for("first").startswith("first 1 1 ")
        server.kill()
        assert "Retrying in 2 s." in watcher.wait_for("Lost")
        assert watcher.wait_for("NothingListens").startswith("NothingListens No server at 127.0.0.1:")
        with ServerProcess(tmp_path, *pattern, bind=server.endpoint):
            watcher.wait_for("Playing")
            assert watcher.wait_for("first").startswith("first 1 1 ")


def test_after_a_lost_connection_the_session_goes_on(built):
    with (
        serving(rate=32.0) as server,
        Cable(server.endpoint) as cable,
        Watcher(built, cable.endpoint) as watcher,
    ):
        watcher.wait_for("Playing")
        _, session, epoch, _ = watcher.wait_for("first").split()
        watcher.tell("look")
        index = int(watcher.wait_for("look").split()[1])
        cable.pull()
        watcher.wait_for("Lost")
        cable.plug()
        watcher.wait_for("Playing")
        again = watcher.wait_for("first").split()
        assert again[1:3] == [session, epoch]
        assert int(again[3]) > index


def test_a_silent_server_is_stalled_and_taken_up_again(built):
    with (
        serving(rate=32.0, heartbeat_s=0.2, liveness_s=1.0) as server,
        Cable(server.endpoint) as cable,
        Watcher(built, cable.endpoint) as watcher,
    ):
        watcher.wait_for("Playing")
        cable.freeze()
        assert "was silent for 1 s" in watcher.wait_for("Stalled")
        cable.freeze(False)
        watcher.wait_for("Playing")


def test_a_stalled_client_gets_the_newest_frame_next(built, tmp_path):
    with pattern_server(tmp_path, *SMALL, "--rate", "40") as address, Watcher(built, address) as watcher:
        watcher.wait_for("Playing")
        watcher.wait_for("first")
        watcher.tell("sleep 1500")
        watcher.tell("look")
        _, _, waiting, skipped = watcher.wait_for("look").split()
        assert int(waiting) == 0
        assert int(skipped) > 0


def test_loading_tells_how_far_it_is(built):
    go_on, loading = threading.Event(), Loading()

    def load() -> FakeWorld:
        loading.tell(0.25, "reading weights")
        assert go_on.wait(30)
        return FakeWorld()

    server = Server(load, LOOPBACK, loading=loading)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        with Watcher(built, server.endpoint) as watcher:
            told = watcher.wait_for("Loading")
            assert told == "Loading The server is loading its world: reading weights (25 %)"
            go_on.set()
            watcher.wait_for("Playing")
    finally:
        go_on.set()
        server.stop()
        thread.join(10)


def test_a_full_server_is_busy_until_there_is_room(built):
    with serving(sessions=1) as server, worldwire.connect(server.endpoint) as other:
        holder = other.session()
        with Watcher(built, server.endpoint) as watcher:
            assert "Retrying in 2 s." in watcher.wait_for("Busy")
            holder.close()
            watcher.wait_for("Playing")


def test_closing_is_quick_and_ends_the_session(built):
    world = FakeWorld()
    with serving(world) as server, Watcher(built, server.endpoint) as watcher:
        watcher.wait_for("Playing")
        watcher.tell("quit")
        assert float(watcher.wait_for("closed").split()[1]) < 1.0
        with worldwire.connect(server.endpoint) as client:
            assert client.status().sessions == 0


def test_another_version_is_named_by_both_sides_numbers(built):
    with serving() as server, Watcher(built, server.endpoint, "major=2") as watcher:
        told = watcher.wait_for("WrongVersion")
    assert "1.0" in told
    assert "2" in told
    assert "same release" in told


def test_nobody_and_strangers_are_told_apart(built):
    with Watcher(built, NOBODY) as watcher:
        told = watcher.wait_for("NothingListens")
    assert told.endswith("No server at 127.0.0.1:1. Start it with `worldwire serve`. Retrying in 2 s.")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        threading.Thread(target=answer_as_web_server, args=(stranger,), daemon=True).start()
        with Watcher(built, f"tcp://127.0.0.1:{stranger.getsockname()[1]}") as watcher:
            assert "is no worldwire server" in watcher.wait_for("NothingListens")


def answer_as_web_server(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(64)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> Path:
    """A folder with the key pairs `server`, `known` and `other`; `clients` lists `known`."""
    zmq_auth = pytest.importorskip("zmq.auth")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("server", "known", "other"):
        zmq_auth.create_certificates(folder, name)
        (folder / f"{name}.key_secret").chmod(0o600)
    (folder / "clients").mkdir()
    (folder / "clients" / "known.key").write_bytes((folder / "known.key").read_bytes())
    return folder


@pytest.fixture(scope="module")
def encrypted(keys, tmp_path_factory) -> str:
    """The address of a server with keys, which takes the client `known` alone."""
    secret, clients = keys / "server.key_secret", keys / "clients"
    with pattern_server(
        tmp_path_factory.mktemp("encrypted"), *SMALL, "--key", str(secret), "--clients", str(clients)
    ) as address:
        yield address


@pytest.mark.skipif(
    not list(Path("/usr/lib").glob("*/libzmq.so.5")), reason="libzmq.so.5 (libzmq5) is not installed"
)
class TestEncryption:
    def test_the_right_keys_play(self, built, encrypted, keys):
        client = f"client={keys / 'known.key_secret'}"
        with Watcher(built, encrypted, f"key={keys / 'server.key'}", client) as watcher:
            watcher.wait_for("Playing")
            watcher.wait_for("first")

    def test_a_wrong_server_key_is_refused_and_said(self, built, encrypted, keys):
        with Watcher(built, encrypted, f"key={keys / 'other.key'}") as watcher:
            assert "refused the key" in watcher.wait_for("WrongKey")

    def test_a_client_that_is_not_listed_is_refused_and_said(self, built, encrypted, keys):
        client = f"client={keys / 'other.key_secret'}"
        with Watcher(built, encrypted, f"key={keys / 'server.key'}", client) as watcher:
            assert "a client key that it lists" in watcher.wait_for("WrongKey")

    def test_a_missing_key_is_asked_for(self, built, encrypted):
        with Watcher(built, encrypted) as watcher:
            assert "wants keys and none is given" in watcher.wait_for("WrongKey")

    def test_a_key_for_a_server_that_has_none_is_said(self, built, keys):
        with serving() as server, Watcher(built, server.endpoint, f"key={keys / 'other.key'}") as watcher:
            assert "the server at 127.0.0.1" in watcher.wait_for("WrongKey").lower()
            assert "has none" in watcher.seen[-1]

    def test_what_is_no_key_is_said_at_once(self, built):
        with Watcher(built, NOBODY, "key=abc") as watcher:
            assert "40 characters of Z85" in watcher.wait_for("WrongKey")


def test_large_frames_come_without_a_garbage_collection(built, tmp_path):
    with pattern_server(tmp_path, *LARGE) as address:
        told = json.loads(run("mono", built.client, "bench", address, str(BENCH_S), "rgba"))
    assert told["frames"] > LEAST_FPS * BENCH_S
    assert told["gen0"] == 0
