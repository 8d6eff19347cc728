"""Quantisation-aware training: linears compute with the values that 8-bit inference will have.

Weights are rounded per output channel and inputs per token, by the rule of `worldwire_runtime.kernels.rows`,
in the layers of `worldwire_runtime.quantize`. Gradients pass through the rounding as if it were not there
(straight-through, Bengio et al. 2013). Names and weights of the network stay as they are.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire_runtime.kernels.rows import FORMATS, EightBit, quantise_rows
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.layers import layer_names


def train_quantised(dit: DiT, quantization: Quantization) -> list[str]:
    """Let the linears of the layer set compute in fake 8 bits from now on; their names."""
    names = layer_names(dit, quantization.layers)
    for name in names:
        layer = cast(nn.Linear, dit.get_submodule(name))
        layer.forward = partial(fake_linear, layer, FORMATS[quantization.arithmetic])  # type: ignore[method-assign]
    return names


def fake_linear(layer: nn.Linear, kind: EightBit, x: Tensor) -> Tensor:
    """[..., K] to [..., N] as `QuantLinear` computes it, up to the rounding of its sum."""
    return F.linear(rounded(x, kind), rounded(layer.weight, kind), layer.bias)


def rounded(x: Tensor, kind: EightBit) -> Tensor:
    """The values [..., K] after rounding each row to 8 bits; the gradient is that of `x`."""
    with torch.no_grad():
        rows = quantise_rows(x.detach().flatten(0, -2), kind)
        values = (rows.values.float() * rows.scale).view(x.shape).to(x.dtype)
    return x + (values - x).detach()
