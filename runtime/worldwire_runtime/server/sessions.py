"""The sessions of a server: their requests, their credit, and whose turn it is. No sockets, no threads."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame
from worldwire.errors import BusyError, StateError
from worldwire.protocol import Limits
from worldwire.schema import Message
from worldwire_runtime.server.live import LiveInputs
from worldwire_runtime.server.pixels import PictureEncoder
from worldwire_runtime.server.worker import Imagined, ServedSession

MOST_ENCODING: Final = 64
"""So many pictures of a session may wait for the encoder before the world makes more."""
QUICK_STEP_S: Final = 0.002
"""Steps that are no longer than this are given to the worker several at a time."""
NO_CLIENT: Final = b""
"""The address of nobody: no client of a ROUTER has an empty one."""


@dataclass(frozen=True)
class Show:
    """Frames of a live step that are still to be decoded, and the client that they are for."""

    imagined: Imagined
    client: bytes


@dataclass(eq=False)
class Slot:
    """One session as the server sees it. `client` is the address of its owner on the ROUTER socket.

    epoch counts resets and restores: frames of an older one are void. window is the credit that the client
    granted with `start`, 0 while the session is not live; credit is what is left of it. due_s: a live step
    begins no sooner. step_s: how long the last one took. busy: the worker has a job of this session.
    shows: the steps whose frames are still to be decoded; the first of them is, while is_showing, and `shown`
    of its frames have left. failure: ends the session once all shows are over; no step begins meanwhile.
    encoding: what waits in the outbox. closing: the session ends.
    over: it has ended; the slot is known until its last word has left, for what its client sends until it has
    heard that must not be answered by another error.
    An orphan has no client; tokens and orphaned_s say who may take it over, and since when it waits.
    """

    id: int
    client: bytes
    encoder: PictureEncoder
    session: ServedSession | None = None
    frames_per_step: int = 0
    epoch: int = 0
    camera: NDArray[np.float64] | None = None
    requests: deque[tuple[Any, Any]] = field(default_factory=deque)
    inputs: LiveInputs = field(default_factory=LiveInputs)
    window: int = 0
    credit: int = 0
    dropped: int = 0
    waiting: Frame | None = None
    wants_key: bool = True
    due_s: float = 0.0
    step_s: float = math.inf
    busy: bool = False
    shows: deque[Show] = field(default_factory=deque)
    is_showing: bool = False
    shown: int = 0
    failure: Exception | None = None
    encoding: int = 0
    tokens: tuple[str, ...] = ()
    orphaned_s: float = 0.0
    closing: bool = False
    over: bool = False

    def wants_work(self, now_s: float) -> bool:
        """Whether the worker could do something for this session now."""
        if self.over:
            return False
        if self.closing or self.requests:
            jammed = self.encoding > MOST_ENCODING and not self.closing
            return not (self.busy or self.shows or jammed)
        return self.due_s <= now_s and self.may_step

    @property
    def may_step(self) -> bool:
        """Whether a live step could begin, were it due."""
        waits = self.busy or self.requests or self.closing or self.encoding > MOST_ENCODING
        return not waits and self.wants_step

    @property
    def is_quick(self) -> bool:
        """Whether all that it wants is a live step that takes no time to speak of."""
        return self.step_s <= QUICK_STEP_S and not (self.requests or self.closing)

    @property
    def wants_step(self) -> bool:
        """Whether the session is live and its client can take the frames of a step.

        While frames of the step before are decoded it is enough that the client is quick: it has taken all
        frames of the steps before that, or could take two steps. Those of the next will wait, as latents,
        until it can take them.
        """
        if self.shows:
            step = min(self.frames_per_step, self.window)
            is_quick = self.credit + self.shown >= min(self.window, 2 * step)
            ahead = self.is_showing and is_quick and len(self.shows) == 1
            return ahead and self.window > 0 and self.failure is None
        return 0 < min(self.frames_per_step, self.window) <= self.credit

    @property
    def may_show(self) -> bool:
        """Whether the client can take the frames that come next, or something waits for their end."""
        if not self.shows or self.is_showing:
            return False
        if self.requests:
            return True
        need = min(self.shows[0].imagined.count, self.window)
        return self.encoding <= MOST_ENCODING and need <= self.credit

    def begin_show(self) -> Show:
        """The frames that come next."""
        self.is_showing, self.shown = True, 0
        return self.shows[0]

    def end_show(self) -> None:
        """All frames of a step are decoded, or could not be."""
        self.shows.popleft()
        self.is_showing = False

    def drop_shows(self) -> None:
        """Gives up the frames of which none has been decoded yet."""
        while len(self.shows) > self.is_showing:
            self.shows.pop()

    def attach(self, session: ServedSession, parent: Slot | None = None) -> None:
        """The session was made; one that branched off `parent` goes on from there."""
        self.session = session
        if parent is not None:
            self.camera, self.epoch = parent.camera, 1
        self.note_step()

    def note_step(self) -> None:
        """Asks how long the next step is; only while no job of this session runs."""
        if self.session is not None:
            self.frames_per_step = self.session.frames_per_step

    @property
    def next_request(self) -> Any:
        """The oldest request, None if there is none."""
        return self.requests[0][0] if self.requests else None

    def take_request(self) -> tuple[Any, Any]:
        """The oldest request and its payload; nothing for a live step or when the session ends."""
        return self.requests.popleft() if self.requests and not self.closing else (None, None)

    def take_requests(self) -> list[tuple[Any, Any]]:
        """All that wait."""
        waiting = list(self.requests)
        self.requests.clear()
        return waiting

    def begin_epoch(self) -> None:
        """A reset or a restore: what was under way is void and the credit is whole again."""
        self.epoch += 1
        self.camera, self.waiting, self.dropped = None, None, 0
        self.wants_key = True
        self.credit = self.window
        self.inputs.forget()

    def start(self, window: int) -> None:
        """Goes live."""
        if self.epoch == 0:
            raise StateError("the session has not started", remedy="send `reset` or `restore` first")
        self.window = self.credit = window
        self.waiting, self.dropped, self.shown = None, 0, 0
        self.wants_key = True

    def pause(self) -> None:
        """Stops being live; frames under way are still sent while there is credit."""
        self.window = 0

    def grant(self, frames: int) -> None:
        """The client took frames. What exceeds the window is void: frames of an older epoch cost none."""
        if self.window:
            self.credit = min(self.window, self.credit + frames)

    def schedule(self, now_s: float, rate: float) -> None:
        """A live step begins now; the next one is due so that `rate` frames a second are kept.

        A session that fell behind by more than a step does not hurry to make up for it. rate 0: no limit.
        """
        if rate:
            step_s = self.frames_per_step / rate
            self.due_s = (self.due_s if now_s - self.due_s < step_s else now_s) + step_s

    def spend(self, picture: Frame) -> bool:
        """Whether a live picture may be sent now; if not it waits, and replaces one that waited."""
        if self.credit > 0:
            self.credit -= 1
            self.shown += self.is_showing
            return True
        if self.waiting is not None:
            self.dropped += 1
        self.waiting = picture
        return False

    def take_waiting(self) -> Frame | None:
        """The newest picture that no credit was left for, if there is credit now."""
        if self.waiting is None or not self.credit:
            return None
        picture, self.waiting = self.waiting, None
        self.credit -= 1
        self.shown += self.is_showing
        return picture

    def take_dropped(self) -> int:
        """How many pictures were left out since the last one that was sent."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def take_key_wish(self) -> bool:
        """Whether the next picture must stand alone; asked once for each."""
        wish, self.wants_key = self.wants_key, False
        return wish

    def orphan(self, tokens: tuple[str, ...], now_s: float) -> None:
        """Its client was lost: it pauses, and what the client asked for is lost with the answers.

        A session that is only being made ends: its client never learned of it.
        """
        self.client, self.tokens, self.orphaned_s = NO_CLIENT, tokens, now_s
        self.window = self.credit = 0
        self.requests.clear()
        self.closing = self.closing or self.session is None

    def adopt(self, client: bytes) -> None:
        """A client takes an orphan over."""
        self.client, self.tokens = client, ()
        self.waiting, self.dropped, self.wants_key = None, 0, True


