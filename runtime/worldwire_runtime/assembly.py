"""From files to networks on their device: each tensor is read, converted and moved once.

Our own files, released trees, and random weights in the right shapes, for timing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from worldwire.errors import ConfigError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.checkpoint import check_fit, load_into, load_module
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.random_weights import random_tensors
from worldwire_runtime.model.stored import Progress as BytesRead
from worldwire_runtime.model.stored import Stored, load_stored, open_weights, read_each
from worldwire_runtime.model.text import (
    PromptEncoder,
    RandomPromptEncoder,
    TextEncoder,
    TinyTextConfig,
    TinyTextEncoder,
    UMT5Encoder,
    read_tokenizer,
)
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.released.names import DECODER_PARTS, ENCODER_PARTS, select_network, select_vae
from worldwire_runtime.released.tree import (
    EXPERT_FOLDERS,
    FULL_VAE,
    LIGHT_VAES,
    TEXT_ENCODER,
    TOKENIZER,
    ReleasedTree,
    read_transformer_config,
)
from worldwire_runtime.sources import DIT_FILE, TEXT_FILE, VAE_FILE, Source

RANDOM_SEED = 0
CPU = torch.device("cpu")
ONLY = ""  # the name of the transformer of a world without experts

Progress = Callable[[float, str], None]
"""(the part that is done, 0 to 1, what comes next for people)"""


@dataclass(frozen=True)
class Networks:
    """What plays a world. transformers: one under `ONLY`, or experts under the keys of `EXPERT_FOLDERS`."""

    transformers: dict[str, DiT]
    vae: VAE
    text: TextEncoder


@dataclass(frozen=True)
class Place:
    """Where and in which numbers networks live. text: device of a umT5 encoder."""

    device: torch.device
    dtype: torch.dtype
    quantization: Quantization | None = None
    text: torch.device = CPU


def assemble(source: Source, place: Place, progress: Progress = lambda *_: None) -> Networks:
    """Builds and fills the networks of a world.

    Raises CheckpointError for files that do not fit before the first of their tensors is read.
    """
    config = source.config
    if source.own is not None:
        return _own_networks(config, source.own, place, progress)
    if source.tree is None:
        return _random_networks(config, place, progress)
    return _released_networks(source, source.tree, place, progress)


def _own_networks(config: WorldConfig, folder: Path, place: Place, progress: Progress) -> Networks:
    if not isinstance(config.text, TinyTextConfig) or config.experts is not None:
        raise ConfigError(
            "a folder of our own files has one transformer and the small text encoder", got=config.name
        )
    with torch.device("meta"):
        dit, vae, text = DiT(config.dit), VAE(config.vae), TinyTextEncoder(config.text)
    sizes = [_size(folder / name) for name in (DIT_FILE, VAE_FILE, TEXT_FILE)]
    ends = [sum(sizes[:count]) / max(1, sum(sizes)) for count in range(len(sizes))]
    progress(ends[0], f"reading {DIT_FILE}")
    if place.quantization is None:
        load_module(dit, folder / DIT_FILE, dtype=place.dtype)
    else:
        from worldwire_runtime.quantize.files import load_quantised

        load_quantised(dit, folder / DIT_FILE, place.quantization, place.dtype)
    progress(ends[1], f"reading {VAE_FILE}")
    load_module(vae, folder / VAE_FILE, dtype=place.dtype)
    progress(ends[2], f"reading {TEXT_FILE}")
    load_module(text, folder / TEXT_FILE, dtype=torch.float32)
    return Networks({ONLY: settled(dit, place)}, settled(vae, place), text.to(place.device).eval())


def _random_networks(config: WorldConfig, place: Place, progress: Progress) -> Networks:
    """Weights in the right shapes, made where they are needed; prompts become random vectors."""
    names = (ONLY,) if config.experts is None else tuple(EXPERT_FOLDERS)
    generator = torch.Generator(place.device).manual_seed(RANDOM_SEED)
    transformers = {}
    for index, name in enumerate(names):
        progress(index / (len(names) + 1), "making random weights")
        transformers[name] = _random_transformer(config, place, generator)
    with torch.device("meta"):
        vae = VAE(config.vae)
    load_into(vae, dict(random_tensors(vae, place.dtype, generator)), assign=True)
    text = RandomPromptEncoder(config.dit.text_len, config.dit.text_dim)
    return Networks(transformers, settled(vae, place), text)


def _random_transformer(config: WorldConfig, place: Place, generator: torch.Generator) -> DiT:
    with torch.device("meta"):
        dit = DiT(config.dit)
    tensors = random_tensors(dit, place.dtype, generator)
    if place.quantization is None:
        state = dict(tensors)
    else:
        from worldwire_runtime.quantize.files import quantised_state

        state = quantised_state(dit, tensors, place.quantization, place.dtype)
    load_into(dit, state, assign=True)
    return _parked(dit, config, place)


@dataclass(frozen=True)
class Fitting:
    """A network on the meta device and its tensors in files, which were found to belong to each other."""

    network: nn.Module
    stored: Stored
    where: str
    aliases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fit(self.network, {name: entry.shape for name, entry in self.given.items()}, self.where)

    @property
    def given(self) -> Stored:
        """The stored tensors under every name that the network has for them."""
        named = {alias: name for alias, name in self.aliases.items() if name in self.stored}
        return self.stored | {alias: self.stored[name] for alias, name in named.items()}

    def fill(self, device: torch.device, dtype: torch.dtype | None, progress: BytesRead) -> None:
        """Reads the tensors to where the network is to live."""
        load_stored(
            self.network,
            self.stored,
            dtype=dtype,
            device=device,
            where=self.where,
            aliases=self.aliases,
            progress=progress,
        )


def _released_networks(source: Source, tree: ReleasedTree, place: Place, progress: Progress) -> Networks:
    """Everything is checked first, then read: the files are large."""
    config, parking = source.config, _parking(source.config, place)
    paths = _transformer_files(config, tree, source.transformer)
    transformers = {name: _transformer_fitting(config, path) for name, path in paths.items()}
    vae, (encoder, text) = _vae_fitting(config.vae, tree), _text_fitting(config, tree)
    tokenizer = read_tokenizer(tree.need(TOKENIZER, tree.tokenizer))
    meter = _Meter(progress, [fitting.stored for fitting in (*transformers.values(), vae, text)])

    for fitting in transformers.values():
        _fill_transformer(fitting, parking, meter(f"reading {fitting.where}"))
    vae.fill(place.device, place.dtype, meter("reading the VAE"))
    # On a CPU as it is stored: a mapped `.pth` then takes no memory of its own.
    text_dtype = None if place.text.type == "cpu" else place.dtype
    text.fill(place.text, text_dtype, meter("reading the text encoder"))
    return Networks(
        {name: settled(fitting.network, parking) for name, fitting in transformers.items()},
        settled(vae.network, place),
        PromptEncoder(encoder.eval().requires_grad_(False), tokenizer, config.dit.text_len),
    )


def _transformer_files(config: WorldConfig, tree: ReleasedTree, name: str | None) -> dict[str, Path]:
    """By the name under which `Networks` knows it. Of the experts for high noise, one view's will do."""
    if config.experts is None:
        return {ONLY: tree.transformer(name)}
    wanted = {"low": tree.transformer(EXPERT_FOLDERS["low"])}
    high = {key: folder for key, folder in EXPERT_FOLDERS.items() if key != "low"}
    wanted |= {key: tree.transformers[folder] for key, folder in high.items() if folder in tree.transformers}
    if len(wanted) == 1:
        tree.transformer(next(iter(high.values())))
    for path in wanted.values():
        if (stated := read_transformer_config(path)) != config.dit:
            raise ConfigError(f"{path.parent} is of another size", expected=str(config.dit), got=str(stated))
    return wanted


