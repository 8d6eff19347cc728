"""From nothing to the weights of the tiny world, in stages that each fit into ten minutes with a GPU.

    python -m worldwire_training.recipes.tiny probe --seconds 90     # how fast would it train here?
    python -m worldwire_training.recipes.tiny render --work W --episodes 2560 --workers 14
    python -m worldwire_training.recipes.tiny vae --work W --gpus 2 --minutes 7
    python -m worldwire_training.recipes.tiny base --work W --gpus 2 --minutes 7 [--resume] [--set key=value]
    python -m worldwire_training.recipes.tiny distill --work W --minutes 6.5
    python -m worldwire_training.recipes.tiny blend --work W --share 0.5           # between base and student
    python -m worldwire_training.recipes.tiny light --work W --minutes 1.5 [--set rate=0.75]
    python -m worldwire_training.recipes.tiny decoder --work W --minutes 3     # sharper pictures
    python -m worldwire_training.recipes.tiny all --work W --size smoke  # all on a CPU, some minutes

The whole recipe on one H200, from the weights and with the VAE that ship, in parts of at most ten minutes.
Run so far: `render`, `base` for 8.3 minutes and `distill` for 3, each in one piece (training/LOG.md); not
yet on a GPU: `--call-minutes` with `--resume`, `decoder`, and the critic of `distill`. `--minutes` is the
training of all calls together; it may still grow while the rate is constant (the last 30 % decay).
`--call-minutes` ends the training of one call; counted from the call's beginning (bash's SECONDS) it leaves
a minute for the validation behind it. `--out` gets world, strips and curves at every validation, so that a
call that is cut off has left something.

    T="python -m worldwire_training.recipes.tiny"; W=/dev/shm/tiny
    V=runtime/worldwire_runtime/presets/tiny; A="--work $W --out OUT --vae $V"
    B="$A --init-from tiny --minutes 13"
    # call 1: render (two minutes), encode (half a minute), base training in what is left
    $T render --work $W --episodes 1536 --first-seed 10000 --workers 14
    $T base $B --call-minutes $(python3 -c "print(9.0 - $SECONDS / 60)")
    # call 2: the rest of the base training (the rate decays in its last 3.9 minutes)
    $T base $B --resume --call-minutes $(python3 -c "print(9.0 - $SECONDS / 60)")
    # call 3: distillation in what the decoder leaves of nine minutes
    L=$(python3 -c "print(6.0 - $SECONDS / 60)")
    $T distill $A --minutes $(python3 -c "print($L - 0.5)") --call-minutes $L
    $T decoder $A --minutes 2.5

The light decoders need nothing but episodes and a VAE, whenever there is a minute:

    $T light $A --minutes 2; $T light $A --minutes 2 --set rate=0.75

`--set compile=blocks` makes a step up to twice as fast, once `$T warm $B --set compile=blocks` has compiled
every clip shape (150 to 200 s with 8 processes; for `distill` with `--network distill`). Its gradients were
wrong until `COMPILE_OPTIONS`, see LOG.md: watch `gradient_norm`, which is below 1.

Then, on any machine: `worldwire eval --preset OUT/distill/world --json FILE`, and OUT/base/world. To begin
again on a bare machine from what came back, say `--init-from OUT/base/world` or `--teacher OUT/base/world`.
What `warm` has compiled when it is cut off is kept. The ablations have a sitting of their own
(`recipes.ablations`).

Outputs: W/episodes, W/held_out, W/vae (vae.safetensors, vae.json, a contact sheet), W/latents (encoded once),
W/compiled (torch.compile's cache), W/base and W/distill (checkpoint, curves, picture strips, and world/: the
folder that `World.load` reads, also after a pause), W/light50, W/light75, W/decoder. A stage whose output is
complete is skipped by `all`. Without installing the packages, set PYTHONPATH=sdk:runtime:training.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from worldwire.cli import EXIT_INTERRUPTED, guarded
from worldwire.errors import WorldwireError
from worldwire_runtime.config import WorldConfig
from worldwire_training.base_config import BaseConfig, read_config

log = logging.getLogger(__name__)

CONFIGS = Path(__file__).parent.parent / "configs"
HELD_OUT_SEEDS = 1_000_000
CORES_FOR_THE_REST = 2
DEFAULT_LIGHT_RATE = 0.5
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


CHECKPOINT_TIME_S = 60.0
"""Of a training, after Ctrl-C."""


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
    begin = [f"init_from={_folder(args.init_from)}"] if args.init_from else []
    _train("base", args, [], [*_paths(args, "base"), *begin, *args.set])


def distill(args: argparse.Namespace) -> None:
    """The base model to few steps."""
    teacher = _folder(args.teacher) if args.teacher else args.work / "base" / "world"
    _train("distill", args, [], [*_paths(args, "distill"), f"teacher={teacher}", *args.set])


def blend(args: argparse.Namespace) -> None:
    """Between the base model and its student: sharper than the one, nearer to the truth than the other."""
    from worldwire_training.worlds import blend as between

    base = _folder(args.teacher) if args.teacher else args.work / "base" / "world"
    between(base, args.work / "distill" / "world", args.share, args.work / "blend" / "world")


def light(args: argparse.Namespace) -> None:
    """A light decoder; `--set rate=0.75` for the narrower one."""
    rates = [setting.split("=")[1] for setting in args.set if setting.startswith("rate=")]
    _decoder(args, f"light{round(100 * float(rates[-1] if rates else DEFAULT_LIGHT_RATE))}", "light_vae")


def decoder(args: argparse.Namespace) -> None:
    """The full decoder trained on against a critic of patches: sharper, of the same latents."""
    _decoder(args, "decoder", "decoder")


def _decoder(args: argparse.Namespace, name: str, settings: str) -> None:
    options = ["--data", str(args.work / "episodes"), "--output", str(args.work / name)]
    options += ["--vae", str(args.vae or args.work / "vae"), "--held-out", str(SIZES[args.size].vae_held_out)]
    minutes = [] if args.minutes is None else [f"training.minutes={args.minutes}"]
    _train("light-vae", args, options, [*minutes, *args.set], timed=False, settings_of=settings)
    if args.out:
        shutil.copytree(args.work / name, args.out / name, ignore=shutil.ignore_patterns("*.pt"))


def everything(args: argparse.Namespace) -> None:
    """Render, VAE, base, distillation; `--minutes` and `--set` go to the base model."""
    plain = argparse.Namespace(**{**vars(args), "minutes": None, "set": [], "resume": False})
    _timed("render", render, plain)
    if not (args.work / "vae" / "vae.json").is_file():
        _timed("vae", vae, plain)
    _timed("base", base, args)
    _timed("distill", distill, plain)


def _paths(args: argparse.Namespace, stage: str) -> list[str]:
    """Where a transformer's stage reads and writes."""
    paths = {
        "output": args.work / stage,
        "data.episodes": args.work / "episodes",
        "data.held_out": args.work / "held_out",
        "data.vae": args.vae or args.work / "vae",
        "data.latents_cache": args.work / "latents",
    }
    if args.out:
        paths["copy_to"] = args.out / stage
    calls = [] if args.call_minutes is None else [f"minutes_per_call={args.call_minutes}"]
    return [f"{key}={value}" for key, value in paths.items()] + calls


