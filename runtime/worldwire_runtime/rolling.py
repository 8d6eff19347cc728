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
It begins earlier when the camera has turned away from the anchor by more than `rolling_turn_deg`, as far as
the weights were trained: those that have only seen rays in the view of a recent camera recognise no memory
that is told of behind an anchor's back.
An era has clips of one length, so the first clip of a plan may be an era of its own.

All keys and values stand in one room of fixed places (`DiT.hold`), where passes write and look (`DiT.roll`):

    [ring of `past` + new places | slots]

A clip's latents take the places of the oldest ones. Its first denoising step takes along what is not encoded
yet: the clean latents of the clip before and a memory latent that was newly chosen. These clean latents look
before anything else is written: they see the memory that their clip saw and latents whose places the noisy
ones take in the same pass. So a clip costs its steps and nothing more, and nothing is done between its last
picture and the inputs of the next. A clip takes in one newly chosen memory latent at most, the one that shows
most of what is asked; others wait for the next clips, unless the slots are empty.

`replay` brings back the keys of a saved session from its latents, bit for bit, by the same passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldwire.errors import StateError
from worldwire_runtime.camera.plucker import turned_deg
from worldwire_runtime.config import ClipPlan
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.memory import Memory
from worldwire_runtime.model.attention import Rows
from worldwire_runtime.model.dit import ClipConditions, HeldContext
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_runtime.rules import Clip, Rules

MOST_FRESH = 1  # newly chosen memory latents of one clip: its passes keep one shape, with one or without


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


class FirstStep(NamedTuple):
    """What a clip's first step is told. along: the clean latents that it encodes, by their indices.

    held, rows: where all latents go, and what they see. recurs: whether clips like this one come again.
    """

    conditions: ClipConditions
    along: list[int]
    held: HeldContext
    rows: tuple[Rows, ...]
    recurs: bool


def most_places(plan: ClipPlan) -> int:
    """Places that the longest clip of a plan takes (`Places.count`)."""
    return plan.past + max(plan.first - 1, plan.new) + plan.memory


def read_turns(facts: Sequence[dict[str, Any]], memory: Memory, plan: ClipPlan) -> list[Turn]:
    """The turns of a saved session; StateError unless they are an era of `plan` that `memory` holds.

    In states of earlier versions an era may go on over clips of several lengths. What came before the length
    last changed is left out: there a new era begins, as it does in play, with the past as it is.
    """
    saved = [Turn(**fact | {"slots": tuple(fact["slots"])}) for fact in facts]
    turns = list(takewhile(lambda turn: turn.new == saved[-1].new, reversed(saved)))[::-1]
    for turn in turns:
        wanted = [*turn.slots, *range(turn.first, turn.stop)]
        fits = 1 <= turn.past <= plan.past and turn.new >= 1
        filled = not turn.slots or (len(set(turn.slots)) == plan.memory and turn.past == plan.past)
        if not (fits and filled and all(index in memory for index in wanted)):
            raise StateError("the turns of a saved session do not fit its memory", got=str(turn))
    for before, turn in pairwise(turns):
        seen = min(plan.past, before.past + before.new)
        if before.stop != turn.first + turn.past or turn.past != seen or len(before.slots) > len(turn.slots):
            raise StateError("the turns of a saved session do not follow each other", got=str(turn))
    if turns and turns[-1].stop != memory.next_index:
        raise StateError("the turns of a saved session end before its memory", got=str(turns[-1]))
    return turns


