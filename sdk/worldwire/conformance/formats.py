"""Sections 8 and 9: pictures, cameras, clocks."""

from __future__ import annotations

import math
from typing import Final

from worldwire.conformance.live import start
from worldwire.conformance.peer import Answer, NotCheckedError, Peer, expect
from worldwire.conformance.runner import Target, clause, step
from worldwire.conformance.sessions import of
from worldwire.protocol import (
    FORMAT_H264,
    FORMAT_JPEG,
    FORMATS,
    RAW_CHANNELS,
    Done,
    FrameMessage,
    Opened,
    Ping,
    Pong,
    Reset,
)

JPEG_START: Final = b"\xff\xd8\xff"
JPEG_END: Final = b"\xff\xd9"
START_CODE: Final = b"\x00\x00\x01"
UNIT_TYPE: Final = 0x1F
IDR, PARAMETERS = 5, {7, 8}
OPAQUE: Final = 255


@clause("8.1", "a frame of each raw format has height·width·(3 or 4) bytes; alpha is 255")
def raw_formats(target: Target) -> None:
    shape = (target.world.height, target.world.width)
    size = target.world.height * target.world.width
    with target.peer() as peer:
        for name, channels in RAW_CHANNELS.items():
            for frame, picture in _frames(peer, name):
                expect((frame.height, frame.width) == shape, f"{frame.height} x {frame.width} pixels")
                expect(len(picture) == size * channels, f"{len(picture)} bytes of {name}")
                expect(frame.key, "`key` is false")
                opaque = channels == 3 or picture[3::4] == bytes([OPAQUE]) * size
                expect(opaque, f"{name} with an alpha that is not {OPAQUE}")


@clause("8.1", "`rgba` and `bgra` hold the same picture as `rgb`")
def same_picture(target: Target) -> None:
    with target.peer() as peer:
        first: dict[str, bytes] = {}
        for name in RAW_CHANNELS:
            opened = peer.open(formats=(name,))
            answer = peer.ask(Reset(**of(peer, opened), seed=5))
            peer.checked(Done, answer)
            first[name] = answer.shown[0][1]
            peer.say({"type": "close", **of(peer, opened)})
    rgb, rgba, bgra = (first[name] for name in ("rgb", "rgba", "bgra"))
    order = all(rgba[channel::4] == bgra[2 - channel :: 4] for channel in range(3))
    expect(order, "`bgra` is not `rgba` with red and blue exchanged")
    expect(all(rgb[channel::3] == rgba[channel::4] for channel in range(3)), "`rgba` is not `rgb` and alpha")


@clause("8.1", "a frame of `jpeg` is a whole JPEG")
def jpeg(target: Target) -> None:
    with target.peer() as peer:
        for _, picture in _frames(peer, _offered(target, FORMAT_JPEG)):
            expect(picture.startswith(JPEG_START) and picture.rstrip(b"\0").endswith(JPEG_END), "no JPEG")


@clause("8.2", "the first of the client's formats that the server has is taken; `branch` and frames keep it")
def choice(target: Target) -> None:
    formats = target.welcome.formats
    expect({"rgb", "rgba", "bgra"} <= set(formats), f"it offers only {', '.join(formats)}")
    with target.peer() as peer:
        for name in formats:
            opened = peer.open(formats=("smell-o-vision", name, *FORMATS))
            expect(opened.format == name, f"wanted {name}, got {opened.format}")
            answer = peer.ask(Reset(**of(peer, opened)))
            expect(answer.frames[0].format == name, f"a frame of {answer.frames[0].format}")
            peer.say({"type": "close", **of(peer, opened)})


@clause("8.3", "`h264`: access units in Annex B form; an IDR picture with its parameters where `key` says")
def h264(target: Target) -> None:
    with target.peer() as peer:
        for number, (frame, picture) in enumerate(_frames(peer, _offered(target, FORMAT_H264))):
            units = unit_types(picture)
            expect(bool(units), f"frame {frame.index} has no start code")
            expect(frame.key == (IDR in units), f"`key` is {frame.key} for units {sorted(units)}")
            expect(not frame.key or units >= PARAMETERS, "a key frame without its parameter sets")
            expect(frame.key or number > 0, "the first frame of a reset is no key frame")


@clause("8.3", "`h264`: the first frame after `reset` and `start` is a key frame")
def h264_keys(target: Target) -> None:
    name = _offered(target, FORMAT_H264)
    with target.peer() as peer:
        opened = peer.begin(formats=(name,))
        for _ in range(2):
            start(peer, opened, 1)
            first = peer.live_frames(opened.session, target.quiet_s)
            expect(bool(first) and first[0].key, "the first frame after `start` is no key frame")
        again = peer.ask(Reset(**of(peer, opened)))
        expect(again.frames[0].key, "the first frame of a reset is no key frame")


@clause("9", "the first camera of a session is the identity; quaternions have length 1")
def first_camera(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        answer = peer.ask(Reset(**of(peer, opened)))
        peer.checked(Done, answer)
        frame = answer.frames[0]
        expect(math.hypot(*frame.position_m) < 1e-9, f"it stands at {frame.position_m}")
        expect(abs(abs(frame.quaternion_xyzw[3]) - 1) < 1e-9, f"it is turned by {frame.quaternion_xyzw}")
        turned = peer.ask(step(peer, opened.session, opened.frames_per_step, look_deg=(5.0, 2.0)))
        for later in turned.frames:
            expect(abs(math.hypot(*later.quaternion_xyzw) - 1) < 1e-6, "a quaternion of another length")


@clause("9", "`t_ns` of frames is the monotonic clock of `pong`, and goes forward")
def clocks(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        before = _clock(peer)
        frames = peer.ask(Reset(**of(peer, opened))).frames
        frames += peer.ask(step(peer, opened.session, opened.frames_per_step)).frames
        times = [before, *(frame.t_ns for frame in frames), _clock(peer)]
        expect(times == sorted(times), "a frame was sent before or after it could be")


def _clock(peer: Peer) -> int:
    peer.say(Ping(t_ns=99))
    return peer.await_message(Pong, lambda pong: pong.t_ns == 99).server_t_ns


def _offered(target: Target, name: str) -> str:
    if name not in target.welcome.formats:
        raise NotCheckedError(f"this server does not send {name}")
    return name


def _frames(peer: Peer, name: str) -> list[tuple[FrameMessage, bytes]]:
    """The frames of a reset and a step in a format; the session is closed again."""
    opened: Opened = peer.open(formats=(name,))
    answers: list[Answer] = [peer.ask(Reset(**of(peer, opened)))]
    answers.append(peer.ask(step(peer, opened.session, opened.frames_per_step)))
    for answer in answers:
        peer.checked(Done, answer)
    peer.say({"type": "close", **of(peer, opened)})
    return [pair for answer in answers for pair in answer.shown]


def unit_types(stream: bytes) -> set[int]:
    """The types of the NAL units of an Annex B stream."""
    found, at = set(), stream.find(START_CODE)
    while 0 <= at < len(stream) - len(START_CODE):
        found.add(stream[at + len(START_CODE)] & UNIT_TYPE)
        at = stream.find(START_CODE, at + 1)
    return found
