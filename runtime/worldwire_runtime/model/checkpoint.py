"""Weights to and from safetensors files: every tensor accounted for before anything is loaded.

The compact format stores each matrix as int8 rows and a float32 scale per row (`<name>` and `<name>.scale`);
everything else stays as it is. It is undone while loading, so networks never see it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldwire.errors import CheckpointError

SCALE_SUFFIX = ".scale"
INT8_MAX = 127
# Rows shorter than this are not worth a scale of their own.
MIN_COMPACT_ROW = 16
# Guards the division for rows of zeros.
MIN_SCALE = 1e-12


def load_module(module: nn.Module, path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> None:
    """Loads a safetensors file into `module` (which may live on the meta device), as `dtype` or as stored.

    Raises CheckpointError when the file is unreadable or its tensors are not exactly those of the module.
    """
    load_into(module, read_state(path, dtype), where=str(path), assign=True)


def load_into(
    module: nn.Module, state: Mapping[str, Tensor], where: str = "the state", assign: bool = False
) -> None:
    """Copies `state` into `module`, or with `assign` makes its tensors the module's own.

    Raises one CheckpointError that names every missing, extra and mis-shaped tensor; nothing is loaded then.
    """
    check_fit(module, {name: tensor.shape for name, tensor in state.items()}, where)
    module.load_state_dict(dict(state), assign=assign)


def check_fit(module: nn.Module, shapes: Mapping[str, Sequence[int]], where: str) -> None:
    """One CheckpointError that names every tensor that is missing, extra or mis-shaped for the module."""
    faults = misfit({name: tensor.shape for name, tensor in module.state_dict().items()}, shapes)
    if faults:
        raise CheckpointError(
            f"{where} does not fit the {type(module).__name__}",
            expected=f"exactly its {len(module.state_dict())} tensors",
            got="; ".join(f"{what}: {', '.join(names)}" for what, names in faults.items()),
            remedy="use the config that belongs to these weights",
        )


def misfit(own: Mapping[str, Sequence[int]], given: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Names by fault ("missing", "extra", "mis-shaped") of given tensors against the own; {} if all fit."""
    faults = {
        "missing": sorted(own.keys() - given.keys()),
        "extra": sorted(given.keys() - own.keys()),
        "mis-shaped": [
            f"{name} {list(given[name])} instead of {list(shape)}"
            for name, shape in own.items()
            if name in given and tuple(given[name]) != tuple(shape)
        ],
    }
    return {what: names for what, names in faults.items() if names}


def read_state(path: str | os.PathLike[str], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """All tensors of a safetensors file, compact ones undone, floating ones as `dtype` (None: as stored).

    Raises CheckpointError when the file is absent, cut short, or holds int8 rows without their scales.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error})",
            expected="a complete safetensors file",
            remedy="fetch or export the file again",
        ) from error
    scaled = {name for name, tensor in stored.items() if tensor.dtype == torch.int8}
    scales = {name + SCALE_SUFFIX for name in scaled}
    state = {}
    for name, tensor in stored.items():
        if name in scaled:
            state[name] = _dequantised(name, tensor, stored.get(name + SCALE_SUFFIX), str(path))
        elif name not in scales:
            state[name] = tensor
    return {name: _as(tensor, dtype) for name, tensor in state.items()}


def save_state(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Writes tensors as they are; an existing file is replaced only once the new one is complete."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}, partial)
    os.replace(partial, path)


def save_compact(state: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Writes tensors in the compact format (a quarter of float32)."""
    save_state(compacted(state), path)


def compacted(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the compact format: matrices as int8 rows and their scales, the rest as it is."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if _compactable(tensor):
            packed[name], packed[name + SCALE_SUFFIX] = quantise_rows(tensor)
        else:
            packed[name] = tensor
    return packed


def quantise_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """int8 rows (dim 0) and their float32 scales [rows]: the largest value of a row becomes 127."""
    rows = matrix.detach().float().flatten(1)
    scale = (rows.abs().amax(dim=1) / INT8_MAX).clamp_min(MIN_SCALE)
    return (rows / scale[:, None]).round().to(torch.int8).reshape(matrix.shape), scale


def dequantise_rows(rows: Tensor, scale: Tensor) -> Tensor:
    """The float32 matrix of `quantise_rows`."""
    return rows.float() * scale.reshape(-1, *[1] * (rows.ndim - 1))


def _compactable(tensor: Tensor) -> bool:
    return (
        tensor.is_floating_point()
        and tensor.ndim > 1
        and tensor.shape[0] > 1
        and tensor[0].numel() >= MIN_COMPACT_ROW
    )


def _dequantised(name: str, rows: Tensor, scale: Tensor | None, where: str) -> Tensor:
    if rows.ndim == 0 or scale is None or scale.shape != rows.shape[:1]:
        raise CheckpointError(
            f"{where}: the int8 tensor {name} has no fitting scale",
            expected=f"{name}{SCALE_SUFFIX} with one number per row",
            got="nothing" if scale is None else f"shape {list(scale.shape)} for {list(rows.shape)}",
        )
    return dequantise_rows(rows, scale)


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor
