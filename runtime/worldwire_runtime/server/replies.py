"""From what happened to the message that says so."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from worldwire.api import WorldInfo
from worldwire.errors import StateError, WorldwireError
from worldwire.protocol import (
    VERSION,
    Done,
    ErrorMessage,
    FrameMessage,
    Limits,
    Opened,
    Save,
    Saved,
    Welcome,
    WireWorld,
    pose_fields,
)
from worldwire_runtime.server.kept import KeptStates
from worldwire_runtime.server.sessions import Slot
from worldwire_runtime.server.worker import Picture


def welcome(request: int, info: WorldInfo, limits: Limits) -> Welcome:
    """The answer to a hello that fits."""
    return Welcome(
        request=request,
        version=VERSION,
        server=f"worldwire {version('worldwire')}",
        world=WireWorld.of(info),
        limits=limits,
    )


def opened(slot: Slot, request: int) -> Opened:
    """A session is there."""
    return Opened(request=request, session=slot.id, frames_per_step=slot.frames_per_step, format=slot.format)


def done(slot: Slot, request: int) -> Done:
    """A request without any other answer is done."""
    return Done(request=request, session=slot.id, epoch=slot.epoch, frames_per_step=slot.frames_per_step)


def frame(slot: Slot, picture: Picture, request: int | None) -> FrameMessage:
    """The header of a picture that is sent now."""
    shown = picture.frame
    return FrameMessage(
        session=slot.id,
        epoch=slot.epoch,
        index=shown.index,
        format=picture.format,
        height=shown.pixels.shape[0],
        width=shown.pixels.shape[1],
        **pose_fields(shown.c2w),
        t_ns=time.monotonic_ns(),
        ack=shown.ack,
        dropped=slot.take_dropped() if request is None else 0,
        memory_latents=tuple(shown.memory_latents),
        timings_ms=picture.timings_ms,
        request=request,
    )


def saved(slot: Slot, message: Save, state: bytes, kept: KeptStates, limits: Limits) -> tuple[Saved, Any]:
    """A state: its name if it is kept, else its bytes; StateError if they do not fit a message."""
    answer: dict[str, Any] = {"request": message.request, "session": slot.id, "size": len(state)}
    if message.keep:
        return Saved(**answer, state=kept.add(state)), None
    if len(state) > limits.message_bytes:
        raise StateError(
            "the state is larger than a message may be",
            expected=f"at most {limits.message_bytes} bytes",
            got=f"{len(state)} bytes",
            remedy="keep it on the server: `save` with keep, or RemoteSession.keep()",
        )
    return Saved(**answer), state


def typed(error: Exception) -> WorldwireError:
    """The error itself, or one for the wire that stands for an unexpected one; the log has the rest."""
    if isinstance(error, WorldwireError):
        return error
    return WorldwireError(
        f"the server failed: {type(error).__name__}: {error}",
        remedy="look at the server's log; open another session",
    )


def refusal(error: WorldwireError, slot: Slot, message: Any, *, fatal: bool) -> ErrorMessage:
    """Why a request, or a live step, was not done."""
    request = message.request if message is not None else None
    return ErrorMessage.of(error, request=request, session=slot.id, fatal=fatal)
