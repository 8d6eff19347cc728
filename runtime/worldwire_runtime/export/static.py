"""Layers for graphs with quantise/dequantise nodes: int8 inputs by a fixed scale, int8 weights per channel.

TensorRT's INT8 knows one scale per tensor of activations, fixed when the graph is made, where our own kernels
take one per token as it comes. So scales are searched on recorded inputs, and gains per input channel
(`quantize.smoothing`) matter more here. In torch these layers compute just what the nodes mean.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire_runtime.kernels.rows import INT8, MIN_SCALE, quantise_rows
from worldwire_runtime.model.vae import CausalConv3d
from worldwire_runtime.quantize.calibration import Samples
from worldwire_runtime.quantize.smoothing import best_gain, output_error

CLIPPED_RANGES = (1.0, 0.8, 0.6, 0.45, 0.3)
"""Parts of the largest magnitude that a scale may cover: rare large values are cut off for finer steps."""


@torch.library.custom_op("worldwire::round_static", mutates_args=())
def round_static(x: Tensor, scale: Tensor) -> Tensor:
    """x rounded to multiples of the scalar `scale` within int8: QuantizeLinear, DequantizeLinear."""
    return (x / scale).round().clamp(-128, 127) * scale


@round_static.register_fake
def _(x: Tensor, scale: Tensor) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


@torch.library.custom_op("worldwire::dequantise_static", mutates_args=())
def dequantise_static(values: Tensor, scale: Tensor, axis: int) -> Tensor:
    """int8 values times one float32 scale per index of `axis`: DequantizeLinear."""
    return values.float() * scale.reshape([-1 if dim == axis else 1 for dim in range(values.ndim)])


@dequantise_static.register_fake
def _(values: Tensor, scale: Tensor, axis: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(values, dtype=torch.float32)


class StaticLinear(nn.Module):
    """A linear layer [..., K] to [..., N]; its weight is stored [K, N], as a matrix product reads it."""

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor
    input_gain: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, scale: float, gain: Tensor | None = None) -> None:
        super().__init__()
        weight = layer.weight.detach().float()
        rows = quantise_rows(weight if gain is None else weight / gain, INT8)
        self.register_buffer("weight", rows.values.t().contiguous())
        self.register_buffer("weight_scale", rows.scale.flatten())
        self.register_buffer("input_scale", torch.tensor(max(scale, MIN_SCALE)))
        self.register_buffer("input_gain", gain)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.input_gain is None else x * self.input_gain
        y = round_static(x, self.input_scale) @ dequantise_static(self.weight, self.weight_scale, 1)
        return y if self.bias is None else y + self.bias


class StaticCausalConv(CausalConv3d):
    """A causal convolution; frames are rounded once, and every time tap has int8 weights of its own."""

    taps: Tensor
    tap_scale: Tensor
    input_scale: Tensor

    def __init__(self, layer: CausalConv3d, scale: float) -> None:
        kernel = cast(tuple[int, int, int], layer.kernel_size)
        super().__init__(layer.in_channels, layer.out_channels, kernel)
        self.weight, self.bias = layer.weight, layer.bias
        rows = quantise_rows(layer.weight.detach().float().flatten(1), INT8)
        self.register_buffer("taps", rows.values.reshape(layer.weight.shape).movedim(2, 0).contiguous())
        self.register_buffer("tap_scale", rows.scale.flatten())
        self.register_buffer("input_scale", torch.tensor(max(scale, MIN_SCALE)))

    def convolve(self, x: Tensor, length: int, batch: int) -> Tensor:
        return super().convolve(round_static(x, self.input_scale), length, batch)

    def _tap(self, x: Tensor, tap: int, bias: Tensor | None = None) -> Tensor:
        weight = dequantise_static(self.taps[tap], self.tap_scale, 0)
        return F.conv2d(x, weight, bias, padding=self.padding[1:])


class StaticConv2d(nn.Module):
    """A convolution of single frames."""

    weight: Tensor
    weight_scale: Tensor
    input_scale: Tensor

    def __init__(self, layer: nn.Conv2d, scale: float) -> None:
        super().__init__()
        rows = quantise_rows(layer.weight.detach().float().flatten(1), INT8)
        self.register_buffer("weight", rows.values.reshape(layer.weight.shape))
        self.register_buffer("weight_scale", rows.scale.flatten())
        self.register_buffer("input_scale", torch.tensor(max(scale, MIN_SCALE)))
        self.bias, self.padding = layer.bias, layer.padding

    def forward(self, x: Tensor) -> Tensor:
        weight = dequantise_static(self.weight, self.weight_scale, 0)
        return F.conv2d(round_static(x, self.input_scale), weight, self.bias, padding=self.padding)


def static_linear(layers: list[nn.Linear], seen: Samples) -> list[StaticLinear]:
    """The static forms of layers that read the same tensor: with the best gain, then the best scale."""
    gain = best_gain(layers, seen, INT8)
    rows = seen.rows if gain is None else seen.rows * gain
    largest = seen.largest if gain is None else seen.largest * gain

    def error(scale: float) -> float:
        return sum(output_error(layer, StaticLinear(layer, scale, gain), seen.rows) ** 2 for layer in layers)

    whole = float(torch.maximum(largest.max(), rows.abs().max())) / INT8.largest
    scale = min((part * whole for part in CLIPPED_RANGES), key=error)
    return [StaticLinear(layer, scale, gain) for layer in layers]


def static_convolution(layer: nn.Conv2d | CausalConv3d, seen: Samples) -> StaticConv2d | StaticCausalConv:
    """The static form of a convolution; the scale covers all that was seen."""
    scale = float(seen.largest.max()) / INT8.largest
    if isinstance(layer, CausalConv3d):
        return StaticCausalConv(layer, scale)
    return StaticConv2d(layer, scale)
