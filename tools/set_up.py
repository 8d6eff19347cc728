"""Makes `.venv` and installs the project with every extra but `tensorrt`; `make play` and `make test` run it.

    python3 tools/set_up.py

It needs nothing but a Python that can run it (3.8 or newer) and looks for 3.11 or 3.12 by itself. On a Linux
machine without an NVIDIA GPU the ordinary torch would bring gigabytes of CUDA libraries; there it takes the
CPU build from the index of torch itself if that can be reached. Environment:

    PYTHON  the interpreter for .venv, for example python3.12
    TORCH   what pip installs as torch instead, for example "torch==2.13.0" or "torch --index-url URL"
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
READY = VENV / ".ready"
VERSIONS = ("3.11", "3.12")
CANDIDATES = ("python3", "python3.12", "python3.11", "python")
EXTRAS = "runtime,play,robotics,training,export,dev"
TORCH = "torch==2.13.0"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_S = 4


class SetUpError(Exception):
    """Something that the user has to mend; the message says what."""


def main() -> int:
    """Returns the exit status."""
    started_s = time.monotonic()
    try:
        python = find_python(os.environ.get("PYTHON"))
        say(f"setting up .venv with Python {version_of(python)} (the first time takes some minutes)")
        if version_of(str(venv_python())) != version_of(python):
            run([python, "-m", "venv", "--clear", str(VENV)])
        install(shlex.split(os.environ.get("TORCH") or default_torch()))
        # torch is there and fits the project's requirement, so pip leaves it alone from here on.
        install(["-e", f"{ROOT}[{EXTRAS}]"])
    except SetUpError as error:
        say(f"set-up failed: {error}")
        return 1
    READY.touch()
    say(f"ready after {time.monotonic() - started_s:.0f} s")
    return 0


def find_python(wanted: str | None) -> str:
    """The first interpreter that is a fitting Python; `wanted`, if given, has to be one."""
    for candidate in (wanted,) if wanted else (sys.executable, *CANDIDATES):
        if version_of(candidate) in VERSIONS:
            return candidate
    found = f"python3 is {platform.python_version()}"
    if wanted:
        found = f"{wanted} is {version_of(wanted) or 'not there'}"
    raise SetUpError(
        f"worldwire needs Python {' or '.join(VERSIONS)}, and {found}. Install one of them "
        "(python.org, your package manager, pyenv or uv), or name it: make play PYTHON=/path/to/python3.12"
    )


def version_of(python: str) -> str:
    """ "3.11" for an interpreter that runs, else an empty string."""
    if not shutil.which(python):
        return ""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def default_torch() -> str:
    """pip's arguments for the torch that suits this machine."""
    if platform.system() == "Linux" and not has_nvidia_gpu() and is_reachable(f"{CPU_INDEX}/torch/"):
        return f"{TORCH} --index-url {CPU_INDEX}"
    return TORCH


def has_nvidia_gpu() -> bool:
    """Whether an NVIDIA driver is here."""
    return Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None


def is_reachable(url: str) -> bool:
    """Whether a package index answers quickly."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_S):
            return True
    except OSError:
        return False


def install(arguments: list[str]) -> None:
    """One run of .venv's pip; quiet unless somebody watches its progress bars."""
    say("pip install " + " ".join(arguments))
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    run([str(venv_python()), "-m", "pip", "install", "--disable-pip-version-check", *quiet, *arguments])


def venv_python() -> Path:
    """The interpreter of .venv."""
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(command: list[str]) -> None:
    """Runs a command in the checkout; SetUpError if it fails."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status != 0:
        raise SetUpError(f"'{' '.join(command)}' ended with status {status}; the lines above say why")


def say(line: str) -> None:
    """One line for the user."""
    sys.stderr.write(f"worldwire: {line}\n")


if __name__ == "__main__":
    raise SystemExit(main())
