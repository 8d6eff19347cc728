"""Trains several small variants of the base model side by side, measures them and draws one table.

    python -m worldwire_training.recipes.ablations train --work W --minutes 5 --jobs 4 [--variants full joint]
    python -m worldwire_training.recipes.ablations measure --work W --jobs 4
    python -m worldwire_training.recipes.ablations table --work W --out benchmarks/ablations

`--work` is that of `recipes.tiny` with its episodes rendered (and its VAE, or `--vae`). Every variant is
`configs/base_tiny.toml` with one thing changed, the same seed, minutes and episodes; `--jobs` of them share
a GPU, so all are slower alike. On one H200: 4 jobs of 5 minutes and then about 3 minutes of measuring.

`--init-from WORLD` fine-tunes instead of training from nothing. It suits the variants that change the data
(memory, errors, contexts), not those that change the network (rope, attention).
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldwire.errors import WorldwireError
from worldwire_training.base_config import BaseConfig, read_config
from worldwire_training.clip_sampler import FULL_PAST, Shape

log = logging.getLogger(__name__)

CONFIG = Path(__file__).parent.parent / "configs" / "base_tiny.toml"
HELD_OUT = range(1_000_000, 1_000_016)
METRICS = ("quality", "revisit", "endurance")
RECORD, TABLE, PLOT = "ablations.json", "ablations.md", "ablations.png"
ROLLED = (0, 1, 2)
"""Rolled clips of a steady shape under rolling attention, each a third of the steps."""


class AblationError(WorldwireError):
    """A variant could not be trained or measured."""

    code = "ablation_failed"


@dataclass(frozen=True)
class Variant:
    """One thing changed. settings: overrides of the configuration; shapes: what becomes of clip shapes."""

    shows: str
    settings: tuple[str, ...] = ()
    shapes: Callable[[Sequence[Shape]], Sequence[Shape]] | None = None


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
    "no_memory": Variant("memory off (3.2)", shapes=without_memory),
    "no_memory_errors": Variant("memory error injection off (3.2)", ("noise.memory_gamma=0.0",)),
    "no_errors": Variant(
        "error buffer off (3.1)",
        ("noise.error_gamma=0.0", "own_context.share=0.0", "noise.context_sigma=0.0"),
    ),
    "errors_only": Variant("contexts of its own off, error buffer on", ("own_context.share=0.0",)),
    "plain_rope": Variant("perturbed RoPE off (3.2)", ("world.dit.sigma_theta=0.0",)),
    "joint": Variant("joint attention", ("world.dit.attention=joint", "noise.draws=1")),
    "rolling": Variant("rolling attention", ("world.dit.attention=rolling",), rolling),
}
COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("PSNR 0.5 s", ("psnr_db", "0.5")),
    ("2 s", ("psnr_db", "2")),
    ("5 s", ("psnr_db", "5")),
    ("revisit 5 s", ("revisit_psnr_db", "memory", "5")),
    ("15 s", ("revisit_psnr_db", "memory", "15")),
    ("45 s", ("revisit_psnr_db", "memory", "45")),
    ("15 s, slots empty", ("revisit_psnr_db", "no_memory", "15")),
    ("endurance 30 s", ("endurance_psnr_db", "30")),
    ("60 s", ("endurance_psnr_db", "60")),
    ("sharpness 60 s", ("sharpness_ratio", "60")),
    ("contrast 60 s", ("contrast_ratio", "60")),
)


def overrides(variant: Variant, config: BaseConfig) -> list[str]:
    """The `--set` assignments that make a variant of the configuration."""
    settings = list(variant.settings)
    if variant.shapes is not None:
        settings.append(f"shapes={shape_tables(variant.shapes(config.shapes))}")
    return settings


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


def train(args: argparse.Namespace) -> None:
    """All variants, `--jobs` at a time on one device."""
    config = read_config(CONFIG, BaseConfig)
    recipe = [sys.executable, "-m", "worldwire_training.recipes.tiny", "base", "--work", str(args.work)]
    commands = {}
    for name in args.variants:
        command = [*recipe, "--minutes", str(args.minutes)]
        command += ["--vae", str(args.vae)] if args.vae else []
        command += ["--init-from", args.init_from] if args.init_from else []
        settings = [*overrides(VARIANTS[name], config), f"output={args.work / 'ablations' / name}"]
        settings += ["validation.every_minutes=0", *args.set]
        commands[name] = [*command, *(word for setting in settings for word in ("--set", setting))]
    _run_all(commands, args.work / "ablations", args.jobs)


def measure(args: argparse.Namespace) -> None:
    """`evaluate` of every trained variant, `--jobs` at a time."""
    folder = args.work / "ablations"
    here = [sys.executable, "-m", "worldwire_training.recipes.ablations", "one", "--device", args.device]
    commands = {
        name: [*here, "--world", str(folder / name / "world"), "--json", str(folder / f"{name}.json")]
        for name in args.variants
        if (folder / name / "world").is_dir()
    }
    _run_all(commands, folder, args.jobs)


def one(args: argparse.Namespace) -> None:
    """The metrics of one world."""
    from worldwire_runtime.speed import Speed
    from worldwire_runtime.world import World
    from worldwire_training.evaluation import machine
    from worldwire_training.evaluation.data_engine_stages import DataEngineStudio
    from worldwire_training.evaluation.plan import ABLATION, QUICK
    from worldwire_training.evaluation.report import Report
    from worldwire_training.evaluation.run import evaluate, header

    world = World.load(args.world, args.device, speed=Speed(compiled=False, graphs=False))
    plan = QUICK if args.quick else ABLATION
    facts = {"commit": machine.commit(), "device": machine.device_name(world.device)}
    report = Report(args.json, header(world, HELD_OUT, plan, METRICS, facts))
    studio = DataEngineStudio(world.config.intrinsics, world.config.motion)
    evaluate(world, studio, HELD_OUT, plan, report=report, metrics=METRICS)


def table(args: argparse.Namespace) -> None:
    """One record, one table and one plot of what was measured."""
    folder = args.work / "ablations"
    found = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in VARIANTS
        if (folder / f"{name}.json").is_file()
    }
    if not found:
        raise AblationError(f"nothing was measured in {folder}", remedy="run `ablations measure` first")
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / RECORD).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (args.out / TABLE).write_text("\n".join(table_lines(found)) + "\n", encoding="utf-8")
    draw(found, args.out / PLOT)


def table_lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """A Markdown table: a row for each variant, dB and ratios to the truth."""
    titles = ["variant", *(title for title, _ in COLUMNS)]
    lines = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    for name, values in found.items():
        cells = [_shown(values, path) for _, path in COLUMNS]
        lines.append(f"| {VARIANTS[name].shows} | {' | '.join(cells)} |")
    return lines


def draw(found: dict[str, dict[str, Any]], path: Path) -> None:
    """Revisits and endurance against time, a line for each variant."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    panels = (
        ("revisited views", ("revisit_psnr_db", "memory")),
        ("a minute of play", ("endurance_psnr_db",)),
    )
    for axis, (title, where) in zip(axes, panels, strict=True):
        for name, values in found.items():
            points = _at(values, where) or {}
            axis.plot([float(second) for second in points], list(points.values()), marker="o", label=name)
        axis.set(title=title, xlabel="seconds", ylabel="PSNR, dB")
    axes[1].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _at(values: Any, path: Sequence[str]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _shown(values: dict[str, Any], path: Sequence[str]) -> str:
    number = _at(values, path)
    return "–" if number is None else f"{number:.2f}"


def _run_all(commands: dict[str, list[str]], folder: Path, jobs: int) -> None:
    """Runs commands, so many at a time, each with a log file; AblationError at the end when one failed."""
    folder.mkdir(parents=True, exist_ok=True)

    def run(name: str) -> int:
        log.info("%s: %s", name, " ".join(commands[name]))
        with (folder / f"{name}.log").open("a", encoding="utf-8") as file:
            return subprocess.run(commands[name], stdout=file, stderr=file, check=False).returncode

    with ThreadPoolExecutor(jobs) as pool:
        codes = dict(zip(commands, pool.map(run, commands), strict=True))
    failed = [name for name, code in codes.items() if code]
    if failed or not commands:
        raise AblationError(
            "variants failed" if failed else "there is nothing to run",
            got=", ".join(failed) or "no variants",
            remedy=f"see the logs in {folder}",
        )


STAGES = {"train": train, "measure": measure, "one": one, "table": table}


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("stage", choices=sorted(STAGES))
    add("--work", type=Path, default=Path("runs"), metavar="DIR")
    add("--vae", type=Path, metavar="DIR", help="a trained VAE, instead of WORK/vae")
    add("--init-from", metavar="WORLD")
    add("--variants", nargs="+", choices=sorted(VARIANTS), default=list(VARIANTS), metavar="NAME")
    add("--minutes", type=float, default=5.0, help="of training, for each variant")
    add("--jobs", type=int, default=4, help="processes that share the device (default: 4)")
    add("--device", default="auto")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="for every variant")
    add("--out", type=Path, default=Path("benchmarks/ablations"), metavar="DIR", help="of `table`")
    add("--world", type=Path, metavar="DIR", help="of `one`")
    add("--json", type=Path, metavar="FILE", help="of `one`")
    add("--quick", action="store_true", help="of `one`: few scenes")
    return parser.parse_args(words)


def main() -> int:
    """Run one stage; errors of ours are one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args = parse()
    try:
        STAGES[args.stage](args)
    except WorldwireError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
