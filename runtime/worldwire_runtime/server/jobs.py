"""What the worker does for each request of a session: one small function by message."""

from __future__ import annotations

from typing import Any

from worldwire.errors import StateError
from worldwire.inputs import per_frame
from worldwire.protocol import Branch, Close, Open, Prompt, Reset, Restore, Save, Step
from worldwire_runtime.server.kept import KeptStates
from worldwire_runtime.server.pixels import seed_image
from worldwire_runtime.server.sessions import Slot
from worldwire_runtime.server.worker import (
    Emit,
    Imagined,
    Job,
    OverlappingSession,
    ServedWorld,
    with_acks,
)


class Jobs:
    """Makes jobs. Bad requests raise here, in the loop's thread, before any work starts."""

    def __init__(self, world: ServedWorld, kept: KeptStates):
        self._world, self._kept = world, kept

    def of(self, slot: Slot, message: Any, payload: Any) -> Job:
        """The job that a message asks for; without one, a live step."""
        if slot.closing:
            return self._close(slot)
        match message:
            case None:
                return self._live_step(slot)
            case Open():
                return lambda _: self._world.session(message.plan)
            case Reset():
                return self._reset(slot, message, payload)
            case Step():
                return self._step(slot, message)
            case Prompt():
                return lambda _: _session(slot).set_prompt(message.prompt)
            case Save():
                return lambda _: _session(slot).save()
            case Restore():
                return self._restore(slot, message, payload)
            case Branch():
                return lambda _: _session(slot).branch()
            case Close():
                return self._close(slot)
        raise StateError(f"{message.kind!r} is no work for a session")

    def _reset(self, slot: Slot, message: Reset, payload: Any) -> Job:
        image = seed_image(message, payload)

        def job(emit: Emit) -> None:
            emit(_session(slot).reset(message.prompt, image, message.seed, message.view))

        return job

    def _step(self, slot: Slot, message: Step) -> Job:
        if slot.window:
            raise StateError("the session is live", expected="a paused session", remedy="send `pause` first")
        inputs = per_frame([control.inputs() for control in message.inputs], slot.frames_per_step)

        def job(emit: Emit) -> None:
            for frame in _session(slot).stream(inputs):
                emit(frame)

        return job

    def _live_step(self, slot: Slot) -> Job:
        planned = slot.inputs.take(slot.frames_per_step, slot.camera)

        def job(emit: Emit) -> None:
            session, inputs = _session(slot), [plan.inputs for plan in planned]
            if isinstance(session, OverlappingSession) and session.overlaps:
                begun = session.begin(inputs)
                emit(Imagined(with_acks(begun.frames, planned), len(planned), begun.c2w[-1]))
                session.finish()
                return
            for frame in with_acks(session.stream(inputs), planned):
                emit(frame)

        return job

    def _restore(self, slot: Slot, message: Restore, payload: Any) -> Job:
        state = self._kept.get(message.state) if message.state is not None else bytes(payload or b"")
        return lambda _: _session(slot).restore(state)

    def _close(self, slot: Slot) -> Job:
        return lambda _: slot.session.close() if slot.session is not None else None


def _session(slot: Slot) -> Any:
    """The session of a slot that has been opened."""
    if slot.session is None:
        raise StateError("the session was not opened", remedy="open another one")
    return slot.session
