"""Sections 10 and 11: errors, limits, time-outs."""

from __future__ import annotations

import time
from typing import Final

from worldwire.conformance.peer import NotCheckedError, Peer, expect
from worldwire.conformance.runner import Target, clause, step
from worldwire.conformance.sessions import of
from worldwire.conformance.transport import pings
from worldwire.protocol import Done, ErrorMessage, Pause, Ping, Pong, Reset, Start

BEYOND: Final = 20
MOST_MESSAGES: Final = 20_000
MOST_REQUESTS: Final = 2000
FLOOD_PARTS: Final = 10
PROMPT_ANSWER_S: Final = 1.0
"""How long a `ping` may take while the server generates; networks included."""


@clause(
    "10.1", "an error names `request`, `session` and `seq` of what it answers, as far as they could be read"
)
def correlation(target: Target) -> None:
    with target.peer() as peer:
        peer.say({"type": "teleport", "request": 41, "session": 7, "seq": 9})
        error = peer.await_message(ErrorMessage)
        expect((error.request, error.session, error.seq) == (41, 7, 9), "the numbers are not told")
        peer.say({"type": "teleport", "request": "41", "session": -7, "seq": 2**60})
        error = peer.await_message(ErrorMessage)
        expect((error.request, error.session, error.seq) == (None, None, None), "numbers that are none")


@clause("10.2", "a refused request leaves a live session live")
def refused_while_live(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.get(Done, Start(**of(peer, opened), window=4096))
        peer.refused("bad_config", Reset(**of(peer, opened), image="no such image"))
        frames = peer.live_frames(opened.session, target.quiet_s, most=4 * opened.frames_per_step)
        expect(len(frames) == 4 * opened.frames_per_step, "live play stopped")
        expect({frame.epoch for frame in frames} == {1}, "the epoch changed")


@clause("11.1", "more than `queued_requests` of one session are refused with `busy`, each of them answered")
def queued_requests(target: Target) -> None:
    limit = target.limits.queued_requests
    if limit > MOST_REQUESTS:
        raise NotCheckedError(f"a limit of {limit} is too large to reach")
    with target.peer() as peer:
        opened = peer.begin()
        work = [step(peer, opened.session, opened.frames_per_step) for _ in range(limit + BEYOND)]
        for message in work:
            peer.say(message)
        answers = peer.answers([message.request for message in work], "step")
        last = [answer.last for answer in answers.values()]
        codes = {answer.code for answer in last if isinstance(answer, ErrorMessage)}
        expect(codes <= {"busy"}, f"errors {sorted(codes)}")
        expect(sum(isinstance(answer, Done) for answer in last) >= limit, "fewer than the limit were done")
        peer.get(Done, Pause(**of(peer, opened)))


@clause(
    "11.1",
    "a client above `messages_per_second` hears `busy` now and then, and is served again later",
    slow=True,
)
def message_rate(target: Target) -> None:
    limit = target.limits.messages_per_second
    if limit > MOST_MESSAGES:
        raise NotCheckedError(f"a limit of {limit} a second is too large to reach")
    with target.peer() as peer, target.peer() as other:
        errors = _flood(peer, limit, time.monotonic() + target.patience_s)
        pings(other)
        if not errors:
            raise NotCheckedError(f"this machine is too slow to send more than {limit} messages a second")
        expect({error.code for error in errors} == {"busy"}, f"the error {errors[0].code!r}")
        expect(not errors[0].fatal, "the error was fatal")
        peer.errors(quiet_s=0.2)
        time.sleep(1.2)
        pings(peer)


def _flood(peer: Peer, limit: int, deadline_s: float) -> list[ErrorMessage]:
    """Sends pings as fast as they go until the server complains; reads the pongs meanwhile."""
    errors: list[ErrorMessage] = []
    while not errors and time.monotonic() < deadline_s:
        for _ in range(limit // FLOOD_PARTS + 1):
            peer.say(Ping(t_ns=3))
        errors = peer.errors(quiet_s=0.0)
        peer.strays.clear()
    return errors


@clause("11.2", "`ping` is answered while the server generates")
def ping_under_load(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        work = [step(peer, opened.session, opened.frames_per_step) for _ in range(3)]
        for message in work:
            peer.say(message)
        started_s = time.monotonic()
        peer.say(Ping(t_ns=17))
        peer.await_message(Pong, lambda pong: pong.t_ns == 17)
        seconds = time.monotonic() - started_s
        expect(seconds < PROMPT_ANSWER_S, f"`pong` took {seconds:.1f} s")


@clause("11.2", "`ping` alone keeps a connection", slow=True)
def heartbeats(target: Target) -> None:
    liveness_s = target.limits.liveness_s
    with target.peer() as peer:
        opened = peer.begin()
        expect(peer.hear(liveness_s + 2.0) is None, "something came")
        peer.get(Done, step(peer, opened.session, opened.frames_per_step))
