"""How fast the base model trains here, and in how much memory: in a minute or two, without data.

    python -m worldwire_training.recipes.tiny probe --seconds 90
    torchrun --nproc-per-node 2 -m worldwire_training.speed_probe --preset 5b-720p --set context_parallel=2
    torchrun --nproc-per-node 2 -m worldwire_training.speed_probe --preset tiny --set context_parallel=2 \
        --set device=cpu --set compile=none --set mixed_precision=false --steps 1

The first tries sizes, batches and ways to compile for `tiny` on one GPU. The second takes the clips of a
preset as they are, sharded over all GPUs; the third rehearses that on CPUs.

Latents and weights are random (speed does not depend on them), so it needs neither episodes nor a VAE. Each
trial is a real training step: sampling, forward, backward, clipping, optimiser and average.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.text import TinyTextConfig
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_runtime.usage import GIB
from worldwire_runtime.world import CONFIG_FILE, preset_folder
from worldwire_training.base_config import BaseConfig, Compile, config_of
from worldwire_training.base_model import BaseModel
from worldwire_training.base_training import BaseTrainer
from worldwire_training.clip_sampler import Shape
from worldwire_training.common import Ranks, StepBudget
from worldwire_training.context_parallel import token_grid
from worldwire_training.data_engine.prompts import prompt_vocabulary
from worldwire_training.fused import fused_elementwise
from worldwire_training.latents import LatentStore, view_overlaps
from worldwire_training.memory_estimate import estimate

log = logging.getLogger(__name__)

EPISODES, LATENTS = 64, 41
WARM_UP_STEPS, TIMED_STEPS = 3, 10
SHAPE = Shape(5, 4, 2)


@dataclass(frozen=True)
class Trial:
    """One way to train. width, layers: of the transformer; heads stay 64 wide."""

    width: int
    layers: int
    latents_per_step: int
    draws: int = 4
    compile: Compile = "fused"


TRIALS = (
    Trial(384, 7, 1024, compile="blocks"),
    Trial(384, 7, 1024),
    Trial(384, 7, 1024, compile="none"),
    Trial(384, 7, 2048, compile="blocks"),
    Trial(384, 7, 2048, draws=1),
    Trial(448, 5, 1024),
    Trial(320, 10, 1024),
)


def probe(
    config: BaseConfig, world: WorldConfig, seconds: float, trials: Sequence[Trial] = TRIALS
) -> list[str]:
    """One line per trial, also logged; no trial begins after `seconds`."""
    ranks, store = Ranks.join(config.device), random_store(world, config.device)
    lines: list[str] = []
    started = time.monotonic()
    for trial in trials:
        if time.monotonic() - started > seconds:
            log.info("the time is over: %d of %d trials", len(lines), len(trials))
            break
        try:
            lines.append(f"{trial}: {_run(trial, config, world, store, ranks)}")
        except torch.OutOfMemoryError:
            lines.append(f"{trial}: out of memory")
        log.info("%s", lines[-1])
    return lines


@dataclass(frozen=True)
class Measured:
    """What a step takes. clips: of all processes together; peak, estimated: bytes on one device (the fullest;
    peak is 0 on a CPU).
    """

    parameters: int
    clips: int
    tokens_per_clip: int
    step_s: float
    compiling_s: float
    peak: int
    estimated: int
    loss: float

    def __str__(self) -> str:
        clips_per_s = self.clips / self.step_s
        return (
            f"{self.parameters / 1e6:.1f} M parameters, {self.clips} clips, {1000 * self.step_s:.1f} ms per "
            f"step, {clips_per_s:.2f} clips/s, {clips_per_s * self.tokens_per_clip:.0f} tokens/s, "
            f"compiled in {self.compiling_s:.1f} s, "
            f"{self.peak / GIB:.1f} GiB ({self.estimated / GIB:.1f} estimated)"
        )


def _run(trial: Trial, config: BaseConfig, world: WorldConfig, store: LatentStore, ranks: Ranks) -> str:
    settings = replace(
        config,
        shapes=(SHAPE,),
        latents_per_step=trial.latents_per_step,
        noise=replace(config.noise, draws=trial.draws),
        compile=trial.compile,
    )
    measured = measure(settings, sized(world, trial), store, ranks)
    return f"{measured}, {measured.clips * trial.draws / measured.step_s:.0f} draws/s"


def measure(
    config: BaseConfig, world: WorldConfig, store: LatentStore, ranks: Ranks, steps: int = TIMED_STEPS
) -> Measured:
    """Steps of the first shape of `config`, timed after a few to warm up; every rank must ask."""
    ranks = ranks.sharing_clips(config.context_parallel)
    estimated = estimate(config, world, ranks.world_size)
    log.info("estimated for each process: %s", estimated)
    torch._dynamo.reset()
    torch.manual_seed(config.seed)
    with ranks.device:
        start = BaseModel.build(world)
    parameters = sum(parameter.numel() for parameter in start.parameters())
    trainer = BaseTrainer(config, world, store, ranks, start=start)
    shape = config.shapes[0]
    _reset_peak(ranks.device)
    budget = StepBudget(WARM_UP_STEPS + steps)
    with fused_elementwise(config.compile == "fused"):
        compiling = _timed(trainer.compile, ranks.device) if config.compile != "none" else 0.0
        _timed(lambda: _steps(trainer, budget, WARM_UP_STEPS), ranks.device)
        step_s = _timed(lambda: _steps(trainer, budget, steps), ranks.device) / steps
    rows, columns = token_grid(world)
    return Measured(
        parameters,
        clips=trainer.schedule.samples(shape) * trainer.all_microbatches,
        tokens_per_clip=(shape.context + shape.new) * rows * columns,
        step_s=step_s,
        compiling_s=compiling,
        peak=int(ranks.most(_peak(ranks.device))),
        estimated=estimated.total,
        loss=trainer.recent.means(trainer.rate)["loss"],
    )


def _steps(trainer: BaseTrainer, budget: StepBudget, steps: int) -> None:
    for _ in range(steps):
        trainer.train_step(budget)


def preset_settings(world: WorldConfig, changes: Sequence[str]) -> BaseConfig:
    """One clip of the paper's plan for each process, the network sharded over all; or as `changes` say."""
    plan = world.plan("paper")
    shape = Shape(plan.memory, plan.past, plan.new)
    values = {
        "output": "",
        "data": {"episodes": "", "held_out": "", "vae": ""},
        "world": {},
        "shapes": [asdict(shape)],
        "latents_per_step": shape.context + shape.new,
        "parallel": "shard",
        "recompute": True,
    }
    return config_of(values, BaseConfig, "the probe", changes)


