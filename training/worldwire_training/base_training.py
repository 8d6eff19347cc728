"""Trains the diffusion transformer and the text encoder of a world on encoded episodes.

    worldwire train base --config training/worldwire_training/configs/base_tiny.toml
    torchrun --nproc-per-node 2 -m worldwire_training.commands.train base --config ... [--resume]

Every process holds its own share of the episodes on its device. A step draws clips of one shape, adds noise
to their new latents, and learns the velocity. The average of the weights is what ships.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.config import WorldConfig
from worldwire_training.base_config import BaseConfig
from worldwire_training.base_model import BaseModel, clip_losses
from worldwire_training.clip_sampler import FULL_PAST, ClipBatch, ClipSampler, Shape, ShapeSchedule
from worldwire_training.common import (
    EMA,
    Budget,
    Progress,
    Ranks,
    ScalarLog,
    StepBudget,
    TimeBudget,
    Timer,
    average_gradients,
    differences,
    load_checkpoint,
    save_checkpoint,
    warmup_stable_decay,
)
from worldwire_training.fused import compile_blocks, fused_elementwise
from worldwire_training.latents import LatentStore
from worldwire_training.losses import ErrorBuffer, diverged
from worldwire_training.optimizers import BaseOptimizer
from worldwire_training.segments import Walks, walk_on
from worldwire_training.validation import Validator

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "base.pt"
SEED_STRIDE = 1_000_003
WARM_UP_SEED = 0
OWN_STREAM = 0x0E


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
        self._recent = _Recent(ranks)
        self._all_microbatches = _microbatches(config, ranks)

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
        validation = Timer(self.config.validation.every_minutes)
        checkpoint = Timer(self.config.checkpoint_minutes)
        until = self._pause(budget, began)
        while budget.progress(self.step) < until:
            self.train_step(budget)
            if self.step % self.config.log_every == 0:
                progress.show(budget.progress(self.step), self.step, self._report(curves))
            if checkpoint.due():
                self._save_if_possible(budget)
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
        loss = self._backward(shape)
        average_gradients(self.model.parameters(), self.ranks)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        optimizer.step()
        self.ema.update(self.model)
        self._recent.add(self.step, shape, self.schedule.samples(shape), loss, norm)
        self.step += 1

    def _backward(self, shape: Shape) -> Tensor:
        """Gradients of this rank's microbatches; their mean loss."""
        places = self._microbatches()
        losses = []
        for place in places:
            loss = self._loss(shape, self._own_segments(shape), self._generator(self.step, place))
            (loss / len(places)).backward()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _loss(self, shape: Shape, own: int, generator: torch.Generator) -> Tensor:
        with self._autocast():
            batch = self._batch(shape, own, generator)
            losses = clip_losses(self.model, batch, self.config.noise, generator, self._errors)
        return losses.mean()

    def _batch(self, shape: Shape, own: int, generator: torch.Generator) -> ClipBatch:
        """Clips of one shape, whose past ends in `own` segments of the model's own making."""
        drops = self.schedule.drops(shape, self.config.drops)
        samples = self.schedule.samples(shape)
        if not own:
            return self._sampler.sample(shape, samples, generator, drops)
        walks = Walks.begin(self._sampler, shape, 1 + own, samples, generator, drops)
        steps, shift = self.config.noise.sampler_steps, self.config.noise.shift
        walk_on(self.model, walks, shape, own, steps=steps, shift=shift, generator=generator)
        return walks.clip(shape, own, generator)

    def _own_segments(self, shape: Shape) -> int:
        """How many segments of this step's contexts the model makes; the same on every rank."""
        draw = np.random.default_rng((self.config.seed, self.step, OWN_STREAM))
        most = self._most_own(shape)
        return (
            int(draw.integers(1, most + 1)) if draw.random() < self.config.own_context.share and most else 0
        )

    def _most_own(self, shape: Shape) -> int:
        """The most segments that the model may make in front of a clip: none where a session is young."""
        own = self.config.own_context
        if not own.share or shape.past < FULL_PAST:
            return 0
        room = self._sampler.store.latents_per_episode - shape.memory - shape.window
        return min(own.segments, max(1, own.most_latents // shape.new), room // shape.new)

    def _microbatches(self) -> range:
        """The numbers of this rank's microbatches in each step."""
        return range(self.ranks.rank, self._all_microbatches, self.ranks.world_size)

    def _generator(self, step: int, place: int) -> torch.Generator:
        """Seeded by step and microbatch alone: a resumed run draws what an uninterrupted one would have."""
        number = step * self._all_microbatches + place
        return torch.Generator(self.ranks.device).manual_seed(self.config.seed * SEED_STRIDE + number)

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.config.mixed_precision):
            yield

    # ------------------------------------------------------------------ beside the loop

    def _report(self, curves: ScalarLog) -> dict[str, float]:
        """Means since the last report, to the curves; DivergedError when they are not finite."""
        self._check_finite()
        scalars = self._recent.means(self._optimizer.rate)
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
        self._check_finite()
        state = {
            "config": json.dumps(self.config.identity()),
            "step": self.step,
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "budget": budget.state_dict(),
            "errors": self._errors.state_dict() if self._errors else {},
        }
        save_checkpoint(self.output / CHECKPOINT_FILE, state)

    def _save_if_possible(self, budget: Budget) -> None:
        """A checkpoint in passing: a run does not end because a disk is full for a while."""
        try:
            self.save(budget)
        except CheckpointError as error:
            log.warning("%s", error)

    def _check_finite(self) -> None:
        """DivergedError, with the batch kept in a file, when a step since the last report was not finite."""
        broken = self._recent.first_broken()
        if broken is None:
            return
        path = self.output / f"diverged_{broken.step:06d}_rank{self.ranks.rank}.pt"
        batch = self._batch(broken.shape, 0, self._generator(broken.step, self._microbatches()[0]))
        save_checkpoint(path, plain_batch(batch) | {"step": broken.step, "loss": broken.loss})
        raise diverged(f"the loss or the gradient norm of step {broken.step}", broken.loss, path)

    def _load(self, budget: Budget) -> None:
        path = self.output / CHECKPOINT_FILE
        state = load_checkpoint(path, self.ranks.device)
        changed = differences(json.loads(state.get("config", "{}")), self.config.identity())
        if changed:
            raise CheckpointError(
                f"{path} belongs to another run",
                expected="the settings that it began with",
                got="; ".join(changed),
                remedy="resume with those, or begin a new run with init_from",
            )
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
            for own in {0, self._most_own(shape)}:
                self._loss(shape, own, self._generator(WARM_UP_SEED, 0)).backward()
            self.model.zero_grad(set_to_none=True)
            log.info("compiled the shape %s in %.1f s", shape.name, time.monotonic() - started)
        self._errors = errors
        if kept and self.ranks.is_main and (artifacts := torch.compiler.save_cache_artifacts()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(artifacts[0])


@dataclass(frozen=True)
class Broken:
    """The first step whose loss or gradient norm was not finite."""

    step: int
    shape: Shape
    loss: float


class _Recent:
    """Losses since the last report, left on the device until somebody asks."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._clear()

    def _clear(self) -> None:
        self._started = time.monotonic()
        self._steps: list[tuple[int, Shape]] = []
        self._clips = 0
        self._values: list[Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, step: int, shape: Shape, clips: int, loss: Tensor, norm: Tensor) -> None:
        self._steps.append((step, shape))
        self._clips += clips
        self._values.append(torch.stack([loss.float(), norm.float()]))

    def first_broken(self) -> Broken | None:
        """The first step since the last report with a value that is not finite."""
        if not self._values:
            return None
        values = torch.stack(self._values)
        finite = values.isfinite().all(dim=1).tolist()
        if all(finite):
            return None
        first = finite.index(False)
        return Broken(*self._steps[first], loss=float(values[first, 0]))

    def means(self, rate: float) -> dict[str, float]:
        """Mean loss (also by clip shape) and gradient norm over all ranks, and speed; starts over."""
        values = self._ranks.mean(torch.stack(self._values)).tolist()
        seconds = max(time.monotonic() - self._started, 1e-9)
        scalars = {
            "loss": sum(loss for loss, _ in values) / len(values),
            "gradient_norm": sum(norm for _, norm in values) / len(values),
            "learning_rate": rate,
            "clips_per_s": self._clips / seconds,
            "steps_per_s": len(values) / seconds,
        }
        names = [shape.name for _, shape in self._steps]
        for name in sorted(set(names)):
            chosen = [loss for shape, (loss, _) in zip(names, values, strict=True) if shape == name]
            scalars[f"loss/{name}"] = sum(chosen) / len(chosen)
        self._clear()
        return scalars


def plain_batch(batch: ClipBatch) -> dict[str, Any]:
    """A batch as plain data for a file."""
    tensors = {name: getattr(batch, name) for name in ("latents", "plucker", "keyboard", "mouse")}
    told = {f"told.{name}": getattr(batch.told, name) for name in ("keys", "pose", "prompt")}
    return tensors | told | {"prompt_tokens": batch.prompt_tokens, "shape": batch.shape.name}


def _microbatches(config: BaseConfig, ranks: Ranks) -> int:
    """Microbatches of a step on all ranks together."""
    count = config.microbatches or ranks.world_size
    if count % ranks.world_size:
        raise ConfigError(
            "the microbatches of a step do not share out among the processes",
            expected=f"a multiple of {ranks.world_size}",
            got=str(count),
        )
    return count


def _budget(config: BaseConfig, ranks: Ranks) -> Budget:
    return StepBudget(config.steps) if config.steps else TimeBudget(config.minutes, ranks)


def _error_buffer(config: BaseConfig, store: LatentStore) -> ErrorBuffer | None:
    if not config.noise.error_gamma:
        return None
    return ErrorBuffer(config.noise.error_latents, tuple(store.latents.shape[2:]), store.device)
