"""worldwire bench --preset tiny --device cpu --json F: what a player gets, measured through the wire.

`--ablate` measures what each part of the speed brings.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from worldwire.cli import Command
from worldwire.errors import ConfigError
from worldwire_runtime.commands.progress import Bar
from worldwire_runtime.commands.world_options import add_world_options, as_arguments

LEAST_CLIPS = 20
LEAST_SAMPLES = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `worldwire bench`."""
    add_world_options(parser)
    parser.add_argument(
        "--clips", type=int, default=LEAST_CLIPS, help="clips for the speed (default %(default)s)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=LEAST_SAMPLES,
        help="key presses for the latency, or 0 (default %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures there")
    parser.add_argument(
        "--cold", action="store_true", help="first start once with empty caches, and report both starts"
    )
    group = parser.add_argument_group("what each part brings (docs/performance.md)")
    group.add_argument(
        "--ablate", action="store_true", help="take one thing back at a time, each in a fresh server"
    )
    group.add_argument("--only", nargs="+", metavar="VARIANT", help="with --ablate: these, and the full one")
    group.add_argument("--plot", type=Path, metavar="F", help="with --ablate: draw the table (PNG, SVG, PDF)")


def run(args: argparse.Namespace) -> int:
    """Prints a table and writes the JSON."""
    _check(args)
    return _ablate(args) if args.ablate else _bench(args)


def _bench(args: argparse.Namespace) -> int:
    from worldwire_runtime.benchmark import table

    with Bar(unit="clip", units={"latency": "key"}) as bar, TemporaryDirectory() as folder:
        caches = Path(folder) if args.cold else None
        cold = _cold_start(args, bar, Path(folder)) if args.cold else None
        result = _record(args, bar.show, samples=args.samples, caches=caches, cold=cold)
    sys.stdout.write(table(result))
    _write(args.json, result)
    return 0


def _ablate(args: argparse.Namespace) -> int:
    """One table of all variants; the JSON is whole after each of them."""
    from worldwire_runtime.ablation import NAMES, ablate, as_json, chosen, plot, table

    variants = chosen(args.only or NAMES)
    command = ["worldwire", "bench", "--ablate", *as_arguments(args), "--clips", str(args.clips)]
    with Bar(unit="clip") as bar:

        def record(varied: argparse.Namespace, name: str) -> dict[str, Any]:
            sys.stderr.write(f"{name}: worldwire serve {' '.join(as_arguments(varied))}\n")
            return _record(varied, lambda phase, *count: bar.show(f"{name}, {phase}", *count), samples=0)

        rows = ablate(args, variants, record, lambda rows: _write(args.json, as_json(rows, command)))
    result = as_json(rows, command)
    sys.stdout.write(table(result))
    if args.plot is not None:
        plot(result, args.plot)
    return 0 if all(row.failed is None for row in rows) else 1


def _cold_start(args: argparse.Namespace, bar: Bar, caches: Path) -> dict[str, float]:
    """How a server starts that finds nothing compiled; leaves `caches` filled."""
    from worldwire.client import connect
    from worldwire_runtime.benchmark import local_server, measure, start_facts

    with local_server(as_arguments(args), caches) as (address, startup_s), connect(address) as client:
        measurement = measure(
            client,
            plan=args.plan,
            clips=0,
            samples=0,
            progress=lambda phase, *count: bar.show(f"cold, {phase}", *count),
        )
        return start_facts(measurement, startup_s)


def _record(
    args: argparse.Namespace,
    progress: Callable[[str, int, int], None],
    *,
    samples: int,
    caches: Path | None = None,
    cold: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The figures of one command line, in a server of its own."""
    from worldwire.client import connect
    from worldwire_runtime.benchmark import local_server, measure, report

    with local_server(as_arguments(args), caches) as (address, startup_s), connect(address) as client:
        measurement = measure(
            client,
            plan=args.plan,
            clips=args.clips,
            samples=samples,
            gpu=_gpu(args.device) if client.info.extra.get("gpus") else None,
            progress=progress,
        )
        peak_gib = client.status().peak_memory_gib
        return report(measurement, client.info, startup_s, peak_gib, args.preset, cold)


def _gpu(device: str) -> int:
    """The number of "cuda:N"; of "cuda" and "auto" the first."""
    return int(device.partition(":")[2] or 0)


def _write(path: Path | None, result: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(result, indent=2) + "\n")


def _check(args: argparse.Namespace) -> None:
    """Refuses what would only fail, or mean nothing, after minutes."""
    if args.clips < LEAST_CLIPS or 0 != args.samples < LEAST_SAMPLES:
        raise ConfigError(
            "too few clips or samples for a figure",
            expected=f"at least {LEAST_CLIPS} clips and {LEAST_SAMPLES} samples (or none)",
            got=f"{args.clips} and {args.samples}",
        )
    for name in ("json", "plot"):
        path = getattr(args, name)
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigError(f"the folder of --{name} does not exist", got=str(path))
    if not args.ablate and (args.only or args.plot):
        raise ConfigError("--only and --plot are of the ablation", remedy="add --ablate")
    if args.ablate and args.cold:
        raise ConfigError("--ablate measures no cold start", remedy="leave out --cold")
    if args.plot is not None:
        from worldwire_runtime.ablation import check_plot

        check_plot()


command = Command("measure frames per second and latency", configure, run)
