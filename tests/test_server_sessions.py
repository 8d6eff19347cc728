"""Credit, turns and limits of sessions, without sockets."""

import numpy as np
import pytest
from fake_world import FakeWorld

from worldwire.api import Frame
from worldwire.errors import BusyError, StateError
from worldwire.protocol import Limits, Pause
from worldwire_runtime.server.clients import Clients
from worldwire_runtime.server.kept import KeptStates
from worldwire_runtime.server.pixels import PictureEncoder
from worldwire_runtime.server.sessions import Sessions, Slot

RGB = PictureEncoder("rgb", 90)


def picture(index: int) -> Frame:
    return Frame(index, np.zeros((2, 2, 3), np.uint8), np.eye(4))


def live_slot(window: int, sessions: Sessions | None = None) -> Slot:
    slot = (Sessions(Limits()) if sessions is None else sessions).add(b"client", RGB)
    slot.attach(FakeWorld().session())
    slot.begin_epoch()
    slot.start(window)
    return slot


def test_a_step_begins_only_when_the_client_can_take_it():
    slot = live_slot(window=12)
    assert slot.wants_step
    sent = [slot.spend(picture(index)) for index in range(8)]
    assert all(sent)
    assert not slot.wants_step
    slot.grant(4)
    assert slot.wants_step


def test_a_small_window_gets_the_newest_frame_of_each_step():
    slot = live_slot(window=1)
    assert [slot.spend(picture(index)) for index in range(8)] == [True] + [False] * 7
    assert not slot.wants_step
    slot.grant(1)
    newest = slot.take_waiting()
    assert newest is not None
    assert newest.index == 7
    assert slot.take_dropped() == 6
    assert slot.take_waiting() is None


def test_credit_never_exceeds_the_window():
    slot = live_slot(window=8)
    slot.grant(1000)
    assert slot.credit == 8


def test_a_reset_makes_the_credit_whole_and_forgets_what_waited():
    slot = live_slot(window=1)
    for index in range(8):
        slot.spend(picture(index))
    slot.begin_epoch()
    assert (slot.credit, slot.waiting, slot.epoch) == (1, None, 2)


def test_a_session_that_never_started_cannot_go_live():
    with pytest.raises(StateError, match="not started"):
        Sessions(Limits()).add(b"client", RGB).start(8)


def test_turns_go_round():
    sessions = Sessions(Limits())
    slots = [live_slot(8, sessions) for _ in range(3)]
    slots[1].pause()
    turns = [sessions.next(0.0) for _ in range(4)]
    assert turns == [slots[0], slots[2], slots[0], slots[2]]


def test_quick_steps_go_ahead_until_it_is_the_turn_of_slow_work():
    sessions = Sessions(Limits())
    first, slow, last = (live_slot(8, sessions) for _ in range(3))
    first.step_s = last.step_s = 0.0005
    slow.step_s = 0.5
    assert sessions.next(0.0) is first
    assert sessions.next(0.0, quick=True) is None
    assert sessions.next(0.0) is slow
    assert sessions.next(0.0, quick=True) is last
    first.busy = True
    assert sessions.next(0.0, quick=True) is None


def test_a_rate_makes_steps_due_and_forgets_what_was_missed():
    sessions = Sessions(Limits())
    slot = live_slot(64, sessions)
    slot.schedule(10.0, rate=16)
    assert slot.due_s == 10.5  # eight frames
    assert sessions.next(10.4) is None
    assert sessions.next_due_s() == 10.5
    slot.schedule(10.6, rate=16)
    assert slot.due_s == 11.0  # late, but it keeps the beat
    slot.schedule(15.0, rate=16)
    assert slot.due_s == 15.5  # what was missed is not made up for
    slot.schedule(16.0, rate=0)
    assert slot.due_s == 15.5


def test_limits_of_sessions_and_requests():
    sessions = Sessions(Limits(sessions=1, queued_requests=2))
    slot = sessions.add(b"client", RGB)
    with pytest.raises(BusyError, match="no room"):
        sessions.add(b"client", RGB)
    for request in (1, 2):
        sessions.enqueue(slot, Pause(request=request, session=slot.id), None)
    with pytest.raises(BusyError, match="too many requests"):
        sessions.enqueue(slot, Pause(request=3, session=slot.id), None)


def test_a_session_belongs_to_its_client():
    sessions = Sessions(Limits())
    slot = sessions.add(b"mine", RGB)
    assert sessions.of(b"mine", slot.id) is slot
    with pytest.raises(StateError, match="no session"):
        sessions.of(b"other", slot.id)


def test_kept_states_are_bounded():
    kept = KeptStates(Limits(kept_states=2, kept_bytes=10))
    names = [kept.add(bytes(4)) for _ in range(3)]
    with pytest.raises(StateError, match="keeps no such state"):
        kept.get(names[0])
    assert kept.get(names[2]) == bytes(4)
    kept.add(bytes(8))
    with pytest.raises(StateError):
        kept.get(names[2])
    with pytest.raises(StateError, match="too large"):
        kept.add(bytes(11))


def test_a_client_over_its_rate_is_ignored_until_it_slows_down():
    now_s = 0.0
    clients = Clients(Limits(messages_per_second=10), lambda: now_s)
    assert all(clients.heard(b"a") for _ in range(10))
    assert clients.heard(b"a") is None
    assert clients.heard(b"b") is not None
    assert clients.may_complain(b"a")
    assert not clients.may_complain(b"a")
    now_s = 0.5
    assert [clients.heard(b"a") is not None for _ in range(6)] == [True] * 5 + [False]
    assert not clients.may_complain(b"a")
    now_s = 1.0
    assert clients.heard(b"a") is not None
    assert clients.may_complain(b"a")
    now_s = 60.0  # silence saves up no more than a second's worth
    assert [clients.heard(b"a") is not None for _ in range(11)] == [True] * 10 + [False]


def test_silent_clients_are_found():
    now_s = 0.0
    clients = Clients(Limits(liveness_s=10), lambda: now_s)
    clients.heard(b"a")
    now_s = 9.0
    clients.heard(b"b")
    now_s = 11.0
    assert clients.silent() == [b"a"]
