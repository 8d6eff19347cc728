"""The messages of the wire (`sdk/PROTOCOL.md` is the specification; this file is its Python reading).

A ROUTER socket serves DEALER clients. A message has one or two parts: part 0 is a msgpack map (see
`worldwire.schema`), part 1 an optional binary payload (pixels, a saved state).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Final, cast

from worldwire.api import WorldInfo
from worldwire.camera import from_quaternion, to_quaternion
from worldwire.errors import ProtocolError, VersionError, WorldwireError
from worldwire.inputs import Inputs
from worldwire.schema import Message, Span, from_map, pack, shorten, unpack_map

VERSION: Final = (1, 0)
"""Major and minor. Sides of different majors do not talk; a minor one only adds."""

DEFAULT_ADDRESS: Final = "tcp://127.0.0.1:5555"
HEARTBEAT_S: Final = 2.0
"""A client says something, if only `ping`, at least this often."""
LIVENESS_S: Final = 10.0
"""A side that was silent for so long is given up."""
RESUME_S: Final = 30.0
"""The sessions of a connection that was lost wait so long for their client."""

MAX_STEP_FRAMES: Final = 4096
MAX_WINDOW_FRAMES: Final = 4096
MAX_PROMPT_CHARACTERS: Final = 2000
MAX_NAME_CHARACTERS: Final = 256
MAX_KEYS: Final = 32
MAX_FORMATS: Final = 16
MAX_SIDE_PX: Final = 8192

FORMAT_RGB: Final = "rgb"
FORMAT_RGBA: Final = "rgba"
FORMAT_BGRA: Final = "bgra"
FORMAT_JPEG: Final = "jpeg"
FORMAT_H264: Final = "h264"
FORMATS: Final = (FORMAT_RGB, FORMAT_RGBA, FORMAT_BGRA, FORMAT_JPEG, FORMAT_H264)
RAW_CHANNELS: Final = {FORMAT_RGB: 3, FORMAT_RGBA: 4, FORMAT_BGRA: 4}
"""Bytes a pixel of the formats without compression."""
DEFAULT_JPEG_QUALITY: Final = 90

STATE_LOADING: Final = "loading"
STATE_READY: Final = "ready"
STATE_BUSY: Final = "busy"
"""Ready, but without room for another session."""

MAX_ID: Final = 2**53
"""The largest whole number that a double holds exactly, so that every language can count with it."""

Id = Annotated[int, Span(1, MAX_ID)]
Count = Annotated[int, Span(0, MAX_ID)]
Nanoseconds = Annotated[int, Span(0, 2**63 - 1)]
Seed = Annotated[int, Span(0, 2**63 - 1)]
Side = Annotated[int, Span(1, MAX_SIDE_PX)]
Part = Annotated[float, Span(0, 1)]
Seconds = Annotated[float, Span(0, 1e9)]
Version = tuple[Count, Count]
Name = Annotated[str, Span(0, MAX_NAME_CHARACTERS)]
PromptText = Annotated[str, Span(0, MAX_PROMPT_CHARACTERS)]
Vector3 = tuple[float, float, float]
Vector4 = tuple[float, float, float, float]


# ---------------------------------------------------------------------------------------- parts of messages


@dataclass(frozen=True, kw_only=True)
class Control:
    """What leads to one frame, or in `Input` what a player does from now on. Degrees, metres, xyzw."""

    keys: Annotated[tuple[str, ...], Span(0, MAX_KEYS)] = ()
    look_deg: tuple[float, float] = (0.0, 0.0)
    position_m: Vector3 | None = None
    quaternion_xyzw: Vector4 | None = None

    @classmethod
    def of(cls, inputs: Inputs) -> Control:
        """The wire form of `inputs`."""
        return cls(**control_fields(inputs))

    def inputs(self) -> Inputs:
        """The checked `Inputs`; InputError for an unknown key or an unusable pose or look."""
        return Inputs(frozenset(self.keys), *self.look_deg, c2w=pose(self.position_m, self.quaternion_xyzw))


@dataclass(frozen=True, kw_only=True)
class WireWorld:
    """`WorldInfo` as it travels."""

    name: str
    height: Side
    width: Side
    frames_per_second: float
    frames_per_step: Count
    horizontal_fov_deg: float
    trained_keys: tuple[str, ...]
    views: tuple[str, ...]
    seed_images: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, info: WorldInfo) -> WireWorld:
        return cls(**{item.name: getattr(info, item.name) for item in fields(cls)})

    def info(self) -> WorldInfo:
        return WorldInfo(**{item.name: getattr(self, item.name) for item in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server grants; it says so in `welcome`.

    message_bytes: largest part of a message; libzmq cuts the connection of a peer that sends more.
    sessions: sessions open at once, all clients together.
    messages_per_second: sustained rate of one client, and its burst; messages above it are dropped.
    queued_requests: requests of one session that may wait.
    kept_states, kept_bytes: what the server keeps of `save` with keep; the oldest states go first.
    heartbeat_s, liveness_s, resume_s: see the constants of this module.
    """

    message_bytes: Count = 256 * 2**20
    sessions: Count = 4
    messages_per_second: Count = 2000
    queued_requests: Count = 64
    kept_states: Count = 16
    kept_bytes: Count = 2**30
    heartbeat_s: Seconds = HEARTBEAT_S
    liveness_s: Seconds = LIVENESS_S
    resume_s: Seconds = RESUME_S


