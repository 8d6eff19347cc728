"""The ablations in one sitting: trains variants of the base model, measures them, draws one table.

    python -m worldwire_training.recipes.ablations run --work W --vae tiny --init-from tiny --gpus 2
    python -m worldwire_training.recipes.ablations table --work W --out benchmarks/ablations

`run` trains and measures everything, `--jobs` processes at a time on each GPU (one process keeps the host
busier than the GPU). It may be stopped at any moment and started again: what is done is not done again, and
a training goes on from its checkpoint. `--dry-run` lists the processes; `--variants` takes some rows alone.
`--work` is that of `recipes.tiny`, with its episodes rendered.

One H200 for half an hour, in calls of at most ten minutes, from a base model and its student that are there.
Call 1 starts everything apart from itself, so that it works on between the calls:

    A="python -m worldwire_training.recipes.ablations"; T="python -m worldwire_training.recipes.tiny"
    W=runs/tiny; mkdir -p $W/ablations; export OMP_NUM_THREADS=3
    setsid nohup sh -c "$T render --work $W --episodes 768 --first-seed 400000 --workers 14
      $A run --work $W --vae tiny --init-from BASE --student tiny \
        --jobs 5 --minutes 2.8 --set latents_per_step=512
      $A speed --work $W" > $W/ablations/run.log 2>&1 < /dev/null &
    sleep 540; tail -n 5 $W/ablations/run.log

Later calls wait and take along what is there; any row that is measured is in the table:

    sleep 520; tail -n 5 $W/ablations/run.log; $A table --work $W --out OUT

What is honest. Rows that change the data (memory, errors, contexts) or the attention continue the same base
model, which was trained with everything on under cached attention; what these bring is thus underestimated.
Only the position's perturbation begins at random: `plain_rope` and `fresh` have had twice the minutes, no
contexts of their own, and say nothing about a finished model. Attention modes cost differently, and what runs
beside a training takes from it: the table has each row's steps. Experts have had half the minutes each.
`no_memory` is played as it is trained, so its revisits are the same with slots and with empty ones: compare
them with those of `full`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldwire.cli import guarded
from worldwire.errors import WorldwireError
from worldwire_training.base_config import BaseConfig, read_config
from worldwire_training.clip_sampler import FULL_PAST, Shape

if TYPE_CHECKING:
    from worldwire_runtime.world import World

log = logging.getLogger(__name__)

SETTINGS = Path(__file__).parent.parent / "configs" / "base_tiny.toml"
HELD_OUT = range(1_000_000, 1_000_016)
METRICS = ("quality", "revisit", "endurance")
RECORD, TABLE, PLOT = "ablations.json", "ablations.md", "ablations.png"
ROLLED = (0, 1, 2)
"""Rolled clips of a steady shape under rolling attention, each a third of the steps."""
NEW_LATENTS = 2
"""Of the clips that the measured sessions ask for (the low-latency plan): no others are trained here."""
TUNING_RATE = "1e-3"
"""Of variants that continue trained weights: a third of the first training's."""
TUNING_WARMUP = 20
"""Steps; the first training's would last as long as such a variant."""
BOUNDARY = 0.9286
"""Noise level at which the experts take turns: `experts.expert_boundary(3, 3.0)`."""
FRESH_SHARE = 2.0
"""Of `--minutes`, for what begins at random."""
FRESH = ("own_context.share=0.0", "optimizer.warmup_steps=60")
"""Contexts that a network makes in its first minutes teach nothing, and would double what compiles."""
POLL_S = 0.2
NOT_BEGUN = -1
"""In the place of an exit status, of a task whose needs have failed."""
TIMED_CLIPS, SETTLING_CLIPS = 40, 10
GREY = 128


class AblationError(WorldwireError):
    """A variant could not be trained or measured."""

    code = "ablation_failed"


@dataclass(frozen=True)
class Variant:
    """One thing changed. settings: overrides of the configuration; shapes: what becomes of clip shapes.

    fresh: trained from random weights whatever `--init-from` says. own_shapes: what compiles is not what
    compiles for `full`. share: of `--minutes`.
    """

    shows: str
    settings: tuple[str, ...] = ()
    shapes: Callable[[Sequence[Shape]], Sequence[Shape]] | None = None
    fresh: bool = False
    own_shapes: bool = False
    share: float = 1.0


