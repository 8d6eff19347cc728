"""The folder that the released model comes in: which files are there, and whose tensors each holds.

    base_distilled_model/  config.json, diffusion_pytorch_model.safetensors   (3 steps)
    base_model/            the same two                                       (50 steps, guided)
    Wan2.2_VAE.pth, MG-LightVAE.pth, MG-LightVAE_v2.pth                       (full; 50 % and 75 % pruned)
    models_t5_umt5-xxl-enc-bf16.pth, google/umt5-xxl/                         (text encoder, its tokenizer)

The mixture of experts is announced, not released: `EXPERT_FOLDERS` is the layout that this runtime expects.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.model.config import DiTConfig
from worldwire_runtime.model.stored import INDEX_SUFFIX, TORCH_SUFFIXES

DISTILLED, BASE = "base_distilled_model", "base_model"
EXPERT_FOLDERS = {
    "low": "low_noise_model",
    "high_first": "high_noise_model",
    "high_third": "high_noise_model_third_person",
}
TRANSFORMER_CONFIG, TRANSFORMER_STEM = "config.json", "diffusion_pytorch_model"
FULL_VAE = "Wan2.2_VAE"
LIGHT_VAES = {0.5: "MG-LightVAE", 0.75: "MG-LightVAE_v2"}
TEXT_ENCODER = "models_t5_umt5-xxl-enc-bf16"
TOKENIZER = "google/umt5-xxl"
WAN_TEXT_DIM = 4096  # the official code's default, which its config files need not state


@dataclass(frozen=True)
class ReleasedTree:
    """What a folder has of the released files; None and {} for what it lacks."""

    folder: Path
    transformers: dict[str, Path]  # by folder name, the file or index with their tensors
    full_vae: Path | None
    light_vaes: dict[float, Path]  # by pruning rate
    text_encoder: Path | None
    tokenizer: Path | None

    @property
    def playable(self) -> str:
        """The transformer to play: the distilled one if it is there."""
        for name in (DISTILLED, BASE):
            if name in self.transformers:
                return name
        return next(iter(self.transformers), DISTILLED)

    def transformer(self, name: str | None = None) -> Path:
        """The tensors of a transformer; CheckpointError if the folder has none of that name."""
        wanted = name or self.playable
        if wanted not in self.transformers:
            raise self._lacks(f"{wanted}/{TRANSFORMER_STEM}.safetensors", ", ".join(self.transformers))
        return self.transformers[wanted]

    def need(self, what: str, path: Path | None) -> Path:
        """`path`, or the CheckpointError that it is missing."""
        if path is None:
            raise self._lacks(what, ", ".join(path.name for path in self.files()))
        return path

    def files(self) -> list[Path]:
        """Every file or index that holds tensors."""
        single = [path for path in (self.full_vae, self.text_encoder) if path is not None]
        return [*self.transformers.values(), *single, *self.light_vaes.values()]

    def _lacks(self, what: str, got: str) -> CheckpointError:
        return CheckpointError(
            f"{self.folder} lacks {what}",
            expected="the released files under their own names",
            got=got or "none of them",
            remedy="fetch the missing file; `worldwire models verify DIR` says what is there",
        )


def find_tree(folder: Path) -> ReleasedTree | None:
    """The released files in a folder; None if it holds no transformer of theirs."""
    names = (DISTILLED, BASE, *EXPERT_FOLDERS.values())
    transformers = {name: find_weights(folder / name, TRANSFORMER_STEM) for name in names}
    found = {name: path for name, path in transformers.items() if path is not None}
    if not found and not any((folder / name).is_dir() for name in names):
        return None
    light = {rate: find_weights(folder, stem) for rate, stem in LIGHT_VAES.items()}
    tokenizer = folder / TOKENIZER
    return ReleasedTree(
        folder,
        found,
        find_weights(folder, FULL_VAE),
        {rate: path for rate, path in light.items() if path is not None},
        find_weights(folder, TEXT_ENCODER),
        tokenizer if tokenizer.is_dir() else None,
    )


def find_weights(folder: Path, stem: str) -> Path | None:
    """The file of that stem, whichever way it was saved; one whole file goes before an index of parts."""
    endings = (".safetensors", ".safetensors" + INDEX_SUFFIX, *TORCH_SUFFIXES)
    return next((path for ending in endings if (path := folder / (stem + ending)).is_file()), None)


def read_transformer_config(weights: Path) -> DiTConfig:
    """The sizes that lie beside a transformer's weights; ConfigError if they are unreadable or unknown."""
    path = weights.parent / TRANSFORMER_CONFIG
    try:
        values: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", expected="the transformer's config.json, beside its weights"
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is no config", expected="a JSON object")
    return DiTConfig.from_dict({"text_dim": WAN_TEXT_DIM} | values)