@dataclass(frozen=True, kw_only=True)
class ResumedSession:
    """A session that outlived its connection. `seq` is that of the newest `input` that it took."""

    session: Id
    epoch: Count
    frames_per_step: Count
    format: Name
    seq: Count = 0


# ---------------------------------------------------------------------------------------- client to server


@dataclass(frozen=True, kw_only=True)
class Hello(Message, type="hello"):
    """`resume` is the token of an earlier `welcome`, whose sessions this connection takes over."""

    request: Id
    version: Version
    client: Name
    resume: Name | None = None


@dataclass(frozen=True, kw_only=True)
class Open(Message, type="open"):
    request: Id
    plan: Name | None = None
    formats: Annotated[tuple[str, ...], Span(1, MAX_FORMATS)] = (FORMAT_RGB,)
    jpeg_quality: Annotated[int, Span(1, 100)] = DEFAULT_JPEG_QUALITY


@dataclass(frozen=True, kw_only=True)
class Reset(Message, type="reset"):
    """A payload is a seed image, rgb, `image_height` x `image_width`; `image` names a shipped one instead."""

    request: Id
    session: Id
    seed: Seed = 0
    view: Name | None = None
    prompt: PromptText | None = None
    image: Name | None = None
    image_height: Side | None = None
    image_width: Side | None = None


@dataclass(frozen=True, kw_only=True)
class Step(Message, type="step"):
    request: Id
    session: Id
    inputs: Annotated[tuple[Control, ...], Span(1, MAX_STEP_FRAMES)]


@dataclass(frozen=True, kw_only=True)
class Prompt(Message, type="prompt"):
    """From the next step on the world is told this; everything else goes on."""

    request: Id
    session: Id
    prompt: PromptText


@dataclass(frozen=True, kw_only=True)
class Start(Message, type="start"):
    request: Id
    session: Id
    window: Annotated[int, Span(1, MAX_WINDOW_FRAMES)]


@dataclass(frozen=True, kw_only=True)
class Pause(Message, type="pause"):
    request: Id
    session: Id


@dataclass(frozen=True, kw_only=True)
class Input(Control, Message, type="input"):
    session: Id
    seq: Id


@dataclass(frozen=True, kw_only=True)
class Credit(Message, type="credit"):
    session: Id
    frames: Annotated[int, Span(1, MAX_WINDOW_FRAMES)]


@dataclass(frozen=True, kw_only=True)
class Save(Message, type="save"):
    request: Id
    session: Id
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class Restore(Message, type="restore"):
    """`state` names a kept one; without it the payload is the state."""

    request: Id
    session: Id
    state: Name | None = None


@dataclass(frozen=True, kw_only=True)
class Branch(Message, type="branch"):
    request: Id
    session: Id


@dataclass(frozen=True, kw_only=True)
class Close(Message, type="close"):
    request: Id
    session: Id


@dataclass(frozen=True, kw_only=True)
class Status(Message, type="status"):
    request: Id


@dataclass(frozen=True, kw_only=True)
class Ping(Message, type="ping"):
    t_ns: Nanoseconds


@dataclass(frozen=True, kw_only=True)
class Bye(Message, type="bye"):
    """Both ways: the sender goes. A client's ends its sessions; a server's says in `resume` if they wait."""

    reason: str = ""
    resume: bool = False


# ---------------------------------------------------------------------------------------- server to client


@dataclass(frozen=True, kw_only=True)
class Welcome(Message, type="welcome"):
    """`token` resumes the sessions of this connection after it was lost; without one they end with it."""

    request: Id
    version: Version
    server: str
    world: WireWorld
    limits: Limits
    token: Name = ""
    resumed: tuple[ResumedSession, ...] = ()
    formats: tuple[Name, ...] = (FORMAT_RGB,)


@dataclass(frozen=True, kw_only=True)
class Opened(Message, type="opened"):
    request: Id
    session: Id
    frames_per_step: Count
    format: Name


