"""The C++ client, compiled once for all tests of a run; and servers for it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CORE = Path(__file__).parents[1] / "unity_bridge" / "cpp"
STRICT = "-fno-exceptions -fno-rtti -Wall -Wextra -Werror -Wshadow"
SANITIZED = "-fsanitize=address,undefined -fno-sanitize-recover=all"
READY_S = 60.0
PROBE_S = 120.0

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or shutil.which("cmake") is None,
    reason="g++ and cmake compile the C++ client; one of them is not installed",
)
has_libzmq = Path("/usr/include/zmq.h").exists()
needs_libzmq = pytest.mark.skipif(not has_libzmq, reason="zmq.h (libzmq3-dev) is not installed")


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end; fails with what it said."""
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=PROBE_S,
        check=False,
        **options,
    )
    if done.returncode:
        pytest.fail(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done


def build(folder: Path, flags: str, *settings: str) -> Path:
    """Compiles the probe with its client, if that was not done before; returns the program."""
    probe = folder / "worldwire_probe"
    if probe.exists():
        return probe
    run(
        "cmake",
        "-S",
        CORE,
        "-B",
        folder,
        "-DCMAKE_BUILD_TYPE=None",
        f"-DCMAKE_CXX_FLAGS={flags}",
        "-DWORLDWIRE_BUILD_PROBE=ON",
        *settings,
    )
    run("cmake", "--build", folder, "--parallel", "2")
    return probe


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe as users would build it but for its optimisation; with CURVE where libzmq is."""
    folder = tmp_path_factory.getbasetemp() / "cpp"
    return build(folder, f"-O1 {STRICT}", f"-DWORLDWIRE_WITH_LIBZMQ={'ON' if has_libzmq else 'OFF'}")


@pytest.fixture(scope="session")
def sanitized_probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The probe under the address and the undefined-behaviour sanitizer, without dependencies."""
    folder = tmp_path_factory.getbasetemp() / "cpp-sanitized"
    return build(folder, f"-O0 {STRICT} {SANITIZED}", "-DWORLDWIRE_BUILD_EXAMPLES=OFF")


@contextmanager
def world_server(folder: Path, *options: str, bind: str = "tcp://127.0.0.1:0") -> Iterator[RunningServer]:
    """`worldwire serve` as a process of its own, ready; it is ended at the end."""
    server = RunningServer(folder, options, bind)
    try:
        server.await_ready()
        yield server
    finally:
        server.stop()


class RunningServer:
    """A process of `worldwire serve`."""

    def __init__(self, folder: Path, options: tuple[str, ...], bind: str):
        self._ready = folder / f"ready-{time.monotonic_ns()}"
        command = [
            sys.executable,
            "-m",
            "worldwire",
            "serve",
            "--bind",
            bind,
            "--ready-file",
            str(self._ready),
        ]
        self._process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)

    def await_ready(self) -> None:
        """Waits until the world is loaded."""
        deadline = time.monotonic() + READY_S
        while not self._ready.exists():
            assert self._process.poll() is None, "worldwire serve ended at once"
            assert time.monotonic() < deadline, "worldwire serve is not ready in time"
            time.sleep(0.05)

    @property
    def address(self) -> str:
        return self._ready.read_text()

    def kill(self) -> None:
        """As a crash does it: nothing is said to anybody."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


class Play:
    """A probe that plays a script; its lines can be read as they come."""

    def __init__(self, probe: Path, address: str, *words: str):
        self._process = subprocess.Popen(
            [str(probe), "play", address, *words], stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines = self._process.stdout

    def line(self, verb: str) -> dict[str, Any]:
        """The next line, which must be of this verb and well."""
        text = self._lines.readline()
        assert text, f"the probe ended before {verb}"
        found: dict[str, Any] = json.loads(text)
        assert (found["verb"], found["result"]) == (verb, "ok"), found
        return found

    def __enter__(self) -> Play:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._lines.close()


def play(probe: Path, address: str, *words: str) -> list[dict[str, Any]]:
    """Plays a whole script that must go well; what each verb said."""
    done = run(probe, "play", address, *words)
    return [json.loads(line) for line in done.stdout.splitlines()]


def cause(probe: Path, address: str, *words: str) -> dict[str, Any]:
    """The first problem that a client tells at this address."""
    return play(probe, address, *words, "cause")[-1]
