"""worldwire bench --preset tiny --device cpu --json F: what a player gets, measured through the wire."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from worldwire.cli import Command
from worldwire.errors import ConfigError
from worldwire_runtime.commands.serve import DEFAULT_PRESET

LEAST_CLIPS = 20
LEAST_SAMPLES = 30


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `worldwire bench`."""
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="name of a preset, or a folder with a model")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument("--compile", action="store_true", help="fuse the networks")
    parser.add_argument("--plan", help="clip plan: low-latency or paper (default: the preset's)")
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
    options = ["--preset", args.preset, "--device", args.device, "--precision", args.precision]
    options += ["--plan", args.plan] if args.plan else []
    options += ["--compile"] if args.compile else []
    with local_server(options) as (address, startup_s), connect(address) as client, Bar() as bar:
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


class Bar:
    """One progress bar after another, by phase."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._phase = ""

    def show(self, phase: str, done: int, total: int) -> None:
        """Moves the bar of `phase`, which begins when another phase was shown before."""
        from tqdm import tqdm

        if phase != self._phase:
            self._close()
            self._bar, self._phase = (
                tqdm(total=total, desc=phase, unit="clip" if phase != "latency" else "key"),
                phase,
            )
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()


command = Command("measure frames per second and latency", configure, run)