def without_memory(shapes: Sequence[Shape]) -> list[Shape]:
    """The same clips without memory latents."""
    return [replace(shape, memory=0) for shape in shapes]


def rolling(shapes: Sequence[Shape]) -> list[Shape]:
    """Short clips with a full past also after rolled ones."""
    result: list[Shape] = []
    for shape in shapes:
        counts = ROLLED if shape.past == FULL_PAST and shape.new <= FULL_PAST else (0,)
        result += [replace(shape, rolled=count, weight=shape.weight / len(counts)) for count in counts]
    return result


VARIANTS: dict[str, Variant] = {
    "full": Variant("everything on"),
    "no_memory": Variant(
        "memory off in training and play (3.2): no slots to fill",
        ("world.plans.low-latency.memory=0",),
        shapes=without_memory,
    ),
    "no_memory_errors": Variant("memory error injection off (3.2)", ("noise.memory_gamma=0.0",)),
    "no_errors": Variant(
        "error buffer and own contexts off (3.1)",
        ("noise.error_gamma=0.0", "own_context.share=0.0", "noise.context_sigma=0.0"),
    ),
    "joint": Variant(
        "joint attention in training and play",
        ("world.dit.attention=joint", "noise.draws=1"),
        own_shapes=True,
    ),
    "rolling": Variant(
        "rolling attention in training and play",
        ("world.dit.attention=rolling",),
        rolling,
        own_shapes=True,
    ),
    "fresh": Variant("from nothing: perturbed RoPE", FRESH, fresh=True, share=FRESH_SHARE),
    "plain_rope": Variant(
        "from nothing: perturbed RoPE off (3.2)",
        (*FRESH, "world.dit.sigma_theta=0.0"),
        fresh=True,
        own_shapes=True,
        share=FRESH_SHARE,
    ),
    "errors_only": Variant("contexts of its own off, error buffer on", ("own_context.share=0.0",)),
}
EXPERTS: dict[str, Variant] = {
    "expert_high": Variant("", (f"noise.lowest={BOUNDARY}", "own_context.share=0.0"), share=0.5),
    "expert_low": Variant("", (f"noise.highest={BOUNDARY}", "own_context.share=0.0"), share=0.5),
}
"""The two halves of the noise levels, on the same data as `full`: the split alone is what is compared."""


@dataclass(frozen=True)
class Play:
    """Another way to play trained weights. of: `teacher`, `student` or a variant; options: of `one`."""

    shows: str
    of: str
    options: tuple[str, ...] = ()


PLAYS: dict[str, Play] = {
    "teacher": Play("the base model before all this, 3 steps", "teacher"),
    # A hundred evaluations a clip against three: with revisits and endurance, nine tenths of the frames, this
    # row alone would take longer than the sitting.
    "steps50": Play(
        "the base model, 50 steps with guidance 1.5",
        "teacher",
        ("--steps", "50", "--guidance", "1.5", "--only", "quality"),
    ),
    "student": Play("distilled from the base model, 3 steps (3.3)", "student"),
    "int8": Play("the student in INT8", "student", ("--precision", "int8", "--only", "quality")),
}
LIGHT_MINUTES = 2.5
LIGHT = {"light50": "0.5", "light75": "0.75"}
COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("PSNR 0.5 s", ("psnr_db", "0.5")),
    ("2 s", ("psnr_db", "2")),
    ("5 s", ("psnr_db", "5")),
    ("revisit 5 s", ("revisit_psnr_db", "memory", "5")),
    ("15 s", ("revisit_psnr_db", "memory", "15")),
    ("45 s", ("revisit_psnr_db", "memory", "45")),
    ("SSIM 15 s", ("revisit_ssim", "memory", "15")),
    ("15 s, slots empty", ("revisit_psnr_db", "no_memory", "15")),
    ("endurance 30 s", ("endurance_psnr_db", "30")),
    ("60 s", ("endurance_psnr_db", "60")),
    ("sharpness 60 s", ("sharpness_ratio", "60")),
    ("contrast 60 s", ("contrast_ratio", "60")),
    ("training steps", ("training_steps",)),
    ("frames/s", ("frames_per_s",)),
)


