"""Weights as they lie in files: names, shapes and types without reading them, then one tensor at a time.

Safetensors files, sharded ones (an index and its parts) and `.pth` files look the same from here. A network
is filled without a second copy of it in memory: it is built on the meta device, each tensor is read,
converted and given to it, and the read one is gone before the next.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worldwire.errors import CheckpointError
from worldwire_runtime.model.checkpoint import check_fit, load_into

INDEX_SUFFIX = ".index.json"
HEADER_LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
METADATA = "__metadata__"
TORCH_SUFFIXES = (".pth", ".pt", ".bin")
WRAPPERS = ("state_dict", "gen_model", "generator")
"""Keys under which training code stores the weights of a network; they may be nested."""
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

Progress = Callable[[int, int], None]
"""(bytes read, bytes in all)"""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file.

    read: brings it to the CPU as it is stored; into the front of a byte buffer [bytes], if one is given and
    there is something to read.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[Tensor | None], Tensor]

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.elements * self.dtype.itemsize


Stored = dict[str, StoredTensor]


def open_weights(path: Path) -> Stored:
    """The tensors of a safetensors file, of the parts that an `.index.json` lists, or of a `.pth` file.

    A `.pth` is unwrapped (`WRAPPERS`) and read with `weights_only`: it runs no code.
    Raises CheckpointError for a file that is absent, cut short, or of another kind.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _open_index(path)
    if path.suffix in TORCH_SUFFIXES:
        return _open_torch(path)
    return _open_safetensors(path)


def files_of(path: Path) -> list[Path]:
    """The files that hold the tensors of `path`: itself, or the parts that an index lists."""
    if path.name.endswith(INDEX_SUFFIX):
        return [path.parent / name for name in sorted(set(_weight_map(path).values()))]
    return [path]


def load_stored(
    module: nn.Module,
    stored: Mapping[str, StoredTensor],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    where: str = "the file",
    aliases: Mapping[str, str] | None = None,
    progress: Progress = lambda *_: None,
) -> None:
    """Fills a module that was built on the meta device; floating tensors become `dtype` (None: as stored).

    aliases: names of the module that share the tensor of another name.
    Raises one CheckpointError that names every missing, extra and mis-shaped tensor, before any is read.
    """
    given = dict(stored) | {alias: stored[name] for alias, name in (aliases or {}).items() if name in stored}
    check_fit(module, {name: entry.shape for name, entry in given.items()}, where)
    read = read_each(stored, device=device, dtype=dtype, progress=progress)
    state = dict(read)
    state |= {alias: state[name] for alias, name in (aliases or {}).items()}
    load_into(module, state, where=where, assign=True)


