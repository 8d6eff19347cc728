"""The components and the editor window under stand-ins for Unity: their lives against a real server."""

import os
import socket
import sys

import pytest
from fake_world import FakeWorld
from server_fixture import serving
from unity_build import Built, build, needs_mono, run

pytestmark = needs_mono

NOBODY = "tcp://127.0.0.1:1"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    return build(tmp_path_factory.getbasetemp() / "unity")


def test_play_stop_play_leaves_no_thread_session_or_texture(built):
    with serving(FakeWorld(), sessions=1, rate=100.0) as server:
        assert run("mono", built.components, "lives", server.endpoint) == "two lives\n"


def test_every_output_with_poses_prompt_and_reset(built):
    with serving(FakeWorld(), rate=100.0) as server:
        assert run("mono", built.components, "outputs", server.endpoint) == "all outputs\n"


def test_without_a_server_there_is_one_line_and_a_panel(built):
    console, panel = run("mono", built.components, "nobody", NOBODY).splitlines()
    assert console == "Worldwire: No server at 127.0.0.1:1. Start it with `worldwire serve`. Retrying in 2 s."
    assert panel.startswith("No server at 127.0.0.1:1.")


def test_keys_and_mouse_become_controls(built):
    assert run("mono", built.components, "input") == "input\n"


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for the command `worldwire`")
def test_the_editor_window_starts_asks_and_stops_a_local_server(built, tmp_path):
    command = tmp_path / "worldwire"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m worldwire "$@" --size 320x192\n')
    command.chmod(0o755)
    told = run("mono", built.components, "editor", command, f"tcp://127.0.0.1:{free_port()}")
    assert "world test-pattern 320x192" in told
    assert "protocol 1.0" in told


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
