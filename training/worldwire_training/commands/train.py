"""`worldwire train vae|light-vae|base|distill`: train a world's networks.

worldwire train vae --config .../configs/vae_tiny.toml --data FRAMES --output runs/vae
worldwire train base --config .../configs/base_tiny.toml --set minutes=20
worldwire train distill --config .../configs/distill_tiny.toml --set teacher=runs/base/world
torchrun --nproc-per-node 2 -m worldwire_training.commands.train base --config ... --resume
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from worldwire.cli import Command, guarded

CONFIGS = Path(__file__).parent.parent / "configs"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the networks and their options."""
    networks = parser.add_subparsers(title="networks", metavar="NETWORK", required=True, dest="network")
    vae = networks.add_parser("vae", help="the video VAE")
    _add_common(vae)
    vae.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of *frames*.npy")
    vae.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    vae.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    vae.add_argument(
        "--held-out", type=int, default=32, metavar="N", help="episodes at the end of the last file"
    )
    light = networks.add_parser("light-vae", help="a narrower decoder for a trained VAE")
    _add_common(light)
    light.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of *frames*.npy")
    light.add_argument("--vae", type=Path, required=True, metavar="DIR", help="the trained VAE, or its world")
    light.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the results")
    light.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    light.add_argument("--held-out", type=int, default=16, metavar="N", help="episodes kept for the table")
    _add_common(networks.add_parser("base", help="the diffusion transformer and the text encoder"))
    _add_common(networks.add_parser("distill", help="the transformer for few steps, from a trained one"))


def run(args: argparse.Namespace) -> int:
    """Trains until the configuration's budget is spent."""
    return NETWORKS[args.network](args)


def config_file(text: str) -> Path:
    """A file, or the name of a configuration that ships."""
    named = CONFIGS / f"{text}.toml"
    return named if named.is_file() and not Path(text).exists() else Path(text)


def shipped_names() -> str:
    """The names of the configurations that ship."""
    return ", ".join(sorted(path.stem for path in CONFIGS.glob("*.toml")))


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", type=config_file, required=True, metavar="FILE", help=f"a TOML file, or {shipped_names()}"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue from the checkpoint in the output folder"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, for example optimizer.peak_rate=5e-4; may be repeated",
    )


def _train_vae(args: argparse.Namespace) -> int:
    from worldwire_training.base_config import read_config
    from worldwire_training.common import Ranks
    from worldwire_training.vae_data import load_frames
    from worldwire_training.vae_training import VAETrainConfig, train_vae

    config = read_config(args.config, VAETrainConfig, args.set)
    ranks = Ranks.join(args.device)
    try:
        frames, held_out = load_frames(
            args.data, ranks.device, part=ranks.rank, parts=ranks.world_size, held_out=args.held_out
        )
        train_vae(config, frames, held_out, args.output, ranks=ranks, resume=args.resume)
    finally:
        ranks.leave()
    return 0


def _train_light_vae(args: argparse.Namespace) -> int:
    import torch

    from worldwire_training.base_config import read_config
    from worldwire_training.common import Ranks
    from worldwire_training.light_vae import LightVAEConfig, train_light_vae
    from worldwire_training.vae_data import load_frames
    from worldwire_training.worlds import load_vae

    config = read_config(args.config, LightVAEConfig, args.set)
    ranks = Ranks.join(args.device)
    try:
        full = load_vae(args.vae, ranks.device, torch.float32)
        frames, held_out = load_frames(
            args.data, ranks.device, part=ranks.rank, parts=ranks.world_size, held_out=args.held_out
        )
        train_light_vae(config, full, frames, held_out, args.output, ranks=ranks, resume=args.resume)
    finally:
        ranks.leave()
    return 0


def _train_base(args: argparse.Namespace) -> int:
    from worldwire_training.base_config import BaseConfig, read_config
    from worldwire_training.base_run import train_base

    train_base(read_config(args.config, BaseConfig, args.set), args.resume)
    return 0


def _distil(args: argparse.Namespace) -> int:
    from worldwire_training.base_config import read_config
    from worldwire_training.distill_config import DistillConfig
    from worldwire_training.distill_run import distil

    distil(read_config(args.config, DistillConfig, args.set), args.resume)
    return 0


NETWORKS: dict[str, Callable[[argparse.Namespace], int]] = {
    "vae": _train_vae,
    "light-vae": _train_light_vae,
    "base": _train_base,
    "distill": _distil,
}

command = Command("train the VAE or the diffusion transformer of a world", configure, run)

if __name__ == "__main__":  # torchrun starts this module, wherever the `worldwire` command is
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    arguments = argparse.ArgumentParser(description=command.help)
    configure(arguments)
    raise SystemExit(guarded(partial(run, arguments.parse_args())))
