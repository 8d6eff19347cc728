"""Which configuration a world has and whose weights: everything that can be wrong with names, before reading.

A folder with a `config.json` of ours is a preset; its weights are our own files or, where it has none, the
released files beside it. A folder with released files alone is played as the preset of its kind.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.config import SamplerConfig, WorldConfig
from worldwire_runtime.model.config import Attention, DiTConfig
from worldwire_runtime.model.vae import VAEConfig
from worldwire_runtime.released.tree import (
    BASE,
    DISTILLED,
    EXPERT_FOLDERS,
    FULL_VAE,
    LIGHT_VAES,
    TEXT_ENCODER,
    TOKENIZER,
    ReleasedTree,
    find_tree,
    read_transformer_config,
)

PRESETS = Path(__file__).parent / "presets"
CONFIG_FILE, DIT_FILE, VAE_FILE, TEXT_FILE = (
    "config.json",
    "dit.safetensors",
    "vae.safetensors",
    "text.safetensors",
)
RELEASED_PRESET, EXPERTS_PRESET = "5b-720p", "28b-moe"
RANDOM = "random"
BASE_STEPS, BASE_GUIDANCE = 50, 5.0  # of the released model before distillation


@dataclass(frozen=True)
class Source:
    """Where a world comes from. own: folder of our files; tree: released files; neither: random weights."""

    config: WorldConfig
    seeds: Path
    own: Path | None = None
    tree: ReleasedTree | None = None
    transformer: str | None = None

    @property
    def kind(self) -> str:
        """For people and records."""
        return "own" if self.own else "released" if self.tree else RANDOM


def locate(
    preset: str | Path,
    weights: str | Path | None = None,
    *,
    plan: str | None = None,
    attention: str | None = None,
    vae_pruning: float | None = None,
    offload: bool = False,
) -> Source:
    """Finds the configuration and the weights, and checks that they belong together. Reads no tensors.

    preset: a shipped one by its name, a folder like it, or a released tree (or one transformer folder in it).
    weights: a released tree for a preset without weights, or "random". plan: becomes the default one.
    attention: another mode, for random weights only. vae_pruning: which of the released decoders. offload:
    resting experts leave the device.
    """
    source = _source(preset, weights, attention, vae_pruning, offload)
    return source if plan is None else replace(source, config=replace(source.config, default_plan=plan))


def _source(
    preset: str | Path,
    weights: str | Path | None,
    attention: str | None,
    vae_pruning: float | None,
    offload: bool,
) -> Source:
    folder, tree, transformer = _find(Path(preset), weights)
    config = WorldConfig.from_file(folder / CONFIG_FILE)
    if offload:
        config = _offloaded(config)
    if weights == RANDOM:
        return Source(_timed(config, attention, vae_pruning), folder / "seeds")
    if attention is not None and attention != config.dit.attention:
        raise ConfigError(
            "these weights were trained for another attention mode",
            expected=config.dit.attention,
            got=attention,
            remedy="leave it out; random weights (`weights='random'`) take any mode",
        )
    if tree is None:
        if vae_pruning is not None and vae_pruning != config.vae.pruning_rate:
            raise ConfigError(
                "this world has one VAE", expected=str(config.vae.pruning_rate), got=str(vae_pruning)
            )
        return Source(config, folder / "seeds", own=folder)
    return _released_source(config, folder, tree, transformer, vae_pruning)


def _find(preset: Path, weights: str | Path | None) -> tuple[Path, ReleasedTree | None, str | None]:
    """The folder of the configuration, the released tree if the weights are there, and which part of it."""
    if weights not in (None, RANDOM):
        tree, transformer = _tree_at(Path(str(weights)))
        if tree is None:
            raise CheckpointError(
                f"{weights} holds no released weights", expected=f"a folder with {DISTILLED} or {BASE}"
            )
        return preset_folder(preset), tree, transformer
    tree, transformer = _tree_at(preset) if preset.is_dir() else (None, None)
    home = preset if transformer is None else preset.parent
    if tree is not None and not (home / CONFIG_FILE).is_file():
        experts = set(tree.transformers) & set(EXPERT_FOLDERS.values())
        return PRESETS / (EXPERTS_PRESET if experts else RELEASED_PRESET), tree, transformer
    folder = preset_folder(home)
    if weights is None and tree is None and not (folder / DIT_FILE).is_file():
        raise CheckpointError(
            f"the preset {preset} comes without weights",
            expected=f"{DIT_FILE}, or the released files beside its {CONFIG_FILE}",
            remedy="name the folder that you fetched the released files to, or ask for random weights",
        )
    return folder, tree, transformer


def _tree_at(folder: Path) -> tuple[ReleasedTree | None, str | None]:
    """The tree in a folder, or the one that a transformer's own folder lies in, and that folder's name."""
    if folder.name in (BASE, DISTILLED) and (inside := find_tree(folder.parent)) is not None:
        return inside, folder.name
    return find_tree(folder), None


def _released_source(
    config: WorldConfig, folder: Path, tree: ReleasedTree, transformer: str | None, pruning: float | None
) -> Source:
    """The tree's own sizes, its lightest VAE, its kind's sampler, and the only plan it was trained for."""
    chosen = [EXPERT_FOLDERS["low"]] if config.experts else [transformer or tree.playable]
    stated = read_transformer_config(tree.transformer(chosen[0]))
    _check_released(config, folder, tree, stated)
    rate = max(tree.light_vaes, default=0.0) if pruning is None else pruning
    if rate:
        tree.need(f"{LIGHT_VAES.get(rate, f'a VAE pruned by {rate}')}.pth", tree.light_vaes.get(rate))
    config = replace(
        config,
        dit=stated,
        vae=_pruned(config.vae, rate),
        sampler=_base_sampler(config.sampler) if chosen == [BASE] else config.sampler,
        plans={config.default_plan: config.plan()},
    )
    return Source(config, folder / "seeds", tree=tree, transformer=chosen[0])


def _check_released(config: WorldConfig, folder: Path, tree: ReleasedTree, stated: DiTConfig) -> None:
    """The configurations of world and transformer agree, and every file that it takes to play is there."""
    if config.conventions != "released":
        raise ConfigError(
            f"{folder / CONFIG_FILE} does not speak of the released model",
            expected='"conventions": "released" beside released weights',
            got=repr(config.conventions),
        )
    if folder.parent != PRESETS and stated != config.dit:
        raise ConfigError(
            "the world's config and the transformer's are of different networks",
            expected=str(config.dit),
            got=str(stated),
        )
    if stated.attention != "joint":
        raise ConfigError(
            "released weights are for joint attention", expected="joint", got=repr(stated.attention)
        )
    for name, path in (
        (f"{FULL_VAE}.pth", tree.full_vae),
        (f"{TEXT_ENCODER}.pth", tree.text_encoder),
        (TOKENIZER, tree.tokenizer),
    ):
        tree.need(name, path)


def _offloaded(config: WorldConfig) -> WorldConfig:
    if config.experts is None:
        raise ConfigError(
            f"{config.name} has no experts to offload",
            expected="a mixture of experts, as 28b-moe is",
            remedy="where memory is short, use --text-on cpu, --vae-pruning 0.75 or --precision int8",
        )
    return replace(config, experts=replace(config.experts, offload=True))


def _base_sampler(sampler: SamplerConfig) -> SamplerConfig:
    return replace(sampler, steps=BASE_STEPS, guidance=BASE_GUIDANCE)


def _pruned(config: VAEConfig, rate: float | None) -> VAEConfig:
    """The VAE with another decoder; the encoder is always the full one."""
    return config if rate is None else replace(config, pruning_rate=rate, encoder_pruning_rate=0.0)


def _timed(config: WorldConfig, attention: str | None, pruning: float | None) -> WorldConfig:
    """The configuration for random weights; in another attention mode, that of a network trained here."""
    config = replace(config, vae=_pruned(config.vae, pruning))
    if attention in (None, config.dit.attention):
        return config
    if attention not in get_args(Attention):
        raise ConfigError(
            "unknown attention mode", expected=" or ".join(get_args(Attention)), got=repr(attention)
        )
    dit = replace(config.dit, attention=attention)  # type: ignore[arg-type]  # checked
    sampler = replace(config.sampler, solver="euler")
    return replace(config, dit=dit, sampler=sampler, conventions="worldwire", memory_selection="overlap")


def preset_folder(preset: str | Path) -> Path:
    """The folder of a shipped preset, or the given folder."""
    for folder in (PRESETS / str(preset), Path(preset)):
        if (folder / CONFIG_FILE).is_file():
            return folder
    raise ConfigError(
        "unknown preset",
        expected=" or ".join(preset_names()) + f", or a folder with a {CONFIG_FILE} or with released files",
        got=repr(str(preset)),
        remedy="`worldwire models list` shows what is installed",
    )


def preset_names() -> list[str]:
    """The presets that this installation ships."""
    return sorted(path.parent.name for path in PRESETS.glob(f"*/{CONFIG_FILE}"))