def no_session(session: int) -> StateError:
    """The answer to what is asked of a session that is not, or no longer, this client's."""
    return StateError(
        f"there is no session {session}",
        expected="a session that this connection opened",
        remedy="open one, or resume the connection that opened it",
    )


class Sessions:
    """All slots, and the round robin among them."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._slots: OrderedDict[int, Slot] = OrderedDict()
        self._ids = itertools.count(1)

    def __len__(self) -> int:
        """Sessions that are open, orphans among them; not those that only wait for their end."""
        return sum(not slot.closing for slot in self._slots.values())

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    def add(self, client: bytes, encoder: PictureEncoder) -> Slot:
        """A new slot, or BusyError. When there is no room, the oldest orphan makes place."""
        if len(self) >= self._limits.sessions:
            orphan = min(self._orphans(), key=lambda slot: slot.orphaned_s, default=None)
            if orphan is None:
                raise BusyError(
                    "the server has no room for another session",
                    expected=f"at most {self._limits.sessions} sessions",
                    remedy="close one, try again later, or start the server with a larger --sessions",
                )
            self.end(orphan)
        slot = Slot(next(self._ids), client, encoder)
        self._slots[slot.id] = slot
        return slot

    @property
    def are_full(self) -> bool:
        """Whether `add` would find no room."""
        return len(self) - len(self._orphans()) >= self._limits.sessions

    def of_client(self, client: bytes) -> list[Slot]:
        """The slots of a client."""
        return [slot for slot in self if slot.client == client and not slot.closing]

    def adopt(self, token: str, client: bytes) -> tuple[str, ...]:
        """Gives the orphans that a token resumes to a client.

        Returns the tokens of theirs that stay valid: the named one and those that were given after it.
        """
        kept: tuple[str, ...] = ()
        for slot in self._orphans():
            if token in slot.tokens:
                kept = slot.tokens[slot.tokens.index(token) :]
                slot.adopt(client)
        return kept

    def end_orphans(self, before_s: float) -> None:
        """Ends those that have waited since before a time."""
        for slot in self._orphans():
            if slot.orphaned_s < before_s:
                self.end(slot)

    def _orphans(self) -> list[Slot]:
        return [slot for slot in self if slot.client == NO_CLIENT and not slot.closing]

    def end(self, slot: Slot) -> None:
        """The slot ends, and nobody hears of it any more: at once if nothing was made for it, else when the
        worker has closed its session.
        """
        slot.client, slot.closing = NO_CLIENT, True
        if slot.session is None and not slot.busy:
            self.remove(slot)

    def remove(self, slot: Slot) -> None:
        """Forgets a slot whose session has ended, once its last word has left."""
        slot.closing = slot.over = True
        slot.session = None
        self.forget_silent()

    def forget_silent(self) -> None:
        """Forgets the slots that are over and have nothing more to say."""
        for slot in self:
            if slot.over and (not slot.encoding or slot.client == NO_CLIENT):
                del self._slots[slot.id]

    @property
    def queued(self) -> int:
        """Requests that wait, of all sessions."""
        return sum(len(slot.requests) for slot in self._slots.values())

    def of(self, client: bytes, session: int) -> Slot:
        """The slot of a client's session, also while it ends; StateError if it has no such session."""
        slot = self._slots.get(session)
        if slot is None or slot.client != client:
            raise no_session(session)
        return slot

    def enqueue(self, slot: Slot, message: Message, payload: Any) -> None:
        """Adds a request behind the others of its session; BusyError when too many or too large ones wait."""
        if len(slot.requests) >= self._limits.queued_requests:
            raise BusyError(
                "too many requests wait in this session",
                expected=f"at most {self._limits.queued_requests}",
                remedy="wait for answers before you send more",
            )
        waiting = sum(len(item) for other in self._slots.values() for _, item in other.requests if item)
        if payload and waiting and waiting + len(payload) > self._limits.message_bytes:
            raise BusyError(
                "too many payloads wait",
                expected=f"at most {self._limits.message_bytes} bytes, those of all sessions together",
                remedy="wait for answers before you send more",
            )
        slot.requests.append((message, payload))

    def next(self, now_s: float, quick: bool = False, crowded: frozenset[bytes] = frozenset()) -> Slot | None:
        """The session whose turn it is; it goes behind all others. quick: only if it wants a quick step.

        crowded: clients that get nothing made until they have read what waits for them.
        """
        for slot in self._slots.values():
            if slot.wants_work(now_s) and (slot.closing or slot.client not in crowded):
                if quick and not slot.is_quick:
                    return None
                self._slots.move_to_end(slot.id)
                return slot
        return None

    def next_due_s(self, crowded: frozenset[bytes] = frozenset()) -> float:
        """When the next live step is due; infinity if none is to come."""
        waiting = (slot for slot in self._slots.values() if slot.may_step)
        return min((slot.due_s for slot in waiting if slot.client not in crowded), default=math.inf)
