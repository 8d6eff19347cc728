"""What a clip sees under `rolling` attention, computed for a whole batch in one go.

A session keeps the keys of its context from clip to clip (`worldwire_runtime.rolling`). In training a clip
stands at some position of an era: its memory is encoded alone, its past together, then `rolled` clean clips
one after the other, each seeing what it would have seen when it was new.
"""

from __future__ import annotations

from torch import Tensor

from worldwire_runtime.model.dit import ContextCache, DiT, PreparedClip
from worldwire_training.clip_sampler import FULL_PAST, Shape


def rolling_cache(dit: DiT, context: Tensor, prepared: PreparedClip, shape: Shape) -> ContextCache:
    """What the new latents of a clip see: memory, and the newest latents of the context [B, C, c, h, w]."""
    slots = _slots(dit, context, prepared, shape.memory)
    begin, stop = shape.memory, shape.memory + shape.past
    past = _extend(dit, context, prepared, begin, stop, slots)
    for start in range(stop, shape.context, shape.new):
        past += _extend(dit, context, prepared, start, start + shape.new, slots + past[-FULL_PAST:])
    return ContextCache.join(slots + past[-FULL_PAST:])


def _slots(dit: DiT, context: Tensor, prepared: PreparedClip, memory: int) -> list[ContextCache]:
    return [dit.encode_alone(context[:, :, :memory], prepared.part(0, memory))] if memory else []


def _extend(
    dit: DiT, context: Tensor, prepared: PreparedClip, start: int, stop: int, seen: list[ContextCache]
) -> list[ContextCache]:
    """What each of the latents start ... stop - 1 offers, who see each other and what was seen before."""
    before = ContextCache.join(seen) if seen else None
    cache = dit.extend(context[:, :, start:stop], prepared.part(start, stop), before)
    return [cache.part(place, place + 1) for place in range(stop - start)]
