"""The loop around training steps: budget, pauses, checkpoints, validation, curves. Methods are subclasses."""

from __future__ import annotations

import json
import logging
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldwire.errors import CheckpointError, ConfigError
from worldwire_training.base_config import RunConfig
from worldwire_training.base_model import BaseModel
from worldwire_training.clip_sampler import ClipBatch, Shape
from worldwire_training.common import (
    EMA,
    Budget,
    Progress,
    Ranks,
    ScalarLog,
    StepBudget,
    TimeBudget,
    Timer,
    differences,
    interruptible,
    load_checkpoint,
    save_checkpoint,
)
from worldwire_training.fused import compile_blocks, fused_elementwise
from worldwire_training.losses import diverged
from worldwire_training.validation import Validator

log = logging.getLogger(__name__)

SEED_STRIDE = 1_000_003
SUSPICIOUS_NORM = 100.0
"""Of gradients, on average between two reports. A few are normal; a clip makes noise of such steps."""


class Trainer(ABC):
    """One run on one rank. `model` is what ships (by its average `ema`), `step` how often it was updated.

    A subclass names itself and its checkpoint, trains a step, and says what its state is.
    """

    name: str
    checkpoint: str
    model: BaseModel
    ema: EMA

    def __init__(self, config: RunConfig, ranks: Ranks, validator: Validator | None) -> None:
        self.run, self.ranks = config, ranks
        self.output = Path(config.output)
        self.step = 0
        self.recent = Recent(ranks)
        self._has_warned = False
        self.all_microbatches = count_microbatches(config.microbatches, ranks)
        self._validator = validator
        self.publish: Callable[[BaseModel], None] | None = None
        """Called on rank 0 with the averaged weights at every validation and at the end: writes the world."""

    @abstractmethod
    def train_step(self, budget: Budget) -> None:
        """One step of the method; ends with `step` one higher."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What the method needs to go on, without step and budget."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`; KeyError, RuntimeError or ValueError where it does not fit."""

    @abstractmethod
    def warm_up(self) -> None:
        """Runs every kind of step once without effect, so that compilation is over when the clock starts."""

    @abstractmethod
    def kept_batch(self, broken: Broken) -> ClipBatch:
        """The batch of a step that diverged, drawn again."""

    @property
    @abstractmethod
    def rate(self) -> float:
        """The learning rate, for the curves."""

    def compiled(self) -> Sequence[BaseModel]:
        """The networks that `compile = "blocks"` compiles."""
        return (self.model,)

    # ------------------------------------------------------------------ the loop

    def fit(self, resume: bool = False, began: float | None = None) -> dict[str, float]:
        """Train until the budget is spent or this process is to pause; the figures of the last validation.

        began: when this process did (`time.monotonic()`), for `minutes_per_call`; None: now.
        """
        began = time.monotonic() if began is None else began
        with fused_elementwise(self.run.compile == "fused"):
            if self.run.compile != "none":
                self.compile()
            return self._fit(resume, began)

    def _fit(self, resume: bool, began: float) -> dict[str, float]:
        budget = _budget(self.run, self.ranks)
        if resume:
            self.load(budget)
        else:
            self._keep_other_run()
        curves = ScalarLog(self.output, self.ranks)
        progress = Progress(self.name, self.ranks)
        validation = Timer(self.run.validation.every_minutes, self.ranks)
        checkpoint = Timer(self.run.checkpoint_minutes, self.ranks)
        until = self._pause(budget, began)
        with interruptible(self.ranks, partial(self.save, budget)) as stop_if_asked:
            while budget.progress(self.step) < until:
                self.train_step(budget)
                if self.step % self.run.log_every == 0:
                    progress.show(budget.progress(self.step), self.step, self._report(curves))
                stop_if_asked()
                if checkpoint.due(self.step):
                    self._save_if_possible(budget)
                if validation.due(self.step):
                    self._validate(curves)
        if self.recent:
            self._report(curves)
        self.save(budget)
        figures = self._validate(curves)
        progress.close()
        curves.close()
        return figures

    def _pause(self, budget: Budget, began: float) -> float:
        """The progress at which this process ends, the same on all ranks."""
        if not self.run.minutes_per_call:
            return self.run.pause_at
        left = 60 * self.run.minutes_per_call - (time.monotonic() - began)
        share = max(0.0, self.ranks.broadcast_float(left)) / (60 * self.run.minutes)
        return min(self.run.pause_at, budget.progress(self.step) + share)

    # ------------------------------------------------------------------ what steps are made of

    def microbatches(self) -> range:
        """The numbers of this rank's microbatches in each step."""
        return range(self.ranks.clip_rank, self.all_microbatches, self.ranks.clip_ranks)

    def generator(self, step: int, microbatch: int) -> torch.Generator:
        """Seeded by step and microbatch alone: a resumed run draws what an uninterrupted one would have."""
        number = step * self.all_microbatches + microbatch
        return torch.Generator(self.ranks.device).manual_seed(self.run.seed * SEED_STRIDE + number)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision, if the run has it."""
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.run.mixed_precision):
            yield

    # ------------------------------------------------------------------ beside the loop

    def _report(self, curves: ScalarLog) -> dict[str, float]:
        """Means since the last report, to the curves; DivergedError when they are not finite."""
        self._check_finite()
        scalars = self.recent.means(self.rate)
        curves.add(self.step, scalars)
        self._look_at(scalars["gradient_norm"])
        return {name: scalars[name] for name in ("loss", "gradient_norm", "clips_per_s")}

    def _look_at(self, norm: float) -> None:
        """Warns once in a run of gradients that are clipped to nothing: they teach little, if losses fall."""
        if norm < SUSPICIOUS_NORM or self._has_warned or not self.ranks.is_main:
            return
        self._has_warned = True
        log.warning(
            "gradients are suspiciously large (norm %.0f on average, step %d); expected: below %.0f; to do: "
            "compare a step with one on a CPU, or lower the learning rate",
            *(norm, self.step, SUSPICIOUS_NORM),
        )

    def _validate(self, curves: ScalarLog) -> dict[str, float]:
        """On rank 0, with the averaged weights, uncompiled (its shapes are others); publishes them too."""
        started, figures = time.monotonic(), dict[str, float]()
        with self.averaged() as model:
            if model is None or not self.ranks.is_main:
                return {}
            if self._validator is not None:
                picture = self.output / f"strip_{self.step:06d}.png"
                with self.autocast(), torch.compiler.set_stance("force_eager"):
                    figures = self._validator.run(model, picture)
            if self.publish is not None:
                self.publish(model)
        curves.add(self.step, {f"validation/{name}": value for name, value in figures.items()})
        shown = " ".join(f"{name} {value:.3f}" for name, value in figures.items())
        log.info("validation at step %d (%.1f s): %s", self.step, time.monotonic() - started, shown)
        return figures

    def save(self, budget: Budget) -> None:
        """The whole state of the run, from rank 0; never a state that has diverged."""
        if not self.ranks.is_main:
            return
        self._check_finite()
        save_checkpoint(self.checkpoint_path, self.state() | self.facts(budget))

    @property
    def checkpoint_path(self) -> Path:
        """Where the state of the run is kept."""
        return self.output / self.checkpoint

    def facts(self, budget: Budget) -> dict[str, Any]:
        """What a checkpoint says of its run."""
        return {"config": json.dumps(self.run.identity()), "step": self.step, "budget": budget.state_dict()}

    @contextmanager
    def averaged(self) -> Iterator[BaseModel | None]:
        """The network with averaged weights on rank 0, for validation; every rank must ask."""
        with self.ema.applied(self.model):
            yield self.model

    def _keep_other_run(self) -> None:
        """The checkpoint of a run before stays beside a new one's, where no resume takes it for its own."""
        path = self.checkpoint_path
        if not (self.ranks.is_main and path.exists()):
            return
        kept = path.with_name(path.name + ".before")
        if kept.is_dir():
            shutil.rmtree(kept)
        path.replace(kept)
        log.warning("%s is of a run before this one: it is %s now (--resume would go on)", path, kept.name)

    def _save_if_possible(self, budget: Budget) -> None:
        """A checkpoint in passing: a run does not end because a disk is full for a while."""
        try:
            self.save(budget)
        except CheckpointError as error:
            log.warning("%s", error)

    def _check_finite(self) -> None:
        """DivergedError, with the batch kept in a file, when a step since the last report was not finite."""
        broken = self.recent.first_broken()
        if broken is None:
            return
        path = self.output / f"diverged_{broken.step:06d}_rank{self.ranks.rank}.pt"
        kept = plain_batch(self.kept_batch(broken))
        save_checkpoint(path, kept | {"step": broken.step, "loss": broken.loss})
        raise diverged(f"the loss or the gradient norm of step {broken.step}", broken.loss, path)

    def load(self, budget: Budget) -> None:
        """Goes on from the checkpoint; CheckpointError when there is none or it is of another run."""
        path = self.checkpoint_path
        state = load_checkpoint(path, self.ranks.device)
        check_identity(path, state.get("config", "{}"), self.run)
        try:
            self.load_state(state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{path} belongs to another run: {error}",
                remedy="resume with the configuration that the run began with",
            ) from error
        self.go_on(budget, state)

    def go_on(self, budget: Budget, facts: Mapping[str, Any]) -> None:
        """Step and budget of a checkpoint."""
        budget.load_state_dict(facts["budget"])
        self.step = int(facts["step"])
        log.info("resumed at step %d", self.step)

    def compile(self) -> None:
        """Compile, and run what there is once before the clock starts; what was compiled can be kept."""
        kept = Path(self.run.compile_cache) if self.run.compile_cache else None
        if kept and kept.is_file():
            torch.compiler.load_cache_artifacts(kept.read_bytes())
        if self.run.compile == "blocks":
            for model in self.compiled():
                compile_blocks(model.dit)
        self.warm_up()
        if kept and self.ranks.is_main and (artifacts := torch.compiler.save_cache_artifacts()):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(artifacts[0])


