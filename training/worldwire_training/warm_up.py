"""Compiles the clip shapes of a run ahead of it, in parallel: the run finds them in the compiler's cache.

    python -m worldwire_training.recipes.tiny warm --jobs 7      # while episodes are rendered, for instance
    python -m worldwire_training.recipes.tiny warm --network distill --set compile=blocks   # beside `base`

With `compile = "blocks"` a process spends most of a minute on each shape. Here each shape has a process of
its own, and all share the cache folder of torch.compile (`TORCHINDUCTOR_CACHE_DIR`). What a block compiles to
does not depend on how many there are, so a short transformer is enough and saves memory. "fused" compiles for
all shapes at once, in one process.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial

from worldwire.errors import ConfigError
from worldwire_runtime.config import WorldConfig
from worldwire_training.base_config import BaseConfig
from worldwire_training.clip_sampler import Shape
from worldwire_training.common import Ranks
from worldwire_training.distill_config import DistillConfig

log = logging.getLogger(__name__)

ACTION_BLOCKS, BLOCKS = (0,), 3
"""One block with actions and one without; of a last one, part of the work is not compiled."""


def warm(config: BaseConfig | DistillConfig, world: WorldConfig, jobs: int) -> None:
    """Fill the compiler's cache with every shape of `config`, `jobs` processes at a time.

    What a distillation keeps (`kept`) compiles as the same shapes of the base model do.

    Raises ConfigError for `compile = "none"`; an error of a process is raised here too.
    """
    if config.compile == "none":
        raise ConfigError("there is nothing to compile", expected='compile = "blocks" or "fused"')
    shapes = config.shapes if config.compile == "blocks" else ()
    parts = [_part(config, shape) for shape in shapes] or [config]
    jobs = min(jobs, len(parts))
    threads = max(1, (os.cpu_count() or 1) // jobs)
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _begin, (threads,), max_tasks_per_child=1) as pool:
        for part, seconds in zip(parts, pool.map(partial(_compile, world=world), parts), strict=True):
            log.info("compiled %s in %.1f s", ", ".join(shape.name for shape in part.shapes), seconds)
    log.info("compiled %d shapes in %.1f s", len(config.shapes), time.monotonic() - started)


def short(world: WorldConfig) -> WorldConfig:
    """The world with just enough blocks of each kind."""
    dit = world.dit
    action = dit.action_config and replace(dit.action_config, blocks=ACTION_BLOCKS)
    return replace(world, dit=replace(dit, num_layers=BLOCKS, action_config=action))


def _part(config: BaseConfig | DistillConfig, shape: Shape) -> BaseConfig | DistillConfig:
    """The run of one shape alone."""
    if isinstance(config, BaseConfig):
        return replace(config, shapes=(shape,))
    return replace(config, shapes=(shape,), kept=(), method=replace(config.method, kept_share=0.0))


def _begin(threads: int) -> None:
    """In a new process, before torch: no more compiler workers than its share of the cores."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = str(threads)


def _compile(config: BaseConfig | DistillConfig, world: WorldConfig) -> float:
    """Compile the shapes of `config`; the seconds it took."""
    from worldwire_training.base_model import BaseModel
    from worldwire_training.base_training import BaseTrainer
    from worldwire_training.distillation import DistillTrainer
    from worldwire_training.fused import fused_elementwise
    from worldwire_training.speed_probe import random_store

    ranks = Ranks.join(config.device)
    started = time.monotonic()
    store, small = random_store(world, config.device), short(world)
    settings = replace(config, compile_cache="")
    trainer: BaseTrainer | DistillTrainer = (
        BaseTrainer(settings, small, store, ranks)
        if isinstance(settings, BaseConfig)
        else DistillTrainer(settings, BaseModel.build(small), small, store, ranks)
    )
    with fused_elementwise(config.compile == "fused"):
        trainer.compile()
    return time.monotonic() - started
