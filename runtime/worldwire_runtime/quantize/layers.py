"""Which linear layers of a `DiT` are quantised, and putting their 8-bit forms in place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from worldwire_runtime.kernels.rows import FORMATS
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.linear import FusedFeedForward, QuantLinear

ATTENTION_PROJECTIONS = r"(self_attn|cross_attn)\.[qkvo]"
# `mouse_mlp.0` is not among them: the model multiplies its two parts apart. Embeddings, the time layers and
# the head are small, and their errors would reach everything.
OTHERS = (
    r"ffn\.[02]",
    r"cam_injector_layer[12]|cam_scale_layer|cam_shift_layer",
    r"action_model\.(mouse_mlp\.2|t_qkv|proj_mouse|mouse_attn_q|proj_keyboard)",
)
LAYER_SETS = {
    "attention": re.compile(rf"blocks\.\d+\.({ATTENTION_PROJECTIONS})"),
    "all": re.compile(rf"blocks\.\d+\.({'|'.join((ATTENTION_PROJECTIONS, *OTHERS))})"),
}
# Layers that read the same tensor share a gain, so that their rows are the same.
SAME_INPUT = (
    re.compile(r"(.*\.self_attn\.)[qkv]"),
    re.compile(r"(.*\.cross_attn\.)[kv]"),
    re.compile(r"(.*\.cam_)(scale|shift)_layer"),
)


def layer_names(dit: DiT, layers: str) -> list[str]:
    """The quantised linears of a layer set, in the network's order."""
    return [name for name, _ in dit.named_modules() if LAYER_SETS[layers].fullmatch(name)]


def groups(names: list[str]) -> list[list[str]]:
    """The same names, those together that read the same tensor."""
    together: dict[str, list[str]] = {}
    for name in names:
        match = next((found for rule in SAME_INPUT if (found := rule.fullmatch(name))), None)
        together.setdefault(match.group(1) if match else name, []).append(name)
    return list(together.values())


def quantise(dit: DiT, quantization: Quantization, gains: Mapping[str, Tensor] | None = None) -> None:
    """Replaces the linears of the layer set by their 8-bit forms. gains: of smoothed layers, by name."""
    kind, gains = FORMATS[quantization.arithmetic], gains or {}
    _replace(dit, quantization.layers, lambda name, layer: QuantLinear.of(layer, kind, gains.get(name)))


def prepare(dit: DiT, quantization: Quantization, smoothed: set[str]) -> None:
    """The same without values, to be loaded; on the network's device ("meta" included).

    smoothed: names of the layers that have gains.
    """
    kind = FORMATS[quantization.arithmetic]

    def empty(name: str, layer: nn.Linear) -> QuantLinear:
        return QuantLinear(
            layer.in_features,
            layer.out_features,
            kind,
            bias=layer.bias is not None,
            smooth=name in smoothed,
        ).to(layer.weight.device)

    _replace(dit, quantization.layers, empty)


def join_projections(dit: DiT) -> None:
    """Queries, keys and values of self-attention by one rounding and one product, where all are in 8 bits."""
    for block in cast(Sequence[Block], dit.blocks):
        attention = block.self_attn
        layers = [cast(nn.Module, layer) for layer in (attention.q, attention.k, attention.v)]
        eight_bit = [layer for layer in layers if isinstance(layer, QuantLinear)]
        if eight_bit == layers:
            attention.joined = QuantLinear.joined(eight_bit)


def _replace(dit: DiT, layers: str, form: Callable[[str, nn.Linear], QuantLinear]) -> None:
    for name in layer_names(dit, layers):
        parent, _, child = name.rpartition(".")
        setattr(dit.get_submodule(parent), child, form(name, cast(nn.Linear, dit.get_submodule(name))))
    for block in cast(Sequence[Block], dit.blocks):
        if isinstance(block.ffn[0], QuantLinear):
            block.ffn = FusedFeedForward(*block.ffn)