class Places:
    """Where the latents of an era stand: a ring for the window, then the slots.

    past, new: of the plan and of each clip. begins: the era's first clip. With memory, its past stands at the
    end of the ring, beside the slots, so that what anybody sees is always one stretch of places.
    """

    def __init__(self, past: int, slots: int, begins: Turn, device: torch.device) -> None:
        self._ring, self.count = past + begins.new, past + begins.new + slots
        self._zero = begins.past if begins.slots else 0  # the position that stands at place 0
        self._numbers = torch.arange(self.count, device=device)

    def window(self, position: int, latents: int) -> Tensor:
        """Of latents from a position of the era on, [n] int64."""
        places = range(position - self._zero, position - self._zero + latents)
        return torch.stack([self._numbers[place % self._ring] for place in places])

    def slots(self, numbers: Iterable[int]) -> Tensor:
        """Of memory latents, [n] int64."""
        return torch.stack([self._numbers[self._ring + number] for number in numbers])

    def seen(self, turn: Turn) -> tuple[int, int]:
        """The first and behind the last place that a clip looks at once it stands there."""
        return (0, self.count) if turn.slots else (0, turn.past + turn.new)

    def seen_by_first_past(self, turn: Turn) -> tuple[int, int]:
        """The same of the past with which an era begins."""
        return (self._ring - turn.past, self.count) if turn.slots else (0, turn.past)


