"""Parity of the transformer's forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldwire_runtime.acceleration import compiled_network
from worldwire_runtime.model.action import released_padding
from worldwire_runtime.model.checkpoint import load_into
from worldwire_runtime.model.config import DiTConfig
from worldwire_runtime.model.dit import ClipConditions, DiT
from worldwire_runtime.parity.common import relative_error, weights


def recognises(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a case is one of the transformer."""
    return "predict_latent_idx" in spec and "out.flow" in tensors


def run(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """One forward pass over memory and window; compares the velocity of the window's latents."""
    config = DiTConfig.from_dict(spec["config"])
    window, memory = tensors["in.x"], tensors.get("in.x_memory")
    latents = window if memory is None else torch.cat((memory, window), dim=2)
    count = latents.shape[2] - window.shape[2]
    model = DiT(config).eval()
    load_into(model, weights(tensors))
    if latents.is_cuda:
        model = compiled_network(model)
    with torch.inference_mode():
        prepared = model.prepare(_conditions(spec, tensors, config))
        timestep = tensors["in.t"]
        clean = timestep.new_zeros(timestep.shape[0], timestep.shape[1] // window.shape[2] * count)
        flow = model.forward(latents, torch.cat((clean, timestep), dim=1), prepared)[:, :, count:]
    return {"flow": relative_error(flow, tensors["out.flow"])}


def _conditions(spec: Mapping[str, Any], tensors: Mapping[str, Tensor], config: DiTConfig) -> ClipConditions:
    text = tensors["in.context"]
    padded = text.new_zeros(1, config.text_len, config.text_dim)
    padded[0, : text.shape[0]] = text
    return ClipConditions(
        text=padded,
        plucker=tensors["in.plucker"].transpose(1, 2),
        keyboard=_padded(tensors["in.keyboard"], config),
        mouse=_padded(tensors["in.mouse"], config),
        memory_times=torch.tensor(spec["memory_latent_idx"] or [], dtype=torch.int64),
        window_times=torch.arange(*spec["predict_latent_idx"]),
    )


def _padded(actions: Tensor, config: DiTConfig) -> Tensor:
    return released_padding(actions, config.action_config) if config.action_config else actions
