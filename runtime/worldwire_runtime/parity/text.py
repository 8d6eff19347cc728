"""Parity of the umT5 text encoder; only positions inside the prompt count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldwire_runtime.model.text import UMT5Config, UMT5Encoder
from worldwire_runtime.parity.common import relative_error, weights


def recognises(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a case is one of the text encoder."""
    return "num_buckets" in spec and "in.ids" in tensors and "out.hidden" in tensors


def run(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Encodes the token ids and compares the hidden states of the unmasked ones."""
    encoder = UMT5Encoder(UMT5Config.from_dict(spec))
    encoder.load_official(weights(tensors))
    mask = tensors["in.mask"]
    with torch.inference_mode():
        hidden = encoder(tensors["in.ids"], mask)
    inside = mask.bool()
    return {"hidden": relative_error(hidden[inside], tensors["out.hidden"][inside])}
