"""A whole training run of the base model: open the episodes, encode them, train, write the world."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.text import TinyTextEncoder
from worldwire_runtime.model.vae import VAE
from worldwire_training.base_config import BaseConfig
from worldwire_training.base_training import BaseTrainer
from worldwire_training.bulk_episodes import BulkEpisodes
from worldwire_training.common import Ranks
from worldwire_training.data_engine.prompts import prompt_vocabulary
from worldwire_training.latents import LatentStore, encode_episodes
from worldwire_training.vae_fast import speed_up
from worldwire_training.validation import Validator, frames_needed
from worldwire_training.worlds import export_world, load_base, load_vae, world_config

log = logging.getLogger(__name__)

WORLD_FOLDER = "world"


def train_base(config: BaseConfig, resume: bool = False) -> dict[str, float]:
    """Run `config` on all processes of this torchrun; rank 0 writes the world into `output`/world.

    Returns the figures of the last validation (empty on other ranks). Raises ConfigError, DataError and
    CheckpointError before the training, and DivergedError during it.
    """
    ranks = Ranks.join(config.device)
    try:
        vae = load_vae(Path(config.data.vae), ranks.device, _number_format(config))
        if ranks.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
            speed_up(vae, compile_norms=config.compile != "none")
        world = world_config(config.world, vae.config, prompt_vocabulary())
        store = _training_store(config, world, vae, ranks)
        validator = _validator(config, world, vae) if ranks.is_main else None
        start = load_base(Path(config.init_from), world) if config.init_from else None
        trainer = BaseTrainer(config, world, store, ranks, validator=validator, start=start)
        figures = trainer.fit(resume)
        if ranks.is_main:
            trainer.ema.copy_to(trainer.model)
            export_world(Path(config.output) / WORLD_FOLDER, world, trainer.model, vae)
        ranks.barrier()
        return figures
    finally:
        ranks.leave()


def _training_store(config: BaseConfig, world: WorldConfig, vae: VAE, ranks: Ranks) -> LatentStore:
    """This rank's share of the training episodes."""
    source = BulkEpisodes.open(Path(config.data.episodes))
    count = min(len(source), config.data.most_episodes or len(source))
    mine = range(ranks.rank, count, ranks.world_size)
    return _encode(source, mine, config, world, vae)


def _validator(config: BaseConfig, world: WorldConfig, vae: VAE) -> Validator:
    """The held-out episodes, and the frames of the first few."""
    source = BulkEpisodes.open(Path(config.data.held_out))
    store = _encode(source, range(len(source)), config, world, vae)
    scenes = range(min(config.validation.scenes, len(source)))
    truth = np.stack([source.frames[scene][: frames_needed(config.validation)] for scene in scenes])
    return Validator(config.validation, world, store, truth, vae)


def _encode(
    source: BulkEpisodes, episodes: range, config: BaseConfig, world: WorldConfig, vae: VAE
) -> LatentStore:
    words = TinyTextEncoder(world.text)
    return encode_episodes(
        source, episodes, vae, tokenize=words.tokenize, world=world, batch=config.data.encode_batch
    )


def _number_format(config: BaseConfig) -> torch.dtype:
    return torch.bfloat16 if config.mixed_precision else torch.float32
