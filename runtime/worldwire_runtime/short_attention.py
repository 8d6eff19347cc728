"""Attention of very many short sequences, in the action modules: put in from outside, exact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from worldwire_runtime.kernels import native
from worldwire_runtime.model.attention import EVERYTHING, MAX_FEW_SCORES, Context, KeyValue, attend
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT

LONGEST = 64
WIDTHS = (16, 32, 64, 128)
DTYPES = (torch.bfloat16, torch.float16)


def use_short_attention(dit: DiT) -> None:
    """The mouse's attention of every action module by `kernels.short`, where that can run."""
    if not native.AVAILABLE:
        return
    native.register()
    for block in cast(Sequence[Block], dit.blocks):
        if block.action_model is not None:
            block.action_model.attend = attend_short


def attend_short(query: Tensor, keys: KeyValue, context: Context = EVERYTHING) -> Tensor:
    """`model.attention.attend` with its meaning of `context`; other sequences than short ones go there."""
    if not is_short(query, keys):
        return attend(query, keys, context)
    if not context.queries:
        return torch.ops.worldwire.short_attention(query, *keys)
    front = KeyValue(keys.key[:, :, : context.keys], keys.value[:, :, : context.keys])
    parts = (
        attend_short(query[:, :, : context.queries], front),
        attend_short(query[:, :, context.queries :], keys),
    )
    return torch.cat(parts, dim=2)


def is_short(query: Tensor, keys: KeyValue) -> bool:
    """Whether the kernel takes these [S, H, Q, D] and [S, H, T, D], and is the fastest to do so."""
    queries, tokens = query.shape[-2], keys.key.shape[-2]
    return (
        query.ndim == 4
        and query.dtype in DTYPES
        and query.shape[-1] in WIDTHS
        and queries * tokens > MAX_FEW_SCORES
        and max(queries, tokens) <= LONGEST
        and not query.requires_grad
    )
