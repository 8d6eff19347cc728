"""Attention and the norms around it, shared by the trunk and the action modules."""

from __future__ import annotations

from collections.abc import Callable
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


class Counted(NamedTuple):
    """Keys and values [batch, heads, tokens, head width] that may stand for several equal ones each.

    times: natural logarithms of for how many [tokens], float32; -inf: for none.
    """

    key: Tensor
    value: Tensor
    times: Tensor


class Context(NamedTuple):
    """How many leading queries see only how many leading keys."""

    queries: int
    keys: int


EVERYTHING = Context(0, 0)
# Largest queries x keys of one head whose scores a CPU may hold at once.
MAX_PLAIN_SCORES = 2048 * 2048
# So many queries in float32 are worth the fused kernel on a CPU.
MIN_FUSED_QUERIES = 64
# Most queries x keys of one sequence that a GPU takes one by one: a tile of a matrix product has 64 queries.
MAX_FEW_SCORES = 32
FUSED_NDIM = 4


def attend(query: Tensor, keys: KeyValue, context: Context = EVERYTHING) -> Tensor:
    """Softmax attention of `query` [batch, heads, tokens, head width] over `keys`, same shape as `query`.

    Without a context, further dimensions may stand before the tokens: they are separate sequences.
    A context costs a second call instead of a mask tensor: its queries attend to its keys, the others to all.
    """
    if context.queries:
        return in_two_calls(attend, query, keys, context)
    if query.ndim > FUSED_NDIM:  # the fused kernels take no further dimensions: each sequence as a head
        flat, key, value = (part.flatten(1, -3) for part in (query, *keys))
        return attend(flat, KeyValue(key, value)).unflatten(1, query.shape[1:-2])
    if query.device.type == "cpu" and _plain_is_faster(query, keys):
        return plain_attention(query, keys)
    few = query.shape[-2] * keys.key.shape[-2] <= MAX_FEW_SCORES
    if query.device.type == "cuda" and few and not query.requires_grad:
        return few_attention(query, keys)
    return F.scaled_dot_product_attention(query, keys.key, keys.value)


def in_two_calls(
    attend: Callable[[Tensor, KeyValue], Tensor], query: Tensor, keys: KeyValue, context: Context
) -> Tensor:
    """Attention in some form without a context, for a context: its queries to its keys, the others to all."""
    front = KeyValue(keys.key[:, :, : context.keys], keys.value[:, :, : context.keys])
    attended = (attend(query[:, :, : context.queries], front), attend(query[:, :, context.queries :], keys))
    return torch.cat(attended, dim=2)


def attend_counted(query: Tensor, keys: Counted) -> Tensor:
    """The definition: `attend` to all that the keys stand for."""
    scores = (query @ keys.key.transpose(-1, -2)).float() * query.shape[-1] ** -0.5 + keys.times
    return scores.softmax(dim=-1).to(keys.value.dtype) @ keys.value


def few_attention(query: Tensor, keys: KeyValue) -> Tensor:
    """The definition without matrix products, for many sequences of a few latents; reads the keys once.

    To be compiled: as it stands the products of all pairs are a tensor.
    """
    key, value = (part.float() for part in keys)
    scores = (query.float().unsqueeze(-2) * key.unsqueeze(-3)).sum(-1) * query.shape[-1] ** -0.5
    return (scores.softmax(-1).unsqueeze(-1) * value.unsqueeze(-3)).sum(-2).to(keys.value.dtype)


def _plain_is_faster(query: Tensor, keys: KeyValue) -> bool:
    """On a CPU: in bfloat16 as far as memory allows, in float32 for a few queries."""
    few = query.dtype != torch.float32 or query.shape[-2] < MIN_FUSED_QUERIES
    return few and query.shape[-2] * keys.key.shape[-2] <= MAX_PLAIN_SCORES


def plain_attention(query: Tensor, keys: KeyValue) -> Tensor:
    """The definition, as two matrix products: in bfloat16 a half to a quarter of the fused kernel's time."""
    scores = (query * query.shape[-1] ** -0.5) @ keys.key.transpose(-1, -2)
    return scores.softmax(dim=-1, dtype=torch.float32).to(keys.value.dtype) @ keys.value


class Sequences(NamedTuple):
    """How latents [B, F, N, heads, head width] become sequences [batch, heads, length, head width].

    join: back again, given the latents' shape.
    """

    split: Callable[[Tensor], Tensor]
    join: Callable[[Tensor, torch.Size], Tensor]


ALL_TOKENS = Sequences(
    lambda latents: latents.flatten(1, 2).transpose(1, 2),
    lambda sequences, shape: sequences.transpose(1, 2).unflatten(1, shape[1:3]),
)
"""One sequence of the tokens of all latents."""
EACH_COLUMN = Sequences(
    lambda latents: latents.permute(0, 2, 3, 1, 4).flatten(0, 1),
    lambda sequences, shape: sequences.unflatten(0, (shape[0], shape[2])).permute(0, 3, 1, 2, 4),
)
"""For each token of a latent a sequence of those at the same position of the others."""


class Held(NamedTuple):
    """Keys and values of latents that stay at their places, [B, places, N, heads, head width].

    Attention does not ask in which order keys come, and times are in the keys: a latent may stand anywhere.
    """

    key: Tensor
    value: Tensor

    def put(self, places: Tensor, keys: KeyValue) -> None:
        """Writes the keys and values [B, n, N, heads, head width] of n latents to `places` [n] int64."""
        for held, new in zip(self, keys, strict=True):
            held.index_copy_(1, places, new.to(held.dtype))

    def seen(self, first: int, stop: int) -> KeyValue:
        """What stands at the places first ... stop - 1, without a copy."""
        return KeyValue(self.key[:, first:stop], self.value[:, first:stop])


class Rows(NamedTuple):
    """Latents of one pass that are alike: which of its latents, where their keys go, what they see then.

    Places are a tensor, for they change from clip to clip and shapes do not. first, stop: the places seen; if
    there are none (first = stop), each latent sees only itself.
    """

    latents: tuple[int, int]  # from the first to behind the last one of the pass
    places: Tensor  # [n] int64
    first: int
    stop: int


def attend_in_turn(
    query: Tensor,
    keys: KeyValue,
    held: Held,
    rows: tuple[Rows, ...],
    sequences: Sequences,
    attend: Callable[[Tensor, KeyValue], Tensor] = attend,
) -> Tensor:
    """Attention of latents [B, F, N, heads, head width] to what is `held`, one group after the other.

    Each group puts its keys at their places, over whatever stood there, and then looks: what later groups
    write, earlier ones do not see. `rows` are in this order and name every latent once. Returns the shape of
    `query`; keys may have fewer tokens for each latent.
    """
    attended: dict[int, Tensor] = {}  # by the first latent
    for group in rows:
        part = slice(*group.latents)
        looking, own = query[:, part], KeyValue(keys.key[:, part], keys.value[:, part])
        held.put(group.places, own)
        if group.first == group.stop:  # each latent is a sample of its own
            looked = looking.flatten(0, 1).unsqueeze(1)
            own = KeyValue(*(part.flatten(0, 1).unsqueeze(1) for part in own))
        else:
            looked, own = looking, held.seen(group.first, group.stop)
        result = attend(sequences.split(looked), KeyValue(*map(sequences.split, own)))
        attended[part.start] = sequences.join(result, looked.shape).reshape(looking.shape)
    if len(attended) == 1:
        return attended[0]
    return torch.cat([attended[start] for start in sorted(attended)], dim=1)


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