@dataclass(frozen=True)
class Broken:
    """The first step whose loss or gradient norm was not finite."""

    step: int
    shape: Shape
    loss: float


class Recent:
    """Losses since the last report, left on the device until somebody asks."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        self._clear()

    def _clear(self) -> None:
        self._started = time.monotonic()
        self._steps: list[tuple[int, Shape]] = []
        self._clips = 0
        self._values: list[Tensor] = []
        self._parts: dict[str, list[Tensor]] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, step: int, shape: Shape, clips: int, loss: Tensor, norm: Tensor, **parts: Tensor) -> None:
        """A step's loss and gradient norm; `parts`: further curves by name, this rank's alone."""
        self._steps.append((step, shape))
        self._clips += clips
        self._values.append(torch.stack([loss.detach().float(), norm.detach().float()]))
        for name, value in parts.items():
            self._parts.setdefault(name, []).append(value.detach().float())

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
        scalars |= {name: float(torch.stack(part).mean()) for name, part in self._parts.items()}
        self._clear()
        return scalars


def plain_batch(batch: ClipBatch) -> dict[str, Any]:
    """A batch as plain data for a file."""
    tensors = {name: getattr(batch, name) for name in ("latents", "plucker", "keyboard", "mouse")}
    told = {f"told.{name}": getattr(batch.told, name) for name in ("keys", "pose", "prompt")}
    return tensors | told | {"prompt_tokens": batch.prompt_tokens, "shape": batch.shape.name}


def check_identity(path: Path, stored: str, run: RunConfig) -> None:
    """CheckpointError, naming every setting, when a checkpoint belongs to a run of other settings."""
    changed = differences(json.loads(stored), run.identity())
    if changed:
        raise CheckpointError(
            f"{path} belongs to another run",
            expected="the settings that it began with",
            got="; ".join(changed),
            remedy="resume with those, or begin a new run with init_from",
        )


def count_microbatches(wanted: int, ranks: Ranks) -> int:
    """Microbatches of a step on all ranks together; 0 wants one for each (group that shares its clips)."""
    count = wanted or ranks.clip_ranks
    if count % ranks.clip_ranks:
        raise ConfigError(
            "the microbatches of a step do not share out among the processes",
            expected=f"a multiple of {ranks.clip_ranks}",
            got=str(count),
        )
    return count


def _budget(config: RunConfig, ranks: Ranks) -> Budget:
    return StepBudget(config.steps) if config.steps else TimeBudget(config.minutes, ranks)
