"""Numbers as 8-bit values and one float32 scale per row: symmetric, the largest value of a row is kept.

Plain torch on purpose: torch.compile fuses it with the norm and modulation before it into one pass, also for
several layers that read the same tensor (each still gets rows of its own).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

MIN_SCALE = 1e-12
"""Rows of zeros have some scale, too."""


@dataclass(frozen=True)
class EightBit:
    """A number format. largest: what the largest magnitude of a row becomes."""

    name: str
    dtype: torch.dtype
    largest: float


INT8 = EightBit("int8", torch.int8, 127.0)
FP8 = EightBit("fp8", torch.float8_e4m3fn, 448.0)
FORMATS = {kind.name: kind for kind in (INT8, FP8)}


class Rows(NamedTuple):
    """A matrix: values [R, K] in 8 bits, times scale [R, 1] in float32."""

    values: Tensor
    scale: Tensor

    def dequantised(self) -> Tensor:
        """The matrix in float32."""
        return self.values.float() * self.scale


def quantise_rows(x: Tensor, kind: EightBit) -> Rows:
    """A matrix [R, K] of floats as `Rows`, rounded to the nearest (ties to even)."""
    scale = (x.abs().amax(dim=-1, keepdim=True).float() / kind.largest).clamp_min(MIN_SCALE)
    scaled = x.float() / scale
    return Rows((scaled.round() if kind == INT8 else scaled).to(kind.dtype), scale)
