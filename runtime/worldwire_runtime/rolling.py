"""Rolling attention: the keys and values of a session's context go on from clip to clip.

`cached` attention encodes memory and past anew for every clip, because every clip has an anchor camera and
times of its own. Here they stay put for an *era* of up to `rolling_latents` latents:

    anchor      the newest clean latent when the era began: every camera of the era is told relative to it
    position    0 for the oldest past latent then, counting on: rotary time and place in the action modules
    slot        a memory latent keeps its slot, whose number is its time, for as long as it is chosen,
                which is until another one shows clearly more

so what a latent once offered stays valid and only new latents and newly chosen ones are encoded:

    a memory latent             sees itself
    the past when an era begins sees the memory and itself
    a clip                      sees the memory, the last `past` latents and itself: noisy, then clean

A session never runs out of positions: the next era begins with the past as it is, encoded from the latents.
`replay` brings back the keys of a saved session from its latents, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from worldwire.errors import StateError
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.memory import Memory
from worldwire_runtime.model.dit import ClipConditions, ContextCache
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_runtime.rules import Clip, Rules


@dataclass(frozen=True)
class Turn:
    """One clip of an era, as its latents' indices. slots: the memory, in the order in which it was chosen."""

    slots: tuple[int, ...]
    first: int
    past: int
    new: int

    @classmethod
    def of(cls, clip: Clip) -> Turn:
        return cls(clip.slots, clip.first, clip.past, clip.new)

    @property
    def stop(self) -> int:
        """The index after the last new latent."""
        return self.first + self.past + self.new


def read_turns(facts: Sequence[dict[str, Any]], memory: Memory) -> list[Turn]:
    """The turns of a saved session; StateError unless `memory` holds all that they looked at, in a row."""
    turns = [Turn(**fact | {"slots": tuple(fact["slots"])}) for fact in facts]
    for turn, before in zip(turns, [None, *turns], strict=False):
        wanted = [*turn.slots, *range(turn.first, turn.stop)]
        joins = before is None or before.stop == turn.first + turn.past
        if min(turn.past, turn.new) < 1 or not joins or not all(index in memory for index in wanted):
            raise StateError("the turns of a saved session do not fit its memory", got=str(turn))
    if turns and turns[-1].stop != memory.next_index:
        raise StateError("the turns of a saved session end before its memory", got=str(turns[-1]))
    return turns


@dataclass(frozen=True)
class _Pending:
    """A clip between its noisy and its clean pass: what both are told and see."""

    clip: Clip
    conditions: ClipConditions
    seen: ContextCache


