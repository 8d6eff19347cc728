"""8-bit self-attention in a network: an option of its own, whatever the linear layers run in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from worldwire_runtime.kernels import native
from worldwire_runtime.kernels.attention import attention
from worldwire_runtime.model.attention import EVERYTHING, Context, KeyValue, attend
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT


def use_8bit_attention(dit: DiT) -> None:
    """Self-attention of every block by `kernels.attention`; text and actions keep theirs, which is short."""
    native.register()
    for block in cast(Sequence[Block], dit.blocks):
        block.self_attn.attend = attend_8bit


def use_plain_attention(dit: DiT) -> None:
    """Undoes `use_8bit_attention`."""
    for block in cast(Sequence[Block], dit.blocks):
        block.self_attn.attend = attend


def attend_8bit(query: Tensor, keys: KeyValue, context: Context = EVERYTHING) -> Tensor:
    """`model.attention.attend` in 8-bit products, with its meaning of `context`."""
    if not context.queries:
        return attention(query, keys.key, keys.value)
    front = KeyValue(keys.key[:, :, : context.keys], keys.value[:, :, : context.keys])
    parts = (
        attend_8bit(query[:, :, : context.queries], front),
        attend_8bit(query[:, :, context.queries :], keys),
    )
    return torch.cat(parts, dim=2)
