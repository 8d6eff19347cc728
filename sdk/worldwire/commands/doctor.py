"""worldwire doctor: what this machine can do, and what to do where it cannot. Imports nothing heavy."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worldwire.cli import Command
from worldwire.errors import MachineError

OLDEST_PYTHON: Final = (3, 11)
PORT: Final = 5555
PROBE_TIMEOUT_S: Final = 30
SHIPPED_PRESET: Final = "tiny"
PRESET_FILES: Final = ("config.json", "dit.safetensors", "vae.safetensors", "text.safetensors")
BFLOAT16_FLAGS: Final = ("avx512_bf16", "amx_bf16")
EXTRAS: Final = {
    "runtime": "generating worlds on this machine",
    "play": "the viewer",
    "robotics": "the Gymnasium environment",
    "training": "the data engine, training and `worldwire eval`",
}
EGL_PROBE: Final = (
    "import moderngl; print(moderngl.create_context(standalone=True, backend='egl').info['GL_RENDERER'])"
)


@dataclass(frozen=True)
class Finding:
    """One line: `remedy` says what to do where it is not ok; a `needed` one makes the doctor fail."""

    subject: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = False

    def __str__(self) -> str:
        mark = "OK  " if self.ok else ("FAIL" if self.needed else "--  ")
        advice = f" -> {self.remedy}" if self.remedy and not self.ok else ""
        return f"{mark} {self.subject:<10} {self.detail}{advice}"


def findings() -> Iterator[Finding]:
    """Everything that the doctor looks at, one after another."""
    yield python()
    yield from packages()
    for look in (encryption, processor, compiler, gpu, display, egl, weights, port):
        yield look()


def python() -> Finding:
    """The interpreter and the operating system."""
    return Finding(
        "python",
        sys.version_info >= OLDEST_PYTHON,
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        f"install Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer",
        needed=True,
    )


def packages() -> Iterator[Finding]:
    """This package, and which of its extras are complete."""
    requirements = importlib.metadata.requires("worldwire") or []
    yield _requirements(
        "worldwire", [line for line in requirements if "extra ==" not in line], "pip install .", True
    )
    for extra, purpose in EXTRAS.items():
        lines = [line for line in requirements if re.search(rf"extra == ['\"]{extra}['\"]", line)]
        yield _requirements(extra, lines, f"pip install 'worldwire[{extra}]' for {purpose}", False)


def _requirements(subject: str, lines: list[str], remedy: str, needed: bool) -> Finding:
    names = [re.split(r"[\s<>=!~;\[]", line, maxsplit=1)[0] for line in lines]
    versions = {name: _version(name) for name in names if name != "worldwire" or subject == "worldwire"}
    absent = [name for name, number in versions.items() if number is None]
    present = ", ".join(f"{name} {number}" for name, number in versions.items() if number is not None)
    own = f"{_version('worldwire')}; " if subject == "worldwire" else ""
    detail = f"{own}{present}" if not absent else f"lacks {', '.join(absent)}"
    return Finding(subject, not absent, detail, remedy, needed)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def encryption() -> Finding:
    """Whether connections can be encrypted, which an address that others can reach needs."""
    import zmq

    there = bool(zmq.has("curve"))
    return Finding(
        "encryption",
        there,
        f"libzmq {zmq.zmq_version()} {'with' if there else 'without'} CURVE",
        "pip install --force-reinstall pyzmq; until then reach servers through an SSH tunnel",
    )


def processor() -> Finding:
    """Which number format the CPU will be used with."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return Finding("cpu", True, "features cannot be read here; --precision auto decides by itself")
    text = cpuinfo.read_text()
    flags = set(text.partition("flags")[2].partition("\n")[0].split())
    native = [flag for flag in BFLOAT16_FLAGS if flag in flags]
    if native:
        return Finding("cpu", True, f"{', '.join(native)}: `--precision auto` takes bfloat16")
    return Finding(
        "cpu", True, "no bfloat16 arithmetic: `--precision auto` takes float32, about a fifth as fast"
    )


def compiler() -> Finding:
    """torch.compile on a CPU needs one."""
    found = next((name for name in ("g++", "clang++", "cl") if shutil.which(name)), None)
    return Finding(
        "compiler", found is not None, found or "none", "install g++ or clang to fuse networks on the CPU"
    )


def gpu() -> Finding:
    """NVIDIA GPUs, as the driver sees them."""
    names = _output(["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"])
    return Finding(
        "gpu",
        bool(names),
        "; ".join(names.splitlines()) or "no NVIDIA GPU or driver",
        "fine for the tiny world, which runs on the CPU",
    )


def display() -> Finding:
    """Whether a window can open."""
    there = sys.platform in ("win32", "darwin") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return Finding(
        "display",
        there,
        "found" if there else "none",
        "`worldwire play` records a walk instead; xvfb-run gives one",
    )


def egl() -> Finding:
    """Whether the data engine can render; in a process of its own, since a broken driver may crash it."""
    if importlib.util.find_spec("moderngl") is None:
        return Finding(
            "egl", False, "moderngl is not installed", "pip install 'worldwire[training]' to render scenes"
        )
    renderer = _output([sys.executable, "-c", EGL_PROBE])
    return Finding(
        "egl",
        bool(renderer),
        renderer or "no headless OpenGL",
        "install libegl1 and libgl1-mesa-dri to render scenes",
    )


def weights() -> Finding:
    """Whether the shipped world is complete."""
    spec = importlib.util.find_spec("worldwire_runtime")
    if spec is None or spec.origin is None:
        return Finding("weights", False, "the runtime is not installed", "pip install 'worldwire[runtime]'")
    folder = Path(spec.origin).parent / "presets" / SHIPPED_PRESET
    absent = [name for name in PRESET_FILES if not (folder / name).is_file()]
    if absent:
        return Finding(
            "weights", False, f"{SHIPPED_PRESET} lacks {', '.join(absent)}", "install worldwire again"
        )
    size_mb = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return Finding("weights", True, f"{SHIPPED_PRESET}, {size_mb:.0f} MB")


def port() -> Finding:
    """Whether `worldwire serve` can listen where it does by default."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(sys.platform != "win32"))
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError as error:
            remedy = "a server may run already; `worldwire serve --bind tcp://127.0.0.1:0` takes another port"
            return Finding("port", False, f"{PORT}: {error.strerror}{_who_listens()}", remedy)
    return Finding("port", True, f"{PORT} is free")


def _who_listens() -> str:
    """What is known of the server at our port: whether a client needs its key."""
    from worldwire.connection import MECHANISM_CURVE, mechanism

    spoken = mechanism(f"tcp://127.0.0.1:{PORT}")
    if spoken is None:
        return ", not by a worldwire server"
    kind = "that encrypts: clients need its key" if spoken == MECHANISM_CURVE else "without keys"
    return f", by a server {kind}"


def _output(command: list[str]) -> str:
    """What a program prints; nothing if it is absent, fails or takes too long."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def configure(_: argparse.ArgumentParser) -> None:
    """The doctor has no options."""


def run(_: argparse.Namespace) -> int:
    """Prints the findings; MachineError if something is missing without which nothing works."""
    broken = []
    for finding in findings():
        sys.stdout.write(f"{finding}\n")
        sys.stdout.flush()
        if finding.needed and not finding.ok:
            broken.append(finding)
    if broken:
        raise MachineError(
            f"the installation is broken: {', '.join(finding.subject for finding in broken)}",
            remedy="; ".join(finding.remedy for finding in broken),
        )
    return 0


command = Command("say what this machine can do, and what to do where it cannot", configure, run)
