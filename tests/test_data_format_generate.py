"""`worldwire data`: generating, stopping at any moment, going on, looking. Needs EGL (Mesa will do)."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="the extra 'training' is not installed")

from worldwire.errors import ConfigError, MachineError
from worldwire_training.commands.data import command
from worldwire_training.data_engine.generation import GenerationPlan, generate, shard_path
from worldwire_training.data_engine.renderer import MESA_PACKAGES, create_context
from worldwire_training.data_engine.shards import read_episodes

SMALL = {"frames": 5, "height": 48, "width": 80, "samples": 1, "per_shard": 1}


@pytest.fixture(scope="module", autouse=True)
def _egl() -> None:
    try:
        create_context().release()
    except MachineError as error:
        pytest.skip(f"no EGL (apt-get install {MESA_PACKAGES}): {error}")


def worldwire_data(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(list(arguments)))


def test_generate_then_inspect(tmp_path, capsys):
    out = tmp_path / "data"
    options = ["--scenes", "3", "--frames", "5", "--size", "48", "80", "--per-shard", "2"]
    assert worldwire_data("generate", *options, "--out", str(out)) == 0
    assert [episode.scene_seed for episode in read_episodes(out)] == [0, 1, 2]
    assert worldwire_data("inspect", str(out)) == 0
    assert (out / "contact_sheet.png").stat().st_size > 1000
    assert "3 episodes, 15 frames" in capsys.readouterr().out


def test_killed_at_any_moment_it_goes_on(tmp_path):
    plan = GenerationPlan(scenes=4, **SMALL)
    code = (
        "import sys; from pathlib import Path\n"
        "from worldwire_training.data_engine.generation import GenerationPlan, generate\n"
        f"generate(GenerationPlan(scenes=4, **{SMALL!r}), Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    first = shard_path(tmp_path, range(1))
    deadline = time.monotonic() + 60
    while not first.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (tmp_path / ".seeds-00000003-00000004.tar.99.partial").write_bytes(b"half a shard")
    before = first.stat().st_mtime_ns
    assert generate(plan, tmp_path) <= 3
    assert first.stat().st_mtime_ns == before
    assert [episode.scene_seed for episode in read_episodes(tmp_path)] == [0, 1, 2, 3]
    assert not list(tmp_path.glob(".*.partial"))
    assert generate(plan, tmp_path) == 0


def test_workers_make_the_same_data(tmp_path):
    plan = GenerationPlan(scenes=2, first_seed=40, **SMALL)
    generate(plan, tmp_path / "one")
    generate(plan, tmp_path / "two", workers=2)
    pairs = zip(read_episodes(tmp_path / "one"), read_episodes(tmp_path / "two"), strict=True)
    for one, two in pairs:
        assert np.array_equal(one.c2w, two.c2w)
        assert np.array_equal(one.frames, two.frames)


def test_a_folder_with_other_data_is_left_alone(tmp_path):
    generate(GenerationPlan(scenes=1, **SMALL), tmp_path)
    with pytest.raises(ConfigError, match=r"scenes 1.*scenes 2.*another --out"):
        generate(GenerationPlan(scenes=2, **SMALL), tmp_path)


def test_nonsense_sizes_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        GenerationPlan(scenes=0)


def test_bulk_arrays(tmp_path: Path):
    import json

    from worldwire_training.data_engine import bulk

    bulk.generate(tmp_path, episodes=3, frames=4, workers=2, size=(48, 80), samples=1)
    frames = [np.load(path, mmap_mode="r") for path in sorted(tmp_path.glob("*.frames.npy"))]
    assert sum(len(part) for part in frames) == 3
    assert frames[0].shape[1:] == (4, 48, 80, 3)
    listed = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("*.json"))]
    assert [e["scene_seed"] for part in listed for e in part["episodes"]] == [0, 1, 2]
