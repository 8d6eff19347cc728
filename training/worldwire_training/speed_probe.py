"""How fast the base model trains here: sizes, batch sizes and ways to compile, in a minute or two.

    python -m worldwire_training.recipes.tiny probe --seconds 90

Latents are random (speed does not depend on them), so it needs neither episodes nor a VAE. Each trial is a
real training step: sampling, forward, backward, clipping, optimiser and average.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_training.base_config import BaseConfig, Compile
from worldwire_training.base_training import BaseTrainer
from worldwire_training.clip_sampler import Shape
from worldwire_training.common import Ranks, StepBudget
from worldwire_training.fused import fused_elementwise
from worldwire_training.latents import LatentStore, view_overlaps

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


def _run(trial: Trial, config: BaseConfig, world: WorldConfig, store: LatentStore, ranks: Ranks) -> str:
    torch._dynamo.reset()
    settings = replace(
        config,
        shapes=(SHAPE,),
        latents_per_step=trial.latents_per_step,
        noise=replace(config.noise, draws=trial.draws),
        compile=trial.compile,
    )
    trainer = BaseTrainer(settings, sized(world, trial), store, ranks)
    _reset_peak(ranks.device)
    budget = StepBudget(WARM_UP_STEPS + TIMED_STEPS)
    with fused_elementwise(trial.compile == "fused"):
        compiling = _timed(trainer.compile, ranks.device) if trial.compile != "none" else 0.0
        _timed(lambda: _steps(trainer, budget, WARM_UP_STEPS), ranks.device)
        step_s = _timed(lambda: _steps(trainer, budget, TIMED_STEPS), ranks.device) / TIMED_STEPS
    clips = trainer.schedule.samples(SHAPE)
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters()) / 1e6
    return (
        f"{parameters:.1f} M parameters, {clips} clips, {1000 * step_s:.1f} ms per step, "
        f"{clips / step_s:.0f} clips/s, {clips * trial.draws / step_s:.0f} draws/s, "
        f"compiled in {compiling:.1f} s, {_peak_gib(ranks.device):.1f} GiB"
    )


def _steps(trainer: BaseTrainer, budget: StepBudget, steps: int) -> None:
    for _ in range(steps):
        trainer.train_step(budget)


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


def _peak_gib(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
