"""The options by which commands name a world: the same for serve, bench and whatever else loads one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worldwire_runtime.world import World

DEFAULT_PRESET = "tiny"
RANDOM = "random"
_TAKING_VALUES = (
    "preset",
    "device",
    "precision",
    "plan",
    "choose_on",
    "weights",
    "attention",
    "vae_pruning",
    "text_on",
    "gpu_memory",
)
_EITHER = ("compile", "graphs", "overlap")  # --compile, --no-compile, or neither
_SWITCHES = ("attention_8bit", "random_weights", "offload")


def add_world_options(parser: argparse.ArgumentParser) -> None:
    """Adds them all."""
    parser.add_argument(
        "--preset", default=DEFAULT_PRESET, help="name of a preset, or a folder with a model (%(default)s)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--precision",
        default="auto",
        help="auto, float32, bfloat16, int8, int8-attention, fp8, fp8-attention",
    )
    parser.add_argument("--plan", help="clip plan of sessions that name none (default: the preset's)")
    _add_speed(parser.add_argument_group("speed (docs/performance.md)"))
    group = parser.add_argument_group("the released model (docs/released_checkpoints.md)")
    weights = group.add_mutually_exclusive_group()
    weights.add_argument(
        "--weights", type=Path, metavar="DIR", help="folder with the released files, for a preset without"
    )
    weights.add_argument(
        "--random-weights", action="store_true", help="numbers of no meaning in the right shapes: for timing"
    )
    group.add_argument("--attention", help="joint, cached or rolling; random weights take any")
    group.add_argument("--vae-pruning", type=float, help="0, 0.5 or 0.75 (default: the most that is there)")
    group.add_argument(
        "--text-on", choices=("device", "cpu"), help="where the text encoder lives (default: the device)"
    )
    group.add_argument(
        "--offload", action="store_true", help="experts that rest wait in the main memory (28b-moe)"
    )


def _add_speed(group: Any) -> None:
    either = argparse.BooleanOptionalAction
    group.add_argument(
        "--compile",
        action=either,
        help="fuse the networks once shapes settle (default: on a GPU)",
    )
    group.add_argument(
        "--graphs", action=either, help="replay whole clips as CUDA graphs (default: on a GPU)"
    )
    group.add_argument(
        "--overlap", action=either, help="decode frames while the next step runs (default: on a GPU)"
    )
    group.add_argument(
        "--attention-8bit", action="store_true", help="self-attention in 8-bit products, not quite exact"
    )
    group.add_argument(
        "--gpu-memory", type=float, metavar="GIB", help="take no more of the GPU's memory than this"
    )
    group.add_argument("--choose-on", choices=("device", "cpu"), help="where the memory compares cameras")


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The same options for another command line."""
    listed: list[str] = []
    for name in _TAKING_VALUES:
        if getattr(args, name) is not None:
            listed += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    for name in _EITHER:
        if getattr(args, name) is not None:
            listed.append(f"--{'' if getattr(args, name) else 'no-'}{name}")
    return listed + [f"--{name.replace('_', '-')}" for name in _SWITCHES if getattr(args, name)]


def load_world(args: argparse.Namespace, progress: Callable[[float, str], None] = lambda *_: None) -> World:
    """The world that the options name."""
    from worldwire_runtime.speed import Speed
    from worldwire_runtime.world import World

    return World.load(
        args.preset,
        args.device,
        args.precision,
        speed=Speed(
            compiled=args.compile,
            graphs=args.graphs,
            attention_8bit=args.attention_8bit,
            choose_on=args.choose_on or "device",
            overlap=args.overlap,
        ),
        weights=RANDOM if args.random_weights else args.weights,
        attention=args.attention,
        vae_pruning=args.vae_pruning,
        text_on=args.text_on or "device",
        offload=args.offload,
        memory_gib=args.gpu_memory,
        progress=progress,
    )
