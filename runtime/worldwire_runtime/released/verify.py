"""`worldwire models verify DIR`: is every tensor of every file there, under its name, in its shape.

By default only headers are read, so that 56 GB take a second. In full, every tensor is read and looked
through for numbers that are none, and every file gets its SHA-256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from worldwire.errors import CheckpointError, ConfigError, WorldwireError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.checkpoint import misfit
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.stored import Stored, files_of, open_weights, read_each
from worldwire_runtime.model.text import UMT5Config, UMT5Encoder
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.released.names import (
    DECODER_PARTS,
    ENCODER_PARTS,
    Selection,
    select_network,
    select_vae,
)
from worldwire_runtime.released.tree import ReleasedTree, find_tree, read_transformer_config
from worldwire_runtime.sources import CONFIG_FILE, PRESETS, RELEASED_PRESET

CHUNK_BYTES = 1 << 24
MAX_NAMED = 8

Shapes = dict[str, tuple[int, ...]]
Progress = Callable[[str, int, int], None]
"""(file, bytes done, bytes in all)"""


@dataclass(frozen=True)
class FileReport:
    """What one file holds of what it should. faults: names by kind, empty if all is well."""

    path: Path
    what: str
    tensors: int = 0
    parameters: int = 0
    stored_as: tuple[str, ...] = ()
    faults: dict[str, list[str]] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.faults


@dataclass(frozen=True)
class TreeReport:
    """All files of a folder. lacking: what a playable tree has and this one does not."""

    files: list[FileReport]
    lacking: list[str]

    @property
    def good(self) -> bool:
        return not self.lacking and all(file.good for file in self.files)


@dataclass(frozen=True)
class Expected:
    """What a file should hold: the shapes of a network's tensors, and how they are found in it."""

    path: Path
    what: str
    shapes: Callable[[], Shapes]
    select: Callable[[Stored], Selection]


def verify_tree(folder: Path, full: bool = False, progress: Progress = lambda *_: None) -> TreeReport:
    """Checks every released file of a folder. CheckpointError if there is none."""
    tree = find_tree(folder)
    if tree is None:
        raise CheckpointError(
            f"{folder} is no released tree", expected="a folder with base_distilled_model or base_model"
        )
    home = folder if (folder / CONFIG_FILE).is_file() else PRESETS / RELEASED_PRESET
    config = WorldConfig.from_file(home / CONFIG_FILE)
    files = [_verify(expected, full, progress) for expected in expectations(config, tree)]
    wanted = {
        "a transformer": tree.transformers,
        "Wan2.2_VAE.pth": tree.full_vae,
        "models_t5_umt5-xxl-enc-bf16.pth": tree.text_encoder,
        "google/umt5-xxl": tree.tokenizer,
    }
    return TreeReport(files, [name for name, there in wanted.items() if not there])


def expectations(config: WorldConfig, tree: ReleasedTree) -> Iterator[Expected]:
    """Every file of a tree and what it should hold."""
    for name, path in tree.transformers.items():
        yield _expected_transformer(path, name)
    vae = config.vae
    full = replace(vae, pruning_rate=0.0, encoder_pruning_rate=0.0)
    if tree.full_vae is not None:
        yield _expected_vae(tree.full_vae, "full VAE", full, (*ENCODER_PARTS, *DECODER_PARTS))
    for rate, path in tree.light_vaes.items():
        light = replace(vae, pruning_rate=rate)
        yield _expected_vae(path, f"decoder pruned by {rate:.0%}", light, DECODER_PARTS)
    if tree.text_encoder is not None and isinstance(config.text, UMT5Config):
        shapes = umt5_shapes(config.text)
        yield Expected(
            tree.text_encoder, "umT5 encoder", lambda: shapes, lambda stored: select_network(stored, shapes)
        )


def shapes_of(module: nn.Module) -> Shapes:
    """Names and shapes of a module's tensors."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def transformer_shapes(weights: Path) -> Shapes:
    """What the config beside a transformer's weights asks for."""
    config = read_transformer_config(weights)
    with torch.device("meta"):
        return shapes_of(DiT(config))


def vae_shapes(config: VAEConfig, parts: Sequence[str]) -> Shapes:
    """The tensors of the named parts of a VAE."""
    with torch.device("meta"):
        shapes = shapes_of(VAE(config))
    return {name: shape for name, shape in shapes.items() if name.startswith(tuple(parts))}