def _folder(world: str) -> Path:
    from worldwire_runtime.world import preset_folder

    return preset_folder(world)


def warm(args: argparse.Namespace) -> None:
    """The compiler's cache for `base` or `distill` with the same settings; needs no episodes."""
    from worldwire_training.distill_config import DistillConfig
    from worldwire_training.warm_up import warm as compile_shapes

    if args.network == "base":
        compile_shapes(*_settings(args, args.set), args.jobs)
        return
    _, world = _settings(args, [])
    config = read_config(_config_file("distill", args.size), DistillConfig, args.set)
    compile_shapes(config, world, args.jobs)


def probe(args: argparse.Namespace) -> None:
    """Training steps per second of several sizes."""
    from worldwire_training.speed_probe import probe as measure

    measure(*_settings(args, args.set), args.seconds)


def _settings(args: argparse.Namespace, changes: Sequence[str]) -> tuple[BaseConfig, WorldConfig]:
    """The base model's settings and its world, around a VAE of the right latents."""
    from worldwire_runtime.model.vae import VAEConfig
    from worldwire_training.data_engine.prompts import prompt_vocabulary
    from worldwire_training.worlds import world_config

    config = read_config(_config_file("base", args.size), BaseConfig, changes)
    latent = VAEConfig(z_dim=config.world["dit"]["in_dim"])
    return config, world_config(config.world, latent, prompt_vocabulary())