def overrides(variant: Variant, config: BaseConfig) -> list[str]:
    """The `--set` assignments that make a variant of the configuration."""
    shapes = [shape for shape in config.shapes if shape.past and shape.new == NEW_LATENTS]
    changed = variant.shapes(shapes) if variant.shapes else shapes
    return [*variant.settings, f"shapes={shape_tables(changed)}"]


def shape_tables(shapes: Sequence[Shape]) -> str:
    """Clip shapes as an inline TOML array; equal ones become one."""
    weights: dict[Shape, float] = {}
    for shape in shapes:
        same = replace(shape, weight=1.0)
        weights[same] = weights.get(same, 0.0) + shape.weight
    tables = (
        f"{{memory={s.memory},past={s.past},new={s.new},rolled={s.rolled},weight={weight:.4f}}}"
        for s, weight in weights.items()
    )
    return f"[{','.join(tables)}]"


# ---------------------------------------------------------------------------------------------- the plan


@dataclass(frozen=True)
class Task:
    """A process with a GPU for itself or a part of one; it begins when the tasks `after` have succeeded.

    optional: others go on without its success.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()
    optional: bool = False


def plan(args: argparse.Namespace) -> list[Task]:
    """Every process of `run`, what is worth most first."""
    tuned = [name for name in args.variants if not VARIANTS[name].fresh]
    fresh = [name for name in args.variants if VARIANTS[name].fresh]
    everything = "full" in args.variants
    distilled = everything and not args.student
    tasks = [train_task(name, args) for name in tuned]
    if args.compile == "blocks":
        own = [name for name in args.variants if VARIANTS[name].own_shapes]
        tasks += [warm_task(name, args) for name in own]
        tasks += [_warm("distill", ["--network", "distill"], _compiled(args), args)] if distilled else []
    tasks += [distill_task(args)] if distilled else []
    tasks += [measure_task(name, args) for name in tuned]
    if everything:
        tasks += [play_task(name, args) for name in PLAYS if name != "teacher" or args.student]
        tasks += light_tasks(args) + [train_task(name, args) for name in EXPERTS] + [experts_task(args)]
    tasks += [train_task(name, args) for name in fresh] + [measure_task(name, args) for name in fresh]
    return tasks


def train_task(name: str, args: argparse.Namespace) -> Task:
    """The training of a variant, from its checkpoint if there is one."""
    variant, folder = (VARIANTS | EXPERTS)[name], _folder(args) / name
    command = [*_tiny("base", args), "--minutes", str(variant.share * args.minutes), *_vae(args)]
    tuned = bool(args.init_from) and not variant.fresh
    settings = [*_settings(variant, args), f"output={folder}", "validation.every_minutes=0"]
    settings += ["checkpoint_minutes=1.0"]
    if tuned:
        command += ["--init-from", args.init_from]
        settings += [f"optimizer.peak_rate={TUNING_RATE}", f"optimizer.warmup_steps={TUNING_WARMUP}"]
    command += ["--resume"] if (folder / "base.pt").is_file() else []
    after = (f"warm_{name}",) if variant.own_shapes else ()
    return Task(f"train_{name}", (*command, *_set([*settings, *args.set])), after)


def warm_task(name: str, args: argparse.Namespace) -> Task:
    """The compilation of the shapes that only this variant has."""
    settings = [*_settings(VARIANTS[name], args), *args.set]
    return _warm(name, ["--network", "base"], settings, args)


def _warm(name: str, options: Sequence[str], settings: Sequence[str], args: argparse.Namespace) -> Task:
    command = (*_tiny("warm", args), *options, "--jobs", str(args.warm_jobs), *_set(settings))
    return Task(f"warm_{name}", command, optional=True)


def distill_task(args: argparse.Namespace) -> Task:
    """The student of `full`; only the clips that are measured are kept."""
    command = [*_tiny("distill", args), "--teacher", str(_folder(args) / "full" / "world")]
    command += ["--minutes", str(args.minutes), *_vae(args)]
    command += ["--resume"] if (args.work / "distill" / "distill.pt").is_file() else []
    settings = ["validation.every_minutes=0", "method.kept_share=0.0", *_compiled(args)]
    return Task("distill", (*command, *_set(settings)), ("train_full", "warm_distill"))


def light_tasks(args: argparse.Namespace) -> list[Task]:
    """The two light decoders, with their own tables."""
    minutes = ("--minutes", str(LIGHT_MINUTES))
    return [
        Task(name, (*_tiny("light", args), *_vae(args), *minutes, *_set([f"rate={rate}"])))
        for name, rate in LIGHT.items()
    ]


def measure_task(name: str, args: argparse.Namespace) -> Task:
    """The metrics of a trained variant."""
    return _one(name, *_played(name, args), (), args)


def play_task(name: str, args: argparse.Namespace) -> Task:
    """The metrics of another way to play."""
    play = PLAYS[name]
    return _one(name, *_played(play.of, args), play.options, args)


def _played(name: str, args: argparse.Namespace) -> tuple[Path, tuple[str, ...]]:
    """The folder of a world that is measured, and the tasks that make it."""
    from worldwire_runtime.world import preset_folder

    there = {"student": args.student, "teacher": args.init_from} if args.student else {}
    if name in there:
        return preset_folder(there[name]), ()
    if name == "student":
        return args.work / "distill" / "world", ("distill",)
    variant = "full" if name == "teacher" else name
    return _folder(args) / variant / "world", (f"train_{variant}",)


def experts_task(args: argparse.Namespace) -> Task:
    """The comparison of two experts with one network."""
    command = (*_here("experts", args), "--device", args.device, *_vae(args))
    return Task("experts", command, ("train_full", *(f"train_{name}" for name in EXPERTS)))


def _one(
    name: str, world: Path, needs: tuple[str, ...], options: Sequence[str], args: argparse.Namespace
) -> Task:
    command = [*_here("one", args), "--world", str(world), "--json", str(_folder(args) / f"{name}.json")]
    command += ["--device", args.device, *options]
    return Task(f"measure_{name}", (*command, *(["--quick"] if args.quick else [])), needs)


def _settings(variant: Variant, args: argparse.Namespace) -> list[str]:
    return [*overrides(variant, read_config(SETTINGS, BaseConfig)), *_compiled(args)]


def _compiled(args: argparse.Namespace) -> list[str]:
    return [f"compile={args.compile}"]


def _tiny(stage: str, args: argparse.Namespace) -> list[str]:
    return [sys.executable, "-m", "worldwire_training.recipes.tiny", stage, "--work", str(args.work)]


def _here(stage: str, args: argparse.Namespace) -> list[str]:
    return [sys.executable, "-m", "worldwire_training.recipes.ablations", stage, "--work", str(args.work)]


def _set(settings: Sequence[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def _vae(args: argparse.Namespace) -> list[str]:
    return ["--vae", str(args.vae)] if args.vae else []


def _folder(args: argparse.Namespace) -> Path:
    return Path(args.work) / "ablations"


# --------------------------------------------------------------------------------------------- the stages


def run(args: argparse.Namespace) -> None:
    """Everything that is not done yet."""
    if args.student and not args.init_from:
        raise AblationError("--student is of no base model", remedy="name the base model with --init-from")
    tasks = plan(args)
    if args.dry_run:
        for task in tasks:
            log.info("%s%s: %s", task.name, f" after {', '.join(task.after)}" * bool(task.after), _line(task))
        return
    run_tasks(tasks, _folder(args), args.gpus, args.jobs)


def warm(args: argparse.Namespace) -> None:
    """The shapes of the named variants, one variant after the other; needs no episodes."""
    if args.compile == "none":
        raise AblationError("there is nothing to compile ahead", remedy="say --compile blocks")
    for name in args.variants:
        if subprocess.run(warm_task(name, args).command, check=False).returncode:
            raise AblationError(f"the shapes of {name} could not be compiled", remedy="see the lines above")


def run_tasks(tasks: Sequence[Task], folder: Path, gpus: int, jobs: int) -> None:
    """Runs tasks, the first that is ready whenever a place is free, `jobs` places on each of the GPUs.

    NAME.log is what a task says; what has succeeded leaves NAME.done and is not run again. AblationError at
    the end when one failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    planned = {task.name: task for task in tasks}
    ended = {name: 0 for name in planned if (folder / f"{name}.done").exists()}
    waiting = [task for task in tasks if task.name not in ended]
    places = [gpu for _ in range(jobs) for gpu in range(gpus)]
    running: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
    while waiting or running:
        for name, (process, gpu) in list(running.items()):
            if process.poll() is not None:
                del running[name]
                places.append(gpu)
                ended[name] = _ended(name, process.returncode, folder)
        for task in list(waiting):
            needed = [planned[name] for name in task.after if name in planned]
            if any(ended.get(other.name) and not other.optional for other in needed):
                waiting.remove(task)
                ended[task.name] = _ended(task.name, NOT_BEGUN, folder)
            elif places and all(other.name in ended for other in needed):
                waiting.remove(task)
                gpu = places.pop(0)
                running[task.name] = (_start(task, folder, gpu), gpu)
        time.sleep(POLL_S)
    failed = sorted(name for name, code in ended.items() if code)
    if failed or not tasks:
        raise AblationError(
            "tasks failed" if failed else "there is nothing to run",
            got=", ".join(failed) or "no tasks",
            remedy=f"see the logs in {folder}; run it again for what is missing",
        )


