"""The one-command set-up: which Python, which torch, and what the Makefile promises."""

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def set_up():
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "tools" / "set_up.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fake_python(folder: Path, version: str) -> str:
    path = folder / f"python-{version}"
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


class TestPython:
    def test_finds_one_that_fits(self, set_up, tmp_path, monkeypatch):
        old, right = fake_python(tmp_path, "3.10"), fake_python(tmp_path, "3.12")
        monkeypatch.setattr(set_up, "CANDIDATES", (old, "absent-python", right))
        monkeypatch.setattr(sys, "executable", old)
        assert set_up.find_python(None) == right

    def test_says_what_is_needed_and_what_is_there(self, set_up, tmp_path):
        with pytest.raises(set_up.SetUpError, match=r"3\.11 or 3\.12.*is 3\.10"):
            set_up.find_python(fake_python(tmp_path, "3.10"))
        with pytest.raises(set_up.SetUpError, match="is not there"):
            set_up.find_python("absent-python")

    def test_a_broken_interpreter_is_none(self, set_up, tmp_path):
        path = tmp_path / "python"
        path.write_text("#!/bin/sh\nexit 127\n")
        path.chmod(0o755)
        assert set_up.version_of(str(path)) == ""


class TestTorch:
    @pytest.mark.parametrize(
        ("system", "gpu", "reachable", "cpu_build"),
        [
            ("Linux", False, True, True),
            ("Linux", False, False, False),
            ("Linux", True, True, False),
            ("Darwin", False, True, False),
        ],
    )
    def test_a_linux_laptop_gets_the_cpu_build(self, set_up, monkeypatch, system, gpu, reachable, cpu_build):
        monkeypatch.setattr(set_up.platform, "system", lambda: system)
        monkeypatch.setattr(set_up, "has_nvidia_gpu", lambda: gpu)
        monkeypatch.setattr(set_up, "is_reachable", lambda _: reachable)
        assert ("--index-url" in set_up.default_torch()) == cpu_build

    def test_fits_what_the_project_requires(self, set_up):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        (least,) = [item for item in project["optional-dependencies"]["runtime"] if item.startswith("torch")]

        def numbers(text: str) -> list[int]:
            return [int(part) for part in re.findall(r"\d+", text)]

        assert numbers(set_up.TORCH) >= numbers(least)
        assert set(set_up.EXTRAS.split(",")) == set(project["optional-dependencies"]) - {"tensorrt"}


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
class TestMakefile:
    def make(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        command = ["make", "--dry-run", "--always-make", *arguments]
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        return result.stdout

    def test_play_and_test_set_up_first(self):
        for target, last in (("play", "worldwire play"), ("test", "pytest")):
            lines = self.make(target).splitlines()
            (first,) = [number for number, line in enumerate(lines) if line.endswith("tools/set_up.py")]
            (final,) = [number for number, line in enumerate(lines) if last in line and "set_up" not in line]
            assert first < final

    def test_test_means_all_checks(self):
        said = self.make("test")
        assert all(check in said for check in ("ruff check", "ruff format --check", "mypy", "pytest"))
