"""Clauses and results: what runs, in which order, and what counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from importlib import import_module
from typing import Final

from worldwire.conformance.peer import NotCheckedError, NotKeptError, Peer
from worldwire.errors import WorldwireError
from worldwire.keys import ClientKeys
from worldwire.link import Link
from worldwire.protocol import Control, Done, Limits, Status, StatusReport, Step, Welcome, WireWorld

PARTS: Final = ("transport", "sessions", "resuming", "live", "formats", "limits")
CONNECT_TIMEOUT_S: Final = 30.0
QUIET_S: Final = 0.3
QUIET_STEPS: Final = 2.0
"""How many steps' time without a frame counts as silence."""


class Outcome(StrEnum):
    """What became of a clause."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass
class Target:
    """The server under test. Its facts are asked once, when they are first needed.

    patience_s: how long an answer may take, a step included. quick: leave out what waits for time-outs.
    """

    address: str
    keys: ClientKeys | None = None
    patience_s: float = 60.0
    quick: bool = False

    def connect(self, resume: str | None = None) -> Peer:
        """A connection that is not greeted, for a clause that ends it itself."""
        return Peer(self.address, self.keys, self.patience_s, resume)

    @contextmanager
    def peer(self, greet: bool = True) -> Iterator[Peer]:
        """A connection that leaves at the end."""
        peer = self.connect()
        try:
            if greet:
                peer.hello()
            yield peer
        finally:
            peer.leave()

    @cached_property
    def welcome(self) -> Welcome:
        """What the server says of itself."""
        with self.peer(greet=False) as peer:
            return peer.hello()

    @property
    def world(self) -> WireWorld:
        """Its world."""
        return self.welcome.world

    @property
    def limits(self) -> Limits:
        """Its limits."""
        return self.welcome.limits

    @cached_property
    def step_s(self) -> float:
        """How long one step takes, measured once."""
        with self.peer() as peer:
            opened = peer.begin()
            started_s = time.monotonic()
            peer.get(Done, step(peer, opened.session, opened.frames_per_step))
            return time.monotonic() - started_s

    @property
    def quiet_s(self) -> float:
        """If no frame comes for so long, none will come."""
        return QUIET_S + QUIET_STEPS * self.step_s

    def sessions(self) -> int:
        """How many sessions are open now."""
        with self.peer(greet=False) as peer:
            return peer.get(StatusReport, Status(request=1)).sessions


@dataclass(frozen=True)
class Clause:
    """One sentence of the specification. slow: it waits for a time-out of the server."""

    section: str
    text: str
    check: Callable[[Target], None] = field(repr=False)
    slow: bool = False


@dataclass(frozen=True)
class Result:
    """What became of a clause, and why if it did not pass."""

    clause: Clause
    outcome: Outcome
    detail: str
    seconds: float


_registered: list[Clause] = []


def clause(
    section: str, text: str, slow: bool = False
) -> Callable[[Callable[[Target], None]], Callable[[Target], None]]:
    """Registers the check of a clause: it raises NotKeptError or NotCheckedError, or returns."""

    def register(check: Callable[[Target], None]) -> Callable[[Target], None]:
        _registered.append(Clause(section, text, check, slow))
        return check

    return register


def clauses() -> list[Clause]:
    """All clauses in the order of the specification."""
    for part in PARTS:
        import_module(f"worldwire.conformance.{part}")
    return sorted(_registered, key=lambda item: [int(number) for number in item.section.split(".")])


def run(target: Target, chosen: Sequence[Clause]) -> Iterator[Result]:
    """Checks clause by clause. Raises a WorldwireError when the server cannot be reached at all."""
    link = Link(target.address, target.keys, resume_s=0)
    try:
        link.greet(min(target.patience_s, CONNECT_TIMEOUT_S))
    finally:
        link.close()
    for item in chosen:
        started_s = time.monotonic()
        outcome, detail = _judge(target, item)
        yield Result(item, outcome, detail, time.monotonic() - started_s)


def _judge(target: Target, item: Clause) -> tuple[Outcome, str]:
    if item.slow and target.quick:
        return Outcome.SKIP, "it waits for a time-out; leave --quick out"
    try:
        item.check(target)
    except NotCheckedError as reason:
        return Outcome.SKIP, str(reason)
    except NotKeptError as problem:
        return Outcome.FAIL, str(problem)
    except WorldwireError as error:
        return Outcome.FAIL, f"the connection failed: {error}"
    except (IndexError, ValueError) as error:
        return Outcome.FAIL, f"not as many messages or entries as there should be: {error}"
    return Outcome.PASS, ""


def step(peer: Peer, session: int, frames: int, **control: object) -> Step:
    """A `step` of equal controls."""
    return Step(request=peer.next_id(), session=session, inputs=(Control(**control),) * frames)  # type: ignore[arg-type]
