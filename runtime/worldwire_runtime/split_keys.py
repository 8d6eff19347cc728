"""Self-attention of a few queries to many keys on a GPU, the keys in parts: put in from outside, exact.

The library gives each 128 queries of a head to one multiprocessor, whatever the number of keys. The new
latent of a low-latency clip at 720p makes 168 such tiles for 132 multiprocessors: a second round has work
for 36 of them. With the keys in halves there are 336 tiles, three rounds of half the length. What the parts
say is weighted by the sums of their exponentials ("split-K" of flash decoding).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, cast

import torch
from torch import Tensor

from worldwire_runtime.model.attention import EVERYTHING, Context, KeyValue, attend, in_two_calls
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.short_attention import DTYPES

WIDTHS: Final = (64, 128)
CAPABILITY: Final = (9, 0)
"""Of Hopper, where torch's attention is cuDNN's, which tells the sums; measured nowhere else."""
TILE_QUERIES: Final = 128
MOST_PARTS: Final = 8
LEAST_KEYS: Final = 1024
"""Of a part."""
TILE_COST_KEYS: Final = 400
"""What a tile costs beside its keys, in keys: it is filled and written."""
PART_COST_KEYS: Final = 250
"""What each part costs by being written and read, in keys of one tile."""
LEAST_GAIN: Final = 0.1


def use_split_keys(dit: DiT, device: torch.device) -> None:
    """Self-attention of every block in parts, where that is faster on this GPU."""
    is_library = torch.backends.cuda.cudnn_sdp_enabled() and torch.backends.cudnn.enabled
    if torch.cuda.get_device_capability(device) != CAPABILITY or not is_library:
        return
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    for block in cast(Sequence[Block], dit.blocks):
        block.self_attn.attend = partial(attend_in_parts, processors=processors)


def attend_in_parts(
    query: Tensor, keys: KeyValue, context: Context = EVERYTHING, *, processors: int
) -> Tensor:
    """`model.attention.attend` with its meaning of `context`. processors: multiprocessors of the GPU."""
    if context.queries:
        return in_two_calls(partial(attend_in_parts, processors=processors), query, keys, context)
    fits = query.ndim == 4 and len(query) == 1 and query.dtype in DTYPES and query.shape[-1] in WIDTHS
    fits = fits and not query.requires_grad
    heads, queries = query.shape[-3:-1]
    parts = parts_for(queries, heads, keys.key.shape[-2], processors) if fits else 1
    return attend(query, keys) if parts == 1 else attend_to_parts(query, keys, parts)


def parts_for(queries: int, heads: int, keys: int, processors: int) -> int:
    """Into how many equal parts the keys go, 1 unless a tenth of the time is gained."""
    tiles = -(-queries // TILE_QUERIES) * heads

    def cost(parts: int) -> float:
        rounds = -(-tiles * parts // processors)
        return rounds * (keys / parts + TILE_COST_KEYS) + PART_COST_KEYS * parts * (parts > 1)

    several = [
        parts for parts in range(2, MOST_PARTS + 1) if keys % parts == 0 and keys // parts >= LEAST_KEYS
    ]
    best = min(several, key=cost, default=1)
    return best if cost(best) <= (1 - LEAST_GAIN) * cost(1) else 1


def attend_to_parts(query: Tensor, keys: KeyValue, parts: int) -> Tensor:
    """Attention of `query` [1, heads, tokens, head width] to keys whose number the parts divide."""
    several = KeyValue(*(part[0].unflatten(1, (parts, -1)).transpose(0, 1) for part in keys))
    again = query.transpose(1, 2).repeat(parts, 1, 1, 1).transpose(1, 2)  # laid out as the query is
    attended, sums = with_sums(again, several)
    weights = sums.softmax(0)
    return (attended.float() * weights).sum(0, keepdim=True).to(attended.dtype)


def with_sums(query: Tensor, keys: KeyValue) -> tuple[Tensor, Tensor]:
    """Attention of [batch, heads, tokens, head width], and the logarithms of its sums [..., tokens, 1]."""
    if query.is_cuda:
        return torch.ops.aten._scaled_dot_product_cudnn_attention(query, *keys, None, True)[:2]
    scores = (query.float() @ keys.key.float().transpose(-1, -2)) * query.shape[-1] ** -0.5
    attended = scores.softmax(-1) @ keys.value.float()
    return attended.to(query.dtype), scores.logsumexp(-1, keepdim=True)
