"""CURVE over real sockets: who has the right keys plays, everybody else gets nothing."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import zmq
import zmq.auth
from fake_world import FakeWorld
from server_fixture import LOOPBACK, running

from worldwire.cli import main
from worldwire.errors import ConfigError, MachineError
from worldwire.protocol import VERSION, Hello, Welcome, decode, encode
from worldwire_runtime.server import Server
from worldwire_runtime.server.security import KeyPair, write_new_keys

REFUSED_S = 0.4
WELCOMED_S = 30.0
BEYOND = "tcp://0.0.0.0:0"


@pytest.fixture
def keys(tmp_path) -> KeyPair:
    return write_new_keys(tmp_path / "server")


def refuses(server: Server, server_key: bytes | None, client: tuple[bytes, bytes] | None = None) -> bool:
    """Whether a client with these keys is not welcomed for a while."""
    return not greets(server, server_key, client, REFUSED_S if server_key is None else 2 * REFUSED_S)


def greets(
    server: Server,
    server_key: bytes | None,
    client: tuple[bytes, bytes] | None = None,
    within_s: float = WELCOMED_S,
) -> bool:
    """Whether a client with these keys is welcomed."""
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    if server_key is not None:
        dealer.curve_serverkey = server_key
        dealer.curve_publickey, dealer.curve_secretkey = client or zmq.curve_keypair()
    dealer.connect(server.endpoint.replace("0.0.0.0", "127.0.0.1"))
    dealer.send(encode(Hello(request=1, version=VERSION, client="test")))
    answered = bool(dealer.poll(int(1000 * within_s)))
    welcomed = answered and isinstance(decode(dealer.recv_multipart())[0], Welcome)
    dealer.close()
    context.term()
    return welcomed


def test_only_the_right_server_key_is_welcomed(keys):
    server = Server(FakeWorld, BEYOND, keys=keys)
    with running(server):
        assert greets(server, keys.public)
        assert refuses(server, zmq.curve_keypair()[0])
        assert refuses(server, None)
        assert greets(server, keys.public)


def test_a_folder_says_which_clients_may_come(keys, tmp_path):
    folder = tmp_path / "clients"
    folder.mkdir()
    known, unknown = zmq.curve_keypair(), zmq.curve_keypair()
    (folder / "known.key").write_text(public_file(known[0]))
    server = Server(FakeWorld, LOOPBACK, keys=keys, clients=folder)
    with running(server):
        assert greets(server, keys.public, known)
        assert refuses(server, keys.public, unknown)
        (folder / "unknown.key").write_text(public_file(unknown[0]))
        assert greets(server, keys.public, unknown)
        (folder / "known.key").unlink()
        assert refuses(server, keys.public, known)
        (folder / "broken.key").write_text("nothing")
        assert refuses(server, keys.public, unknown)


def public_file(key: bytes) -> str:
    return f'metadata\ncurve\n    public-key = "{key.decode()}"\n'


def test_keys_allow_an_address_that_others_can_reach(keys):
    with pytest.raises(MachineError, match=r"--new-key.*--insecure"):
        Server(FakeWorld, BEYOND)
    server = Server(FakeWorld, BEYOND, keys=keys)
    server.stop()
    server.run()


def test_bad_key_files_are_named(tmp_path, keys):
    odd = tmp_path / "odd"
    odd.write_text('metadata\ncurve\n    public-key = "short"\n')
    for path, problem in (
        (tmp_path / "server", "no secret key"),
        (tmp_path / "absent", "no key file"),
        (odd, "holds no key"),
        (Path(__file__), "no key"),
    ):
        with pytest.raises(ConfigError, match=problem):
            KeyPair.from_file(path)
    with pytest.raises(ConfigError, match="no folder"):
        Server(FakeWorld, LOOPBACK, keys=keys, clients=tmp_path / "absent")


def test_new_keys_are_private_and_never_overwritten(tmp_path, capsys):
    path = tmp_path / "deep" / "server.key"
    assert main(["serve", "--new-key", str(path)]) == 0
    secret = path.with_name("server.key_secret")
    public, none = zmq.auth.load_certificate(path)
    assert none is None
    assert public.decode() in capsys.readouterr().out
    assert KeyPair.from_file(secret).public == public
    assert os.stat(secret).st_mode & 0o077 == 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["server.key", "server.key_secret"]
    assert main(["serve", "--new-key", str(path)]) == 2
    assert "there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--bind", BEYOND], "--new-key"),
        (["--clients", "."], "--key"),
        (["--key", "absent_secret"], "absent_secret"),
        (["--rate", "-1"], "--rate"),
        (["--preset", "tiny", "--size", "320x192"], "--size"),
        (["--sessions", "0"], "--sessions"),
    ],
)
def test_the_command_refuses_what_makes_no_sense(options, word, capsys):
    assert main(["serve", *options]) == 2
    assert word in capsys.readouterr().err


@pytest.mark.parametrize("size", ["abc", "320", "320x192x3"])
def test_a_size_that_is_none_is_told_by_an_example(size, capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--preset", "test-pattern", "--size", size])
    assert "WIDTHxHEIGHT such as 1280x704" in capsys.readouterr().err


def test_a_served_pattern_tells_its_key_and_its_address(tmp_path):
    keys = write_new_keys(tmp_path / "server")
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "worldwire", "serve", "--preset", "test-pattern", "--size", "160x96"]
    command += ["--bind", BEYOND, "--key", str(tmp_path / "server_secret"), "--ready-file", str(ready)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not ready.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ready.read_text().startswith("tcp://0.0.0.0:")
    finally:
        process.terminate()
        told, _ = process.communicate(timeout=60)
    assert keys.public.decode() in told
    assert process.returncode == 0
