"""The Unity package compiled by mono, once for all tests of a run; its test programs, and real servers."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "unity_bridge" / "unity"
PROGRAMS = Path(__file__).parent / "csharp"
COMPILER = ("mcs", "-langversion:7.2", "-unsafe", "-optimize+", "-warnaserror")
UNSET_FIELDS = "-nowarn:0649,0067,0169"
"""Stand-ins have fields and events that only Unity would use."""
INPUT_DEFINES = ("NO_INPUT", "ENABLE_INPUT_SYSTEM;WORLDWIRE_INPUT_SYSTEM", "ENABLE_LEGACY_INPUT_MANAGER")
"""Neither input system, the package, the old manager (which the programs use)."""
DLL_MAP = '<configuration><dllmap dll="libzmq" target="libzmq.so.5"/></configuration>'
"""Where a distribution keeps libzmq, for programs that ask for `libzmq`."""
LINE_S = 40.0
READY_S = 60.0

needs_mono = pytest.mark.skipif(
    shutil.which("mcs") is None or shutil.which("mono") is None,
    reason="mono compiles and runs the C# client; mcs or mono is not installed (mono-mcs, mono-runtime)",
)


class Built:
    """Assemblies: `client` is the core with its test programs, `components` those under stand-ins."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.core = self._library("Worldwire.Core", _sources("Runtime/Core"))
        self._library("Worldwire.Core.Curve", _sources("Runtime/Core"), "-define:WORLDWIRE_CURVE")
        stand_ins = self._library("StandIns", _programs("standins"), UNSET_FIELDS)
        engine = (f"-r:{self.core}", f"-r:{stand_ins}")
        for define in (
            "NO_INPUT",
            "ENABLE_INPUT_SYSTEM;WORLDWIRE_INPUT_SYSTEM",
            "ENABLE_LEGACY_INPUT_MANAGER",
        ):
            self.unity = self._library(
                "Worldwire", _sources("Runtime/Components"), *engine, f"-define:{define}"
            )
        all_of_it = (*engine, f"-r:{self.unity}")
        self._library("Worldwire.Samples", _sources("Samples~"), *all_of_it)
        self.editor = self._library("Worldwire.Editor", _sources("Editor"), *all_of_it)
        self.editor_tests = self._library("Worldwire.Editor.Tests", _sources("Tests/Editor"), *all_of_it)
        self.runtime_tests = self._library("Worldwire.Runtime.Tests", _sources("Tests/Runtime"), *all_of_it)
        self.client = self._program(
            "client", [*_sources("Runtime/Core"), *_programs("client")], "-define:WORLDWIRE_CURVE"
        )
        self.components = self._program(
            "components", [*_sources("Editor"), *_programs("components")], *all_of_it
        )
        self.client.with_name("client.exe.config").write_text(DLL_MAP)

    def _library(self, name: str, sources: Sequence[Path], *options: str) -> Path:
        return self._compile(self.folder / f"{name}.dll", sources, "-target:library", *options)

    def _program(self, name: str, sources: Sequence[Path], *options: str) -> Path:
        return self._compile(self.folder / f"{name}.exe", sources, *options)

    def _compile(self, target: Path, sources: Sequence[Path], *options: str) -> Path:
        run(*COMPILER, f"-out:{target}", *options, *sources)
        return target


def _sources(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.cs"))


def _programs(folder: str) -> list[Path]:
    return sorted((PROGRAMS / folder).glob("*.cs"))


def run(*command: str | Path, timeout_s: float = 120.0, stdin: str | None = None) -> str:
    """What a program printed; the test fails with it unless the program ended well."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin)
    if done.returncode:
        pytest.fail(
            f"{' '.join(words[:4])} ended with {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        )
    return done.stdout


_built: list[Built] = []


def build(folder: Path) -> Built:
    """Compiles everything at the first call; fails the test if anything does not compile."""
    if not _built:
        folder.mkdir(parents=True, exist_ok=True)
        _built.append(Built(folder))
    return _built[0]


class Watcher:
    """The program `watch`: a live world whose states can be waited for. Use it as a context manager."""

    def __init__(self, built: Built, address: str, *settings: str):
        words = ["mono", str(built.client), "watch", address, *settings]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.seen: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, word: str) -> str:
        """The next line that begins with `word`; lines before it are in `seen`."""
        deadline = time.monotonic() + LINE_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no line {word!r} in {LINE_S:g} s; there were {self.seen}")
            self.seen.append(line)
            if line.split(" ")[0] == word:
                return line

    def tell(self, command: str) -> None:
        """A command on its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class ServerProcess:
    """`worldwire serve` as a process of its own, ready when made. Use it as a context manager."""

    def __init__(self, folder: Path, *options: str, bind: str = "tcp://127.0.0.1:0"):
        ready = folder / f"ready-{time.monotonic_ns()}"
        words = [
            sys.executable,
            "-m",
            "worldwire",
            "serve",
            "--bind",
            bind,
            "--ready-file",
            str(ready),
            *options,
        ]
        self._log = folder / "server.log"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                words, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
            )
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                pytest.fail(f"worldwire serve did not become ready:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.05)
        self.endpoint = ready.read_text()

    def kill(self) -> None:
        """As by kill -9: nobody is told."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def pattern_server(folder: Path, *options: str) -> Iterator[str]:
    """The address of a server of the synthetic world."""
    with ServerProcess(folder, "--preset", "test-pattern", *options) as server:
        yield server.endpoint