def _config_file(network: str, size: str) -> Path:
    return CONFIGS / f"{network}_{size}.toml"


def _train(
    network: str,
    args: argparse.Namespace,
    options: list[str],
    settings: Sequence[str],
    timed: bool = True,
    settings_of: str = "",
) -> None:
    """Start the training command, once for each GPU."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(args.gpus)]
    command = [
        sys.executable,
        *(launcher if args.gpus > 1 else []),
        "-m",
        "worldwire_training.commands.train",
    ]
    file = _config_file(settings_of or network, args.size)
    command += [network, "--config", str(file), *options]
    command += ["--resume"] if args.resume else []
    if timed and args.minutes is not None:
        settings = [*settings, f"minutes={args.minutes}"]
    for setting in settings:
        command += ["--set", setting]
    log.info("%s", " ".join(command))
    code = _finished(command)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise StageError(
            f"the stage {network} failed", expected="exit status 0", got=str(code), remedy="see its log above"
        )


def _finished(command: Sequence[str]) -> int:
    """The exit status of a training, which is given the time to keep its checkpoint after Ctrl-C."""
    process = subprocess.Popen(command)
    try:
        return process.wait()
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            process.wait(CHECKPOINT_TIME_S)
        raise
    finally:
        process.kill()


STAGES: dict[str, Callable[[argparse.Namespace], None]] = {
    "probe": probe,
    "warm": warm,
    "render": render,
    "vae": vae,
    "base": base,
    "distill": distill,
    "blend": blend,
    "light": light,
    "decoder": decoder,
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
    add("--out", type=Path, metavar="DIR", help="gets worlds, picture strips and curves while stages run")
    add("--size", choices=sorted(SIZES), default="tiny")
    add("--episodes", type=int, default=64, help="training episodes to render")
    add("--first-seed", type=int, default=0, help="seed of the first training scene")
    add("--workers", type=int, default=workers, help=f"rendering processes (default: {workers})")
    add("--gpus", type=int, default=1, help="training processes (default: 1)")
    add("--vae", type=Path, metavar="DIR", help="a trained VAE, instead of WORK/vae")
    add("--minutes", type=float, help="training time, instead of the configuration's")
    add(
        "--call-minutes",
        type=float,
        help="end this process of `base` or `distill` after so long, for a later --resume",
    )
    add("--init-from", metavar="WORLD", help="begin `base` with the weights of a preset or a world's folder")
    add("--teacher", metavar="WORLD", help="of `distill` and `blend`, instead of WORK/base/world")
    add("--share", type=float, default=0.5, help="of the student, in `blend` (default: 0.5)")
    add("--jobs", type=int, default=WARM_UP_JOBS, help=f"compiling processes (default: {WARM_UP_JOBS})")
    add("--network", choices=("base", "distill"), default="base", help="of `warm` (default: base)")
    add("--seconds", type=float, default=90.0, help="of probing")
    add("--resume", action="store_true", help="continue a training stage from its checkpoint")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the training")
    args = parser.parse_args()
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((args.work / "compiled").resolve()))
    return guarded(partial(_timed, args.stage, STAGES[args.stage], args))


if __name__ == "__main__":
    raise SystemExit(main())
