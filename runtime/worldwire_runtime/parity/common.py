"""What all kinds of parity cases share."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

WEIGHT_PREFIX = "w."


def weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors of a case, under their official names."""
    return {
        name.removeprefix(WEIGHT_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(WEIGHT_PREFIX)
    }


def relative_error(ours: Tensor, reference: Tensor) -> float:
    """||ours - reference|| / ||reference||; infinite when the shapes differ or a number is not finite."""
    if ours.shape != reference.shape:
        return math.inf
    ours, reference = ours.double(), reference.double()
    size = float(reference.norm())
    error = float((ours - reference).norm()) / size if size else float(ours.norm())
    return error if math.isfinite(error) else math.inf


def share_different(ours: Tensor, reference: Tensor) -> float:
    """The share of entries that are not the same; infinite when the shapes differ."""
    if ours.shape != reference.shape:
        return math.inf
    return float((ours != reference).double().mean())
