"""A world's parts, put together from a training configuration, and taken apart into the files that ship."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.checkpoint import load_module, save_compact
from worldwire_runtime.model.text import vocabulary_of
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.world import CONFIG_FILE, DIT_FILE, TEXT_FILE, VAE_FILE, preset_folder, preset_names
from worldwire_training.base_model import BaseModel, text_config
from worldwire_training.vae_training import CONFIG as VAE_CONFIG_FILE
from worldwire_training.vae_training import WEIGHTS as VAE_WEIGHTS_FILE


def world_config(table: Mapping[str, Any], vae: VAEConfig, vocabulary: Sequence[str]) -> WorldConfig:
    """The world that a `[world]` table describes, around a trained VAE and the words of its prompts.

    Raises ConfigError when the latents of the VAE and of the transformer differ.
    """
    text = {"vocabulary": vocabulary_of(vocabulary)} | dict(table.get("text", {}))
    world = WorldConfig.from_dict({**table, "text": text, "vae": asdict(vae)})
    if world.dit.in_dim != vae.z_dim:
        raise ConfigError(
            "the transformer does not fit the VAE",
            expected=f"world.dit.in_dim = {vae.z_dim}",
            got=str(world.dit.in_dim),
        )
    return world


def load_vae(folder: Path, device: torch.device, dtype: torch.dtype) -> VAE:
    """The VAE that a training run left in `folder`, or that of a world that ships there; or of a preset."""
    if not folder.is_dir() and str(folder) in preset_names():
        folder = preset_folder(folder)
    shipped = (folder / CONFIG_FILE).is_file()
    path = folder / (CONFIG_FILE if shipped else VAE_CONFIG_FILE)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"there is no trained VAE: {path} cannot be read ({error})", remedy="run `worldwire train vae`"
        ) from error
    values = values["vae"] if shipped else values
    with torch.device("meta"):
        vae = VAE(VAEConfig(**values))
    load_module(vae, folder / VAE_WEIGHTS_FILE, dtype=dtype)
    return vae.to(device).eval().requires_grad_(False)


def export_world(folder: Path, world: WorldConfig, model: BaseModel, vae: VAE) -> None:
    """Write the files that `World.load` reads: the configuration, and weights as int8 rows."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(world.to_json(), encoding="utf-8")
    for part, name in ((model.dit, DIT_FILE), (model.text, TEXT_FILE), (vae, VAE_FILE)):
        save_compact(part.state_dict(), folder / name)


def blend(base: Path, student: Path, share: float, output: Path) -> None:
    """Write the world whose weights are `share` of the way from a base model's to its student's.

    A student keeps its weights near those that it began with, so what lies between works too (Wortsman et
    al. 2022): nearer to the truth than the student, sharper than the base model. The VAE is the student's.
    """
    if not 0 <= share <= 1:
        raise ConfigError("the share of the student is out of range", expected="0 to 1", got=str(share))
    world = WorldConfig.from_file(student / CONFIG_FILE)
    first, second = load_base(base, world), load_base(student, world)
    with torch.no_grad():
        for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
            ours.lerp_(theirs, share)
    export_world(output, world, first, load_vae(student, torch.device("cpu"), torch.float32))


def load_base(folder: Path, world: WorldConfig) -> BaseModel:
    """The transformer and text encoder of an exported world (int8 rows undone), in float32 on the CPU.

    Raises CheckpointError when a file is missing or damaged, or belongs to other sizes or other words.
    """
    model = BaseModel.build(world)
    parts: tuple[tuple[nn.Module, str], ...] = ((model.dit, DIT_FILE), (model.text, TEXT_FILE))
    for part, name in parts:
        load_module(part, folder / name, dtype=torch.float32)
    known = text_config(WorldConfig.from_file(folder / CONFIG_FILE)).vocabulary
    words = text_config(world).vocabulary
    if known != words:
        raise CheckpointError(
            f"{folder} knows other words than this run",
            expected=f"{len(words)} words",
            got=f"{len(known)} words, {len(set(known) ^ set(words))} on one side only",
            remedy="begin without init_from",
        )
    return model
