"""From nothing to the weights of the tiny world, in stages that each fit into ten minutes with a GPU.

    python -m worldwire_training.recipes.tiny probe --seconds 90     # how fast would it train here?
    python -m worldwire_training.recipes.tiny render --work W --episodes 2560 --workers 14
    python -m worldwire_training.recipes.tiny vae --work W --gpus 2 --minutes 7
    python -m worldwire_training.recipes.tiny base --work W --gpus 2 --minutes 7 [--resume] [--set key=value]
    python -m worldwire_training.recipes.tiny all --work W --size smoke    # all of it on a CPU, in a minute

The transformer on one H200 in calls of ten minutes, with a trained VAE, from the weights that ship. Clip
shapes are compiled while episodes are rendered. `--minutes` is the training of all calls together; it may
still grow while the rate is constant (the last 30 % decay).

    T="python -m worldwire_training.recipes.tiny"
    V=runtime/worldwire_runtime/presets/tiny
    B="--work W --vae $V --init-from tiny --minutes 19 --set compile=blocks"
    $T warm $B & $T render --work W --episodes 1536 --workers 14; wait; $T base $B --call-minutes 5
    $T base $B --resume --call-minutes 9
    $T base $B --resume

Outputs: W/episodes, W/held_out, W/vae (vae.safetensors, vae.json, a contact sheet), W/latents (encoded once),
W/compiled (torch.compile's cache), and W/base (checkpoint, curves, picture strips, and world/: the folder
that `World.load` reads, also after a pause). A stage whose output is complete is skipped by `all`. Without
installing the packages, set PYTHONPATH=sdk:runtime:training.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worldwire.errors import WorldwireError
from worldwire_runtime.config import WorldConfig
from worldwire_training.base_config import BaseConfig, read_config

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent.parent / "configs"
HELD_OUT_SEEDS = 1_000_000
CORES_FOR_THE_REST = 2
WARM_UP_JOBS = 7
"""At 1,024 latents per step each takes about 7 GiB of GPU memory."""


@dataclass(frozen=True)
class Size:
    """What a size renders: frames of each episode, pixels (rows, columns), held-out episodes."""

    frames: int
    pixels: tuple[int, int]
    held_out: int
    vae_held_out: int


SIZES = {
    "tiny": Size(161, (192, 320), held_out=32, vae_held_out=16),
    "smoke": Size(33, (64, 96), held_out=2, vae_held_out=1),
}


class StageError(WorldwireError):
    """A stage's process failed."""

    code = "stage_failed"


def render(args: argparse.Namespace) -> None:
    """Training and held-out episodes."""
    from worldwire_training.data_engine.bulk import generate

    size = SIZES[args.size]
    parts = (
        ("held_out", size.held_out, HELD_OUT_SEEDS, min(args.workers, size.held_out)),
        ("episodes", args.episodes, args.first_seed, args.workers),
    )
    for name, episodes, seed, workers in parts:
        folder = args.work / name
        if len(list(folder.glob("worker-*.json"))) == workers:
            log.info("%s is there", folder)
            continue
        rate = generate(folder, episodes, size.frames, workers, first_seed=seed, size=size.pixels)
        log.info("%s: %d episodes at %.0f frames/s", name, episodes, rate)


def vae(args: argparse.Namespace) -> None:
    """The video VAE, on the rendered frames."""
    options = ["--data", str(args.work / "episodes"), "--output", str(args.work / "vae")]
    options += ["--held-out", str(SIZES[args.size].vae_held_out)]
    _train("vae", args, options, args.set)


def base(args: argparse.Namespace) -> None:
    """Encoding, then the transformer and the text encoder."""
    paths = {
        "output": args.work / "base",
        "data.episodes": args.work / "episodes",
        "data.held_out": args.work / "held_out",
        "data.vae": args.vae or args.work / "vae",
        "data.latents_cache": args.work / "latents",
    }
    settings = [f"{key}={value}" for key, value in paths.items()] + args.set
    if args.init_from:
        from worldwire_runtime.world import preset_folder

        settings.append(f"init_from={preset_folder(args.init_from)}")
    if args.call_minutes is not None:
        settings.append(f"minutes_per_call={args.call_minutes}")
    _train("base", args, [], settings)


