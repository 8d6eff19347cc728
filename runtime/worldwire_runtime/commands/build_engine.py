"""`worldwire models build-engine DIR`: TensorRT engines of the graphs that `worldwire export` wrote."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "build TensorRT engines of exported graphs, on the GPU that will run them"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of the verb."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that `worldwire export` wrote")
    parser.add_argument("--device", default="auto", help="auto, cuda or cuda:N (default: auto)")


def run(args: argparse.Namespace) -> int:
    """Builds, and prints one line per engine."""
    from worldwire_runtime.export.engines import read_manifest
    from worldwire_runtime.export.tensorrt import build_engines
    from worldwire_runtime.machine import pick_device

    read_manifest(args.folder)
    for engine in build_engines(args.folder, pick_device(args.device)):
        sys.stdout.write(f"{engine}\n")
    return 0
