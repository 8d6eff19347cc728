"""Quantised weights to and from safetensors files.

The file is the compact format of `model.checkpoint` (`<name>` and `<name>.scale`) whose 8-bit rows are used
as they are, not undone; smoothed layers add `<layer>.input_gain`. So a shipped compact file is a quantised
one already, and plain weights are quantised while they are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from worldwire.errors import CheckpointError
from worldwire_runtime.kernels.rows import FORMATS, EightBit, quantise_rows
from worldwire_runtime.model.checkpoint import (
    SCALE_SUFFIX,
    compacted,
    dequantise_rows,
    load_into,
    save_state,
)
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.layers import layer_names, prepare
from worldwire_runtime.quantize.linear import QuantLinear

WEIGHT, WEIGHT_SCALE, GAIN = ".weight", ".weight_scale", ".input_gain"


def load_quantised(
    dit: DiT, path: str | os.PathLike[str], quantization: Quantization, dtype: torch.dtype
) -> None:
    """Puts 8-bit layers into `dit` (on the meta device) and loads a file into it; all else becomes `dtype`.

    Raises CheckpointError when the file is unreadable or its tensors are not exactly those of the network.
    """
    try:
        stored = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error})", expected="a complete safetensors file"
        ) from error
    names = layer_names(dit, quantization.layers)
    prepare(dit, quantization, {name for name in names if name + GAIN in stored})
    state = as_rows(stored, {name + WEIGHT for name in names}, FORMATS[quantization.arithmetic], dtype)
    load_into(dit, state, where=str(path), assign=True)


def quantised_state(
    dit: DiT, tensors: Iterable[tuple[str, Tensor]], quantization: Quantization, dtype: torch.dtype
) -> dict[str, Tensor]:
    """Puts 8-bit layers into `dit` (on the meta device); the state, of plain weights that come one by one."""
    weights = {name + WEIGHT for name in layer_names(dit, quantization.layers)}
    prepare(dit, quantization, set())
    kind = FORMATS[quantization.arithmetic]
    state: dict[str, Tensor] = {}
    for name, tensor in tensors:
        state |= as_rows({name: tensor}, weights, kind, dtype)
    return state


def save_quantised(dit: DiT, path: str | os.PathLike[str]) -> None:
    """Writes a quantised network; what is not in 8 bits as compactly as any shipped file."""
    plain = dict(dit.state_dict())
    packed: dict[str, Tensor] = {}
    for name, layer in dit.named_modules():
        if isinstance(layer, QuantLinear):
            packed[name + WEIGHT] = plain.pop(name + WEIGHT)
            packed[name + WEIGHT + SCALE_SUFFIX] = plain.pop(name + WEIGHT_SCALE).flatten()
            if layer.input_gain is not None:
                packed[name + GAIN] = plain.pop(name + GAIN)
    save_state(packed | compacted(plain), path)


def as_rows(
    stored: Mapping[str, Tensor], weights: set[str], kind: EightBit, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The network's state: `weights` as 8-bit rows and their scales, gains in float32, all else `dtype`."""
    state: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        scale = stored.get(name + SCALE_SUFFIX)
        if name in weights:
            layer = name.removesuffix(WEIGHT)
            state[name], state[layer + WEIGHT_SCALE] = _weight_rows(tensor, scale, kind)
        elif scale is not None:
            state[name] = dequantise_rows(tensor, scale).to(dtype)
        elif name.endswith(GAIN):
            state[name] = tensor.float()
        elif not _is_scale(name, stored):
            state[name] = tensor.to(dtype)
    return state


def _weight_rows(tensor: Tensor, scale: Tensor | None, kind: EightBit) -> tuple[Tensor, Tensor]:
    if scale is not None and tensor.dtype == kind.dtype:
        return tensor, scale[:, None]
    rows = quantise_rows(tensor.float() if scale is None else dequantise_rows(tensor, scale), kind)
    return rows.values, rows.scale


def _is_scale(name: str, stored: Mapping[str, Tensor]) -> bool:
    return name.endswith(SCALE_SUFFIX) and name.removesuffix(SCALE_SUFFIX) in stored
