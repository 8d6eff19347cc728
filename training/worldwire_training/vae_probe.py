"""Measures training steps per second of a few VAE variants on this machine, to choose one before a run.

    python -m worldwire_training.vae_probe --config CONFIG.toml --seconds 60

Random frames, one process; the most telling variants come first and those past the time limit are left out.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from worldwire_training.common import Ranks, load_config
from worldwire_training.vae_data import MemoryFrames
from worldwire_training.vae_training import (
    VAETrainConfig,
    build_optimizers,
    build_vae,
    count_parameters,
    loss_function,
)

log = logging.getLogger(__name__)

WARM_STEPS = 3
TIMED_SECONDS = 1.5
EPISODES = 8


@dataclass(frozen=True)
class Variant:
    """A change of the configuration, and the phase to time it in ("images" or "clips")."""

    name: str
    phase: str
    model: dict[str, Any]
    training: dict[str, Any]


VARIANTS = (
    Variant("as configured", "images", {}, {}),
    Variant("as configured", "clips", {}, {}),
    Variant("widths 24/24", "images", {"dim": 24, "dec_dim": 24}, {}),
    Variant("widths 24/24", "clips", {"dim": 24, "dec_dim": 24}, {}),
    Variant("widths 32/24", "clips", {"dim": 32, "dec_dim": 24}, {}),
    Variant("cudnn.benchmark", "images", {}, {"cudnn_benchmark": True}),
    Variant("cudnn.benchmark", "clips", {}, {"cudnn_benchmark": True}),
    Variant("double clip batch", "clips", {}, {"clip_batch": 24}),
    Variant("nothing compiled", "images", {}, {"compile": "none"}),
    Variant("nothing compiled", "clips", {}, {"compile": "none"}),
    Variant("whole compiled", "images", {}, {"compile": "whole"}),
    Variant("whole compiled", "clips", {}, {"compile": "whole"}),
)


@dataclass(frozen=True)
class Speed:
    """What one variant took. Rates are per process."""

    parameters: int
    setup_s: float
    steps_per_s: float
    frames_per_s: float
    peak_gib: float


def probe(
    config: VAETrainConfig, height: int, width: int, seconds: float, ranks: Ranks
) -> Iterator[tuple[Variant, Speed]]:
    """Speeds of VARIANTS, until `seconds` are spent."""
    started, device = time.monotonic(), ranks.device
    length = config.evaluation_frames
    frames = torch.randint(0, 256, (EPISODES, length, height, width, 3), dtype=torch.uint8, device=device)
    for variant in VARIANTS:
        if time.monotonic() - started > seconds:
            log.info("out of time before %s, %s", variant.name, variant.phase)
            return
        changed = replace(config, model=replace(config.model, **variant.model), **variant.training)
        yield variant, measure_speed(changed, variant.phase, MemoryFrames(frames), ranks)


def measure_speed(config: VAETrainConfig, phase: str, frames: MemoryFrames, ranks: Ranks) -> Speed:
    """Build, warm up, and time optimiser steps of one variant."""
    torch.compiler.reset()
    _reset_peak(ranks.device)
    begun = time.monotonic()
    vae, loss = build_vae(config, ranks), loss_function(config)
    cuda = ranks.device.type == "cuda"
    optimizers = build_optimizers(list(vae.parameters()), config)
    images = phase == "images"
    per_step = config.image_batch if images else config.clip_batch * config.clip_frames

    def step() -> None:
        picked = (
            frames.sample_images(config.image_batch)
            if images
            else frames.sample_clips(config.clip_batch, config.clip_frames)
        )
        loss(vae, picked)[0].backward()
        for optimizer in optimizers:
            optimizer.step()
        vae.zero_grad(set_to_none=True)

    for _ in range(WARM_STEPS):
        step()
    _wait(ranks.device)
    setup = time.monotonic() - begun
    rate = _rate(step, ranks.device)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
    return Speed(sum(count_parameters(vae).values()), setup, rate, rate * per_step, peak)


def _rate(step: Any, device: torch.device) -> float:
    """Steps per second over at least TIMED_SECONDS."""
    begun, steps = time.monotonic(), 0
    while time.monotonic() - begun < TIMED_SECONDS:
        step()
        _wait(device)
        steps += 1
    return steps / (time.monotonic() - begun)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Log one line per variant."""
    parser = argparse.ArgumentParser(description="time a few VAE variants")
    parser.add_argument("--config", type=Path, required=True, help="a TOML file of VAETrainConfig")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--height", type=int, default=192)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = load_config(args.config, VAETrainConfig)
    for variant, speed in probe(config, args.height, args.width, args.seconds, Ranks.join(args.device)):
        log.info(
            "%-28s %-6s %5.1f M parameters, set-up %5.1f s, %6.2f steps/s, %7.0f frames/s, %5.1f GiB",
            variant.name,
            variant.phase,
            speed.parameters / 1e6,
            speed.setup_s,
            speed.steps_per_s,
            speed.frames_per_s,
            speed.peak_gib,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
