"""The command: its verbs, its errors in one line, the doctor, and serve from the shell."""

import importlib.metadata
import os
import re
import socket
import subprocess
import sys

import pytest
import torch
from fake_world import FakeWorld
from server_fixture import LOOPBACK, running, serving

from worldwire import cli
from worldwire.cli import Command, main
from worldwire.commands import doctor
from worldwire.errors import MachineError
from worldwire_runtime import world
from worldwire_runtime.server import Server
from worldwire_runtime.server.security import write_new_keys


class FakeEntry:
    """An entry point whose module lacks a package."""

    def __init__(self, name: str, extras: list[str], missing: str = "torch"):
        self.name, self.extras, self.value, self._missing = name, extras, f"somewhere:{name}", missing

    def load(self) -> Command:
        raise ModuleNotFoundError(f"No module named {self._missing!r}", name=self._missing)


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])
    assert exit_info.value.code == 0
    text = capsys.readouterr().out
    for entry in importlib.metadata.entry_points(group="worldwire.commands"):
        assert entry.name in text.split()


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert importlib.metadata.version("worldwire") in capsys.readouterr().out


def test_a_checkout_that_nobody_installed_has_all_verbs(monkeypatch, capsys):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    installed = {entry.name for entry in importlib.metadata.entry_points(group="worldwire.commands")}
    monkeypatch.setattr(cli, "entry_points", lambda **_: ())
    monkeypatch.setattr(cli, "version", not_installed)
    for words in (["--help"], ["--version"], ["serve", "--help"]):
        with pytest.raises(SystemExit) as exit_info:
            main(words)
        assert exit_info.value.code == 0
    text = capsys.readouterr().out
    assert "not installed" in text
    assert installed <= set(text.split())


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["serve", "--wings", "2"], ["serve", "--sessions", "many"]]
)
def test_unknown_verbs_and_options_exit_with_usage(arguments, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    said = capsys.readouterr().err
    assert "usage: worldwire" in said
    assert f"worldwire{' serve' * ('serve' in arguments)}: error: " in said


def test_a_verb_without_its_extra_names_it(monkeypatch, capsys):
    monkeypatch.setattr(cli, "entry_points", lambda **_: [FakeEntry("train", ["training"])])
    assert main(["train", "--anything"]) == 2
    assert "pip install 'worldwire[training]'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "needs the extra 'training'" in capsys.readouterr().out


def test_a_verb_may_take_what_others_know(monkeypatch, capsys):
    def configure(parser):
        parser.add_argument("--seed", type=int)

    seen = []
    takes, takes_none = FakeEntry("play", []), FakeEntry("doctor", [])
    takes.load = lambda: Command("plays", configure, lambda args: seen.append(args) or 0, takes_rest=True)
    takes_none.load = lambda: Command("looks", configure, lambda _: 0)
    monkeypatch.setattr(cli, "entry_points", lambda **_: [takes, takes_none])
    assert main(["play", "--see", "1", "--seed", "3", "--far", "--off", "4"]) == 0
    assert (seen[0].seed, seen[0].rest) == (3, ["--see", "1", "--far", "--off", "4"])
    with pytest.raises(SystemExit):
        main(["doctor", "--far"])
    assert "unrecognized arguments: --far" in capsys.readouterr().err


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    entry = FakeEntry("doctor", [])
    monkeypatch.setattr(entry, "load", lambda: Command("stops", lambda _: None, interrupt), raising=False)
    monkeypatch.setattr(cli, "entry_points", lambda **_: [entry])
    assert main(["doctor"]) == 130
    assert "stopped" in capsys.readouterr().err


TALKATIVE = """
import sys, types
from worldwire import cli, errors

def say(_):
    sys.stdout.write("all of it\\n" * int(sys.argv[1]))
    if sys.argv[2] == "fails":
        raise errors.StateError("it ends here")
    return 0

cli.parse = lambda _: types.SimpleNamespace(run=say)
sys.exit(cli.main([]))
"""


@pytest.mark.parametrize("buffered", ["", "1"])
@pytest.mark.parametrize("lines", ["1", "100000"])
@pytest.mark.parametrize("end", ["ends", "fails"])
def test_a_reader_that_leaves_is_no_traceback(lines, end, buffered):
    """Of a little output, which waits in a buffer, and of much; an error of ours is still told."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", TALKATIVE, lines, end]
    done = subprocess.run(
        command,
        stdout=writing,
        stderr=subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONUNBUFFERED": buffered},
        text=True,
        check=False,
    )
    os.close(writing)
    waited = lines == "1" and not buffered
    assert done.returncode == 141
    assert done.stderr == ("worldwire: it ends here\n" if end == "fails" and waited else "")


def test_serve_on_a_taken_port_is_one_line_before_anything_loads(capsys):
    with serving(FakeWorld()) as server:
        assert main(["serve", "--bind", server.endpoint]) == 2
    said = capsys.readouterr().err
    assert "is taken" in said
    assert "--bind" in said
    assert "Traceback" not in said


def test_serve_beyond_this_machine_needs_a_word(capsys):
    assert main(["serve", "--bind", "tcp://0.0.0.0:0"]) == 2
    assert "--insecure" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--preset atlantis", "unknown preset; expected: .*tiny.*'atlantis'.*models list"),
        ("--preset 5b-720p", "comes without weights"),
        ("--preset 5b-720p --random-weights", "needs a GPU, and there is none"),
        ("--plan leisurely", "unknown clip plan; expected: low-latency or paper; got: 'leisurely'"),
        ("--preset test-pattern --plan leisurely", "unknown clip plan; expected: test-pattern"),
        ("--precision float7", "unknown precision; expected: auto or .*'float7'"),
        ("--device warp", "unknown device; expected: auto, cpu, cuda or cuda:N; got: 'warp'"),
        ("--device cuda", "there is no device cuda; .*--device cpu"),
        ("--attention rolling", "trained for another attention mode; expected: cached"),
        ("--graphs", "CUDA graphs need a CUDA device"),
        ("--gpu-memory 8", "only a GPU's memory can be limited"),
        ("--threads 0", "--threads is too small; expected: 1 or more"),
        ("--sessions 0", "--sessions is too small; expected: 1 or more"),
        ("--bind nowhere", "no address to listen at; expected: tcp://HOST:PORT"),
    ],
)
def test_serve_says_in_one_line_what_is_wrong_before_anything_is_read(words, said, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(world, "assemble", None)
    assert main(["serve", "--bind", "tcp://127.0.0.1:0", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert re.search(said, err)
    assert err.startswith("worldwire: ")
    assert err.count("\n") == 1
    assert not out


def test_the_doctor_looks_at_everything(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for subject in (
        "python",
        "worldwire",
        "runtime",
        "play",
        "training",
        "encryption",
        "cpu",
        "gpu",
        "display",
        "egl",
        "weights",
        "port",
    ):
        assert f" {subject} " in said
    for line in said.splitlines():
        assert line.startswith("OK  ") or "->" in line


def test_the_doctor_sees_a_taken_port(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "PORT", taken.getsockname()[1])
        finding = doctor.port()
    assert not finding.ok
    assert "not by a worldwire server" in finding.detail
    assert "--bind" in str(finding)


def test_the_doctor_tells_a_server_without_keys_from_one_with_keys(monkeypatch, tmp_path):
    keys = write_new_keys(tmp_path / "server.key")
    for server, word in (
        (Server(FakeWorld, LOOPBACK), "without keys"),
        (Server(FakeWorld, LOOPBACK, keys=keys), "clients need its key"),
    ):
        monkeypatch.setattr(doctor, "PORT", int(server.endpoint.rsplit(":", 1)[1]))
        with running(server):
            assert word in doctor.port().detail


def test_the_doctor_fails_only_without_what_everything_needs(monkeypatch):
    monkeypatch.setattr(
        doctor, "findings", lambda: [doctor.Finding("numpy", False, "absent", "install it", needed=True)]
    )
    with pytest.raises(MachineError, match="install it"):
        doctor.run(None)
