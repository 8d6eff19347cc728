"""Attention and the norms around it, shared by the trunk and the action modules."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KeyValue(NamedTuple):
    """Keys and values as attention takes them, [batch, heads, tokens, head width]."""

    key: Tensor
    value: Tensor

    def after(self, past: KeyValue | None) -> KeyValue:
        """These keys and values with those of `past` in front."""
        if past is None:
            return self
        return KeyValue(torch.cat((past.key, self.key), 2), torch.cat((past.value, self.value), 2))


class Context(NamedTuple):
    """How many leading queries see only how many leading keys."""

    queries: int
    keys: int


EVERYTHING = Context(0, 0)
# Largest queries x keys of one head whose scores a CPU may hold at once.
MAX_PLAIN_SCORES = 2048 * 2048
FUSED_NDIM = 4


def attend(query: Tensor, keys: KeyValue, context: Context = EVERYTHING) -> Tensor:
    """Softmax attention of `query` [batch, heads, tokens, head width] over `keys`, same shape as `query`.

    Without a context, further dimensions may stand before the tokens: they are separate sequences.
    A context costs a second call instead of a mask tensor: its queries attend to its keys, the others to all.
    """
    if context.queries:
        front = KeyValue(keys.key[:, :, : context.keys], keys.value[:, :, : context.keys])
        attended = (
            attend(query[:, :, : context.queries], front),
            attend(query[:, :, context.queries :], keys),
        )
        return torch.cat(attended, dim=2)
    if query.ndim > FUSED_NDIM:  # the fused kernels take no further dimensions: each sequence as a head
        flat, key, value = (part.flatten(1, -3) for part in (query, *keys))
        return attend(flat, KeyValue(key, value)).unflatten(1, query.shape[1:-2])
    if query.device.type == "cpu" and query.shape[-2] * keys.key.shape[-2] <= MAX_PLAIN_SCORES:
        return plain_attention(query, keys)
    return F.scaled_dot_product_attention(query, keys.key, keys.value)


def plain_attention(query: Tensor, keys: KeyValue) -> Tensor:
    """The definition, as two matrix products: on CPUs 2 to 4 times faster than the fused kernel."""
    scores = (query * query.shape[-1] ** -0.5) @ keys.key.transpose(-1, -2)
    return scores.softmax(dim=-1, dtype=torch.float32).to(keys.value.dtype) @ keys.value


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last dimension with a learned weight; computes and returns float32."""

    def __init__(self, width: int, eps: float, apply_weight: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps, self.apply_weight = eps, apply_weight

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        x = x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + self.eps)
        return x * self.weight if self.apply_weight else x


def linear_of(layers: nn.Sequential, index: int) -> nn.Linear:
    """The linear layer at a place of a sequence whose weights are needed apart from its call."""
    return cast(nn.Linear, layers[index])


def layer_norm(x: Tensor, eps: float) -> Tensor:
    """Layer norm over the last dimension without learned values, computed and returned in float32."""
    return F.layer_norm(x.float(), x.shape[-1:], eps=eps)