@dataclass(frozen=True, kw_only=True)
class FrameMessage(Message, type="frame"):
    """One picture; the payload holds its pixels. `key`: it can be decoded without those before it."""

    session: Id
    epoch: Count
    index: Count
    format: Name
    height: Side
    width: Side
    position_m: Vector3
    quaternion_xyzw: Vector4
    t_ns: Nanoseconds
    ack: Count = 0
    dropped: Count = 0
    memory_latents: tuple[Count, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    request: Id | None = None
    key: bool = True


@dataclass(frozen=True, kw_only=True)
class Done(Message, type="done"):
    request: Id
    session: Id
    epoch: Count
    frames_per_step: Count


@dataclass(frozen=True, kw_only=True)
class Saved(Message, type="saved"):
    """`state` is the name of a kept state; without it the payload is the state."""

    request: Id
    session: Id
    size: Count
    state: Name | None = None


@dataclass(frozen=True, kw_only=True)
class StatusReport(Message, type="status_report"):
    """`progress` and `stage` tell how far the loading is; `queue` counts requests that wait."""

    request: Id
    state: Name
    version: Version
    sessions: Count
    max_sessions: Count
    uptime_s: float
    peak_memory_gib: float = 0.0
    progress: Part | None = None
    stage: str | None = None
    queue: Count = 0


@dataclass(frozen=True, kw_only=True)
class Pong(Message, type="pong"):
    t_ns: Nanoseconds
    server_t_ns: Nanoseconds


@dataclass(frozen=True, kw_only=True)
class ErrorMessage(Message, type="error"):
    """`fatal` means that the session (or, without one, the connection) is over."""

    code: Name
    problem: str
    expected: str | None = None
    got: str | None = None
    remedy: str | None = None
    request: Id | None = None
    session: Id | None = None
    seq: Id | None = None
    fatal: bool = False

    @classmethod
    def of(cls, error: WorldwireError, **where: Any) -> ErrorMessage:
        """The wire form of `error`; `where` gives request, session, seq and fatal."""
        where |= {"expected": error.expected, "got": error.got, "remedy": error.remedy}
        return cls(code=error.code, problem=error.problem, **where)

    def exception(self) -> WorldwireError:
        """The typed error that this message carries."""
        error = WorldwireError.__new__(_error_classes().get(self.code, WorldwireError))
        WorldwireError.__init__(error, self.problem, expected=self.expected, got=self.got, remedy=self.remedy)
        return error


# ---------------------------------------------------------------------------------------- parts


def encode(message: Message) -> bytes:
    """Part 0 of `message`."""
    return pack(message)


def decode(parts: Sequence[bytes | memoryview]) -> tuple[Message, bytes | memoryview | None]:
    """A message and its payload from the parts of a multipart message.

    Raises VersionError for a `hello` of another version (before any other of its fields is looked at), and
    ProtocolError for everything that is no message.
    """
    if len(parts) not in (1, 2):
        raise ProtocolError("a message has one or two parts", got=f"{len(parts)} parts")
    values = unpack_map(parts[0])
    if values.get("type") == Hello.kind:
        check_version(values.get("version"), "server")
    return from_map(values), (parts[1] if len(parts) == 2 else None)


def correlation(parts: Sequence[bytes | memoryview]) -> dict[str, int]:
    """The `request`, `session` and `seq` of a message that `decode` refused, as far as they can be read."""
    try:
        values = unpack_map(parts[0]) if parts else {}
    except ProtocolError:
        return {}
    names = ("request", "session", "seq")
    return {
        name: values[name] for name in names if type(values.get(name)) is int and 0 < values[name] <= MAX_ID
    }


def check_version(theirs: object, our_side: str) -> None:
    """VersionError unless the other side's `[major, minor]` can talk to `VERSION`."""
    is_version = isinstance(theirs, (list, tuple)) and [type(number) for number in theirs] == [int, int]
    if is_version and cast("Sequence[int]", theirs)[0] == VERSION[0]:
        return
    raise VersionError(
        f"the {our_side} speaks another version of the protocol",
        expected=".".join(map(str, VERSION)),
        got=shorten(theirs),
        remedy="install the same release of worldwire on both sides",
    )


def control_fields(inputs: Inputs) -> dict[str, Any]:
    """The fields of `Control` that carry `inputs`; the keys sorted, so that equal inputs give equal bytes."""
    named: dict[str, Any] = {
        "keys": tuple(sorted(inputs.keys)),
        "look_deg": (inputs.yaw_deg, inputs.pitch_deg),
    }
    if inputs.c2w is not None:
        named |= pose_fields(inputs.c2w)
    return named


def pose_fields(c2w: Any) -> dict[str, Any]:
    """`position_m` and `quaternion_xyzw` of a camera-to-world matrix."""
    position, quaternion = to_quaternion(c2w)
    return {"position_m": tuple(position), "quaternion_xyzw": tuple(quaternion)}


def pose(position_m: Vector3 | None, quaternion_xyzw: Vector4 | None) -> Any:
    """Camera-to-world [4, 4] or None; InputError for half a pose or an unusable one."""
    if position_m is None and quaternion_xyzw is None:
        return None
    return from_quaternion(position_m or (), quaternion_xyzw or ())


def _error_classes() -> dict[str, type[WorldwireError]]:
    """Every typed error by its code on the wire."""
    found: dict[str, type[WorldwireError]] = {}
    waiting = [WorldwireError]
    while waiting:
        cls = waiting.pop()
        found[cls.code] = cls
        waiting.extend(cls.__subclasses__())
    return found