def umt5_shapes(config: UMT5Config) -> Shapes:
    """The tensors of a umT5 encoder under their official names."""
    with torch.device("meta"):
        encoder = UMT5Encoder(config)
    ours = shapes_of(encoder.model)
    return {official: ours[name] for official, name in encoder.official_names().items()}


def _expected_transformer(path: Path, what: str) -> Expected:
    return Expected(
        path,
        what,
        lambda: transformer_shapes(path),
        lambda stored: select_network(stored, transformer_shapes(path)),
    )


def _expected_vae(path: Path, what: str, config: VAEConfig, parts: Sequence[str]) -> Expected:
    blocks = (config.num_res_blocks, config.decoder_res_blocks or config.num_res_blocks + 1)
    return Expected(
        path, what, lambda: vae_shapes(config, parts), lambda stored: select_vae(stored, parts, blocks)
    )


# ---------------------------------------------------------------------- one file


def _verify(expected: Expected, full: bool, progress: Progress) -> FileReport:
    report = FileReport(expected.path, expected.what)
    try:
        stored = open_weights(expected.path)
        shapes, selection = expected.shapes(), expected.select(stored)
    except (CheckpointError, ConfigError) as error:
        return replace(report, faults={"unreadable": [_first_words(error)]})
    own = selection.stored
    faults = misfit(shapes, {name: entry.shape for name, entry in own.items()})
    report = replace(
        report,
        tensors=len(own),
        parameters=sum(entry.elements for entry in own.values()),
        stored_as=tuple(sorted({str(entry.dtype).removeprefix("torch.") for entry in own.values()})),
        faults=faults,
        set_aside=tuple(selection.set_aside),
    )
    return _verify_fully(report, own, progress) if full else report


def _verify_fully(report: FileReport, stored: Stored, progress: Progress) -> FileReport:
    """Reads every tensor, and every byte for its hash."""
    name = report.path.name
    try:
        spoiled = [
            tensor_name
            for tensor_name, tensor in read_each(
                stored, progress=lambda done, total: progress(f"reading {name}", done, total)
            )
            if not torch.isfinite(tensor.float()).all()
        ]
        hashes = {file.name: sha256(file, progress) for file in files_of(report.path)}
    except CheckpointError as error:
        return replace(report, faults=report.faults | {"unreadable": [_first_words(error)]})
    faults = report.faults | ({"not finite": spoiled} if spoiled else {})
    return replace(report, faults=faults, sha256=hashes)


def sha256(path: Path, progress: Progress = lambda *_: None) -> str:
    """The hash of a file's bytes."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress(f"hashing {path.name}", done, total)
    return digest.hexdigest()


def _first_words(error: WorldwireError) -> str:
    return "; ".join(filter(None, (error.problem, error.got)))


# ---------------------------------------------------------------------- for people


def table(report: TreeReport) -> str:
    """A line for each file, its faults and what was set aside below it."""
    lines = []
    for file in report.files:
        lines.append(
            f"{'ok ' if file.good else 'BAD'} {file.path.name:<44} {file.what}: {file.tensors} tensors, "
            f"{file.parameters:,} numbers as {', '.join(file.stored_as) or 'nothing'}"
        )
        lines += [f"      {what}: {_some(names)}" for what, names in file.faults.items()]
        if file.set_aside:
            lines.append(f"      not needed, set aside: {_some(file.set_aside)}")
        lines += [f"      sha256 {digest}  {name}" for name, digest in file.sha256.items()]
    lines += [f"BAD {name} is missing" for name in report.lacking]
    lines.append("this tree plays" if report.good else "this tree does not play as it is")
    return "\n".join(lines) + "\n"


def as_json(report: TreeReport) -> dict[str, object]:
    """The same for programs, every name included."""
    return {
        "good": report.good,
        "lacking": report.lacking,
        "files": [
            {
                "path": str(file.path),
                "what": file.what,
                "tensors": file.tensors,
                "parameters": file.parameters,
                "stored_as": list(file.stored_as),
                "faults": file.faults,
                "set_aside": list(file.set_aside),
                "sha256": file.sha256,
            }
            for file in report.files
        ],
    }


def _some(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
