"""One session on a server: the interface of `worldwire.api`, live play, and what a server can do beyond.

A `RemoteSession` takes one caller at a time, except that one thread may `send_input` while another one does
`poll_frames`. It outlives a lost connection for as long as the server keeps it: calls wait meanwhile, a call
whose answer was lost raises RequestLostError, and a live session goes on by itself.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame
from worldwire.channel import Arrival
from worldwire.errors import ImageError, StateError, WorldwireError
from worldwire.inputs import Inputs, per_frame
from worldwire.link import Link
from worldwire.pictures import pixels
from worldwire.protocol import (
    Branch,
    Close,
    Control,
    Credit,
    Done,
    FrameMessage,
    Input,
    Opened,
    Pause,
    Prompt,
    Reset,
    Restore,
    Save,
    Saved,
    Start,
    Step,
    control_fields,
    pose,
)

LEAD_FRAMES: Final = 4
"""Frames beside one step that may be on their way by default: the next step begins while they are shown."""
STALL_S: Final = 1.0
"""A caller that did not poll for so long gets the newest frame, not the backlog."""


@dataclass(frozen=True)
class SavedState:
    """A state that the server keeps: `RemoteSession.restore` takes it, from any client of that server."""

    name: str
    size: int


class RemoteSession:
    """One player's walk on a server: `SessionLike`, and live play. Made by `Client.session`."""

    def __init__(self, link: Link, opened: Opened, timeout_s: float, step_timeout_s: float):
        """timeout_s: for `close`; step_timeout_s: for all that generates or moves states."""
        self.id = opened.session
        self.format = opened.format
        self._link, self._timeout_s, self._step_timeout_s = link, timeout_s, step_timeout_s
        self._channel = link.attach(opened)
        self._seq = 0
        self._last_poll_s = 0.0
        self._closed = False

    # ------------------------------------------------------------------ SessionLike

    @property
    def frames_per_step(self) -> int:
        """How many frames the next `step` returns; while live, as of `start`."""
        return self._channel.frames_per_step

    def reset(
        self,
        prompt: str | None = None,
        image: NDArray[np.uint8] | str | None = None,
        seed: int = 0,
        view: str | None = None,
    ) -> Frame:
        """Starts anew and returns frame 0 (see `SessionLike.reset`); a live session stays live."""
        named: dict[str, Any] = {"prompt": prompt, "seed": seed, "view": view}
        payload = None
        if isinstance(image, str):
            named["image"] = image
        elif image is not None:
            payload = _image_bytes(image)
            named |= {"image_height": image.shape[0], "image_width": image.shape[1]}
        first, *_ = self._generate(Reset(**self._address(), **named), payload)
        return first

    def step(self, inputs: Inputs | Sequence[Inputs]) -> list[Frame]:
        """Generates the next `frames_per_step` frames; StateError while the session is live."""
        return list(self.stream(inputs))

    def stream(self, inputs: Inputs | Sequence[Inputs]) -> Iterator[Frame]:
        """A step whose frames come as soon as each is there; run it to its end before the next call."""
        controls = tuple(Control.of(item) for item in per_frame(inputs, self.frames_per_step))
        yield from self._generate(Step(**self._address(), inputs=controls))

    def set_prompt(self, prompt: str) -> None:
        """What the world is told from the next step on; picture, place and memory go on. Live too.

        StateError before the first reset, ConfigError for a world that takes no prompt.
        """
        self._request(Prompt(**self._address(), prompt=prompt))

    def save(self) -> bytes:
        """The whole state, as bytes; StateError if it is larger than a message may be (then `keep` it)."""
        arrival = self._request(Save(**self._address()))
        return bytes(arrival.payload)

    def keep(self) -> SavedState:
        """Saves the state on the server; it keeps the newest `limits.kept_states` of them."""
        saved = cast(Saved, self._request(Save(**self._address(), keep=True)).message)
        return SavedState(saved.state or "", saved.size)

    def restore(self, state: bytes | SavedState) -> None:
        """Continues from a saved state; StateError if it is unknown or of another world."""
        if isinstance(state, SavedState):
            self._request(Restore(**self._address(), state=state.name))
        else:
            self._request(Restore(**self._address()), payload=state)

    def branch(self) -> RemoteSession:
        """A second session that goes on from here; needs room for one."""
        opened = cast(Opened, self._request(Branch(**self._address())).message)
        return RemoteSession(self._link, opened, self._timeout_s, self._step_timeout_s)

    def close(self) -> None:
        """Frees the session on the server; closing twice, or after the connection was lost, is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._link.connected:
                self._link.request(Close(**self._address()), self._timeout_s)
        except WorldwireError:
            pass  # the server has closed it already, or is gone
        finally:
            self._link.detach(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------ live play

    @property
    def live(self) -> bool:
        """Whether the world runs by itself."""
        return self._channel.window > 0

    def start(self, window: int | None = None) -> None:
        """Lets the world run by itself under the newest input; it goes on after a lost connection is back.

        window: frames that the server may be ahead of `poll_frames`; a larger one is smoother and slower to
        react. Below `frames_per_step` only the newest frames of each step arrive. Default: a little more than
        one step.
        """
        wanted = window if window is not None else self.frames_per_step + LEAD_FRAMES
        self._request(Start(**self._address(), window=wanted))
        self._channel.window = wanted
        self._last_poll_s = time.monotonic()

    def pause(self) -> None:
        """Stops the world after the step under way, whose frames `poll_frames` still returns."""
        self._request(Pause(**self._address()))
        self._channel.window = 0

    def send_input(
        self,
        keys: Collection[str] = (),
        yaw_deg: float = 0.0,
        pitch_deg: float = 0.0,
        c2w: NDArray[np.float64] | None = None,
    ) -> int:
        """Tells what the player does from now on, and returns the sequence number of this input.

        keys: all keys that are held. yaw_deg, pitch_deg: look since the last input. c2w: the camera pose, if
        poses steer. The first frame with `ack >=` that number shows it. Every press and release is shown,
        however short; while the connection is away only the newest input is kept. Raises InputError for a bad
        input and whatever ended the session.
        """
        checked = Inputs(frozenset(keys), yaw_deg, pitch_deg, c2w)
        self._channel.check()
        self._seq += 1
        self._link.send(Input(session=self.id, seq=self._seq, **control_fields(checked)))
        return self._seq

    def poll_frames(self, timeout_s: float = 0.0, limit: int | None = None) -> list[Frame]:
        """The frames that have come, in order; waits up to `timeout_s` for the first.

        limit: at most so many; what is left counts against the window, so a caller that takes frames at its
        playing speed slows the world down to it. A caller that did not poll for `STALL_S` gets only the
        newest. Raises whatever ended the session.
        """
        stale = self._channel.drop_all_but_newest() if self._stalled() else 0
        arrivals = self._channel.take(timeout_s, limit)
        self._last_poll_s = time.monotonic()
        if self.live and stale + len(arrivals):
            self._link.send(Credit(session=self.id, frames=stale + len(arrivals)))
        return [self._frame(arrival) for arrival in arrivals]

    # ------------------------------------------------------------------ parts

    def _stalled(self) -> bool:
        return self.live and time.monotonic() - self._last_poll_s > STALL_S

    def _address(self) -> dict[str, Any]:
        return {"request": self._link.next_id(), "session": self.id}

    def _request(self, message: Any, payload: Any = None) -> Arrival:
        """One answer; a `done` says how long the next step is."""
        *_, last = self._exchange(message, payload)
        return last

    def _generate(self, message: Any, payload: Any = None) -> Iterator[Frame]:
        for arrival in self._exchange(message, payload):
            if isinstance(arrival.message, FrameMessage):
                yield self._frame(arrival)

    def _exchange(self, message: Any, payload: Any) -> Iterator[Arrival]:
        self._channel.check()
        try:
            for arrival in self._link.exchange(message, self._step_timeout_s, payload):
                if isinstance(arrival.message, Done):
                    self._channel.frames_per_step = arrival.message.frames_per_step
                yield arrival
        except StateError:
            self._channel.check()  # the session may be over: that is the better word
            raise

    def _frame(self, arrival: Arrival) -> Frame:
        message = cast(FrameMessage, arrival.message)
        trip = self._link.best_round_trip
        sent_ns = min(message.t_ns - (trip.offset_ns if trip else 0), arrival.received_ns)
        return Frame(
            index=message.index,
            pixels=pixels(message, arrival.payload),
            c2w=pose(message.position_m, message.quaternion_xyzw),
            ack=message.ack,
            memory_latents=message.memory_latents,
            timings_ms=message.timings_ms | {"transport": (arrival.received_ns - sent_ns) / 1e6},
            sent_ns=sent_ns,
            received_ns=arrival.received_ns,
        )


def _image_bytes(image: NDArray[np.uint8]) -> bytes:
    """Rows of RGB, or ImageError."""
    fits = (
        isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    )
    if not fits:
        raise ImageError(
            "a seed image has the wrong form",
            expected="a numpy array uint8 [height, width, 3], RGB",
            got=f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}",
            remedy="numpy.asarray(Image.open(path).convert('RGB')) makes one",
        )
    return np.ascontiguousarray(image).tobytes()
