"""Attention with 8-bit products: scores of integers, values in fp8, softmax in float32.

`prepare` (plain torch, which torch.compile fuses) makes

    query   int8 [B, H, Q, D], one scale per token, the softmax's factor inside it
    key     int8 [B, H, T, D], one scale per block of `KEY_BLOCK` tokens, after subtracting each channel's
            mean over the tokens: that adds the same number to all scores of a query, so the softmax stays as
            it is, and it removes the channels' offsets, which would use up the range
    value   e4m3 [B, H, D, T'] with one scale per channel, tokens last as Hopper's fp8 products want them
            (T' is T filled up to `COPY_BYTES`); or the 16-bit values as they came

The kernel keeps one tile of queries and walks over blocks of keys with the running maximum of the softmax.
Probabilities (at most 1) are multiplied by `PROBABILITY_RANGE` before they become e4m3. Idea of smoothing the
keys and of one scale per block: Zhang et al., "SageAttention", 2024; the code is ours.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from worldwire_runtime.kernels import native
from worldwire_runtime.kernels.linear import COPY_BYTES
from worldwire_runtime.kernels.rows import FP8, INT8, MIN_SCALE, EightBit

KEY_BLOCK = 128
PROBABILITY_RANGE = 448.0
LOG2_E = 1.4426950408889634


class Operands(NamedTuple):
    """What the product of attention is made of. See the page of the module for shapes."""

    query: Tensor
    query_scale: Tensor  # float32 [B, H, Q]
    key: Tensor
    key_scale: Tensor  # float32 [B, H, blocks of keys]
    value: Tensor
    value_scale: Tensor | None  # float32 [B, H, D]; None: 16-bit values [B, H, T, D]


def attention(query: Tensor, key: Tensor, value: Tensor, *, fp8_values: bool = True) -> Tensor:
    """softmax(query key^T / sqrt(D)) value in 8-bit products, in the type of `value`.

    query [B, H, Q, D], key and value [B, H, T, D]. On GPUs with Triton the kernel, elsewhere its definition.
    """
    operands = prepare(query, key, value, fp8_values=fp8_values)
    if query.is_cuda and native.AVAILABLE:
        return torch.ops.worldwire.attention_8bit(*operands, key.shape[2], value.dtype)
    return reference(operands, key.shape[2], value.dtype)


def prepare(query: Tensor, key: Tensor, value: Tensor, *, fp8_values: bool = True) -> Operands:
    """Quantises the three inputs."""
    factor = LOG2_E / query.shape[-1] ** 0.5
    scale = _scale(query.abs().amax(dim=-1), INT8)
    query8 = (query.float() / scale[..., None]).round().to(torch.int8)
    key = key.float() - key.float().mean(dim=2, keepdim=True)
    blocks = F.pad(key, (0, 0, 0, -key.shape[2] % KEY_BLOCK)).unflatten(2, (-1, KEY_BLOCK))
    key_scale = _scale(blocks.abs().amax(dim=(-2, -1)), INT8)
    key8 = (blocks / key_scale[..., None, None]).round().to(torch.int8).flatten(2, 3)[:, :, : key.shape[2]]
    if not fp8_values:
        return Operands(query8, scale * factor, key8.contiguous(), key_scale, value.contiguous(), None)
    value_scale = _scale(value.abs().amax(dim=2), FP8)
    value8 = (value.float() / value_scale[:, :, None]).to(FP8.dtype)
    return Operands(query8, scale * factor, key8.contiguous(), key_scale, _tokens_last(value8), value_scale)


def reference(operands: Operands, tokens: int, dtype: torch.dtype) -> Tensor:
    """The definition, slow: all scores at once, integers summed as int64, everything else in float64.

    Probabilities are rounded as in the kernel, relative to the largest one of the row (the kernel's running
    maximum may be lower at first, which changes that rounding alone).
    """
    query, query_scale, key, key_scale, value, value_scale = operands
    scores = (query.double() @ key.double().transpose(-1, -2)) * query_scale.double()[..., None]
    scores *= key_scale.double().repeat_interleave(KEY_BLOCK, dim=2)[:, :, None, :tokens]
    weights = torch.exp2(scores - scores.amax(dim=-1, keepdim=True))
    total = weights.sum(dim=-1, keepdim=True)
    if value_scale is None:
        return ((weights.to(value.dtype).double() @ value.double()) / total).to(dtype)
    rounded = (weights * PROBABILITY_RANGE).float().to(FP8.dtype).double()
    mixed = rounded @ value[..., :tokens].float().double().transpose(-1, -2)
    return (mixed * value_scale.double()[:, :, None] / (PROBABILITY_RANGE * total)).to(dtype)


def _scale(largest: Tensor, kind: EightBit) -> Tensor:
    return (largest.float() / kind.largest).clamp_min(MIN_SCALE)


def _tokens_last(value: Tensor) -> Tensor:
    """[B, H, T, D] to [B, H, D, T'], filled up with zeros."""
    turned = value.new_zeros(*value.shape[:2], value.shape[3], -(-value.shape[2] // COPY_BYTES) * COPY_BYTES)
    turned[..., : value.shape[2]] = value.transpose(-1, -2)
    return turned
