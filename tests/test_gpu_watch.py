"""What a GPU did meanwhile: read from a tool that stands for the driver's."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from worldwire_runtime.gpu_watch import QUERIES, means_of, watched

FAKE_TOOL = """#!/bin/sh
echo "$@" > {said}
while true; do echo "{line}"; sleep 0.02; done
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake `nvidia-smi`, alone on the path with the shell's own; the file has what it was asked."""
    said, program = tmp_path / "said", tmp_path / "nvidia-smi"
    program.write_text(FAKE_TOOL.format(said=said, line="1605, 693.50, 700.00"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return said


def until_it_speaks(said: Path) -> None:
    deadline = time.monotonic() + 30
    while not said.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)


@pytest.mark.parametrize(
    ("visible", "asked"), [(None, "-i 1 "), ("", "-i 1 "), ("5,3", "-i 3 "), ("GPU-a, GPU-b", "-i GPU-b ")]
)
def test_the_means_of_a_gpu_are_there_at_the_end(tool, visible, asked, monkeypatch):
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with watched(1) as means:
        assert means == {}
        until_it_speaks(tool)
    assert means == {"clock_mhz": 1605, "power_w": 693.5, "power_limit_w": 700}
    assert asked in tool.read_text()
    assert all(query in tool.read_text() for query in QUERIES.values())


def test_the_tool_ends_when_what_is_watched_fails(tool):
    watch = watched(0)
    means = watch.__enter__()
    until_it_speaks(tool)
    error = RuntimeError("broken")
    assert not watch.__exit__(type(error), error, None)
    assert means["clock_mhz"] == 1605


def test_without_a_gpu_or_the_tool_there_is_nothing(tool, monkeypatch, tmp_path):
    with watched(None) as means:
        pass
    assert means == {}
    assert not tool.exists()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with watched(0) as means:
        pass
    assert means == {}


def test_what_is_not_told_is_left_out():
    lines = "1000, [N/A], 700\n2000, [N/A], 700\nNo devices were found\n15"
    assert means_of(lines) == {"clock_mhz": 1500, "power_limit_w": 700}
