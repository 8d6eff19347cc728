"""`worldwire eval`: how good a world is, in figures and pictures.

    worldwire eval --preset tiny --json eval.json --strip strip.png

Plays held-out scenes with the ground-truth inputs and compares with the rendered truth. Under 20 minutes on 2
CPU cores; the JSON is whole after every metric, so a run that is stopped leaves what it had.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from worldwire.cli import Command

if TYPE_CHECKING:
    from worldwire_runtime.world import World
    from worldwire_training.evaluation.stages import Studio

log = logging.getLogger(__name__)

DEFAULT_SEEDS = "1000000:1000032"
METRIC_NAMES = "quality turns steps prompts revisit endurance"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add("--preset", default="tiny", help="a shipped preset, or a folder with the same files (default: tiny)")
    add("--json", type=Path, metavar="FILE", help="the figures; whole after every metric")
    add(
        "--scene-seeds",
        type=scene_seeds,
        default=scene_seeds(DEFAULT_SEEDS),
        metavar="A:B",
        help=f"scenes A to B-1 (default: {DEFAULT_SEEDS}; training uses seeds below 1000000)",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    add(
        "--precision",
        default="auto",
        help="auto, bfloat16, float32, int8, int8-attention, fp8 or fp8-attention (default: auto)",
    )
    add("--compile", action=argparse.BooleanOptionalAction, default=True, help="fuse the networks first")
    add("--only", nargs="*", metavar="METRIC", help=f"some of: {METRIC_NAMES} (none: pictures only)")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_true", help="few scenes, two or three minutes; not for quoting"
    )
    size.add_argument("--thorough", action="store_true", help="more scenes and trials, for a GPU")
    add(
        "--strip",
        type=Path,
        metavar="PNG",
        help="truth above, generated below; NAME_long.png shows a minute",
    )
    add("--gif", type=Path, metavar="GIF", help="a moving picture of a scripted walk, at most 3 MB")
    add(
        "--gif-seed",
        type=int,
        metavar="SEED",
        help="the scene of the moving picture (default: the first one)",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="eval.json, strip.png and walk.gif there, unless named otherwise",
    )


def scene_seeds(text: str) -> range:
    """'A:B' as the range of scene seeds."""
    first, _, last = text.partition(":")
    if first.isdecimal() and last.isdecimal() and int(first) < int(last):
        return range(int(first), int(last))
    raise argparse.ArgumentTypeError(f"expected two growing numbers such as {DEFAULT_SEEDS}, got {text!r}")


def run(args: argparse.Namespace) -> int:
    """Loads the world, plays the metrics, draws the pictures."""
    from worldwire_runtime.speed import Speed
    from worldwire_runtime.world import World
    from worldwire_training.evaluation.data_engine_stages import DataEngineStudio
    from worldwire_training.evaluation.run import check_metrics

    only = check_metrics(args.only)
    outputs = _outputs(args)
    world = World.load(args.preset, args.device, args.precision, speed=Speed(compiled=args.compile))
    studio = DataEngineStudio(world.config.intrinsics, world.config.motion)
    if only:
        _measure(args, only, outputs, world, studio)
    if outputs["gif"] is not None:
        _film(outputs["gif"], args.scene_seeds[0] if args.gif_seed is None else args.gif_seed, world, studio)
    return 0


def _outputs(args: argparse.Namespace) -> dict[str, Path | None]:
    """Where each file goes; `--out` names those that are not named themselves."""
    names = {"json": "eval.json", "strip": "strip.png", "gif": "walk.gif"}
    return {kind: getattr(args, kind) or (args.out and args.out / name) for kind, name in names.items()}


def _measure(
    args: argparse.Namespace,
    only: tuple[str, ...],
    outputs: dict[str, Path | None],
    world: World,
    studio: Studio,
) -> None:
    from worldwire_training.evaluation import machine
    from worldwire_training.evaluation.pictures import draw_strip
    from worldwire_training.evaluation.plan import DEFAULT, QUICK, THOROUGH
    from worldwire_training.evaluation.report import Report
    from worldwire_training.evaluation.run import evaluate, header

    plan = QUICK if args.quick else THOROUGH if args.thorough else DEFAULT
    facts = {
        "commit": machine.commit(),
        "device": machine.device_name(world.device),
        "precision": world.info.extra["precision"],
    }
    report = Report(outputs["json"], header(world, args.scene_seeds, plan, only, facts))
    album = evaluate(world, studio, args.scene_seeds, plan, report=report, metrics=only)
    strip = outputs["strip"]
    if strip is not None and album.short:
        draw_strip(album.short, strip)
    if strip is not None and album.long:
        draw_strip(album.long, strip.with_stem(f"{strip.stem}_long"))
    for line in report.summary():
        log.info("%s", line)


def _film(path: Path, seed: int, world: World, studio: Studio) -> None:
    from worldwire_training.evaluation.film import film
    from worldwire_training.evaluation.pictures import write_gif

    pictures, inputs = film(world, studio, seed)
    write_gif(pictures, inputs, world.info.frames_per_second, path)
    log.info("wrote %s", path)


command = Command("measure a world on held-out scenes", configure, run)