def _start(task: Task, folder: Path, gpu: int) -> subprocess.Popen[bytes]:
    log.info("%s begins on GPU %d", task.name, gpu)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    device = visible[gpu] if gpu < len(visible) and visible[gpu] else str(gpu)
    with (folder / f"{task.name}.log").open("ab") as file:
        file.write(f"{_line(task)}\n".encode())
        file.flush()
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": device}
        return subprocess.Popen(task.command, stdout=file, stderr=file, env=environment)


def _ended(name: str, code: int, folder: Path) -> int:
    log.info("%s %s", name, f"failed ({code})" if code else "is done")
    if not code:
        (folder / f"{name}.done").touch()
    return code


def _line(task: Task) -> str:
    return " ".join(task.command)


def one(args: argparse.Namespace) -> None:
    """The metrics of one world."""
    from worldwire_training.evaluation import machine
    from worldwire_training.evaluation.data_engine_stages import DataEngineStudio
    from worldwire_training.evaluation.guided import guide, with_steps
    from worldwire_training.evaluation.plan import ABLATION, QUICK
    from worldwire_training.evaluation.report import Report
    from worldwire_training.evaluation.run import check_metrics, evaluate, header

    if not (args.world and args.json):
        raise AblationError(
            "there is nothing to measure", remedy="name a world with --world, a file with --json"
        )
    metrics = check_metrics(args.only or METRICS)
    with tempfile.TemporaryDirectory() as copy:
        folder = with_steps(args.world, args.steps, Path(copy) / "world") if args.steps else args.world
        world = _load(folder, args)
        if args.guidance != 1:
            guide(world, args.guidance)
        plan = QUICK if args.quick else ABLATION
        facts = {
            "commit": machine.commit(),
            "device": machine.device_name(world.device),
            "precision": world.info.extra["precision"],
            "guidance": args.guidance,
            "training_steps": trained_steps(args.world.parent),
        }
        report = Report(args.json, header(world, HELD_OUT, plan, metrics, facts))
        studio = DataEngineStudio(world.config.intrinsics, world.config.motion)
        evaluate(world, studio, HELD_OUT, plan, report=report, metrics=metrics)


