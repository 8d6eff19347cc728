"""`worldwire export`: the denoising step and the VAE decoder as ONNX graphs with INT8 nodes.

    worldwire export --preset tiny --out graphs
    worldwire models build-engine graphs

Walks through the world to fix the scales, writes step.onnx, decoder.onnx and graphs.json, and compares each
graph under ONNX Runtime with the network that it was made from.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from worldwire.cli import Command
from worldwire.errors import ConfigError

DEFAULT_IMAGES = 4
TOLERANCE = 0.02
EXIT_DIFFERENT = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `worldwire export`."""
    add = parser.add_argument
    add("--preset", default="tiny", help="a shipped preset, or a folder with a model (default: tiny)")
    add("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder for the graphs")
    add("--plan", help="the clip plan whose steady sessions the graphs serve (default: the world's)")
    add("--images", type=int, default=DEFAULT_IMAGES, help="seed images to walk from (default: %(default)s)")
    add(
        "--device",
        default="auto",
        help="where the walk is computed: auto, cpu, cuda or cuda:N (default: auto)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints what each graph differs by; exit status 1 if ONNX Runtime does not reproduce one."""
    import onnxruntime  # noqa: F401 - says at once that the extra is missing

    from worldwire_runtime.commands.progress import Bar
    from worldwire_runtime.convolutions import TAPS
    from worldwire_runtime.export.run import export_world
    from worldwire_runtime.speed import Speed
    from worldwire_runtime.world import World

    if args.images < 1:
        raise ConfigError("--images is too small", expected="1 or more", got=str(args.images))
    logging.getLogger("onnx_ir").setLevel(logging.WARNING)  # it reports every constant that it shares
    # The model's own forms are what is written.
    plain = Speed(compiled=False, graphs=False, overlap=False, decoder=TAPS)
    world = World.load(args.preset, args.device, "float32", speed=plain)
    with Bar(unit="step") as bar:
        graphs = export_world(
            world,
            args.out,
            world.config.plan(args.plan),
            images=args.images,
            advanced=lambda done, total: bar.show("walking", done, total),
        )
    for graph in graphs:
        sys.stdout.write(
            f"{args.out / graph.file}: int8 differs by {100 * graph.error_int8:.3f} % from float32,"
            f" ONNX Runtime by {100 * graph.error_runtime:.4f} % from torch\n"
        )
    return 0 if all(graph.error_runtime < TOLERANCE for graph in graphs) else EXIT_DIFFERENT


command = Command("export a world's networks to ONNX with INT8 nodes", configure, run)
