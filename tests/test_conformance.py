"""The conformance runner: our server keeps every clause, and servers that break one are caught."""

import argparse
import json
import socket

import pytest
from fake_world import FakeWorld
from server_fixture import LOOPBACK, running, serving

from worldwire.cli import main
from worldwire.commands import conformance
from worldwire.conformance import Outcome, Target, clauses, run
from worldwire.protocol import Done
from worldwire_runtime.server import Server, live, loop, pixels, replies, sessions
from worldwire_runtime.server.security import KeyPair, write_new_keys
from worldwire_runtime.test_pattern import PatternWorld

PATIENCE_S = 2.0
QUICK_LIMITS = {"liveness_s": 1.0, "heartbeat_s": 0.2, "resume_s": 0.5, "messages_per_second": 1000}


def results(endpoint: str, *sections: str, quick: bool = True):
    chosen = [item for item in clauses() if not sections or item.section in sections]
    return list(run(Target(endpoint, patience_s=PATIENCE_S, quick=quick), chosen))


def broken(found) -> list[str]:
    return [
        f"{item.clause.section} {item.clause.text}: {item.detail}" for item in found if item.outcome == "fail"
    ]


def test_our_server_keeps_every_clause():
    with serving(FakeWorld(), **QUICK_LIMITS) as server:
        found = results(server.endpoint, quick=False)
    assert not broken(found)
    assert [item.clause.text for item in found if item.outcome == Outcome.SKIP] == []


def test_a_world_of_one_frame_a_step_keeps_every_clause():
    with serving(PatternWorld(height=96, width=320)) as server:
        found = results(server.endpoint)
    assert not broken(found)


def test_a_server_with_keys_is_checked_with_keys(tmp_path, capsys):
    keys = write_new_keys(tmp_path / "server.key")
    server = Server(FakeWorld, LOOPBACK, keys=KeyPair.from_file(tmp_path / "server.key_secret"))
    with running(server):
        arguments = ["conformance", server.endpoint, "--quick", "--patience", "2"]
        for section in ("1", "5.1"):
            assert main([*arguments, "--only", section, "--server-key", keys.public.decode()]) == 0
        assert main([*arguments, "--only", "1"]) == 2
    assert "wants its key" in capsys.readouterr().err


def generous(self, window, honest=sessions.Slot.start):
    honest(self, 2 * window)


def all_at_once(self):
    held = {key: edges[-1].held if edges else self._held[key] for key, edges in self._edges.items()}
    for edges in self._edges.values():
        edges.clear()
    self._held.update(held)
    return frozenset(key for key, is_held in held.items() if is_held)


def always_first_epoch(slot, request):
    return Done(request=request, session=slot.id, epoch=1, frames_per_step=slot.frames_per_step)


@pytest.mark.parametrize(
    ("section", "owner", "name", "replacement"),
    [
        ("3.1", loop, "decode", lambda parts, honest=loop.decode: lenient(honest, parts)),
        ("5.3", replies, "done", always_first_epoch),
        ("5.4", sessions.Sessions, "adopt", lambda self, token, client: ()),
        ("6.1", loop.Server, "_on_ping", lambda *_: None),
        ("7.1", sessions.Slot, "start", generous),
        ("7.2", live.LiveInputs, "_next_keys", all_at_once),
        ("7.3", live.LiveInputs, "_shown", lambda self: self._newest + 1),
        ("8.1", pixels, "CHANNELS", {"rgba": (2, 1, 0), "bgra": (0, 1, 2)}),
        ("10.1", loop, "correlation", lambda parts: {}),
    ],
)
def test_a_server_that_breaks_a_clause_is_caught(monkeypatch, section, owner, name, replacement):
    monkeypatch.setattr(owner, name, replacement)
    with serving() as server:
        assert broken(results(server.endpoint, section))


def lenient(honest, parts):
    """Talks to any version."""
    return honest([bytes(parts[0]).replace(b"\x92\x02\x00", b"\x92\x01\x00"), *parts[1:]])


def test_a_world_that_fails_is_no_crash_of_the_runner():
    with serving(FakeWorld(fail_at=3)) as server:
        found = results(server.endpoint, "4", "6.1")
    assert len(broken(found)) > 3


def test_the_command_prints_a_line_a_clause(capsys):
    with serving() as server:
        assert main(["conformance", server.endpoint, "--quick", "--only", "3"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(line.startswith("pass  §3.") for line in lines[:-1])
        assert lines[-1].endswith("3 pass, 0 fail, 0 skip")
        assert main(["conformance", server.endpoint, "--quick", "--only", "3.2", "--json"]) == 0
        (told,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert (told["section"], told["outcome"]) == ("3.2", "pass")


def test_a_failing_clause_gives_the_exit_status_1(monkeypatch, capsys):
    monkeypatch.setattr(loop, "correlation", lambda parts: {})
    with serving() as server:
        status = main(["conformance", server.endpoint, "--quick", "--only", "10.1", "--patience", "1"])
    assert status == 1
    assert "fail  §10.1" in capsys.readouterr().out


def test_no_server_at_all_is_one_error(capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    assert main(["conformance", address, "--patience", "0.5"]) == 2
    assert f"no server at {address}" in capsys.readouterr().err


def test_the_clauses_are_sections_of_the_specification():
    from pathlib import Path

    text = (Path(__file__).parents[1] / "sdk" / "PROTOCOL.md").read_text()
    for item in clauses():
        heading = f"### {item.section} " if "." in item.section else f"## {item.section}. "
        assert heading in text, item.section


def test_the_list_names_every_clause(capsys):
    parser = argparse.ArgumentParser()
    conformance.configure(parser)
    assert conformance.run(parser.parse_args(["--list"])) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(clauses())