def _load(folder: Path, args: argparse.Namespace) -> World:
    """A world that is not compiled: that takes longer than what is played here."""
    from worldwire_runtime.speed import Speed
    from worldwire_runtime.world import World

    return World.load(folder, args.device, args.precision, speed=Speed(compiled=False))


def trained_steps(run: Path) -> int | None:
    """The last step that a training run wrote down."""
    curves = run / "scalars.jsonl"
    if not curves.is_file():
        return None
    return int(json.loads(curves.read_text(encoding="utf-8").splitlines()[-1])["step"])


def speed(args: argparse.Namespace) -> None:
    """Frames per second of the measured rows whose worlds are there, one by one on an idle machine."""
    from worldwire_training.evaluation import machine
    from worldwire_training.evaluation.guided import guide, with_steps

    for path in sorted(_folder(args).glob("*.json")):
        facts, folder = _read(path), _world_of(path.stem, args)
        if folder is None or not folder.is_dir() or "frames_per_s" in facts:
            continue
        told = argparse.Namespace(device=args.device, precision=facts["precision"])
        with tempfile.TemporaryDirectory() as copy:
            world = _load(with_steps(folder, facts["steps"], Path(copy) / "world"), told)
        if facts["guidance"] != 1:
            guide(world, facts["guidance"])
        facts["frames_per_s"] = round(frames_per_second(world), 1)
        facts["frames_per_s_on"] = machine.device_name(world.device)
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        log.info("%s: %.1f frames/s", path.stem, facts["frames_per_s"])


