"""A whole distillation: teacher and episodes from files, training, and the world that it leaves."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.world import CONFIG_FILE, preset_folder
from worldwire_training.base_model import check_draws
from worldwire_training.base_run import make_validator, open_vae, publish_world, training_store
from worldwire_training.common import Ranks
from worldwire_training.distill_config import DistillConfig
from worldwire_training.distillation import DistillTrainer
from worldwire_training.worlds import load_base


def distil(config: DistillConfig, resume: bool = False) -> dict[str, float]:
    """Run `config` on all processes of this torchrun; rank 0 writes the student's world into `output`/world.

    Returns the figures of the last validation (empty on other ranks). Raises ConfigError, DataError and
    CheckpointError before the training, and DivergedError during it.
    """
    began = time.monotonic()
    folder = preset_folder(config.teacher)
    theirs = WorldConfig.from_file(folder / CONFIG_FILE)
    world = student_world(theirs, config)
    ranks = Ranks.join(config.device)
    try:
        vae = open_vae(Path(config.data.vae or folder), config, ranks)
        teacher = load_base(folder, theirs)
        store = training_store(config.data, world, vae, ranks)
        validator = make_validator(config.data, config.validation, world, vae) if ranks.is_main else None
        trainer = DistillTrainer(config, teacher, world, store, ranks, validator=validator)
        trainer.publish = partial(publish_world, config, world, vae)
        figures = trainer.fit(resume, began)
        ranks.barrier()
        return figures
    finally:
        ranks.leave()


def student_world(teacher: WorldConfig, config: DistillConfig) -> WorldConfig:
    """The teacher's world with the student's attention and steps; ConfigError where draws do not fit it."""
    attention = config.attention or teacher.dit.attention
    sampler = replace(teacher.sampler, steps=config.method.sampler_steps, shift=config.noise.shift)
    world = replace(teacher, dit=replace(teacher.dit, attention=attention), sampler=sampler)  # type: ignore[arg-type]
    check_draws(world, config.noise)
    return world
