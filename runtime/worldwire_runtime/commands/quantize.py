"""`worldwire quantize`: the linear layers of a world in 8 bits, what that costs, and a folder to play.

    worldwire quantize --preset tiny --report report.json
    worldwire quantize --preset tiny --smooth --out tiny-int8 && worldwire play --preset tiny-int8

Walks through the world from its seed images to see what the layers see. Without `--out` it only reports.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from worldwire.cli import Command
from worldwire.errors import ConfigError

DEFAULT_IMAGES = 6


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `worldwire quantize`."""
    add = parser.add_argument
    add("--preset", default="tiny", help="a shipped preset, or a folder with a model (default: tiny)")
    add("--arithmetic", choices=("int8", "fp8"), default="int8", help="default: int8")
    add(
        "--set",
        dest="layers",
        choices=("attention", "all"),
        default="all",
        help="the q, k, v, o projections as in the paper, or all large linears (default: all)",
    )
    add("--smooth", action="store_true", help="move range from activations into weights where it helps")
    add("--images", type=int, default=DEFAULT_IMAGES, help="seed images to walk from (default: %(default)s)")
    add("--report", type=Path, metavar="F", help="write each layer's error to F as JSON")
    add("--out", type=Path, metavar="DIR", help="write a folder with the quantised world")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Prints the table, writes the report and the folder."""
    from tqdm import tqdm

    from worldwire_runtime.quantize.config import Quantization
    from worldwire_runtime.quantize.report import as_json, table
    from worldwire_runtime.quantize.run import quantise_world, write
    from worldwire_runtime.world import World

    if args.images < 1:
        raise ConfigError("--images is too small", expected="1 or more", got=str(args.images))
    world = World.load(args.preset, args.device, "float32")
    with tqdm(desc="walking", unit="step") as bar:

        def advanced(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        quantization = Quantization(args.arithmetic, args.layers, args.smooth)
        outcome = quantise_world(world, quantization, images=args.images, advanced=advanced)
    sys.stdout.write(table(outcome))
    if args.report is not None:
        args.report.parent.mkdir(parents=True, exist_ok=True)
        args.report.write_text(json.dumps(as_json(outcome), indent=1) + "\n")
    if args.out is not None:
        write(world, outcome, args.preset, args.out)
    return 0


command = Command("quantise a world's network to 8 bits and report what it costs", configure, run)
