"""Section 5.4: what a server keeps for a client whose connection was lost."""

from __future__ import annotations

import time
from typing import Final

from worldwire.conformance.peer import NotCheckedError, Peer, expect
from worldwire.conformance.runner import Target, clause, step
from worldwire.conformance.sessions import MAX_FILLED_SESSIONS, of
from worldwire.conformance.transport import pings
from worldwire.protocol import (
    Bye,
    Done,
    ErrorMessage,
    Open,
    Opened,
    Pause,
    Reset,
    Start,
    Welcome,
)

LONGEST_WAIT_S: Final = 120.0
GRACE_S: Final = 3.0
RETRY_S: Final = 0.2


class Visit:
    """A client that loses its connection and comes back; `token` is its newest one."""

    def __init__(self, target: Target):
        self._target = target
        self.peer = target.connect()
        self.token = self.peer.hello().token
        if not self.token:
            self.peer.leave()
            raise NotCheckedError("this server resumes nothing: its tokens are empty")

    def lose(self) -> None:
        """The connection breaks, after all that was sent has arrived."""
        pings(self.peer)
        self.peer.drop()

    def come_back(self, token: str | None = None) -> Welcome:
        """Connects again with the newest token, or an older one."""
        self.peer = self._target.connect(resume=token or self.token)
        welcome = self.peer.hello()
        self.token = welcome.token
        return welcome

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.leave()


@clause("5.4", "a token takes the sessions of a lost connection over, with epoch, format and newest `seq`")
def taking_over(target: Target) -> None:
    with Visit(target) as visit:
        opened = visit.peer.begin(formats=("bgra", "rgb"))
        done = visit.peer.get(Done, Reset(**of(visit.peer, opened)))
        for seq in (1, 2, 7):
            visit.peer.input(opened.session, seq)
        before = visit.token
        visit.lose()
        resumed = visit.come_back().resumed
        expect([item.session for item in resumed] == [opened.session], f"resumed {resumed}")
        found = resumed[0]
        expect((found.epoch, found.format) == (done.epoch, opened.format), f"resumed {found}")
        expect(found.frames_per_step == done.frames_per_step, f"{found.frames_per_step} frames a step")
        expect(found.seq == 7, f"the newest input was 7, not {found.seq}")
        expect(visit.token not in ("", before), "the token is not a fresh one")
        _goes_on(visit.peer, opened.session, found.frames_per_step, index=1)


def _goes_on(peer: Peer, session: int, frames: int, index: int) -> None:
    answer = peer.ask(step(peer, session, frames))
    peer.checked(Done, answer)
    expect(answer.frames[0].index == index, f"it goes on at frame {answer.frames[0].index}, not {index}")


@clause("5.4", "a resumed session is ready, not live; `start` makes it live again")
def not_live(target: Target) -> None:
    with Visit(target) as visit:
        opened = visit.peer.begin()
        visit.peer.get(Done, Start(**of(visit.peer, opened), window=8))
        newest = max(frame.index for frame in visit.peer.live_frames(opened.session, target.quiet_s, most=1))
        visit.lose()
        visit.come_back()
        expect(not visit.peer.live_frames(opened.session, target.quiet_s), "frames came before `start`")
        visit.peer.get(Done, Start(**of(visit.peer, opened), window=8))
        frames = visit.peer.live_frames(opened.session, target.quiet_s, most=1)
        expect(bool(frames) and frames[0].index > newest, "live play did not go on")


@clause("5.4", "what was under way when the connection broke is finished; `welcome` comes afterwards")
def work_under_way(target: Target) -> None:
    with Visit(target) as visit:
        opened = visit.peer.begin()
        visit.peer.say(step(visit.peer, opened.session, opened.frames_per_step))
        visit.lose()
        found = visit.come_back().resumed[0]
        _goes_on(visit.peer, opened.session, found.frames_per_step, opened.frames_per_step + 1)
        expect(not visit.peer.strays, "an answer to the lost request came")


