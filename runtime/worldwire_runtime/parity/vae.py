"""Golden cases of the video VAE: encode a video, then decode latents chunk by chunk as a stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from worldwire_runtime.model.checkpoint import load_into
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.parity.common import WEIGHT_PREFIX, relative_error, weights


def recognises(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a golden case is one of a video VAE, judged by what it holds."""
    return "z_dim" in spec and "dim_mult" in spec and f"{WEIGHT_PREFIX}encoder.conv1.weight" in tensors


def run(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Relative error, norm of difference over norm of reference, of every output in the case."""
    vae = load_case(spec, tensors)
    with torch.inference_mode():
        errors = {"mu": relative_error(vae.encode(tensors["in.video"]), tensors["out.mu"])}
        cache, parts = None, tensors["in.latents"].split(spec["chunks"], dim=2)
        for number, latents in enumerate(parts):
            frames, cache = vae.decode(latents, cache)
            errors[f"frames_{number}"] = relative_error(frames, tensors[f"out.frames_{number}"])
    return errors


def load_case(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> VAE:
    """The case's VAE, with its weights under their official names."""
    known = {field.name for field in fields(VAEConfig)}
    vae = VAE(VAEConfig(**{name: value for name, value in spec.items() if name in known})).eval()
    load_into(vae, weights(tensors))
    return vae.to(tensors["in.video"].device)  # statistics of the latents begin on the CPU