def read_each(
    stored: Mapping[str, StoredTensor],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    progress: Progress = lambda *_: None,
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, one after the other, where and as they are wanted.

    What is to be converted or moved is read into one buffer, again and again: many buffers of many sizes
    would leave holes in the heap as large as a second copy. For a GPU the buffer is pinned.
    """
    place, largest = torch.device(device), max((entry.bytes for entry in stored.values()), default=0)
    total, done, buffer = sum(entry.bytes for entry in stored.values()), 0, None
    for name, entry in stored.items():
        wanted = dtype if dtype is not None and entry.dtype.is_floating_point else entry.dtype
        stays = wanted == entry.dtype and place.type == "cpu"
        if not stays and buffer is None:
            buffer = torch.empty(largest, dtype=torch.uint8, pin_memory=place.type == "cuda")
        yield name, entry.read(None if stays else buffer).to(device=place, dtype=wanted)
        done += entry.bytes
        progress(done, total)


# ---------------------------------------------------------------------- safetensors


def _open_safetensors(path: Path) -> Stored:
    """Reads the header (fact: safetensors format: length, JSON, then the tensors' bytes)."""
    try:
        header, start = _read_header(path)
        space = path.stat().st_size - start
        stored = {
            name: _safetensor(path, entry, start, space) for name, entry in header.items() if name != METADATA
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error, "a complete safetensors file") from error
    return stored


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header and where the tensors' bytes start."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
        if not 0 < length <= min(MAX_HEADER_BYTES, path.stat().st_size - HEADER_LENGTH_BYTES):
            raise ValueError("its header has no sensible length")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header, HEADER_LENGTH_BYTES + length


def _safetensor(path: Path, entry: Mapping[str, Any], start: int, space: int) -> StoredTensor:
    shape, dtype = tuple(int(size) for size in entry["shape"]), DTYPES[entry["dtype"]]
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if min(shape, default=0) < 0 or end - begin != prod(shape) * dtype.itemsize:
        raise ValueError("a tensor's size does not fit its shape")
    if not 0 <= begin <= end <= space:
        raise ValueError(f"it ends {end - space} bytes early")
    return StoredTensor(shape, dtype, lambda into: _read_bytes(path, start + begin, shape, dtype, into))


def _read_bytes(
    path: Path, offset: int, shape: tuple[int, ...], dtype: torch.dtype, into: Tensor | None
) -> Tensor:
    """Read, not mapped: what is converted must not stay resident beside what it became."""
    size = prod(shape) * dtype.itemsize
    raw = torch.empty(size, dtype=torch.uint8) if into is None else into[:size]
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        view, filled = raw.numpy().data, 0
        while filled < len(view):
            count = file.readinto(view[filled:])
            if not count:
                raise _unreadable(path, "it ends early", "a complete safetensors file")
            filled += count
    return raw.view(dtype).view(shape)


# ---------------------------------------------------------------------- sharded


def _open_index(path: Path) -> Stored:
    """Every name from the file that the index says; what an index and its parts disagree on is named."""
    where, stored = _weight_map(path), Stored()
    absent = [file.name for file in files_of(path) if not file.is_file()]
    if absent:
        raise CheckpointError(
            f"{path} lists files that are not there",
            expected=f"{len(set(where.values()))} parts beside it",
            got=f"missing: {', '.join(absent)}",
            remedy="fetch the missing parts",
        )
    for file in files_of(path):
        for name, entry in _open_safetensors(file).items():
            if where.get(name) == file.name:
                stored[name] = entry
            elif name not in where:
                raise CheckpointError(
                    f"{file} holds a tensor that {path.name} does not list",
                    got=name,
                    remedy="fetch both anew",
                )
    lost = sorted(where.keys() - stored.keys())
    if lost:
        raise CheckpointError(f"the parts of {path} lack tensors that it lists", got=", ".join(lost))
    return stored


def _weight_map(path: Path) -> dict[str, str]:
    try:
        listed = json.loads(path.read_text())["weight_map"]
        return {str(name): Path(file).name for name, file in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(path, error, "an index with a weight_map") from error


# ---------------------------------------------------------------------- .pth


def _open_torch(path: Path) -> Stored:
    """The file stays mapped while its tensors are in use; the pages of those not used can be dropped."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise _unreadable(path, error, "a complete .pth file that holds tensors only") from error
    found = dict(_tensors(unwrapped(content)))
    if not found:
        raise _unreadable(path, "it holds no tensors", "a state dict")
    return {name: _kept(tensor) for name, tensor in found.items()}


def unwrapped(content: Any) -> Any:
    """What lies below the wrapper keys of a training checkpoint."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    return content


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(value, Tensor):
                yield str(name), value


def _kept(tensor: Tensor) -> StoredTensor:
    return StoredTensor(tuple(tensor.shape), tensor.dtype, lambda _: tensor.detach())


def _unreadable(path: Path, why: object, expected: str) -> CheckpointError:
    reason = str(why).splitlines()[0] if str(why) else repr(why)
    return CheckpointError(
        f"{path} cannot be read ({reason})", expected=expected, remedy="fetch or export the file again"
    )
