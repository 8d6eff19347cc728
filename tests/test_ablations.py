"""The ablations: every variant is a valid run of one thing changed, and what was measured becomes a table."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds import write_random_world

pytest.importorskip("moderngl", reason="the extra 'training' is not installed")

from worldwire import Inputs
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.vae import VAEConfig
from worldwire_runtime.world import World, preset_folder
from worldwire_training.base_config import BaseConfig, read_config
from worldwire_training.base_model import check_draws
from worldwire_training.evaluation.guided import guide, with_steps
from worldwire_training.experts import expert_boundary
from worldwire_training.recipes import ablations
from worldwire_training.recipes.ablations import (
    BOUNDARY,
    EXPERTS,
    SETTINGS,
    VARIANTS,
    AblationError,
    Task,
    overrides,
    parse,
    plan,
    run_tasks,
)
from worldwire_training.rollout import plan_steps
from worldwire_training.worlds import world_config

EVERYTHING = VARIANTS | EXPERTS


def variant(name: str) -> BaseConfig:
    plain = read_config(SETTINGS, BaseConfig)
    return read_config(SETTINGS, BaseConfig, overrides(EVERYTHING[name], plain))


def world_of(config: BaseConfig) -> WorldConfig:
    return world_config(config.world, VAEConfig(z_dim=config.world["dit"]["in_dim"]), ["a village"])


@pytest.mark.parametrize("name", sorted(EVERYTHING))
def test_every_variant_is_a_run_that_can_begin(name: str):
    config = variant(name)
    check_draws(world_of(config), config.noise)


def test_variants_change_what_they_say():
    assert all(shape.memory == 0 for shape in variant("no_memory").shapes)
    assert len({shape.name for shape in variant("no_memory").shapes}) == len(variant("no_memory").shapes)
    assert world_of(variant("no_memory")).plan("low-latency").memory == 0
    assert world_of(variant("full")).plan("low-latency").memory == 5
    assert variant("no_memory_errors").noise.memory_gamma == 0
    assert variant("no_errors").noise.error_gamma == 0
    assert variant("plain_rope").world["dit"]["sigma_theta"] == 0
    assert {shape.rolled for shape in variant("rolling").shapes} == {0, 1, 2}
    assert sum(shape.weight for shape in variant("rolling").shapes) == pytest.approx(
        sum(shape.weight for shape in variant("full").shapes), abs=0.01
    )
    assert expert_boundary(3, 3.0) == pytest.approx(BOUNDARY, abs=1e-4)


@pytest.mark.parametrize("name", ["full", "no_memory"])
def test_variants_train_every_clip_that_is_measured_and_no_other(name: str):
    config = variant(name)
    asked = {step.shape.name for step in plan_steps(world_of(config).plan("low-latency"), 41)}
    assert {shape.name for shape in config.shapes} == asked


def test_every_row_has_its_processes(tmp_path: Path):
    words = ["run", "--work", str(tmp_path), "--init-from", "tiny", "--vae", "tiny", "--set", "seed=3"]
    words += ["--compile", "blocks"]
    tasks = {task.name: task for task in plan(parse(words))}
    assert {"train_full", "warm_joint", "distill", "light75", "measure_rolling", "experts"} <= set(tasks)
    assert all(name in tasks for task in tasks.values() for name in task.after)
    assert "measure_errors_only" not in tasks
    joint, fresh = tasks["train_joint"], tasks["train_fresh"]
    assert {"world.dit.attention=joint", "seed=3", f"output={tmp_path}/ablations/joint"} <= set(joint.command)
    assert "--init-from" in joint.command
    assert "--init-from" not in fresh.command
    assert joint.after == ("warm_joint",)
    assert "compile=blocks" in joint.command
    assert tasks["measure_student"].after == ("distill",)
    assert "measure_teacher" not in tasks  # it is `full`


def test_a_student_that_is_there_is_measured_beside_its_own_base_model(tmp_path: Path):
    words = ["run", "--work", str(tmp_path), "--student", "tiny"]
    with pytest.raises(AblationError, match="no base model"):
        ablations.run(parse(words))
    base = write_random_world(tmp_path / "base")
    tasks = {task.name: task for task in plan(parse([*words, "--init-from", str(base)]))}
    assert "distill" not in tasks
    assert {"measure_teacher", "measure_steps50", "measure_student"} <= set(tasks)
    for name, world in (("teacher", base), ("steps50", base), ("student", preset_folder("tiny"))):
        task = tasks[f"measure_{name}"]
        assert str(world) in task.command
        assert not task.after
    assert not tasks["measure_int8"].after  # of the student


def test_nothing_is_compiled_ahead_where_nothing_compiles(tmp_path: Path):
    tasks = {task.name: task for task in plan(parse(["run", "--work", str(tmp_path)]))}
    assert not [name for name in tasks if name.startswith("warm_")]
    assert "compile=none" in tasks["train_joint"].command
    assert all(name in tasks or name.startswith("warm_") for task in tasks.values() for name in task.after)


def test_a_training_that_was_cut_off_goes_on(tmp_path: Path):
    words = ["run", "--work", str(tmp_path), "--variants", "full"]
    assert "--resume" not in next(task for task in plan(parse(words)) if task.name == "train_full").command
    (tmp_path / "ablations" / "full").mkdir(parents=True)
    (tmp_path / "ablations" / "full" / "base.pt").touch()
    assert "--resume" in next(task for task in plan(parse(words)) if task.name == "train_full").command


def python(code: str) -> tuple[str, ...]:
    return sys.executable, "-c", code


def test_tasks_run_in_order_on_all_gpus_and_only_once(tmp_path: Path):
    note = "import os; open('order', 'a').write('{} ' + os.environ['CUDA_VISIBLE_DEVICES'] + '\\n')"
    here = f"import os; os.chdir({str(tmp_path)!r}); "
    tasks = [
        Task("last", python(here + note.format("last")), ("first", "second")),
        Task("first", python(here + note.format("first"))),
        Task("second", python(here + note.format("second")), ("elsewhere",)),
    ]
    run_tasks(tasks, tmp_path / "logs", gpus=2, jobs=1)
    lines = (tmp_path / "order").read_text().splitlines()
    assert sorted(line.split()[1] for line in lines[:2]) == ["0", "1"]
    assert lines[2].startswith("last")
    run_tasks(tasks, tmp_path / "logs", gpus=2, jobs=1)
    assert len((tmp_path / "order").read_text().splitlines()) == 3


def test_a_task_that_fails_is_named_after_all_others_ended(tmp_path: Path):
    tasks = [
        Task("bad", python("raise SystemExit(3)")),
        Task("tried", python("raise SystemExit(3)"), optional=True),
        Task("waits", python("print('never')"), ("bad",)),
        Task("goes on", python("print('without')"), ("tried",)),
        Task("good", python("print('fine')")),
    ]
    with pytest.raises(AblationError, match="bad, tried, waits"):
        run_tasks(tasks, tmp_path, gpus=1, jobs=1)
    assert "fine" in (tmp_path / "good.log").read_text()
    assert "without" in (tmp_path / "goes on.log").read_text()
    assert not (tmp_path / "waits.log").exists()


def test_measurements_become_a_table_and_a_plot(tmp_path: Path):
    folder = tmp_path / "ablations"
    args = parse(["table", "--work", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(AblationError, match="nothing was measured"):
        ablations.table(args)
    folder.mkdir()
    record = {
        "psnr_db": {"0.5": 18.0},
        "revisit_psnr_db": {"memory": {"5": 17.0, "15": 16.5}},
        "endurance_psnr_db": {"30": 12.0},
        "training_steps": 3200,
    }
    (folder / "full.json").write_text(json.dumps(record))
    (folder / "experts.json").write_text(json.dumps({"one network": {"loss_at_0.6": 0.2}}))
    (tmp_path / "light50").mkdir()
    row = {"psnr_db": 27.0, "ssim": 0.9, "decode_ms_per_latent": 1.5, "decoder_parameters": 1e6}
    light = {"table": {"full": row, "light": row | {"psnr_db": 26.0}}}
    (tmp_path / "light50" / "light_vae.json").write_text(json.dumps(light))
    ablations.table(args)
    text = (tmp_path / "out" / ablations.TABLE).read_text()
    assert text.splitlines()[2].startswith("| everything on | 18.00 | – |")
    assert all(part in text for part in ("16.50", "3,200", "| light50 | 26 |", "| one network | 0.2 |"))
    assert (tmp_path / "out" / ablations.PLOT).stat().st_size > 1000


def test_speed_is_measured_of_a_world_without_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ablations, "TIMED_CLIPS", 2)
    monkeypatch.setattr(ablations, "SETTLING_CLIPS", 1)
    run = tmp_path / "ablations" / "full"
    shutil.rmtree(write_random_world(run / "world") / "seeds")
    facts = {"steps": 2, "precision": "float32", "guidance": 1.5}
    (tmp_path / "ablations" / "full.json").write_text(json.dumps(facts))
    (tmp_path / "ablations" / "experts.json").write_text("{}")
    ablations.speed(parse(["speed", "--work", str(tmp_path), "--device", "cpu"]))
    assert json.loads((tmp_path / "ablations" / "full.json").read_text())["frames_per_s"] > 0


def test_a_world_without_memory_slots_plays_alike_with_memory_and_without(tmp_path: Path):
    """The evaluation plays revisits both ways, whatever the world's plan is."""
    folder = write_random_world(tmp_path / "world")
    config = json.loads((folder / "config.json").read_text())

    def last_picture(slots: int, memory: bool) -> np.ndarray:
        config["plans"]["low-latency"]["memory"] = slots
        (folder / "config.json").write_text(json.dumps(config))
        session = World.load(folder, "cpu", "float32").session(memory=memory)
        session.reset(seed=1)
        for _ in range(7):  # from the fifth on there is enough to remember
            frames = session.step(Inputs({"forward"}, yaw_deg=3.0))
        return frames[-1].pixels

    assert np.array_equal(last_picture(0, True), last_picture(0, False))
    assert not np.array_equal(last_picture(5, True), last_picture(5, False))


def test_guidance_of_one_changes_nothing_and_more_does(tmp_path: Path):
    folder = with_steps(write_random_world(tmp_path / "world"), 5, tmp_path / "copy")

    def pictures(guidance: float) -> np.ndarray:
        world = World.load(folder, "cpu", "float32")
        assert world.info.extra["steps"] == 5
        if guidance:
            guide(world, guidance)
        session = world.session()
        session.reset(seed=1)
        frames = [frame for _ in range(3) for frame in session.step(Inputs({"forward"}, yaw_deg=3.0))]
        return np.stack([frame.pixels for frame in frames]).astype(int)

    plain = pictures(0.0)
    assert np.abs(pictures(1.0) - plain).max() <= 1
    assert np.abs(pictures(4.0) - plain).max() > 1