class RollingContext:
    """What the context of one session offers to its next clip. Latents and cameras stay in its `Memory`.

    slots, past: of the clip plan. era: the most positions of an era.
    """

    def __init__(self, rules: Rules, denoiser: Denoiser, slots: int, past: int, era: int) -> None:
        self._rules, self._denoiser = rules, denoiser
        self._keep, self._era = past, era
        self._chosen: list[int | None] = [None] * slots
        self._slots: list[ContextCache | None] = [None] * slots
        self._past: list[ContextCache] = []
        self._anchor_c2w: Tensor | None = None
        self._position = 0
        self._pending: _Pending | None = None
        self.turns: list[Turn] = []

    @property
    def held(self) -> tuple[int, ...]:
        """The latents in the slots now."""
        return tuple(index for index in self._chosen if index is not None)

    def end_era(self) -> None:
        """The next clip begins an era: after a change of the prompt, which old keys do not know."""
        self._chosen, self._slots = [None] * len(self._chosen), [None] * len(self._slots)
        self._past, self._anchor_c2w, self._position, self.turns = [], None, 0, []

    def generate(self, memory: Memory, clip: Clip, noise: Tensor, steps: int) -> Tensor:
        """Clean new latents [n, C, h, w] of a clip; call `roll` once they are in the memory."""
        if self._position + clip.new > self._era or not self._replayable(memory):
            self.end_era()
        pending = self._see(memory, clip)
        return self._denoiser.generate_after(pending.conditions, pending.seen, noise, steps)

    def roll(self, memory: Memory) -> None:
        """Encodes the clean new latents of the last clip for those to come."""
        if self._pending is None:
            return
        clip = self._pending.clip
        start = clip.first + clip.past
        latents = memory.latents(range(start, start + clip.new))
        new = self._denoiser.extend(self._pending.conditions, latents, self._pending.seen)
        self._past.extend(new.part(place, place + 1) for place in range(clip.new))
        del self._past[: -self._keep]
        self._position += clip.new
        self._pending = None

    def replay(self, memory: Memory, clip: Clip, turns: Sequence[Turn]) -> None:
        """Repeats the turns of an era; `clip` says what is told, its actions reach to the newest latent."""
        for turn in turns:
            window = range(turn.first, turn.stop)
            frames = FRAMES_PER_LATENT * (memory.next_index - turn.stop)
            again = replace(
                clip,
                memory_c2w=memory.c2w(turn.slots),
                window_c2w=memory.c2w(window),
                slots=turn.slots,
                first=turn.first,
                past=turn.past,
                actions=_without_newest(clip.actions, frames),
            )
            self._see(memory, again)
            self.roll(memory)

    # ------------------------------------------------------------------ parts of them

    def _replayable(self, memory: Memory) -> bool:
        """Whether the memory has thinned out nothing that this era looked at."""
        return all(index in memory for turn in self.turns for index in turn.slots)

    def _see(self, memory: Memory, clip: Clip) -> _Pending:
        """Encodes what a clip will see and nobody has encoded yet."""
        begins = self._anchor_c2w is None
        if begins:
            self._anchor_c2w = clip.window_c2w[clip.past - 1]
        self._fill_slots(memory, clip)
        if begins:
            self._encode_past(memory, clip)
        self.turns.append(Turn.of(clip))
        conditions = self._rules.conditions(self._new_of(clip))
        self._pending = _Pending(clip, conditions, ContextCache.join(self._offers()))
        return self._pending

    def _fill_slots(self, memory: Memory, clip: Clip) -> None:
        """Chosen latents keep their slots; the others take the places of those that are chosen no more."""
        cameras = dict(zip(clip.slots, clip.memory_c2w, strict=True))
        for slot, held in enumerate(self._chosen):
            if held not in cameras:
                self._chosen[slot], self._slots[slot] = None, None
        fresh = [index for index in clip.slots if index not in self._chosen]
        free = [slot for slot, held in enumerate(self._chosen) if held is None][: len(fresh)]
        for slot, index in zip(free, fresh, strict=True):  # one by one: calls of one shape, compiled once
            told = self._told(clip, cameras[index][None], clip.window_c2w[:0], 0)
            conditions = self._rules.conditions(replace(told, slot_numbers=(slot,)))
            self._slots[slot] = self._denoiser.encode_alone(conditions, memory.latents([index]))
            self._chosen[slot] = index

    def _encode_past(self, memory: Memory, clip: Clip) -> None:
        told = self._told(clip, clip.memory_c2w[:0], clip.window_c2w[: clip.past], 0)
        told = replace(told, actions=_without_newest(clip.actions, FRAMES_PER_LATENT * clip.new))
        latents = memory.latents(range(clip.first, clip.first + clip.past))
        slots = self._offers()
        seen = ContextCache.join(slots) if slots else None
        cache = self._denoiser.extend(self._rules.conditions(told), latents, seen)
        self._past = [cache.part(place, place + 1) for place in range(clip.past)]
        self._position = clip.past

    def _new_of(self, clip: Clip) -> Clip:
        """The clip without its context."""
        return self._told(clip, clip.memory_c2w[:0], clip.window_c2w[clip.past :], self._position)

    def _told(self, clip: Clip, memory_c2w: Tensor, window_c2w: Tensor, position: int) -> Clip:
        """Some of a clip's latents as the era tells of them."""
        return replace(
            clip,
            memory_c2w=memory_c2w,
            window_c2w=window_c2w,
            anchor_c2w=self._anchor_c2w,
            position=position,
        )

    def _offers(self) -> list[ContextCache]:
        """What the next clip sees: memory and past."""
        return [cache for cache in self._slots if cache is not None] + self._past


def _without_newest(actions: Tensor, frames: int) -> Tensor:
    """Actions [1, F, A] up to `frames` before their end."""
    return actions[:, : actions.shape[1] - frames]