def frames_per_second(world: World) -> float:
    """Of a session that walks in circles, once its shapes have settled."""
    import numpy as np

    from worldwire import Inputs

    session, inputs = world.session(), Inputs(frozenset({"forward"}), yaw_deg=1.0)
    session.reset(image=np.full((world.config.height, world.config.width, 3), GREY, np.uint8))
    for _ in range(SETTLING_CLIPS):
        session.step(inputs)
    began = time.monotonic()
    frames = [frame for _ in range(TIMED_CLIPS) for frame in session.step(inputs)]
    seconds = time.monotonic() - began
    session.close()
    return len(frames) / seconds


def _world_of(name: str, args: argparse.Namespace) -> Path | None:
    """The folder that a row's figures are of."""
    if name not in VARIANTS and name not in PLAYS:
        return None
    return _played(PLAYS[name].of if name in PLAYS else name, args)[0]


def experts(args: argparse.Namespace) -> None:
    """Loss by noise level and PSNR of one network and of two experts, on the held-out episodes."""
    import torch

    from worldwire_runtime.config import WorldConfig
    from worldwire_runtime.world import CONFIG_FILE
    from worldwire_training.base_config import ValidationConfig
    from worldwire_training.base_run import make_validator, open_vae
    from worldwire_training.common import Ranks
    from worldwire_training.experts import ExpertPair
    from worldwire_training.worlds import load_base

    folder, ranks = _folder(args), Ranks.join(args.device)
    paths = {"data.held_out": args.work / "held_out", "data.vae": args.vae or args.work / "vae"}
    paths["data.latents_cache"] = args.work / "latents"
    config = read_config(SETTINGS, BaseConfig, [f"{key}={value}" for key, value in paths.items()])
    world = WorldConfig.from_file(folder / "full" / "world" / CONFIG_FILE)
    vae = open_vae(Path(config.data.vae), config, ranks)
    validator = make_validator(
        config.data, ValidationConfig(scenes=HELD_OUT.stop - HELD_OUT.start), world, vae
    )
    one_network, high, low = (
        load_base(folder / name / "world", world).to(ranks.device) for name in ("full", *EXPERTS)
    )
    pair = ExpertPair(high, low, BOUNDARY)
    figures = {}
    with torch.autocast(ranks.device.type, torch.bfloat16, enabled=config.mixed_precision):
        for name, model in (("one network", one_network), ("two experts", pair)):
            figures[name] = validator.run(model, folder / f"strip_{name.replace(' ', '_')}.png")
    (folder / "experts.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def table(args: argparse.Namespace) -> None:
    """One record, one table and one plot of what has been measured so far."""
    folder = _folder(args)
    found = {name: read for name in (*VARIANTS, *PLAYS) if (read := _read(folder / f"{name}.json"))}
    beside = {"experts": _read(folder / "experts.json")}
    beside |= {name: _read(args.work / name / "light_vae.json") for name in LIGHT}
    if not found:
        raise AblationError(f"nothing was measured in {folder}", remedy="run `ablations run` first")
    args.out.mkdir(parents=True, exist_ok=True)
    record = found | {name: facts for name, facts in beside.items() if facts}
    (args.out / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    lines = [*table_lines(found), *light_lines(beside), *expert_lines(beside["experts"])]
    (args.out / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(found, args.out / PLOT)


def table_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """A Markdown table: a row for each variant and way to play, dB and ratios to the truth."""
    rows = VARIANTS | PLAYS
    cells = {name: [_shown(values, path) for _, path in COLUMNS] for name, values in found.items()}
    return markdown(
        ["variant", *(title for title, _ in COLUMNS)],
        [[rows[name].shows, *shown] for name, shown in cells.items()],
    )


def light_lines(beside: dict[str, Any]) -> list[str]:
    """A table of the decoders: the full one and what was left of it."""
    titles = ("psnr_db", "ssim", "decode_ms_per_latent", "decoder_parameters")
    found = {name: beside[name]["table"] for name in LIGHT if beside.get(name)}
    if not found:
        return []
    rows = {"full": next(iter(found.values()))["full"]} | {
        name: both["light"] for name, both in found.items()
    }
    return [
        "",
        *markdown(["decoder", *titles], [[name, *_figures(row, titles)] for name, row in rows.items()]),
    ]


def expert_lines(figures: dict[str, dict[str, float]]) -> list[str]:
    """A table of one network and two experts: loss by noise level, then PSNR."""
    if not figures:
        return []
    titles = list(next(iter(figures.values())))
    return ["", *markdown(["", *titles], [[name, *_figures(row, titles)] for name, row in figures.items()])]


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)]


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Revisits and endurance against time, a line for each variant."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    panels = (
        ("revisited views", ("revisit_psnr_db", "memory")),
        ("a minute of play", ("endurance_psnr_db",)),
    )
    colours = {name: pyplot.get_cmap("tab20")(number) for number, name in enumerate(found)}
    for axis, (title, where) in zip(axes, panels, strict=True):
        for name, values in found.items():
            points = _at(values, where)
            if points:
                seconds = [float(second) for second in points]
                axis.plot(seconds, list(points.values()), marker="o", label=name, color=colours[name])
        axis.set(title=title, xlabel="seconds", ylabel="PSNR, dB")
    handles, _ = axes[0].get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _read(path: Path) -> dict[str, Any]:
    """What a file holds; nothing when it is not there yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _at(values: Any, path: Sequence[str]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _shown(values: dict[str, Any], path: Sequence[str]) -> str:
    number = _at(values, path)
    return "–" if number is None else f"{number:,}" if isinstance(number, int) else f"{number:.2f}"


def _figures(row: dict[str, float], titles: Sequence[str]) -> list[str]:
    return [f"{row[title]:,.4g}" for title in titles]


STAGES = {"run": run, "warm": warm, "one": one, "speed": speed, "experts": experts, "table": table}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("stage", choices=sorted(STAGES))
    add("--work", type=Path, default=Path("runs"), metavar="DIR")
    add("--vae", type=Path, metavar="DIR", help="a trained VAE or a preset, instead of WORK/vae")
    add("--init-from", metavar="WORLD", help="what the variants that are not fresh continue")
    add("--student", metavar="WORLD", help="distilled from that of --init-from, instead of distilling `full`")
    add("--variants", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS)[:-1], metavar="NAME")
    add("--minutes", type=float, default=4.0, help="of training, for each variant")
    add("--gpus", type=int, default=1, help="that share the work (default: 1)")
    add("--jobs", type=int, default=3, help="processes that share a GPU (default: 3)")
    add("--compile", choices=("none", "blocks"), default="none", help="of all training (default: none)")
    add("--warm-jobs", type=int, default=4, help="shapes that compile at a time, with blocks (default: 4)")
    add("--device", default="auto")
    add("--dry-run", action="store_true", help="of `run`: only list the processes")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="for every variant")
    add("--out", type=Path, default=Path("benchmarks/ablations"), metavar="DIR", help="of `table`")
    add("--world", type=Path, metavar="DIR", help="of `one`")
    add("--json", type=Path, metavar="FILE", help="of `one`")
    add("--only", nargs="+", metavar="METRIC", help=f"of `one` (default: {' '.join(METRICS)})")
    add("--precision", default="auto", help="of `one`")
    add("--steps", type=int, default=0, help="of `one`: of the sampler, instead of the world's")
    add("--guidance", type=float, default=1.0, help="of `one`: away from unknown keys and no prompt")
    add("--quick", action="store_true", help="measure few scenes")
    return parser.parse_args(words)


def main() -> int:
    """Run one stage; errors of ours are one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args = parse()
    return guarded(partial(STAGES[args.stage], args))


if __name__ == "__main__":
    raise SystemExit(main())