def _transformer_fitting(config: WorldConfig, path: Path) -> Fitting:
    with torch.device("meta"):
        dit = DiT(config.dit)
    stored = select_network(open_weights(path), dit.state_dict().keys()).stored
    return Fitting(dit, stored, str(path))


def _fill_transformer(fitting: Fitting, place: Place, progress: BytesRead) -> None:
    """Weights as `place` wants them; in 8 bits they are quantised one by one as they come in."""
    if place.quantization is None:
        fitting.fill(place.device, place.dtype, progress)
        return
    from worldwire_runtime.quantize.files import quantised_state

    dit = cast(DiT, fitting.network)
    tensors = read_each(fitting.stored, device=place.device, progress=progress)
    load_into(dit, quantised_state(dit, tensors, place.quantization, place.dtype), fitting.where, assign=True)


def _vae_fitting(config: VAEConfig, tree: ReleasedTree) -> Fitting:
    with torch.device("meta"):
        vae = VAE(config)
    return Fitting(vae, vae_tensors(config, tree), "the VAE files")


def vae_tensors(config: VAEConfig, tree: ReleasedTree) -> Stored:
    """The tensors of the tree's VAE: all of the full one's, or its encoder's and a light one's decoder's."""
    decoder_blocks = config.decoder_res_blocks or config.num_res_blocks + 1
    blocks = (config.num_res_blocks, decoder_blocks)
    full = open_weights(tree.need(f"{FULL_VAE}.pth", tree.full_vae))
    if not config.pruning_rate:
        return select_vae(full, (*ENCODER_PARTS, *DECODER_PARTS), blocks).stored
    name = LIGHT_VAES.get(config.pruning_rate, f"a VAE pruned by {config.pruning_rate}")
    light = open_weights(tree.need(f"{name}.pth", tree.light_vaes.get(config.pruning_rate)))
    encoder, decoder = select_vae(full, ENCODER_PARTS, blocks), select_vae(light, DECODER_PARTS, blocks)
    return encoder.stored | decoder.stored