def trainable(world: WorldConfig) -> WorldConfig:
    """The world with a small text encoder in the place of one that is not trained, of the same text."""
    if isinstance(world.text, TinyTextConfig):
        return world
    words = TinyTextConfig(prompt_vocabulary(), world.dit.text_len, world.dit.text_dim)
    return replace(world, text=words)


def sized(world: WorldConfig, trial: Trial) -> WorldConfig:
    """The world with a transformer of another size; the action modules keep theirs."""
    dit, width = world.dit, trial.width
    action = dit.action_config and replace(dit.action_config, img_hidden_size=width)
    return replace(
        world,
        dit=replace(
            dit,
            dim=width,
            ffn_dim=width * dit.ffn_dim // dit.dim,
            num_heads=width * dit.num_heads // dit.dim,
            num_layers=trial.layers,
            action_config=action,
        ),
    )


def random_store(world: WorldConfig, device: str) -> LatentStore:
    """Noise in the place of encoded episodes, with cameras that walk on."""
    place = Ranks.join(device).device
    frames = FRAMES_PER_LATENT * (LATENTS - 1) + 1
    latents = torch.randn(EPISODES, LATENTS, world.dit.in_dim, *world.latent_hw, device=place)
    c2w = torch.eye(4, dtype=torch.float64, device=place).repeat(EPISODES, LATENTS, 1, 1)
    c2w[:, :, 2, 3] = 0.5 * torch.arange(LATENTS, device=place)
    return LatentStore(
        latents=latents.bfloat16(),
        images=latents.bfloat16(),
        keyboard=torch.zeros(EPISODES, frames, 6, device=place),
        mouse=torch.zeros(EPISODES, frames, 2, device=place),
        c2w=c2w,
        overlaps=view_overlaps(c2w, world),
        prompt_tokens=torch.ones(EPISODES, world.dit.text_len, dtype=torch.int64, device=place),
    )


def _timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds until the device has finished."""
    started = time.monotonic()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.monotonic() - started


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", default="5b-720p", help="whose sizes (default: 5b-720p)")
    add("--steps", type=int, default=TIMED_STEPS, help=f"timed steps (default: {TIMED_STEPS})")
    add("--json", type=Path, metavar="FILE", help="gets one more line with all figures")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the training")
    return parser.parse_args()


def main() -> int:
    """Measures a preset's training step on all processes of a torchrun."""
    args = _arguments()
    world = trainable(WorldConfig.from_file(preset_folder(args.preset) / CONFIG_FILE))
    config = preset_settings(world, args.set)
    ranks = Ranks.join(config.device)
    logging.basicConfig(level=logging.INFO if ranks.is_main else logging.WARNING, format="%(message)s")
    try:
        measured = measure(config, world, random_store(world, config.device), ranks, args.steps)
        ranks.barrier()
    finally:
        ranks.leave()
    log.info("%s on %d processes, %s: %s", args.preset, ranks.world_size, args.set, measured)
    if args.json and ranks.is_main:
        device = torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "cpu"
        facts = {"preset": args.preset, "processes": ranks.world_size, "device": device}
        facts |= {"torch": torch.__version__, "set": args.set, **asdict(measured)}
        with args.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
