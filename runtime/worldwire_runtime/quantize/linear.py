"""A linear layer in 8 bits, in place of `nn.Linear`: same call, same tensor name for its weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldwire_runtime.kernels import native
from worldwire_runtime.kernels.linear import linear
from worldwire_runtime.kernels.rows import EightBit, Rows, quantise_rows
from worldwire_runtime.model.blocks import modulate


class Modulated(NamedTuple):
    """What `model.blocks.modulate` is given, for a layer that norms, modulates and rounds in one pass."""

    x: Tensor  # [B, F, N, K]
    shift: Tensor  # [b, f, 1 or N, K]
    scale: Tensor
    eps: float
    dtype: torch.dtype
    shape: torch.Size  # of the result; a field, for not every torch.compile knows properties of tuples

    def made(self) -> Tensor:
        """The result, [B, F, N, K]."""
        return modulate(self.x, self.shift, self.scale, self.eps, self.dtype)

    def rounded(self, gain: Tensor | None, kind: EightBit) -> Rows:
        """The result times `gain` in 8 bits, [B * F * N, K], without its own rounding to `dtype`."""
        shift, scale = (
            part.expand(*self.shape[:2], -1, -1).flatten(0, 2) for part in (self.shift, self.scale)
        )
        rows = self.x.flatten(0, 2)
        return Rows(
            *torch.ops.worldwire.norm_modulate_quantise(rows, shift, scale, self.eps, gain, kind.name)
        )


def modulate_later(x: Tensor, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Modulated:
    """In place of `model.blocks.modulate` where 8-bit layers alone read the result."""
    return Modulated(x, shift, scale, eps, dtype, x.shape)


class QuantLinear(nn.Module):
    """Weights in 8 bits per output channel, inputs per row as they come; output in the input's data type.

    Buffers: weight [N, K], weight_scale [N, 1] (float32 whatever the network is cast to), and for smoothed
    weights input_gain [K], by which inputs are multiplied first.
    """

    weight: Tensor
    weight_scale: Tensor
    input_gain: Tensor | None
    bias: Tensor | None

    def __init__(
        self, inputs: int, outputs: int, kind: EightBit, *, bias: bool = True, smooth: bool = False
    ) -> None:
        super().__init__()
        native.register()
        self.in_features, self.out_features, self.kind = inputs, outputs, kind
        self.register_buffer("weight", torch.zeros(outputs, inputs, dtype=kind.dtype))
        self.register_buffer("weight_scale", torch.ones(outputs, 1))
        self.register_buffer("input_gain", torch.ones(inputs) if smooth else None)
        self.register_buffer("bias", torch.zeros(outputs) if bias else None)

    @classmethod
    def of(cls, layer: nn.Linear, kind: EightBit, gain: Tensor | None = None) -> QuantLinear:
        """The 8-bit form of a layer. gain [K]: what its inputs are multiplied by, and its weights divided."""
        quantised = cls(
            layer.in_features, layer.out_features, kind, bias=layer.bias is not None, smooth=gain is not None
        )
        weight = layer.weight.detach().float()
        weight = weight if gain is None else weight / gain.to(weight)
        quantised.weight, quantised.weight_scale = quantise_rows(weight, kind)
        if gain is not None:
            quantised.input_gain = gain.detach().float().to(weight.device)
        if layer.bias is not None:
            quantised.bias = layer.bias.detach().clone()
        return quantised

    @classmethod
    def joined(cls, layers: Sequence[QuantLinear]) -> QuantLinear:
        """Several layers of the same inputs and gain as one: its outputs are theirs, one after another.

        Their weights become parts of its weights, so that none is held twice. It is no part of a saved state.
        """
        first = layers[0]
        whole = cls(
            first.in_features,
            sum(layer.out_features for layer in layers),
            first.kind,
            bias=first.bias is not None,
            smooth=first.input_gain is not None,
        )
        for name, own in first.named_buffers():
            parts = [getattr(layer, name) for layer in layers]
            whole.register_buffer(name, own if name == "input_gain" else torch.cat(parts), persistent=False)
        start = 0
        for layer in layers:
            stop = start + layer.out_features
            for name in ("weight", "weight_scale"):
                setattr(layer, name, getattr(whole, name)[start:stop])
            start = stop
        return whole

    def forward(self, x: Tensor | Modulated, gelu: bool = False) -> Tensor:
        """[..., K] to [..., N]; with `gelu`, through that activation (tanh form) at once."""
        weight = Rows(self.weight, self.weight_scale)
        y = linear(self._rounded(x), weight, self.bias, x.dtype, gelu=gelu)
        return y.unflatten(0, x.shape[:-1])

    def _rounded(self, x: Tensor | Modulated) -> Rows:
        if isinstance(x, Modulated):
            if x.x.is_cuda and native.AVAILABLE:
                return x.rounded(self.input_gain, self.kind)
            x = x.made()
        rows = x.flatten(0, -2)
        return quantise_rows(rows if self.input_gain is None else rows * self.input_gain, self.kind)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> QuantLinear:
        """Casts of the whole network move scales and gains but never round them; values keep their format."""
        exact = {name: getattr(self, name) for name in ("weight", "weight_scale", "input_gain")}
        super()._apply(fn, recurse)
        for name, before in exact.items():
            if before is not None and getattr(self, name).dtype != before.dtype:
                setattr(self, name, before.to(getattr(self, name).device))
        return self

    def extra_repr(self) -> str:
        """What `print(network)` shows."""
        smoothed = ", smoothed" * (self.input_gain is not None)
        return f"{self.in_features} to {self.out_features}, {self.kind.name}{smoothed}"


class FusedFeedForward(nn.Sequential):
    """Linear, GELU, linear, with the GELU inside the first product."""

    def forward(self, x: Tensor | Modulated) -> Tensor:
        """[..., d] to [..., d]."""
        first, _, second = self
        return second(first(x, gelu=True))
