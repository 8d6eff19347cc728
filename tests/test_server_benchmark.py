"""The benchmarks of the wire, a second each: they run, and count what they say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import wire_crowd

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def measure(*words: str) -> dict:
    command = [sys.executable, str(BENCHMARKS / "wire.py"), *words, "--repeats", "1", "--seconds", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", ["rgb", "bgra"])
def test_throughput_is_measured(form, tmp_path):
    record = tmp_path / "wire.json"
    found = measure("throughput", "--format", form, "--name", "here", "--json", str(record))["throughput"]
    assert found["frames"] > 10
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    assert json.loads(record.read_text())["here"]["throughput"] == found


def test_a_client_that_fails_is_named():
    command = [sys.executable, str(BENCHMARKS / "wire.py"), "throughput", "--client", "false"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "false bench" in done.stderr


def test_no_press_of_a_small_crowd_is_lost():
    found = wire_crowd.crowd(6, 1.0)
    assert found["edges"] > 20
    assert (found["lost_edges"], found["unacknowledged"], found["dropped"]) == (0, 0, 0)
    assert found["slowest_fps"] > 0
