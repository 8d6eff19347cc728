"""What stands between 8-bit products, in one pass over memory each: from outside, on GPUs with Triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from worldwire_runtime.kernels import native
from worldwire_runtime.model.attention import RMSNorm
from worldwire_runtime.model.blocks import Block, turn
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.rope import TrunkRotary, timed_pairs
from worldwire_runtime.quantize.linear import QuantLinear, modulate_later


def use_row_kernels(dit: DiT) -> None:
    """`kernels.turned` where queries, keys and values come from one layer, `kernels.prologue` where all that
    is modulated goes through 8-bit layers.
    """
    native.register()
    for block in cast(Sequence[Block], dit.blocks):
        attention = block.self_attn
        if attention.joined is not None:
            attention.turn = turn_at_once
        readers: tuple[nn.Module, ...] = (attention.q, attention.k, attention.v, block.ffn[0])
        if all(isinstance(layer, QuantLinear) for layer in readers):
            block.modulate = cast(Any, modulate_later)


def turn_at_once(
    query: Tensor, key: Tensor, norms: tuple[RMSNorm, RMSNorm], rotary: TrunkRotary, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """`model.blocks.turn`, without gradients."""
    head = rotary.space.cos.shape[-1]
    narrow = head & (head - 1)  # the kernel's heads are powers of two
    if narrow or not (query.is_cuda and native.AVAILABLE):
        return turn(query, key, norms, rotary, dtype)
    weights = [norm.weight for norm in norms]
    timed = 2 * timed_pairs(head)
    tables = (*rotary.time, *rotary.space)
    return torch.ops.worldwire.turned_rows(query, key, *weights, *tables, timed, norms[0].eps, dtype)