class RollingContext:
    """What the context of one session offers to its next clip. Latents and cameras stay in its `Memory`.

    slots, past: of the clip plan. era: the most positions of an era. turn_deg: how far the camera may turn
    away from its anchor. device: where the keys stand.
    """

    def __init__(
        self,
        rules: Rules,
        denoiser: Denoiser,
        slots: int,
        past: int,
        *,
        era: int,
        turn_deg: float,
        device: torch.device,
    ) -> None:
        self._rules, self._denoiser, self._device = rules, denoiser, device
        self._keep, self._era, self._turn_deg = past, era, turn_deg
        self._chosen: list[int | None] = [None] * slots
        self._room: HeldContext | None = None
        self._places: Places | None = None
        self._anchor_c2w: Tensor | None = None
        self._position = 0  # of the next latent in the era
        self._generation = 0  # of the memory, when the era began
        self.turns: list[Turn] = []

    @property
    def held(self) -> tuple[int, ...]:
        """The latents in the slots now."""
        return tuple(index for index in self._chosen if index is not None)

    def lasting(self, memory: Memory) -> list[Turn]:
        """The turns to save: none of an era that ends now, because the memory was thinned out."""
        return self.turns if self._is_replayable(memory) else []

    def end_era(self) -> None:
        """The next clip begins an era: after a change of the prompt, which old keys do not know."""
        self._chosen = [None] * len(self._chosen)
        self._places, self._anchor_c2w, self._position, self.turns = None, None, 0, []

    def admit(self, memory: Memory, wanted: Sequence[int], new: int) -> tuple[int, ...]:
        """Which memory latents a clip of `new` latents sees, of those that are wanted, the best one first.

        At most `MOST_FRESH` newly chosen ones come in, for others that are wanted no more; the rest waits.
        """
        held = self.held
        if not held or self._ends(memory, new, memory.c2w(memory.newest(1))[0]):
            return tuple(wanted)
        waiting = [index for index in wanted if index not in held][MOST_FRESH:]
        staying = [index for index in held if index not in wanted][MOST_FRESH:]
        return (*(index for index in wanted if index not in waiting), *staying)

    def tell(self, memory: Memory, clip: Clip) -> FirstStep:
        """What the next clip's first step is told; `generate` makes it before another one is told of."""
        if self._ends(memory, clip.new, clip.window_c2w[clip.past - 1]):
            self.end_era()
        turn, before = Turn.of(clip), self.turns[-1] if self.turns else None
        places = self._places or self._begin(memory, clip, turn)
        clean = turn.new if before else turn.past
        fresh = self._fill_slots(clip.slots)
        along = [*fresh.values(), *range(turn.stop - turn.new - clean, turn.stop - turn.new)]
        conditions = self._rules.conditions(self._told(memory, clip, fresh, along))
        rows = _rows(places, turn, before, list(fresh), self._position)
        self._position += turn.new
        self.turns.append(turn)
        # All others stand at a session's beginning, or belong to one that plays without memory.
        recurs = bool(clip.slots) and (len(self.turns) == 1 or bool(self.turns[-2].slots))
        return FirstStep(conditions, along, self._room_for(places, conditions.plucker), rows, recurs)

    def generate(self, memory: Memory, step: FirstStep, noise: Tensor, steps: int) -> Tensor:
        """Clean new latents [n, C, h, w] of a clip, which must be in the memory before the next one."""
        clean = memory.latents(step.along)
        return self._denoiser.generate_after(
            step.conditions, clean, step.held, step.rows, noise, steps, recurs=step.recurs
        )

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
                actions=clip.actions[:, : clip.actions.shape[1] - frames],
            )
            step = self.tell(memory, again)
            self._denoiser.encode_behind(step.conditions, memory.latents(step.along), step.held, step.rows)

    # ------------------------------------------------------------------ parts of them

    def _ends(self, memory: Memory, new: int, newest_c2w: Tensor) -> bool:
        """Whether the era ends before a clip of `new` latents.

        There is no room, the memory was thinned out, or the camera has turned away from the anchor.
        newest_c2w: of the newest clean latent.
        """
        if not self.turns or self._anchor_c2w is None:
            return False
        if self._position + new > self._era or new != self.turns[-1].new or not self._is_replayable(memory):
            return True
        return turned_deg(self._anchor_c2w, newest_c2w) > self._turn_deg

    def _is_replayable(self, memory: Memory) -> bool:
        whole = memory.generation == self._generation
        return whole or all(index in memory for turn in self.turns for index in turn.slots)

    def _begin(self, memory: Memory, clip: Clip, turn: Turn) -> Places:
        self._generation = memory.generation
        self._anchor_c2w = clip.window_c2w[clip.past - 1]
        self._position = clip.past
        self._places = Places(self._keep, len(self._chosen), turn, self._device)
        return self._places

    def _fill_slots(self, wanted: tuple[int, ...]) -> dict[int, int]:
        """Newly chosen latents by the slots that they get: of those that are wanted no more."""
        self._chosen = [index if index in wanted else None for index in self._chosen]
        free = [slot for slot, index in enumerate(self._chosen) if index is None]
        fresh = dict(zip(free, [index for index in wanted if index not in self._chosen], strict=False))
        for slot, index in fresh.items():
            self._chosen[slot] = index
        return fresh

    def _told(self, memory: Memory, clip: Clip, fresh: dict[int, int], along: list[int]) -> Clip:
        """The latents of a clip's first step as the era tells of them: memory, clean ones, new ones."""
        c2w = torch.cat([memory.c2w(along), clip.window_c2w[clip.past :]])
        return replace(
            clip,
            memory_c2w=c2w[: len(fresh)],
            window_c2w=c2w[len(fresh) :],
            anchor_c2w=self._anchor_c2w,
            position=self._position - (len(along) - len(fresh)),
            slot_numbers=tuple(fresh),
        )

    def _room_for(self, places: Places, like: Tensor) -> HeldContext:
        """Where the keys stand; that of the era before, if it has as many places."""
        if self._room is None or self._room.places != places.count:
            self._room = None  # before there are two, once the clip under way is done
            self._room = self._denoiser.dit.hold(places.count, like)
        return self._room


def _rows(
    places: Places, turn: Turn, before: Turn | None, fresh: list[int], position: int
) -> tuple[Rows, ...]:
    """Who writes where and sees what in the first step of a clip, in this order; new latents come last.

    before: the turn of the clip whose clean latents go along; None: an era begins, and its past does.
    fresh: slots of newly chosen memory latents. position: of the first new latent.
    """
    count = turn.past if before is None else before.new
    seen = places.seen_by_first_past(turn) if before is None else places.seen(before)
    start = len(fresh)
    clean = Rows((start, start + count), places.window(position - count, count), *seen)
    noisy = Rows(
        (start + count, start + count + turn.new), places.window(position, turn.new), *places.seen(turn)
    )
    if not fresh:
        return clean, noisy
    alone = Rows((0, start), places.slots(fresh), 0, 0)
    # The past of a new era sees the memory with which it begins, clean latents that of their own clip.
    return (alone, clean, noisy) if before is None else (clean, alone, noisy)