@clause("5.4", "an unknown token is welcomed with nothing resumed")
def unknown_token(target: Target) -> None:
    for token in ("0" * 32, "x" * 256):
        peer = target.connect(resume=token)
        try:
            welcome = peer.hello()
            expect(not welcome.resumed, "sessions of nobody")
            peer.begin()
        finally:
            peer.leave()


@clause("5.4", "a client that missed the last `welcome` can use the token before it; a used-up one is void")
def older_tokens(target: Target) -> None:
    with Visit(target) as visit:
        opened = visit.peer.begin()
        first = visit.token
        visit.lose()
        visit.come_back(first)
        visit.lose()
        expect(len(visit.come_back(first).resumed) == 1, "the token before the last was void")
        second = visit.token
        visit.lose()
        expect(len(visit.come_back(second).resumed) == 1, "the newest token was void")
        thief = target.connect(resume=first)
        try:
            expect(not thief.hello().resumed, "a token from before the one that was used still works")
        finally:
            thief.leave()
        _goes_on(visit.peer, opened.session, opened.frames_per_step, index=1)


@clause("5.4", "a connection whose token is used while it stands gets `bye`, and its sessions move")
def take_over(target: Target) -> None:
    first = Visit(target)
    try:
        opened = first.peer.begin()
        with Visit(target) as second:
            second.peer.leave()
            expect(len(second.come_back(first.token).resumed) == 1, "nothing was taken over")
            bye = first.peer.await_message(Bye)
            expect(not bye.resume, "`bye` says that the sessions wait")
            _goes_on(second.peer, opened.session, opened.frames_per_step, index=1)
    finally:
        first.peer.drop()


@clause("5.4", "orphans wait `limits.resume_s` and no longer", slow=True)
def orphans_expire(target: Target) -> None:
    wait_s = target.limits.resume_s + target.limits.liveness_s
    if wait_s > LONGEST_WAIT_S:
        raise NotCheckedError(f"it would take {wait_s:g} s")
    with Visit(target) as visit:
        visit.peer.begin()
        visit.lose()
        time.sleep(wait_s + GRACE_S)
        expect(not visit.come_back().resumed, f"a session was still there after {wait_s + GRACE_S:g} s")


@clause("5.4", "when `open` finds no room the oldest orphan makes place", slow=True)
def orphans_make_place(target: Target) -> None:
    limit = target.limits.sessions
    if limit > MAX_FILLED_SESSIONS or target.sessions():
        raise NotCheckedError(f"for an idle server of at most {MAX_FILLED_SESSIONS} sessions")
    with Visit(target) as visit, target.peer() as other:
        opened = [visit.peer.begin() for _ in range(limit)]
        visit.lose()
        deadline_s = time.monotonic() + target.limits.liveness_s + GRACE_S
        while isinstance(_try_open(other), ErrorMessage):
            expect(time.monotonic() < deadline_s, "no orphan made place")
            time.sleep(RETRY_S)
        resumed = sorted(item.session for item in visit.come_back().resumed)
        expect(resumed == [item.session for item in opened[1:]], "another one than the oldest made place")


def _try_open(peer: Peer) -> object:
    return peer.ask(Open(request=peer.next_id())).last


@clause("5.4", "a client that falls silent gets `bye` that says that its sessions wait", slow=True)
def silence(target: Target) -> None:
    liveness_s = target.limits.liveness_s
    if liveness_s > LONGEST_WAIT_S:
        raise NotCheckedError(f"it would take {liveness_s:g} s")
    with Visit(target) as visit:
        opened: Opened = visit.peer.begin()
        visit.peer.keep_alive = False
        started_s = time.monotonic()
        arrival = visit.peer.hear(liveness_s + GRACE_S)
        seconds = time.monotonic() - started_s
        expect(arrival is not None and isinstance(arrival.message, Bye), "no `bye`")
        assert arrival is not None
        expect(seconds > liveness_s - GRACE_S, f"`bye` after {seconds:.1f} s; liveness_s is {liveness_s:g}")
        expect(getattr(arrival.message, "resume", False), "`bye` does not say that the sessions wait")
        visit.peer.drop()
        visit.come_back()
        visit.peer.get(Done, Pause(**of(visit.peer, opened)))
