"""Trains the diffusion transformer and the text encoder of a world on encoded episodes.

    worldwire train base --config training/worldwire_training/configs/base_tiny.toml
    torchrun --nproc-per-node 2 -m worldwire_training.commands.train base --config ... [--resume]

Every process holds its own share of the episodes on its device. A step draws clips of one shape, adds noise
to their new latents, and learns the velocity. The average of the weights is what ships.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from worldwire_runtime.config import WorldConfig
from worldwire_training.base_config import BaseConfig
from worldwire_training.base_model import BaseModel, check_draws, clip_losses
from worldwire_training.clip_sampler import FULL_PAST, ClipBatch, ClipSampler, Shape, ShapeSchedule
from worldwire_training.common import EMA, Budget, Ranks, average_gradients, warmup_stable_decay
from worldwire_training.context_parallel import neighbours, same_store, share_clips, strip_of
from worldwire_training.latents import LatentStore
from worldwire_training.losses import ErrorBuffer
from worldwire_training.optimizers import BaseOptimizer
from worldwire_training.parallel import (
    fill_gradients,
    gather,
    load_sharded,
    recompute_blocks,
    save_sharded,
    shard,
    sharded_facts,
    whole,
)
from worldwire_training.quant_aware import train_quantised
from worldwire_training.segments import Walks, behind_own, opening, segments_behind
from worldwire_training.trainer import Broken, Trainer, check_identity
from worldwire_training.validation import Validator

log = logging.getLogger(__name__)

CHECKPOINT_FILE, SHARDED_FOLDER = "base.pt", "base.dcp"
WARM_UP_SEED = 0
OWN_STREAM, ERA_STREAM = 0x0E, 0x0F


class BaseTrainer(Trainer):
    """Flow matching on clips of encoded episodes."""

    name = "base"
    checkpoint = CHECKPOINT_FILE

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
        ranks = ranks.sharing_clips(config.context_parallel)
        super().__init__(config, ranks, validator)
        check_draws(world, config.noise)
        strip_of(world, config.context_parallel)
        self.config = config
        torch.manual_seed(config.seed)
        self.model = (start or BaseModel.build(world)).to(ranks.device)
        self._world = world
        if config.quantization is not None:
            train_quantised(self.model.dit, config.quantization)
        if config.recompute:
            recompute_blocks(self.model.dit)
        if config.parallel == "shard":
            shard(self.model, ranks)
        if config.context_parallel > 1:
            mesh = neighbours(ranks)
            share_clips(self.model, world, mesh)
            store = same_store(store, mesh)
        self.ema = EMA(self.model, config.optimizer.ema_decay)
        self._optimizer = BaseOptimizer(self.model, config.optimizer)
        self._sampler = ClipSampler(store, world, config.random_memory)
        self.schedule = ShapeSchedule(
            config.shapes,
            latents_per_step=config.latents_per_step,
            seed=config.seed,
            draws=config.noise.draws,
        )
        self._errors = _error_buffer(config, store)

    @property
    def rate(self) -> float:
        return self._optimizer.rate

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
        if self.sharded:  # FSDP has averaged them
            fill_gradients(self.model)
        else:
            average_gradients(self.model.parameters(), self.ranks)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip))
        optimizer.step()
        self.ema.update(self.model)
        self.recent.add(self.step, shape, self.schedule.samples(shape), loss, norm)
        self.step += 1

    def _backward(self, shape: Shape) -> Tensor:
        """Gradients of this rank's microbatches; their mean loss."""
        places, own = self.microbatches(), self._own_segments(shape)
        losses = []
        for place in places:
            loss = self._loss(shape, own, self.generator(self.step, place))
            (loss / len(places)).backward()
            losses.append(loss.detach())
        return torch.stack(losses).mean()

    def _loss(self, shape: Shape, own: int, generator: torch.Generator) -> Tensor:
        with self.autocast():
            batch = self._batch(shape, own, generator)
            losses = clip_losses(self.model, batch, self.config.noise, generator, self._errors)
        return losses.mean()

    def _batch(self, shape: Shape, own: int, generator: torch.Generator) -> ClipBatch:
        """Clips of one shape, whose past ends in `own` segments of the model's own making."""
        drops = self.schedule.drops(shape, self.config.drops)
        samples = self.schedule.samples(shape)
        if not own:
            return self._sampler.sample(shape, samples, generator, drops, self._position(shape))
        segments = segments_behind(shape, own)
        walks = Walks.begin(self._sampler, shape, segments, samples, generator, drops)
        steps, shift = self.config.noise.sampler_steps, self.config.noise.shift
        return behind_own(self.model, walks, shape, own, steps=steps, shift=shift, generator=generator)

    def _own_segments(self, shape: Shape) -> int:
        """How many segments of this step's contexts the model makes; the same on every rank."""
        draw = np.random.default_rng((self.config.seed, self.step, OWN_STREAM))
        most = self._most_own(shape)
        return (
            int(draw.integers(1, most + 1)) if draw.random() < self.config.own_context.share and most else 0
        )

    def _position(self, shape: Shape) -> int:
        """Where in its era this step's clips stand (`rolling` attention), the same on every rank."""
        world, store = self._sampler.world, self._sampler.store
        if world.dit.attention != "rolling" or shape.past < FULL_PAST:
            return 0
        most = min(world.rolling_latents, store.latents_per_episode - shape.memory) - shape.window
        return int(
            np.random.default_rng((self.config.seed, self.step, ERA_STREAM)).integers(max(0, most) + 1)
        )

    def _most_own(self, shape: Shape) -> int:
        """The most segments that the model may make in front of a clip: one where a session is young."""
        own = self.config.own_context
        if not own.share:
            return 0
        if shape.past < FULL_PAST:
            return 1 if opening(shape) else 0
        room = self._sampler.store.latents_per_episode - shape.memory - shape.window
        return min(own.segments, max(1, own.most_latents // shape.new), room // shape.new)

    # ------------------------------------------------------------------ beside the loop

    @property
    def sharded(self) -> bool:
        return self.config.parallel == "shard"

    @property
    def checkpoint_path(self) -> Path:
        return self.output / SHARDED_FOLDER if self.sharded else super().checkpoint_path

    def save(self, budget: Budget) -> None:
        if not self.sharded:
            super().save(budget)
            return
        self._check_finite()
        path, optimizer = self.checkpoint_path, self._optimizer.parts[0]
        facts = self.facts(budget) | {"updates": self.ema.updates}
        save_sharded(path, self.model, optimizer, self.ema, facts, self.ranks)

    def load(self, budget: Budget) -> None:
        if not self.sharded:
            super().load(budget)
            return
        folder, facts = sharded_facts(self.checkpoint_path)
        check_identity(folder, facts["config"], self.run)
        self.ema.updates = int(facts["updates"])
        load_sharded(folder, self.model, self._optimizer.parts[0], self.ema)
        self.go_on(budget, facts)

    @contextmanager
    def averaged(self) -> Iterator[BaseModel | None]:
        if not self.sharded:
            with super().averaged() as model:
                yield model
            return
        state = gather(self.model, self.ema)
        if not self.ranks.is_main:
            yield None
            return
        model = BaseModel.build(self._world)
        model.load_state_dict(state)
        yield model.to(self.ranks.device)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "errors": self._errors.state_dict() if self._errors else {},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self._errors:
            self._errors.load_state_dict(state["errors"])

    def kept_batch(self, broken: Broken) -> ClipBatch:
        return self._batch(broken.shape, 0, self.generator(broken.step, self.microbatches()[0]))

    def warm_up(self) -> None:
        errors, self._errors = self._errors, None
        for shape in self.config.shapes:
            started = time.monotonic()
            for own in {0, self._most_own(shape)}:
                self._loss(shape, own, self.generator(WARM_UP_SEED, 0)).backward()
            self.model.zero_grad(set_to_none=True)
            log.info("compiled the shape %s in %.1f s", shape.name, time.monotonic() - started)
        self._errors = errors


def _error_buffer(config: BaseConfig, store: LatentStore) -> ErrorBuffer | None:
    if not config.noise.error_gamma and not config.noise.memory_gamma:
        return None
    return ErrorBuffer(config.noise.error_latents, tuple(store.latents.shape[2:]), store.device)
