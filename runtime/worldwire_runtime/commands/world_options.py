"""The options by which commands name a world: the same for serve, bench and whatever else loads one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldwire.errors import ConfigError

if TYPE_CHECKING:
    from worldwire_runtime.world import World

DEFAULT_PRESET = "tiny"
RANDOM = "random"


def add_world_options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Adds them all, and returns them."""
    add = parser.add_argument
    return [
        add(
            "--preset",
            default=DEFAULT_PRESET,
            help="name of a preset, or a folder with a model (%(default)s)",
        ),
        add("--device", default="auto", help="auto, cpu, cuda or cuda:N"),
        add(
            "--precision",
            default="auto",
            help="auto, float32, bfloat16, int8, int8-attention, fp8, fp8-attention",
        ),
        add("--plan", help="clip plan of sessions that name none (default: the preset's)"),
        *_add_speed(parser.add_argument_group("speed (docs/performance.md)").add_argument),
        *_add_released(parser.add_argument_group("the released model (docs/released_checkpoints.md)")),
    ]


def _add_speed(add: Callable[..., argparse.Action]) -> list[argparse.Action]:
    either = argparse.BooleanOptionalAction
    return [
        add("--compile", action=either, help="fuse the networks once shapes settle (default: on a GPU)"),
        add("--graphs", action=either, help="replay whole clips as CUDA graphs (default: on a GPU)"),
        add(
            "--overlap",
            action=either,
            help="decode and prepare steps while others run (default: on a GPU)",
        ),
        add(
            "--attention-8bit", action="store_true", help="self-attention in 8-bit products, not quite exact"
        ),
        add("--gpu-memory", type=float, metavar="GIB", help="take no more of the GPU's memory than this"),
        add("--choose-on", choices=("device", "cpu"), help="where the memory compares cameras"),
        add(
            "--threads",
            type=int,
            metavar="N",
            help="CPU threads that compute; 1 where other programs use the CPU, too (default: torch's)",
        ),
    ]


def _add_released(group: Any) -> list[argparse.Action]:
    weights, add = group.add_mutually_exclusive_group(), group.add_argument
    return [
        weights.add_argument(
            "--weights", type=Path, metavar="DIR", help="folder with the released files, for a preset without"
        ),
        weights.add_argument(
            "--random-weights",
            action="store_true",
            help="numbers of no meaning in the right shapes: for timing",
        ),
        add("--attention", help="joint, cached or rolling; random weights take any"),
        add("--vae-pruning", type=float, help="0, 0.5 or 0.75 (default: the most that is there)"),
        add("--text-on", choices=("device", "cpu"), help="where the text encoder is (default: the device)"),
        add("--offload", action="store_true", help="experts that rest wait in the main memory (28b-moe)"),
    ]


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The same options for another command line."""
    options = add_world_options(argparse.ArgumentParser())
    return [word for option in options for word in _words(option, getattr(args, option.dest))]


def _words(option: argparse.Action, value: Any) -> list[str]:
    """How a command line says that an option has a value."""
    name, *negated = option.option_strings
    if value is None:
        return []
    if option.nargs != 0:
        return [name, str(value)]
    return [name] if value else negated  # `--no-compile`; a switch that is off has no word


def load_world(args: argparse.Namespace, progress: Callable[[float, str], None] = lambda *_: None) -> World:
    """The world that the options name; the process computes in as many threads as they say."""
    if args.threads is not None:
        _use_threads(args.threads)
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
        plan=args.plan,
        weights=RANDOM if args.random_weights else args.weights,
        attention=args.attention,
        vae_pruning=args.vae_pruning,
        text_on=args.text_on or "device",
        offload=args.offload,
        memory_gib=args.gpu_memory,
        progress=progress,
    )


def _use_threads(count: int) -> None:
    if count < 1:
        raise ConfigError("--threads is too small", expected="1 or more", got=str(count))
    import torch

    torch.set_num_threads(count)
