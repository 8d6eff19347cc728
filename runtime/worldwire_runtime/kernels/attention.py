"""Attention with 8-bit products: scores of integers or fp8, values in fp8, softmax in float32.

`prepare` (plain torch, which torch.compile fuses) makes

    query   int8 or e4m3 [B, H, Q, D], or 16 bits; one scale per token, with the softmax's factor and the
            scale of the head's keys inside it, so that the kernel needs one fused multiply-add per score
    key     [B, H, T, D] in the same format, one scale per head, after subtracting each channel's mean over
            the tokens: that adds the same number to all scores of a query, so the softmax stays as it is,
            and it removes the channels' offsets, which would use up the range
    value   e4m3 [B, H, D, T'] with one scale per channel, tokens last as Hopper's fp8 products want them
            and in the order of `turned` (T' is T filled up to `TURN`), after subtracting each channel's
            mean over the tokens: probabilities sum to one, so the kernel adds it to the result, exactly,
            and neither rounding nor the tensor cores' short sums see it; or the 16-bit values as they came

The kernel keeps one tile of queries and walks over blocks of keys with the running maximum of the softmax.
Probabilities are multiplied by `PROBABILITY_RANGE` before they become e4m3. Idea of smoothing the keys:
Zhang et al., "SageAttention", 2024; the code is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from worldwire_runtime.kernels import native
from worldwire_runtime.kernels.rows import FORMATS, FP8, INT8, MIN_SCALE, EightBit

TURN = 16
"""Tokens of the values change places within groups of so many."""
PROBABILITY_RANGE = 256.0
"""A power of two, which the kernel adds to the exponent, below the largest e4m3 number."""
LOG2_E = 1.4426950408889634
SIXTEEN_BIT = "16-bit"
SCORE_FORMATS = (*FORMATS, SIXTEEN_BIT)
DEFAULT_SCORES = INT8.name


class Operands(NamedTuple):
    """What the product of attention is made of. See the page of the module for shapes."""

    query: Tensor
    query_scale: Tensor  # float32 [B, H, Q]
    key: Tensor
    value: Tensor
    value_scale: Tensor | None  # float32 [B, H, D]; None: 16-bit values [B, H, T, D]
    value_mean: Tensor | None  # float32 [B, H, D]; None likewise


def attention(
    query: Tensor, key: Tensor, value: Tensor, *, scores: str = DEFAULT_SCORES, fp8_values: bool = True
) -> Tensor:
    """softmax(query key^T / sqrt(D)) value in 8-bit products, in the type of `value`.

    query [B, H, Q, D], key and value [B, H, T, D]. scores: the format of queries and keys, of
    `SCORE_FORMATS`. On GPUs with Triton the kernel, elsewhere its definition.
    """
    operands = prepare(query, key, value, scores=scores, fp8_values=fp8_values)
    if query.is_cuda and native.AVAILABLE:
        return torch.ops.worldwire.attention_8bit(*operands, key.shape[2], value.dtype)
    return reference(operands, key.shape[2], value.dtype)


def prepare(
    query: Tensor, key: Tensor, value: Tensor, *, scores: str = DEFAULT_SCORES, fp8_values: bool = True
) -> Operands:
    """Quantises the three inputs."""
    query, query_scale, key = _score_operands(query, key, scores)
    if not fp8_values:
        return Operands(query, query_scale, key, value.contiguous(), None, None)
    value_mean = value.float().mean(dim=2)
    value = value.float() - value_mean[:, :, None]
    value_scale = _scale(value.abs().amax(dim=2), FP8)
    value8 = (value / value_scale[:, :, None]).to(FP8.dtype)
    return Operands(query, query_scale, key, _tokens_last(value8), value_scale, value_mean)


def reference(operands: Operands, tokens: int, dtype: torch.dtype) -> Tensor:
    """The definition, slow: all scores at once, exact sums, everything else in float64.

    Probabilities are rounded as in the kernel, relative to the largest one of the row (the kernel's running
    maximum may be lower at first, which changes that rounding alone).
    """
    query, query_scale, key, value, value_scale, value_mean = operands
    scores = query.float().double() @ key.float().double().transpose(-1, -2)
    scores *= query_scale.double()[..., None]
    weights = torch.exp2(scores - scores.amax(dim=-1, keepdim=True))
    total = weights.sum(dim=-1, keepdim=True)
    if value_scale is None or value_mean is None:
        return ((weights.to(value.dtype).double() @ value.double()) / total).to(dtype)
    rounded = (weights * PROBABILITY_RANGE).float().to(FP8.dtype).double()
    in_order = turned(value.float(), back=True)[..., :tokens]
    mixed = rounded @ in_order.double().transpose(-1, -2)
    mixed = mixed * value_scale.double()[:, :, None] / (PROBABILITY_RANGE * total)
    return (mixed + value_mean.double()[:, :, None]).to(dtype)


def turned(tokens_last: Tensor, *, back: bool = False) -> Tensor:
    """[..., T'] in the order in which the tensor cores hold scores (back: from that order).

    A thread's results of one product are pairs of neighbours, 8 apart; as the left factor of the next
    product it must hold fours of neighbours. In this order of the tokens they are the same registers, and
    probabilities need no exchange between threads.
    """
    pairs = (4, 2, 2) if back else (2, 4, 2)
    return tokens_last.unflatten(-1, (-1, *pairs)).transpose(-2, -3).flatten(-4)


def _score_operands(query: Tensor, key: Tensor, scores: str) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, their scales and keys in a format of `SCORE_FORMATS`."""
    factor = LOG2_E / query.shape[-1] ** 0.5
    if scores == SIXTEEN_BIT:
        scale = torch.full(query.shape[:-1], factor, device=query.device, dtype=torch.float32)
        return query.contiguous(), scale, key.contiguous()
    kind = FORMATS[scores]
    query_scale = _scale(query.abs().amax(dim=-1), kind)
    key = key.float() - key.float().mean(dim=2, keepdim=True)
    key_scale = _scale(key.abs().amax(dim=(-2, -1)), kind)[..., None]
    query8 = _rounded(query.float() / query_scale[..., None], kind)
    return query8, query_scale * key_scale * factor, _rounded(key / key_scale[..., None], kind)


def _rounded(scaled: Tensor, kind: EightBit) -> Tensor:
    return (scaled.round() if kind is INT8 else scaled).to(kind.dtype).contiguous()


def _scale(largest: Tensor, kind: EightBit) -> Tensor:
    return (largest.float() / kind.largest).clamp_min(MIN_SCALE)


def _tokens_last(value: Tensor) -> Tensor:
    """[B, H, T, D] to [B, H, D, T'], filled up with zeros, in the order of `turned`."""
    last = value.new_zeros(*value.shape[:2], value.shape[3], -(-value.shape[2] // TURN) * TURN)
    last[..., : value.shape[2]] = value.transpose(-1, -2)
    return turned(last)
