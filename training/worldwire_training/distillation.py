"""Distils the base model into few steps: multi-segment rollouts, distribution matching, a trained critic.

    worldwire train distill --config training/worldwire_training/configs/distill_tiny.toml

Each step the student walks on along training episodes (`self_forcing.py`). The critic learns what it makes;
every few steps the student follows the difference between teacher and critic (`dmd.py`), the truth at the
same poses, and where the teacher's many steps lead from the same noise. Now and then a step is plain flow
matching on the shapes that are to be kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldwire_runtime.config import WorldConfig
from worldwire_training.base_config import OptimizerConfig
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.clip_sampler import FULL_PAST, ClipBatch, ClipSampler, Shape, ShapeSchedule
from worldwire_training.common import EMA, Budget, Ranks, average_gradients, warmup_stable_decay
from worldwire_training.distill_config import DistillConfig
from worldwire_training.dmd import critic_losses, dmd_losses, regression_losses, score_direction
from worldwire_training.latents import LatentStore
from worldwire_training.optimizers import BaseOptimizer
from worldwire_training.segments import Walks, generate, opening, segments_behind
from worldwire_training.self_forcing import Segment, last_segment
from worldwire_training.trainer import Broken, Trainer
from worldwire_training.validation import Validator

log = logging.getLogger(__name__)

CHECKPOINT_FILE = "distill.pt"
PLAN_STREAM, KEPT_STREAM = 0xD1, 0xD2


class DistillTrainer(Trainer):
    """The student (`model`), its critic and the frozen teacher."""

    name = "distill"
    checkpoint = CHECKPOINT_FILE

    def __init__(
        self,
        config: DistillConfig,
        teacher: BaseModel,
        world: WorldConfig,
        store: LatentStore,
        ranks: Ranks,
        *,
        validator: Validator | None = None,
    ) -> None:
        """teacher: its attention may be another than that of `world`, which student and critic have."""
        super().__init__(config, ranks, validator)
        self.config = config
        torch.manual_seed(config.seed)
        self.teacher = teacher.to(ranks.device).requires_grad_(False).eval()
        self.model, self.critic = (_begin_with(teacher, world, ranks) for _ in range(2))
        self.ema = EMA(self.model, config.optimizer.ema_decay)
        self._optimizers = {
            "student": BaseOptimizer(self.model, config.optimizer),
            "critic": BaseOptimizer(self.critic, config.critic),
        }
        self._sampler = ClipSampler(store, world, config.random_memory)
        self.schedule, self.kept = (
            ShapeSchedule(
                shapes, latents_per_step=config.latents_per_step, seed=seed, draws=config.noise.draws
            )
            for shapes, seed in (
                (config.shapes, config.seed),
                (config.kept or config.shapes, config.seed + KEPT_STREAM),
            )
        )

    @property
    def rate(self) -> float:
        return self._optimizers["student"].rate

    def compiled(self) -> Sequence[BaseModel]:
        return (self.model, self.critic, self.teacher)

    # ------------------------------------------------------------------ a step

    def train_step(self, budget: Budget) -> None:
        progress = budget.progress(self.step)
        if self._draw(KEPT_STREAM).random() < self.config.method.kept_share:
            self._keep(progress)
        else:
            self._distil(progress)
        self.step += 1

    def _keep(self, progress: float) -> None:
        """Flow matching on the truth, for the shapes that walks do not have."""
        shape = self.kept.at(self.step)
        losses = []
        for place in self.microbatches():
            generator = self.generator(self.step, place)
            batch = self._batch(self.kept, shape, generator)
            with self.autocast():
                loss = clip_losses(self.model, batch, self.config.noise, generator).mean()
            (loss / len(self.microbatches())).backward()
            losses.append(loss.detach())
        norm = self._update("student", progress)
        self.recent.add(self.step, shape, self.kept.samples(shape), torch.stack(losses).mean(), norm)

    def _distil(self, progress: float) -> None:
        """The critic's update and, in its turn, the student's."""
        shape, turn = self.schedule.at(self.step), self._is_students_turn()
        parts: list[dict[str, Tensor]] = []
        for place in self.microbatches():
            generator = self.generator(self.step, place)
            with self.autocast():
                segment = self._segment(shape, turn, generator)
                losses = self._student_losses(segment, progress, generator) if turn else {}
                losses |= self._critic_loss(segment, generator)
            (sum(losses.values(), segment.noise.new_zeros(())) / len(self.microbatches())).backward()
            parts.append({name: value.detach() for name, value in losses.items()})
        means = {name: torch.stack([part[name] for part in parts]).mean() for name in parts[0]}
        loss = sum(means.values(), torch.zeros((), device=self.ranks.device))
        norm = torch.zeros_like(loss)
        for who in _learners(means):
            norm = self._update(who, progress)
        clips = self.schedule.samples(shape)
        self.recent.add(self.step, shape, clips, loss, norm, **means)

    def _segment(
        self, shape: Shape, turn: bool, generator: torch.Generator, plan: tuple[int, int] | None = None
    ) -> Segment:
        """A last segment as the student makes it, with gradients in its turn; plan: instead of the step's."""
        method, noise = self.config.method, self.config.noise
        segments, exit_step = plan or self._plan(shape)
        drops = self.schedule.drops(shape, self.config.drops)
        samples = self.schedule.samples(shape)
        room = segments_behind(shape, segments - 1)
        walks = Walks.begin(self._sampler, shape, room, samples, generator, drops)
        with torch.set_grad_enabled(turn):
            return last_segment(
                self.model,
                walks,
                shape,
                segments,
                steps=method.sampler_steps,
                shift=noise.shift,
                exit_step=exit_step,
                generator=generator,
            )

    def _plan(self, shape: Shape) -> tuple[int, int]:
        """Segments of this step's walks and the sampling step that is trained; the same on every rank."""
        draw = self._draw(PLAN_STREAM)
        segments = int(draw.integers(1, self._most_segments(shape) + 1))
        return segments, int(draw.integers(self.config.method.sampler_steps))

    def _most_segments(self, shape: Shape) -> int:
        """The most segments of a walk; of two in a young session, the first is the clip that opens it."""
        most = self.config.method.segments
        if shape.past != FULL_PAST:
            return min(most, 2) if opening(shape) else 1
        room = self._sampler.store.latents_per_episode - shape.memory - shape.past
        return min(most, room // shape.new)

    def _student_losses(
        self, segment: Segment, progress: float, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The weighted losses of a sample by name."""
        method, losses = self.config.method, {}
        batch, noise, sample = segment
        if method.regression:
            truth = batch.latents[:, :, batch.shape.context :]
            losses["regression"] = method.regression * regression_losses(sample, truth).mean()
        if method.trajectory:
            end = generate(self.teacher, batch, method.teacher_steps, self.config.noise.shift, noise)
            losses["trajectory"] = method.trajectory * regression_losses(sample, end).mean()
        if method.dmd and progress >= method.start_share:
            direction = score_direction(
                sample, batch, self.teacher, self.critic, self.config.score, generator
            )
            losses["dmd"] = method.dmd * dmd_losses(sample, direction).mean()
        return losses

    def _critic_loss(self, segment: Segment, generator: torch.Generator) -> dict[str, Tensor]:
        if not self.config.method.dmd:
            return {}
        noise = self._critic_noise()
        losses = critic_losses(self.critic, segment.batch, segment.sample, noise, generator)
        return {"critic": losses.mean()}

    def _update(self, who: str, progress: float) -> Tensor:
        """Steps one network's optimiser; returns its gradient norm."""
        network = self.model if who == "student" else self.critic
        config: OptimizerConfig = self.config.optimizer if who == "student" else self.config.critic
        optimizer = self._optimizers[who]
        rate = warmup_stable_decay(
            self.step,
            progress,
            config.peak_rate,
            config.final_rate,
            warmup_steps=config.warmup_steps,
            decay_share=config.decay_share,
        )
        optimizer.set_rate(rate)
        average_gradients(network.parameters(), self.ranks)
        norm = torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
        optimizer.step()
        if who == "student":
            self.ema.update(self.model)
        return norm

    def _is_students_turn(self) -> bool:
        method = self.config.method
        return not method.dmd or self.step % method.critic_updates == 0

    def _critic_noise(self) -> NoiseConfig:
        """The critic sees contexts as they are, at levels of its own."""
        return replace(self.config.noise, sampler_share=0.0, context_sigma=0.0)

    def _batch(self, schedule: ShapeSchedule, shape: Shape, generator: torch.Generator) -> ClipBatch:
        drops = schedule.drops(shape, self.config.drops)
        return self._sampler.sample(shape, schedule.samples(shape), generator, drops)

    def _draw(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.config.seed, self.step, stream))

    # ------------------------------------------------------------------ beside the loop

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "critic": self.critic.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": {name: one.state_dict() for name, one in self._optimizers.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.critic.load_state_dict(state["critic"])
        self.ema.load_state_dict(state["ema"])
        for name, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def kept_batch(self, broken: Broken) -> ClipBatch:
        schedule = self.schedule if broken.shape in self.config.shapes else self.kept
        return self._batch(schedule, broken.shape, self.generator(broken.step, self.microbatches()[0]))

    def warm_up(self) -> None:
        """Every shape of walks and of what is kept, without an update; the last sampling step has all others
        before it, and a young session the clip that opens it."""
        for shape in self.config.shapes:
            plan = 2 if opening(shape) else 1, self.config.method.sampler_steps - 1
            started, generator = time.monotonic(), self.generator(0, 0)
            with self.autocast():
                segment = self._segment(shape, True, generator, plan)
                losses = self._student_losses(segment, 1.0, generator) | self._critic_loss(segment, generator)
            sum(losses.values(), segment.noise.new_zeros(())).backward()
            log.info("compiled the shape %s in %.1f s", shape.name, time.monotonic() - started)
        for shape in self.config.kept if self.config.method.kept_share else ():
            generator = self.generator(0, 0)
            with self.autocast():
                batch = self._batch(self.kept, shape, generator)
                clip_losses(self.model, batch, self.config.noise, generator).mean().backward()
        for network in (self.model, self.critic):
            network.zero_grad(set_to_none=True)


def _learners(losses: Mapping[str, Tensor]) -> list[str]:
    """Whose losses these are, the student last. While only the critic learns (`method.start_share`), not even
    the student's turn has one of its own: weight decay and momentum must not move it then."""
    critic, student = "critic" in losses, bool(losses.keys() - {"critic"})
    return [who for who, learns in (("critic", critic), ("student", student)) if learns]


def _begin_with(teacher: BaseModel, world: WorldConfig, ranks: Ranks) -> BaseModel:
    """A trainable network of `world` with the teacher's weights."""
    model = BaseModel.build(world).to(ranks.device)
    model.load_state_dict(teacher.state_dict())
    return model
