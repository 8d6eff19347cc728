"""Encrypted connections from the client's side: the right keys play, each wrong one is called by its name."""

import socket
import time

import pytest
import zmq.auth
from cable import Cable
from fake_world import FakeWorld
from server_fixture import LOOPBACK, running, serving

import worldwire
from worldwire.connection import mechanism
from worldwire.errors import ConnectionLostError, WrongKeyError
from worldwire.keys import ClientKeys, KeyPair, public_key
from worldwire_runtime.server import Server
from worldwire_runtime.server.security import KeyPair as ServerKeys
from worldwire_runtime.server.security import write_new_keys

OTHER_KEY = KeyPair.fresh().public.decode()


@pytest.fixture
def key_file(tmp_path):
    write_new_keys(tmp_path / "server.key")
    return tmp_path / "server.key"


@pytest.fixture
def encrypted(key_file):
    server = Server(FakeWorld, LOOPBACK, keys=ServerKeys.from_file(key_file.with_name("server.key_secret")))
    with running(server):
        yield server


def connect_quickly(endpoint: str, **keys) -> None:
    """Connects, or fails long before the time is over."""
    started = time.monotonic()
    try:
        worldwire.connect(endpoint, timeout_s=60, **keys).close()
    finally:
        assert time.monotonic() - started < 30


def test_a_world_is_played_over_an_encrypted_connection(encrypted, key_file):
    for server_key in (key_file, str(key_file), public_key(key_file).decode()):
        with (
            worldwire.connect(encrypted.endpoint, server_key=server_key) as client,
            client.session() as session,
        ):
            assert session.reset(seed=1).pixels.shape == (32, 48, 3)
            assert len(session.step(worldwire.Inputs())) == 8


def test_a_missing_key_is_told(encrypted):
    with pytest.raises(WrongKeyError, match=r"encrypts and wants its key.*server_key"):
        connect_quickly(encrypted.endpoint)


def test_a_wrong_key_is_told(encrypted):
    with pytest.raises(WrongKeyError, match=r"has another key"):
        connect_quickly(encrypted.endpoint, server_key=OTHER_KEY)


def test_a_key_for_a_server_without_any_is_told():
    with serving() as server, pytest.raises(WrongKeyError, match=r"has no keys and does not encrypt"):
        connect_quickly(server.endpoint, server_key=OTHER_KEY)


def test_only_listed_clients_are_taken_and_others_are_told(key_file, tmp_path):
    folder = tmp_path / "clients"
    folder.mkdir()
    _, secret_file = zmq.auth.create_certificates(tmp_path, "player")
    server = Server(
        FakeWorld,
        LOOPBACK,
        keys=ServerKeys.from_file(key_file.with_name("server.key_secret")),
        clients=folder,
    )
    with running(server):
        with pytest.raises(WrongKeyError, match=r"does not take this client's key.*--clients"):
            connect_quickly(server.endpoint, server_key=key_file, client_key=secret_file)
        (tmp_path / "player.key").rename(folder / "player.key")
        connect_quickly(server.endpoint, server_key=key_file, client_key=secret_file)
        with pytest.raises(WrongKeyError, match="does not take"):
            connect_quickly(server.endpoint, server_key=key_file)


def test_an_encrypted_session_is_resumed(encrypted, key_file):
    with (
        Cable(encrypted.endpoint) as cable,
        worldwire.connect(cable.endpoint, server_key=key_file) as client,
    ):
        session = client.session()
        session.reset()
        cable.pull()
        while client.connected:
            time.sleep(0.01)
        cable.plug()
        assert session.step(worldwire.Inputs())[0].index == 1


def test_a_network_that_breaks_in_the_handshake_is_no_wrong_key(encrypted, key_file):
    with (
        Cable(encrypted.endpoint) as cable,
        worldwire.connect(cable.endpoint, server_key=key_file) as client,
    ):
        session = client.session()
        session.reset()
        for pause_s in (0.0, 0.01, 0.05, 0.15, 0.3):
            cable.pull()
            time.sleep(pause_s)
            cable.plug()
            time.sleep(0.1)
        assert session.step(worldwire.Inputs())[0].index == 1


def test_what_is_no_key_is_refused_before_anything_is_sent(tmp_path, key_file):
    secret = tmp_path / "server.key_secret"
    odd = tmp_path / "odd.key"
    odd.write_text('metadata\ncurve\n    public-key = "short"\n')
    for server_key, client_key, problem in (
        ("x" * 39, None, "no key at"),
        ("\u00e4" * 40, None, "is no Z85"),
        (tmp_path / "absent", None, "no key at"),
        (odd, None, "wrong length"),
        (None, secret, "without a server key"),
        (key_file, key_file, "no secret key"),
    ):
        with pytest.raises(WrongKeyError, match=problem):
            ClientKeys.of(server_key, client_key)
    assert ClientKeys.of(None, None) is None
    assert str(KeyPair.read(secret)).count("secret") == 0  # it must not reach a log


def test_what_a_server_speaks_stands_in_its_greeting(encrypted, monkeypatch):
    with serving() as server, monkeypatch.context() as patch:
        patch.setattr("worldwire.connection.PROBE_TIMEOUT_S", 30.0)
        assert mechanism(encrypted.endpoint) == "CURVE"
        assert mechanism(server.endpoint) == "NULL"
    assert mechanism("ipc:///nowhere") is None
    assert mechanism("tcp://nowhere") is None
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert mechanism(f"tcp://127.0.0.1:{mute.getsockname()[1]}") is None


def test_a_web_server_is_not_taken_for_a_wrong_key():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        endpoint = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(ConnectionLostError, match="does not answer as a worldwire server"):
            worldwire.connect(endpoint, timeout_s=0.5, server_key=OTHER_KEY)
