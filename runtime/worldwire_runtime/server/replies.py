"""From what happened to the message that says so."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, WorldInfo
from worldwire.errors import StateError, WorldwireError
from worldwire.protocol import (
    VERSION,
    Done,
    ErrorMessage,
    FrameMessage,
    Limits,
    Opened,
    ResumedSession,
    Save,
    Saved,
    Vector3,
    Vector4,
    Welcome,
    WireWorld,
)
from worldwire.release import release
from worldwire_runtime.server.kept import KeptStates
from worldwire_runtime.server.sessions import Slot

LONGEST_TEXT: Final = 2000
"""Characters of each text of an error."""


def welcome(
    request: int,
    info: WorldInfo,
    limits: Limits,
    token: str,
    resumed: Iterable[Slot],
    formats: tuple[str, ...],
) -> Welcome:
    """The answer to a hello that fits."""
    return Welcome(
        request=request,
        version=VERSION,
        server=f"worldwire {release()}",
        world=WireWorld.of(info),
        limits=limits,
        token=token,
        resumed=tuple(map(resumed_session, resumed)),
        formats=formats,
    )


def resumed_session(slot: Slot) -> ResumedSession:
    """How a session stands that its client takes over."""
    return ResumedSession(
        session=slot.id,
        epoch=slot.epoch,
        frames_per_step=slot.frames_per_step,
        format=slot.encoder.format,
        seq=slot.inputs.newest,
    )


def opened(slot: Slot, request: int) -> Opened:
    """A session is there."""
    return Opened(
        request=request, session=slot.id, frames_per_step=slot.frames_per_step, format=slot.encoder.format
    )


def done(slot: Slot, request: int) -> Done:
    """A request without any other answer is done."""
    return Done(request=request, session=slot.id, epoch=slot.epoch, frames_per_step=slot.frames_per_step)


@dataclass(frozen=True)
class Shot:
    """A picture on its way out. key: whether it must stand alone.

    epoch, dropped, request: what its header says of the moment when it was given out.
    """

    frame: Frame
    epoch: int
    dropped: int
    request: int | None
    key: bool


def frame(slot: Slot, shot: Shot, key: bool, encode_ms: float) -> FrameMessage:
    """The header of a picture that is sent now."""
    shown = shot.frame
    position_m, quaternion_xyzw = pose_of(shown.c2w)
    return FrameMessage(
        session=slot.id,
        epoch=shot.epoch,
        index=shown.index,
        format=slot.encoder.format,
        height=shown.pixels.shape[0],
        width=shown.pixels.shape[1],
        position_m=position_m,
        quaternion_xyzw=quaternion_xyzw,
        t_ns=time.monotonic_ns(),
        ack=shown.ack,
        dropped=shot.dropped,
        memory_latents=tuple(shown.memory_latents),
        timings_ms=shown.timings_ms | {"encode": encode_ms},
        request=shot.request,
        key=key,
    )


def pose_of(c2w: NDArray[np.float64]) -> tuple[Vector3, Vector4]:
    """Position in metres and quaternion xyzw (w >= 0) of a rigid camera-to-world matrix that is our own.

    `worldwire.camera.to_quaternion` without its checks: those take longer than all else of a header.
    """
    (a, b, c, x), (d, e, f, y), (g, h, i, z), _ = c2w.tolist()
    # Shepperd's method: divide by the largest of the four components.
    four = (1 + a - e - i, 1 - a + e - i, 1 - a - e + i, 1 + a + e + i)
    largest = max(range(4), key=four.__getitem__)
    rows = (
        (four[0], b + d, c + g, h - f),
        (b + d, four[1], f + h, c - g),
        (c + g, f + h, four[2], d - b),
        (h - f, c - g, d - b, four[3]),
    )
    scale = math.copysign(0.5 / math.sqrt(four[largest]), rows[largest][3])
    qx, qy, qz, qw = rows[largest]
    return (x, y, z), (qx * scale, qy * scale, qz * scale, qw * scale)


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
    """The error, or one that stands for an unexpected one, with texts that any message can hold.

    An error may quote what came: megabytes of it, or characters that are no UTF-8. The log has the rest.
    """
    if isinstance(error, WorldwireError):
        for name in ("problem", "expected", "got", "remedy"):
            text = getattr(error, name)
            setattr(error, name, text and _legible(text))
        return error
    return WorldwireError(
        _legible(f"the server failed: {type(error).__name__}: {error}"),
        remedy="look at the server's log; open another session",
    )


def _legible(text: str) -> str:
    short = text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
    return short.encode(errors="backslashreplace").decode()


def refusal(error: WorldwireError, slot: Slot, message: Any, *, fatal: bool) -> ErrorMessage:
    """Why a request, or a live step, was not done."""
    request = message.request if message is not None else None
    return ErrorMessage.of(typed(error), request=request, session=slot.id, fatal=fatal)
