"""Trains the diffusion transformer and the text encoder of a world on encoded episodes.

    worldwire train base --config training/worldwire_training/configs/base_tiny.toml
    torchrun --nproc-per-node 2 -m worldwire_training.commands.train base --config ... [--resume]

Every process holds its own share of the episodes on its device. A step draws clips of one shape, adds noise
to their new latents, and learns the velocity. The average of the weights is what ships.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from worldwire.errors import CheckpointError
from worldwire_runtime.config import WorldConfig
from worldwire_training.base_config import BaseConfig
from worldwire_training.base_model import BaseModel, clip_losses
from worldwire_training.clip_sampler import ClipSampler, Shape, ShapeSchedule
from worldwire_training.common import (
    EMA,
    Budget,
    Progress,
    Ranks,
    ScalarLog,
    StepBudget,
    TimeBudget,
    average_gradients,
    load_checkpoint,
    save_checkpoint,
    warmup_stable_decay,
)
from worldwire_training.fused import compile_blocks, fused_elementwise
from worldwire_training.latents import LatentStore
from worldwire_training.losses import ErrorBuffer, check_finite
from worldwire_training.optimizers import BaseOptimizer
from worldwire_training.validation import Validator

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "base.pt"
SEED_STRIDE = 1_000_003
WARM_UP_SEED = 0


class BaseTrainer:
    """One run: the networks, their optimiser and average, and the loop around them."""

    def __init__(
        self,
        config: BaseConfig,
        world: WorldConfig,
        store: LatentStore,
        ranks: Ranks,
        *,
        validator: Validator | None = None,
        start: BaseModel | None = None,
    ) -> None:
        """`start`: networks to begin with instead of random ones (the same on every rank)."""
        self.config, self.ranks = config, ranks
        self.output = Path(config.output)
        torch.manual_seed(config.seed)
        self.model = (start or BaseModel.build(world)).to(ranks.device)
        self.ema = EMA(self.model, config.optimizer.ema_decay)
        self.step = 0
        self._optimizer = BaseOptimizer(self.model, config.optimizer)
        self._sampler = ClipSampler(store, world, config.random_memory)
        self.schedule = ShapeSchedule(
            config.shapes,
            latents_per_step=config.latents_per_step,
            seed=config.seed,
            draws=config.noise.draws,
        )
        self._errors = _error_buffer(config, store)
        self._validator = validator
        self._recent = _Recent()

    # ------------------------------------------------------------------ the loop

    def fit(self, resume: bool = False, began: float | None = None) -> dict[str, float]:
        """Train until the budget is spent or this process is to pause; the figures of the last validation.

        began: when this process did (`time.monotonic()`), for `minutes_per_call`; None: now.
        """
        began = time.monotonic() if began is None else began
        with fused_elementwise(self.config.compile == "fused"):
            if self.config.compile != "none":
                self.compile()
            return self._fit(resume, began)

    def _fit(self, resume: bool, began: float) -> dict[str, float]:
        budget = _budget(self.config, self.ranks)
        if resume:
            self._load(budget)
        curves = ScalarLog(self.output, self.ranks)
        progress = Progress("base", self.ranks)
        validation = _Timer(self.config.validation.every_minutes)
        checkpoint = _Timer(self.config.checkpoint_minutes)
        until = self._pause(budget, began)
        while budget.progress(self.step) < until:
            self.train_step(budget)
            if self.step % self.config.log_every == 0:
                progress.show(budget.progress(self.step), self.step, self._report(curves))
            if checkpoint.due():
                self.save(budget)
            if validation.due():
                self._validate(curves)
        if self._recent:
            self._report(curves)
        self.save(budget)
        figures = self._validate(curves)
        progress.close()
        curves.close()
        return figures

    def _pause(self, budget: Budget, began: float) -> float:
        """The progress at which this process ends, the same on all ranks."""
        config = self.config
        if not config.minutes_per_call:
            return config.pause_at
        left = 60 * config.minutes_per_call - (time.monotonic() - began)
        share = max(0.0, self.ranks.broadcast_float(left)) / (60 * config.minutes)
        return min(config.pause_at, budget.progress(self.step) + share)

    def train_step(self, budget: Budget) -> None:
        optimizer, config = self._optimizer, self.config.optimizer
        rate = warmup_stable_decay(
            self.step,
            budget.progress(self.step),
            config.peak_rate,
            config.final_rate,
            warmup_steps=config.warmup_steps,
            decay_share=config.decay_share,
        )
        optimizer.set_rate(rate)
        shape = self.schedule.at(self.step)
        loss = self._loss(shape, self._generator(self.step))
        loss.backward()
        average_gradients(self.model.parameters(), self.ranks)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        optimizer.step()
        self.ema.update(self.model)
        self._recent.add(shape, self.schedule.samples(shape), loss.detach(), norm)
        self.step += 1

    def _loss(self, shape: Shape, generator: torch.Generator) -> Tensor:
        drops = self.schedule.drops(shape, self.config.drops)
        batch = self._sampler.sample(shape, self.schedule.samples(shape), generator, drops)
        with self._autocast():
            losses = clip_losses(self.model, batch, self.config.noise, generator, self._errors)
        return losses.mean()

    def _generator(self, step: int) -> torch.Generator:
        """Seeded by the step alone: a resumed run draws what an uninterrupted one would have drawn."""
        place = step * self.ranks.world_size + self.ranks.rank
        return torch.Generator(self.ranks.device).manual_seed(self.config.seed * SEED_STRIDE + place)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.config.mixed_precision):
            yield

    # ------------------------------------------------------------------ beside the loop

    def _report(self, curves: ScalarLog) -> dict[str, float]:
        """Means since the last report, to the curves; DivergedError when they are not finite."""
        scalars = self._recent.means(self._optimizer.rate)
        for name in ("loss", "gradient_norm"):
            check_finite(scalars[name], name, self.step)
        curves.add(self.step, scalars)
        return {name: scalars[name] for name in ("loss", "gradient_norm", "clips_per_s")}

    def _validate(self, curves: ScalarLog) -> dict[str, float]:
        """On rank 0, with the averaged weights, uncompiled (its shapes are others)."""
        if self._validator is None or not self.ranks.is_main:
            return {}
        started = time.monotonic()
        picture = self.output / f"strip_{self.step:06d}.png"
        with self.ema.applied(self.model), self._autocast(), torch.compiler.set_stance("force_eager"):
            figures = self._validator.run(self.model, picture)
        curves.add(self.step, {f"validation/{name}": value for name, value in figures.items()})
        shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
        log.info("validation at step %d (%.1f s): %s", self.step, time.monotonic() - started, shown)
        return figures

    def save(self, budget: Budget) -> None:
        """The whole state of the run, from rank 0; never a state that has diverged."""
        if not self.ranks.is_main:
            return
        self._recent.check(self.step)
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "budget": budget.state_dict(),
            "errors": self._errors.state_dict() if self._errors else {},
        }
        save_checkpoint(self.output / CHECKPOINT_FILE, state)

    def _load(self, budget: Budget) -> None:
        path = self.output / CHECKPOINT_FILE
        state = load_checkpoint(path, self.ranks.device)
        try:
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self._optimizer.load_state_dict(state["optimizer"])
            if self._errors:
                self._errors.load_state_dict(state["errors"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{path} belongs to another run: {error}",
                remedy="resume with the configuration that the run began with",
            ) from error
        budget.load_state_dict(state["budget"])
        self.step = int(state["step"])
        log.info("resumed at step %d", self.step)

    def compile(self) -> None:
        """Compile, and run every clip shape once before the clock starts; what was compiled can be kept."""
        kept = Path(self.config.compile_cache) if self.config.compile_cache else None
        if kept and kept.is_file():
            torch.compiler.load_cache_artifacts(kept.read_bytes())
        if self.config.compile == "blocks":
            compile_blocks(self.model.dit)
        errors, self._errors = self._errors, None
        for shape in self.config.shapes:
            started = time.monotonic()
            self._loss(shape, self._generator(WARM_UP_SEED)).backward()
            self.model.zero_grad(set_to_none=True)
            log.info("compiled the shape %s in %.1f s", shape.name, time.monotonic() - started)
        self._errors = errors
        if kept and self.ranks.is_main and (artifacts := torch.compiler.save_cache_artifacts()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(artifacts[0])


class _Recent:
    """Losses since the last report, left on the device until somebody asks."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._started = time.monotonic()
        self._shapes: list[str] = []
        self._clips = 0
        self._values: list[Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, shape: Shape, clips: int, loss: Tensor, norm: Tensor) -> None:
        self._shapes.append(shape.name)
        self._clips += clips
        self._values.append(torch.stack([loss.float(), norm.float()]))

    def check(self, step: int) -> None:
        """DivergedError when a value since the last report is not finite."""
        if self._values:
            check_finite(float(torch.stack(self._values).sum()), "the loss or the gradient norm", step)

    def means(self, rate: float) -> dict[str, float]:
        """Mean loss (also by clip shape) and gradient norm, and speed; starts over."""
        values = torch.stack(self._values).tolist()
        seconds = max(time.monotonic() - self._started, 1e-9)
        scalars = {
            "loss": sum(loss for loss, _ in values) / len(values),
            "gradient_norm": sum(norm for _, norm in values) / len(values),
            "learning_rate": rate,
            "clips_per_s": self._clips / seconds,
            "steps_per_s": len(values) / seconds,
        }
        for name in sorted(set(self._shapes)):
            chosen = [loss for shape, (loss, _) in zip(self._shapes, values, strict=True) if shape == name]
            scalars[f"loss/{name}"] = sum(chosen) / len(chosen)
        self._clear()
        return scalars


class _Timer:
    """Due once in so many minutes; never with 0."""

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._last = time.monotonic()

    def due(self) -> bool:
        if not self._seconds or time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True


def _budget(config: BaseConfig, ranks: Ranks) -> Budget:
    return StepBudget(config.steps) if config.steps else TimeBudget(config.minutes, ranks)


def _error_buffer(config: BaseConfig, store: LatentStore) -> ErrorBuffer | None:
    if not config.noise.error_gamma:
        return None
    return ErrorBuffer(config.noise.error_latents, tuple(store.latents.shape[2:]), store.device)