def everything(args: argparse.Namespace) -> None:
    """Render, VAE, base; `--minutes` and `--set` go to the last one."""
    plain = argparse.Namespace(**{**vars(args), "minutes": None, "set": [], "resume": False})
    _timed("render", render, plain)
    if not (args.work / "vae" / "vae.json").is_file():
        _timed("vae", vae, plain)
    _timed("base", base, args)


def warm(args: argparse.Namespace) -> None:
    """The compiler's cache for `base` with the same settings; needs no episodes."""
    from worldwire_training.warm_up import warm as compile_shapes

    compile_shapes(*_settings(args), args.jobs)


def probe(args: argparse.Namespace) -> None:
    """Training steps per second of several sizes."""
    from worldwire_training.speed_probe import probe as measure

    measure(*_settings(args), args.seconds)


def _settings(args: argparse.Namespace) -> tuple[BaseConfig, WorldConfig]:
    """The base model's settings and its world, around a VAE of the right latents."""
    from worldwire_runtime.model.vae import VAEConfig
    from worldwire_training.data_engine.prompts import prompt_vocabulary
    from worldwire_training.worlds import world_config

    config = read_config(_config_file("base", args.size), BaseConfig, args.set)
    latent = VAEConfig(z_dim=config.world["dit"]["in_dim"])
    return config, world_config(config.world, latent, prompt_vocabulary())


def _config_file(network: str, size: str) -> Path:
    return CONFIGS / f"{network}_{size}.toml"


def _train(network: str, args: argparse.Namespace, options: list[str], settings: Sequence[str]) -> None:
    """Start the training command, once for each GPU."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.gpus)]
    command = [
        sys.executable,
        *(launcher if args.gpus > 1 else []),
        "-m",
        "worldwire_training.commands.train",
    ]
    command += [network, "--config", str(_config_file(network, args.size)), *options]
    command += ["--resume"] if args.resume else []
    if args.minutes is not None:
        settings = [*settings, f"minutes={args.minutes}"]
    for setting in settings:
        command += ["--set", setting]
    log.info("%s", " ".join(command))
    code = subprocess.run(command, check=False).returncode
    if code:
        raise StageError(
            f"the stage {network} failed", expected="exit status 0", got=str(code), remedy="see its log above"
        )


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "probe": probe,
    "warm": warm,
    "render": render,
    "vae": vae,
    "base": base,
    "all": everything,
}


def _timed(name: str, stage: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    started = time.monotonic()
    stage(args)
    log.info("stage %s took %.1f s", name, time.monotonic() - started)


def main() -> int:
    """Run one stage; errors of ours are one line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    workers = max(1, (os.cpu_count() or 1) - CORES_FOR_THE_REST)
    add = parser.add_argument
    add("stage", choices=sorted(STAGES))
    add(
        "--work", type=Path, default=Path("runs"), metavar="DIR", help="where everything goes (default: runs)"
    )
    add("--size", choices=sorted(SIZES), default="tiny")
    add("--episodes", type=int, default=64, help="training episodes to render")
    add("--first-seed", type=int, default=0, help="seed of the first training scene")
    add("--workers", type=int, default=workers, help=f"rendering processes (default: {workers})")
    add("--gpus", type=int, default=1, help="training processes (default: 1)")
    add("--vae", type=Path, metavar="DIR", help="a trained VAE, instead of WORK/vae")
    add("--minutes", type=float, help="training time, instead of the configuration's")
    add("--call-minutes", type=float, help="end this process of `base` after so long, for a later --resume")
    add("--init-from", metavar="WORLD", help="begin `base` with the weights of a preset or a world's folder")
    add("--jobs", type=int, default=WARM_UP_JOBS, help=f"compiling processes (default: {WARM_UP_JOBS})")
    add("--seconds", type=float, default=90.0, help="of probing")
    add("--resume", action="store_true", help="continue a training stage from its checkpoint")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the training")
    args = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((args.work / "compiled").resolve()))
    try:
        _timed(args.stage, STAGES[args.stage], args)
    except WorldwireError as error:
        log.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
