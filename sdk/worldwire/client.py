"""The client: the interface of `worldwire.api` over the wire.

    with worldwire.connect("tcp://127.0.0.1:5555") as client, client.session() as session:
        session.reset(prompt="a village by day")
        frames = session.step(Inputs({"forward"}))                  # lockstep: as in process

        session.start()                                             # live: the world runs by itself
        seq = session.send_input({"forward"}, yaw_deg=2.0)
        for frame in session.poll_frames(timeout_s=0.1):
            show(frame.pixels)                                      # frame.ack >= seq: it shows that input

Threads: every method of `Client` may be called from any thread. A `RemoteSession` takes one caller at a time,
except that one thread may `send_input` while another one does `poll_frames`.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from types import TracebackType
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, WorldInfo
from worldwire.errors import (
    BusyError,
    ConnectionLostError,
    ImageError,
    MissingExtraError,
    ProtocolError,
    StateError,
    WorldwireError,
)
from worldwire.inputs import Inputs, per_frame
from worldwire.link import START_REMEDY, Arrival, Inbox, Link
from worldwire.protocol import (
    DEFAULT_ADDRESS,
    DEFAULT_JPEG_QUALITY,
    FORMAT_JPEG,
    FORMAT_RGB,
    VERSION,
    Branch,
    Close,
    Control,
    Credit,
    Done,
    FrameMessage,
    Hello,
    Input,
    Limits,
    Open,
    Opened,
    Pause,
    Reset,
    Restore,
    Save,
    Saved,
    Start,
    Status,
    StatusReport,
    Step,
    Welcome,
    check_version,
    control_fields,
    pose,
)

CONNECT_TIMEOUT_S: Final = 10.0
STEP_TIMEOUT_S: Final = 300.0
HELLO_PATIENCE_S: Final = 1.0
LOADING_PAUSE_S: Final = 0.2
LEAD_FRAMES: Final = 4
"""Frames beside one step that may be on their way by default: the next step begins while they are shown."""
STALL_S: Final = 1.0
"""A caller that did not poll for so long gets the newest frame, not the backlog."""


def connect(
    address: str = DEFAULT_ADDRESS,
    timeout_s: float = CONNECT_TIMEOUT_S,
    step_timeout_s: float = STEP_TIMEOUT_S,
) -> Client:
    """Connects to `worldwire serve`; waits up to `timeout_s` for it to start and to load its world.

    step_timeout_s: how long a reset or step may take.
    Raises ConnectionLostError (nothing there, or no answer), VersionError, BusyError (still loading).
    """
    return Client(address, timeout_s, step_timeout_s)


class Client:
    """A connection to a server. Thread-safe. Use it as a context manager, or close() it."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        timeout_s: float = CONNECT_TIMEOUT_S,
        step_timeout_s: float = STEP_TIMEOUT_S,
    ):
        self.address, self.timeout_s, self.step_timeout_s = address, timeout_s, step_timeout_s
        self._link = Link(address)
        try:
            self._welcome = self._shake_hands()
        except BaseException:
            self._link.close()
            raise
        self._link.heartbeat_s = self._welcome.limits.heartbeat_s
        self._link.liveness_s = self._welcome.limits.liveness_s

    @property
    def info(self) -> WorldInfo:
        """The world that the server plays."""
        return self._welcome.world.info()

    @property
    def limits(self) -> Limits:
        """What the server grants."""
        return self._welcome.limits

    def session(
        self,
        plan: str | None = None,
        formats: Sequence[str] = (FORMAT_RGB,),
        jpeg_quality: int = DEFAULT_JPEG_QUALITY,
    ) -> RemoteSession:
        """Opens a session.

        plan: the name of a clip plan, None for the server's own.
        formats: "rgb" and "jpeg" (needs pillow) in the order of preference.
        Raises BusyError when the server has no room, ConfigError for an unknown plan or format.
        """
        message = Open(
            request=self._link.next_id(), plan=plan, formats=tuple(formats), jpeg_quality=jpeg_quality
        )
        opened = cast(Opened, self._link.request(message, self.step_timeout_s).message)
        return RemoteSession(self, self._link, opened)

    def status(self) -> StatusReport:
        """How the server is doing."""
        arrival = self._link.request(Status(request=self._link.next_id()), self.timeout_s)
        return cast(StatusReport, arrival.message)

    @property
    def round_trip_ms(self) -> float | None:
        """The quickest of the last pings; None before the first answer."""
        trip = self._link.best_round_trip
        return None if trip is None else trip.duration_ns / 1e6

    def close(self) -> None:
        """Ends the connection; the server closes the sessions."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shake_hands(self) -> Welcome:
        """Says hello until a server that is ready says welcome."""
        deadline = time.monotonic() + self.timeout_s
        problem: WorldwireError = ConnectionLostError("no time to connect", got=f"timeout_s={self.timeout_s}")
        while (left_s := deadline - time.monotonic()) > 0:
            hello = Hello(
                request=self._link.next_id(),
                version=VERSION,
                client=f"worldwire-python {version('worldwire')}",
            )
            try:
                answer = self._link.request(hello, min(left_s, HELLO_PATIENCE_S)).message
            except ConnectionLostError:
                problem = self._no_answer()
                continue
            if isinstance(answer, Welcome):
                check_version(answer.version, "client")
                return answer
            problem = BusyError(
                f"the server at {self.address} is still loading its world",
                remedy="wait, or give connect() a longer timeout_s",
            )
            time.sleep(min(LOADING_PAUSE_S, max(0.0, deadline - time.monotonic())))
        raise problem

    def _no_answer(self) -> ConnectionLostError:
        if self._link.lost is not None:
            raise self._link.lost
        if self._link.ever_connected:
            return ConnectionLostError(
                f"something listens at {self.address} but does not answer as a worldwire server",
                remedy="check the address; look at the server's log",
            )
        return ConnectionLostError(
            f"no server at {self.address} within {self.timeout_s:g} s", remedy=START_REMEDY
        )


@dataclass(frozen=True)
class SavedState:
    """A state that the server keeps: `RemoteSession.restore` takes it, from any client of that server."""

    name: str
    size: int


class RemoteSession:
    """One player's walk on a server: `SessionLike`, and live play. See the module for threads."""

    def __init__(self, client: Client, link: Link, opened: Opened):
        self.id = opened.session
        self.format = opened.format
        self._client, self._link = client, link
        self._inbox: Inbox = link.attach(opened.session)
        self._frames_per_step = opened.frames_per_step
        self._seq = 0
        self._window = 0
        self._last_poll_s = 0.0
        self._closed = False

    # ------------------------------------------------------------------ SessionLike

    @property
    def frames_per_step(self) -> int:
        """How many frames the next `step` returns; while live, as of `start`."""
        return self._frames_per_step

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
        controls = tuple(Control.of(item) for item in per_frame(inputs, self._frames_per_step))
        yield from self._generate(Step(**self._address(), inputs=controls))

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
        return RemoteSession(self._client, self._link, opened)

    def close(self) -> None:
        """Frees the session on the server; closing twice, or after the connection was lost, is fine."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._link.lost is None:
                self._link.request(Close(**self._address()), self._client.timeout_s)
        except (ConnectionLostError, StateError):
            pass  # the server has closed it already
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
        return self._window > 0

    def start(self, window: int | None = None) -> None:
        """Lets the world run by itself under the newest input.

        window: frames that the server may be ahead of `poll_frames`; a larger one is smoother and slower to
        react. Below `frames_per_step` only the newest frames of each step arrive. Default: a little more than
        one step.
        """
        wanted = window if window is not None else self._frames_per_step + LEAD_FRAMES
        self._request(Start(**self._address(), window=wanted))
        self._window = wanted
        self._last_poll_s = time.monotonic()

    def pause(self) -> None:
        """Stops the world after the step under way, whose frames `poll_frames` still returns."""
        self._request(Pause(**self._address()))
        self._window = 0

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
        however short. Raises InputError for a bad input and whatever ended the session.
        """
        checked = Inputs(frozenset(keys), yaw_deg, pitch_deg, c2w)
        self._inbox.check()
        self._seq += 1
        self._link.send(Input(session=self.id, seq=self._seq, **control_fields(checked)))
        return self._seq

    def poll_frames(self, timeout_s: float = 0.0, limit: int | None = None) -> list[Frame]:
        """The frames that have come, in order; waits up to `timeout_s` for the first.

        limit: at most so many; what is left counts against the window, so a caller that takes frames at its
        playing speed slows the world down to it. A caller that did not poll for `STALL_S` gets only the
        newest. Raises whatever ended the session.
        """
        stale = self._inbox.drop_all_but_newest() if self._stalled() else 0
        arrivals = self._inbox.take(timeout_s, limit)
        self._last_poll_s = time.monotonic()
        if self._window and stale + len(arrivals):
            self._link.send(Credit(session=self.id, frames=stale + len(arrivals)))
        return [self._frame(arrival) for arrival in arrivals]

    # ------------------------------------------------------------------ parts

    def _stalled(self) -> bool:
        return self._window > 0 and time.monotonic() - self._last_poll_s > STALL_S

    def _address(self) -> dict[str, Any]:
        return {"request": self._link.next_id(), "session": self.id}

    def _request(self, message: Any, payload: Any = None) -> Arrival:
        """One answer; a `done` says how long the next step is."""
        self._inbox.check()
        arrival = self._link.request(message, self._client.step_timeout_s, payload)
        self._note(arrival)
        return arrival

    def _generate(self, message: Any, payload: Any = None) -> Iterator[Frame]:
        self._inbox.check()
        for arrival in self._link.exchange(message, self._client.step_timeout_s, payload):
            if isinstance(arrival.message, FrameMessage):
                yield self._frame(arrival)
            self._note(arrival)

    def _note(self, arrival: Arrival) -> None:
        if isinstance(arrival.message, Done):
            self._frames_per_step = arrival.message.frames_per_step

    def _frame(self, arrival: Arrival) -> Frame:
        message = cast(FrameMessage, arrival.message)
        return Frame(
            index=message.index,
            pixels=_pixels(message, arrival.payload),
            c2w=pose(message.position_m, message.quaternion_xyzw),
            ack=message.ack,
            memory_latents=message.memory_latents,
            timings_ms=message.timings_ms | {"transport": self._transport_ms(arrival)},
        )

    def _transport_ms(self, arrival: Arrival) -> float:
        """From the server's send to our receive; the clocks are compared by the quickest ping."""
        trip = self._link.best_round_trip
        sent_ns = cast(FrameMessage, arrival.message).t_ns - (trip.offset_ns if trip else 0)
        return max(0.0, (arrival.received_ns - sent_ns) / 1e6)


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


def _pixels(message: FrameMessage, payload: Any) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]; raw pixels are read-only and not copied."""
    if message.format == FORMAT_JPEG:
        return _decode_jpeg(payload)
    shape = (message.height, message.width, 3)
    if payload is None or len(payload) != message.height * message.width * 3:
        raise ProtocolError(
            "a frame's payload has the wrong length",
            expected=f"{shape} bytes",
            got=f"{0 if payload is None else len(payload)}",
        )
    return np.frombuffer(payload, np.uint8).reshape(shape)


def _decode_jpeg(payload: Any) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading JPEG frames", "play") from error
    import io

    return np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"), dtype=np.uint8)
