"""Attention that is short in one direction, in forms of its own on GPUs: put in from outside, exact.

The mouse's sequences are a few latents long. A prompt is padded to the length of the longest one, and all of
the padding is one and the same key and value: counted, they need not be read so often.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from worldwire_runtime.kernels import native
from worldwire_runtime.model.attention import (
    EVERYTHING,
    MAX_FEW_SCORES,
    Context,
    Counted,
    KeyValue,
    attend,
    attend_counted,
    in_two_calls,
)
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT, TextKeys

LONGEST = 64
WIDTHS = (16, 32, 64, 128)
DTYPES = (torch.bfloat16, torch.float16)
PROMPT_TOKENS = 256
"""Words and one padding token of any prompt that is shortened: one shape, for which all is compiled."""


def use_short_attention(dit: DiT) -> None:
    """The mouse's attention of every action module, and all to a shortened prompt, by `kernels.short`."""
    if not native.AVAILABLE:
        return
    native.register()
    for block in cast(Sequence[Block], dit.blocks):
        block.cross_attn.attend_counted = attend_prompt
        if block.action_model is not None:
            block.action_model.attend = attend_short


def attend_short(query: Tensor, keys: KeyValue, context: Context = EVERYTHING) -> Tensor:
    """`model.attention.attend` with its meaning of `context`; other sequences than short ones go there."""
    if not is_short(query, keys):
        return attend(query, keys, context)
    if not context.queries:
        return torch.ops.worldwire.short_attention(query, *keys)
    return in_two_calls(attend_short, query, keys, context)


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


def counts_prompts(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether prompts are shortened: where a kernel attends to them, for all scores at once are many."""
    return native.AVAILABLE and device.type == "cuda" and dtype in DTYPES


def attend_prompt(query: Tensor, keys: Counted) -> Tensor:
    """`model.attention.attend_counted`, by the kernel where it can be."""
    fits = query.is_cuda and query.dtype in DTYPES and query.shape[-1] in WIDTHS and query.shape[0] == 1
    if not fits or query.requires_grad:
        return attend_counted(query, keys)
    return torch.ops.worldwire.counted_attention(query, *keys)


def shortened(text: Tensor, keys: TextKeys) -> TextKeys:
    """The same prompt with its padding counted: `PROMPT_TOKENS` keys in place of one for each token.

    text: the embedded words [B, T, text_dim] of which these keys are, padded with equal ones. Longer prompts,
    and several at once, stay as they are. Waits for the device.
    """
    tokens = text.shape[1]
    if len(text) != 1 or tokens <= PROMPT_TOKENS:
        return keys
    others = (text != text[:, -1:]).any(-1).flatten().nonzero()
    words = int(others[-1]) + 1 if len(others) else 0
    if words >= PROMPT_TOKENS:
        return keys
    times = torch.full((PROMPT_TOKENS,), -torch.inf, device=text.device)
    times[:words] = 0
    times[words] = math.log(tokens - words)
    front = slice(PROMPT_TOKENS)
    return TextKeys(
        tuple(Counted(each.key[:, :, front], each.value[:, :, front], times) for each in keys.blocks)
    )
