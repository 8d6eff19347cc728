"""The script of a GPU session: a failure, a step that hangs and a lack of time cost no other step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import gpu_session
import plot_records
import pytest
from gpu_session import PARTS, RECORD, Step, line_of, run_part

WRITES = "import sys, json; json.dump({'fps': 12.5}, open(sys.argv[1], 'w')); print('written')"


def test_every_step_is_told_of_and_records_come_back(tmp_path, capsys):
    steps = [
        Step("good", ("-c", WRITES, RECORD)),
        Step("bad", ("-c", "raise SystemExit('no such kernel')")),
        Step("last", ("-c", "print('still here')")),
    ]
    assert not run_part("part", steps, tmp_path, 60)
    results = json.loads((tmp_path / "part.json").read_text())["steps"]
    assert [result["status"] for result in results] == ["ok", "exit status 1", "ok"]
    assert results[0]["record"] == {"fps": 12.5}
    assert "no such kernel" in results[1]["output"]
    gpu_session.show(tmp_path)
    assert "12.50" in capsys.readouterr().out


def test_a_step_that_hangs_ends_with_everything_it_started(tmp_path):
    child = "import time; time.sleep(60)"
    hangs = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    begun = time.monotonic()
    assert not run_part("part", [Step("hangs", ("-c", hangs), limit_s=1.5)], tmp_path, 60)
    assert time.monotonic() - begun < 20  # its child would hold the pipe for a minute
    (result,) = json.loads((tmp_path / "part.json").read_text())["steps"]
    assert result["status"].startswith("took more than")


def test_what_there_is_no_time_for_is_not_begun(tmp_path):
    assert not run_part("part", [Step("late", ("-c", "print(1)"))], tmp_path, gpu_session.LEAST_S - 1)
    assert "no time left" in (tmp_path / "part.json").read_text()


@pytest.mark.parametrize("smoke", [False, True])
def test_every_part_has_steps_that_can_be_typed(smoke):
    for make in PARTS.values():
        steps = make(smoke)
        assert steps
        assert all(step.limit_s <= gpu_session.BUDGET_S for step in steps)
        assert all(RECORD not in line_of(step) for step in steps)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_the_verbs_and_options_exist(part):
    """argparse refuses unknown options; nothing is run."""
    from worldwire.cli import _parser

    for smoke in (False, True):
        for step in PARTS[part](smoke):
            if step.arguments[:2] == ("-m", "worldwire"):
                _, unknown = _parser().parse_known_args(step.arguments[2:])
                assert not unknown


def test_the_committed_records_can_be_drawn(tmp_path):
    folder = Path(gpu_session.__file__).parent / "h200"
    records = [*folder.glob("bench_*.json"), *folder.glob("ablation_*.json")]
    plot_records.draw(
        [each for path in records for each in plot_records.records_of(path)], tmp_path / "f.png"
    )
    assert (tmp_path / "f.png").stat().st_size > 5000


def test_the_script_prints_its_commands(tmp_path):
    command = [sys.executable, gpu_session.__file__, "all", "--out", str(tmp_path), "--dry-run"]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "python3 -m worldwire bench" in words
    assert all(f"# {part}" in words for part in PARTS)
