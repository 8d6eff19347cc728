"""A whole training run of the base model: open the episodes, encode them, train, write the world."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.text import TinyTextEncoder
from worldwire_runtime.model.vae import VAE
from worldwire_runtime.world import preset_folder
from worldwire_training.base_config import BaseConfig, DataConfig, RunConfig, ValidationConfig
from worldwire_training.base_model import BaseModel, text_config
from worldwire_training.base_training import BaseTrainer
from worldwire_training.bulk_episodes import BulkEpisodes
from worldwire_training.common import Ranks
from worldwire_training.context_parallel import strip_of
from worldwire_training.data_engine.prompts import prompt_vocabulary
from worldwire_training.latents import LatentStore, encode_episodes
from worldwire_training.memory_estimate import check_memory
from worldwire_training.vae_fast import speed_up
from worldwire_training.validation import Validator, frames_needed
from worldwire_training.worlds import export_world, load_base, load_vae, world_config

log = logging.getLogger(__name__)

WORLD_FOLDER = "world"
CACHE_NAME_LENGTH = 20


def train_base(config: BaseConfig, resume: bool = False) -> dict[str, float]:
    """Run `config` on all processes of this torchrun; rank 0 writes the world into `output`/world.

    Returns the figures of the last validation (empty on other ranks). Raises ConfigError, DataError and
    CheckpointError before the training, and DivergedError during it.
    """
    began = time.monotonic()
    ranks = Ranks.join(config.device)
    try:
        ranks = ranks.sharing_clips(config.context_parallel)
        vae = open_vae(Path(config.data.vae), config, ranks)
        world = world_config(config.world, vae.config, prompt_vocabulary())
        strip_of(world, config.context_parallel)
        store = training_store(config.data, world, vae, ranks)
        if ranks.device.type == "cuda":
            log.info("memory: %s", check_memory(config, world, ranks))
        validator = make_validator(config.data, config.validation, world, vae) if ranks.is_main else None
        start = load_base(preset_folder(config.init_from), world) if config.init_from else None
        trainer = BaseTrainer(config, world, store, ranks, validator=validator, start=start)
        trainer.publish = partial(publish_world, config, world, vae)
        figures = trainer.fit(resume, began)
        ranks.barrier()
        return figures
    finally:
        ranks.leave()


def publish_world(config: RunConfig, world: WorldConfig, vae: VAE, model: BaseModel) -> None:
    """The world as it is now into `output`/world, and what is worth keeping into `copy_to`."""
    output = Path(config.output)
    export_world(output / WORLD_FOLDER, world, model, vae)
    if config.copy_to:
        copies = Path(config.copy_to)
        shutil.copytree(output / WORLD_FOLDER, copies / WORLD_FOLDER, dirs_exist_ok=True)
        for path in (*output.glob("strip_*.png"), *output.glob("scalars.jsonl")):
            shutil.copy(path, copies)


def training_store(data: DataConfig, world: WorldConfig, vae: VAE, ranks: Ranks) -> LatentStore:
    """This rank's share of the training episodes; ranks that share their clips have the same ones."""
    source = BulkEpisodes.open(Path(data.episodes))
    chosen = [place for place, one in enumerate(source.listed) if data.view in ("", one.get("view"))]
    mine = chosen[: data.most_episodes or len(chosen)][ranks.clip_rank :: ranks.clip_ranks]
    return _encode(source, mine, data, world, vae)


def make_validator(data: DataConfig, config: ValidationConfig, world: WorldConfig, vae: VAE) -> Validator:
    """The held-out episodes, and the frames of the first few."""
    source = BulkEpisodes.open(Path(data.held_out))
    store = _encode(source, range(len(source)), data, world, vae)
    scenes = range(min(config.scenes, len(source)))
    truth = np.stack([source.frames[scene][: frames_needed(config)] for scene in scenes])
    return Validator(config, world, store, truth, vae)


def open_vae(folder: Path, config: RunConfig, ranks: Ranks) -> VAE:
    """A trained VAE in the run's number format, made fast where there is a GPU."""
    vae = load_vae(folder, ranks.device, torch.bfloat16 if config.mixed_precision else torch.float32)
    if ranks.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        speed_up(vae, compile_norms=config.compile != "none")
    return vae


def _encode(
    source: BulkEpisodes, episodes: Sequence[int], data: DataConfig, world: WorldConfig, vae: VAE
) -> LatentStore:
    """The latents of these episodes; with a cache, the first process that needs them makes them for all."""
    if not data.latents_cache:
        return _encoded(source, episodes, data, world, vae)
    kept = Path(data.latents_cache) / cache_name(source, episodes, world, vae)
    kept.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if kept.is_file():
            log.info("the latents of %d episodes are read from %s", len(episodes), kept)
            return LatentStore.load(kept, next(vae.parameters()).device)
        store = _encoded(source, episodes, data, world, vae)
        store.save(kept)
    return store


def _encoded(
    source: BulkEpisodes, episodes: Sequence[int], data: DataConfig, world: WorldConfig, vae: VAE
) -> LatentStore:
    tokenize = TinyTextEncoder(text_config(world)).tokenize
    return encode_episodes(source, episodes, vae, tokenize=tokenize, world=world, batch=data.encode_batch)


def cache_name(source: BulkEpisodes, episodes: Sequence[int], world: WorldConfig, vae: VAE) -> str:
    """A file name that changes with all that latents depend on: episodes, VAE, camera and words."""
    described = {
        "episodes": [source.listed[index] for index in episodes],
        "frames": source.frames.shape[1:],
        "camera": [world.height, world.width, world.horizontal_fov_deg, world.memory_far_m],
        "words": [text_config(world).vocabulary, text_config(world).text_len],
    }
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in vae.state_dict().items():
        digest.update(f"{name} {tensor.dtype}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    digest.update(repr((vae.config.latent_mean, vae.config.latent_std)).encode())
    return f"latents-{digest.hexdigest()[:CACHE_NAME_LENGTH]}.pt"