def _text_fitting(config: WorldConfig, tree: ReleasedTree) -> tuple[UMT5Encoder, Fitting]:
    """The umT5 encoder, and the network inside it under the names of its library."""
    if isinstance(config.text, TinyTextConfig):
        raise ConfigError("released weights come with umT5", expected="the sizes of umT5", got="a vocabulary")
    with torch.device("meta"):
        encoder = UMT5Encoder(config.text)
    path, names = tree.need(f"{TEXT_ENCODER}.pth", tree.text_encoder), encoder.official_names()
    chosen = select_network(open_weights(path), names).stored
    renamed = {names.get(name, name): entry for name, entry in chosen.items()}
    return encoder, Fitting(encoder.model, renamed, str(path), encoder.aliases())


def _parking(config: WorldConfig, place: Place) -> Place:
    """Experts that take turns wait in the main memory."""
    offloaded = config.experts is not None and config.experts.offload
    return replace(place, device=CPU) if offloaded else place


def _parked(dit: DiT, config: WorldConfig, place: Place) -> DiT:
    return settled(dit, _parking(config, place))


def settled(module: Any, place: Place) -> Any:
    """A network at its place, for inference."""
    return module.to(place.device, place.dtype).eval().requires_grad_(False)


class _Meter:
    """Progress over several files."""

    def __init__(self, progress: Progress, files: list[Stored]) -> None:
        self._progress, self._before = progress, 0
        self._total = max(1, sum(entry.bytes for stored in files for entry in stored.values()))

    def __call__(self, stage: str) -> BytesRead:
        """The progress of the next file."""
        start = self._before

        def report(done: int, _: int) -> None:
            self._before = start + done
            self._progress(min(1.0, self._before / self._total), stage)

        return report


def _size(path: Path) -> int:
    """Bytes of a file; 0 for one that is not there: reading it says so."""
    return path.stat().st_size if path.is_file() else 0
