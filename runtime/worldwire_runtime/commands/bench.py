"""worldwire bench --preset tiny --device cpu --json F: what a player gets, measured through the wire."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

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
        "--samples", type=int, default=LEAST_SAMPLES, help="key presses for the latency (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures there")


def run(args: argparse.Namespace) -> int:
    """Prints a table and writes the JSON."""
    from worldwire.client import connect
    from worldwire_runtime.benchmark import local_server, measure, report, table

    _check(args)
    server, bar = local_server(as_arguments(args)), Bar(unit="clip", units={"latency": "key"})
    with server as (address, startup_s), connect(address) as client, bar:
        measurement = measure(
            client, plan=args.plan, clips=args.clips, samples=args.samples, progress=bar.show
        )
        peak_memory_gib = client.status().peak_memory_gib
        result = report(measurement, client.info, startup_s, peak_memory_gib, args.preset)
    sys.stdout.write(table(result))
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuses what would only fail, or mean nothing, after minutes."""
    if args.clips < LEAST_CLIPS or args.samples < LEAST_SAMPLES:
        raise ConfigError(
            "too few clips or samples for a figure",
            expected=f"at least {LEAST_CLIPS} clips and {LEAST_SAMPLES} samples",
            got=f"{args.clips} and {args.samples}",
        )
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise ConfigError("the folder of --json does not exist", got=str(args.json))


command = Command("measure frames per second and latency", configure, run)
