"""Moving range from activations into weights, channel by channel, where that makes a layer's error smaller.

Input channels differ in range while one scale serves a whole token, so small channels are rounded coarsely.
Dividing channel k of the inputs by s_k = largest_k(x)^a / largest_k(W)^(1 - a) and multiplying the weights by
it leaves the product as it is. The exponent a is searched per layer on recorded inputs (Xiao et al.,
"SmoothQuant", 2023, takes one for all).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from worldwire_runtime.kernels.rows import EightBit
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.quantize.calibration import Samples
from worldwire_runtime.quantize.layers import groups
from worldwire_runtime.quantize.linear import QuantLinear

EXPONENTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
LEAST_RANGE = 1e-5
"""Channels that are (almost) always zero keep a finite gain."""
LEAST_IMPROVEMENT = 0.05
"""A gain costs a multiplication per input; a smaller relative improvement is not worth it."""


def find_gains(
    dit: DiT, names: list[str], samples: Mapping[str, Samples], kind: EightBit
) -> dict[str, Tensor]:
    """Gains [K] by layer, one for all that read the same tensor; layers that it does not help have none."""
    gains: dict[str, Tensor] = {}
    for group in groups(names):
        layers = [cast(nn.Linear, dit.get_submodule(name)) for name in group]
        best = best_gain(layers, samples[group[0]], kind)
        if best is not None:
            gains |= dict.fromkeys(group, best)
    return gains


def best_gain(layers: list[nn.Linear], seen: Samples, kind: EightBit) -> Tensor | None:
    """The candidate with the smallest error of the layers' outputs; None if no gain is as good."""
    weights = torch.stack([layer.weight.detach().float().abs().amax(dim=0) for layer in layers]).amax(dim=0)
    best: Tensor | None = None
    least = (1 - LEAST_IMPROVEMENT) * _error(layers, seen.rows, kind, None)
    for exponent in EXPONENTS:
        divisor = _positive(seen.largest) ** exponent / _positive(weights) ** (1 - exponent)
        gain = divisor.log().mean().exp() / divisor
        error = _error(layers, seen.rows, kind, gain)
        if error < least:
            best, least = gain, error
    return best


def _positive(ranges: Tensor) -> Tensor:
    return ranges.clamp_min(LEAST_RANGE)


def _error(layers: list[nn.Linear], rows: Tensor, kind: EightBit, gain: Tensor | None) -> float:
    """Root of the summed squared relative errors of the layers' outputs."""
    return sum(output_error(layer, QuantLinear.of(layer, kind, gain), rows) ** 2 for layer in layers) ** 0.5


@torch.no_grad()
def output_error(layer: nn.Linear, quantised: nn.Module, rows: Tensor) -> float:
    """Norm of the difference of outputs over the norm of the layer's own output, in float32."""
    bias = None if layer.bias is None else layer.bias.float()
    wanted = nn.functional.linear(rows, layer.weight.float(), bias)
    return float((quantised(rows).float() - wanted).norm() / wanted.norm().clamp_min(LEAST_RANGE))
