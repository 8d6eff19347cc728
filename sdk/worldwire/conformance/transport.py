"""Sections 1 to 3: parts, bytes, kinds, versions."""

from __future__ import annotations

import random
import socket
import struct
from typing import Any, Final
from urllib.parse import urlsplit

import msgpack

from worldwire.conformance.peer import CLIENT_NAME, NotCheckedError, NotKeptError, Peer, expect
from worldwire.conformance.runner import Target, clause
from worldwire.connection import MECHANISM_CURVE, MECHANISM_NULL, mechanism
from worldwire.protocol import (
    MAX_ID,
    VERSION,
    ErrorMessage,
    Hello,
    Input,
    Ping,
    Pong,
    Status,
    StatusReport,
    Welcome,
    encode,
)
from worldwire.schema import MAX_HEADER_BYTES

GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(16 + 32)
READY: Final = b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
SHORT_COMMAND: Final = 4
MUTATIONS: Final = 300
NANOSECONDS: Final = 123456789


def pings(peer: Peer) -> None:
    """NotKeptError unless the server still answers."""
    peer.say(Ping(t_ns=NANOSECONDS))
    peer.await_message(Pong, lambda pong: pong.t_ns == NANOSECONDS)


def bad(peer: Peer, values: dict[str, Any]) -> None:
    """NotKeptError unless a map is answered with `bad_message`."""
    peer.refused("bad_message", {"request": peer.next_id(), **values})


# ---------------------------------------------------------------------------------------- 1 transport


@clause("1.1", "a message of one part is taken; a payload that it does not call for is ignored")
def payloads_are_ignored(target: Target) -> None:
    with target.peer() as peer:
        for payload in (None, b"", b"nobody asked for this"):
            peer.get(StatusReport, Status(request=peer.next_id()), payload)


@clause("1.1", "a message of three parts is refused with `bad_message`, and nothing else happens")
def three_parts(target: Target) -> None:
    with target.peer() as peer:
        peer.say_parts([encode(Ping(t_ns=1)), b"", b""])
        error = peer.await_message(ErrorMessage)
        expect(error.code == "bad_message", f"the error {error.code!r}")
        pings(peer)


@clause("1.2", "the server encrypts if and only if this client was given its key")
def encryption(target: Target) -> None:
    spoken = mechanism(target.address)
    if spoken is None:
        raise NotCheckedError("the address is no tcp:// one")
    wanted = MECHANISM_NULL if target.keys is None else MECHANISM_CURVE
    expect(spoken == wanted, f"the greeting says {spoken}, not {wanted}")


@clause("1.3", "a plain TCP socket that follows section 1.3 is served; PING gets PONG with its context")
def plain_socket(target: Target) -> None:
    parts = urlsplit(target.address)
    if target.keys is not None or parts.scheme != "tcp":
        raise NotCheckedError("for tcp:// without keys")
    with socket.create_connection((parts.hostname or "", parts.port or 0), target.patience_s) as plain:
        plain.settimeout(target.patience_s)
        plain.sendall(GREETING + READY)
        greeting = _read(plain, len(GREETING))
        expect(greeting[0] == 0xFF and greeting[9] == 0x7F and greeting[10] == 3, "no greeting of ZMTP 3")
        expect(_read_frame(plain)[1].startswith(b"\x05READY"), "READY did not come first")
        ping = encode(Ping(t_ns=NANOSECONDS))
        plain.sendall(bytes([0, len(ping)]) + ping)
        expect(b"pong" in _read_frame(plain)[1], "`ping` was not answered with `pong`")
        beat = b"\x04PING\x00\x64context"
        plain.sendall(bytes([SHORT_COMMAND, len(beat)]) + beat)
        flags, body = _read_frame(plain)
        expect(bool(flags & SHORT_COMMAND) and body == b"\x04PONGcontext", "PING did not get its PONG")


def _read(plain: socket.socket, size: int) -> bytes:
    came = b""
    while len(came) < size:
        more = plain.recv(size - len(came))
        if not more:
            raise NotKeptError("the server hung up on a plain socket")
        came += more
    return came


def _read_frame(plain: socket.socket) -> tuple[int, bytes]:
    flags = _read(plain, 1)[0]
    size = int.from_bytes(_read(plain, 8 if flags & 2 else 1), "big")
    return flags, _read(plain, size)


# ---------------------------------------------------------------------------------------- 2 encoding


@clause("2.1", "fields in any order and in the longest forms of msgpack are read")
def any_form(target: Target) -> None:
    with target.peer() as peer:
        request = peer.next_id()
        peer.say_parts([msgpack.packb({"request": request, "type": "status"})])
        peer.checked(StatusReport, peer.answer(request, "status"))
        number = peer.next_id()
        pairs = ((b"request", struct.pack(">BQ", 0xCF, number)), (b"type", _long_text(b"status")))
        body = b"".join(_long_text(key) + value for key, value in pairs)
        peer.say_parts([struct.pack(">BI", 0xDF, len(pairs)) + body])
        peer.checked(StatusReport, peer.answer(number, "status in long forms"))


def _long_text(text: bytes) -> bytes:
    return struct.pack(">BI", 0xDB, len(text)) + text


@clause("2.1", "unknown fields are passed over, whatever they hold; nil is absent")
def unknown_fields(target: Target) -> None:
    with target.peer() as peer:
        odd = {
            "a": [{"b": [None, -1, 2**64 - 1, 1.5, True]}],
            "data": b"\x00",
            "more": msgpack.ExtType(7, b"x"),
        }
        peer.get(StatusReport, {"type": "status", "request": peer.next_id(), **odd})
        hello = {"type": "hello", "request": peer.next_id(), "version": list(VERSION), "client": CLIENT_NAME}
        peer.get(Welcome, {**hello, "resume": None})


@clause("2.1", "part 0 is at most 262144 bytes, without trailing bytes")
def header_size(target: Target) -> None:
    with target.peer() as peer:
        fits = {"type": "status", "request": peer.next_id(), "padding": "x" * (MAX_HEADER_BYTES - 1000)}
        peer.get(StatusReport, fits)
        for data in (
            msgpack.packb({"type": "status", "request": 1, "padding": "x" * MAX_HEADER_BYTES}),
            encode(Status(request=1)) + b"\x00",
        ):
            peer.say_parts([data])
            error = peer.await_message(ErrorMessage)
            expect(error.code == "bad_message", f"the error {error.code!r}")
        pings(peer)


WRONG_KINDS: Final[tuple[dict[str, Any], ...]] = (
    {"type": "open", "formats": "rgb"},
    {"type": "open", "formats": []},
    {"type": "open", "formats": ["rgb"] * 17},
    {"type": "open", "formats": [b"rgb"]},
    {"type": "open", "jpeg_quality": 0},
    {"type": "open", "jpeg_quality": 101},
    {"type": "open", "jpeg_quality": 90.0},
    {"type": "open", "jpeg_quality": True},
    {"type": "open", "plan": "x" * 257},
    {"type": "reset", "session": 0},
    {"type": "reset", "session": MAX_ID + 1},
    {"type": "reset", "session": "1"},
    {"type": "reset", "session": 1, "seed": -1},
    {"type": "reset", "session": 1, "seed": 2**63},
    {"type": "reset", "session": 1, "prompt": "x" * 2001},
    {"type": "reset", "session": 1, "image_height": 8193},
    {"type": "step", "session": 1},
    {"type": "step", "session": 1, "inputs": []},
    {"type": "step", "session": 1, "inputs": [7]},
    {"type": "step", "session": 1, "inputs": [{"look_deg": [1.0]}]},
    {"type": "step", "session": 1, "inputs": [{"look_deg": [float("nan"), 0.0]}]},
    {"type": "step", "session": 1, "inputs": [{"position_m": [0.0, float("inf"), 0.0]}]},
    {"type": "step", "session": 1, "inputs": [{"keys": ["forward"] * 33}]},
    {"type": "start", "session": 1, "window": 0},
    {"type": "start", "session": 1, "window": 4097},
    {"type": "save", "session": 1, "keep": 1},
    {"type": "prompt", "session": 1},
    {"type": "prompt", "session": 1, "prompt": "x" * 2001},
    {"type": "status", "request": 1.0},
    {"type": "hello", "version": list(VERSION)},
)


@clause("2.2", "a wrong kind, range or length, or a missing field, is `bad_message`")
def wrong_kinds(target: Target) -> None:
    with target.peer() as peer:
        for values in WRONG_KINDS:
            try:
                _one_wrong_kind(peer, values)
            except NotKeptError as problem:
                raise NotKeptError(
                    f"{ {name: str(value)[:30] for name, value in values.items()} }: {problem}"
                ) from None


def _one_wrong_kind(peer: Peer, values: dict[str, Any]) -> None:
    if "request" not in values:
        bad(peer, values)
        return
    peer.say(values)
    expect(peer.await_message(ErrorMessage).code == "bad_message", "another error")


@clause("2.2", "an integer is taken where a real is due")
def integers_for_reals(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.say({"type": "input", "session": opened.session, "seq": 1, "look_deg": [-90, 180]})
        errors = peer.errors(quiet_s=0.2)
        expect(not errors, f"refused: {errors and errors[0].problem}")


@clause("2.3", "garbage is answered with `bad_message`, and the server goes on")
def garbage(target: Target) -> None:
    with target.peer() as peer:
        peer.say_parts([b"\xc1"])
        error = peer.await_message(ErrorMessage)
        expect((error.code, error.request) == ("bad_message", None), f"{error.code!r}, {error.request}")
        source = random.Random(1)
        good = [
            encode(Status(request=1)),
            encode(Input(session=1, seq=1)),
            encode(Hello(request=1, version=VERSION, client="x")),
        ]
        for _ in range(MUTATIONS):
            changed = bytearray(source.choice(good))
            for _ in range(source.randint(1, 4)):
                changed[source.randrange(len(changed))] = source.randrange(256)
            peer.say_parts([bytes(changed[: source.randint(0, len(changed))])])
        pings(peer)
        with target.peer() as other:
            pings(other)


# ---------------------------------------------------------------------------------------- 3 versions


@clause("3.1", "another major is refused with both versions, whatever else its `hello` holds")
def other_major(target: Target) -> None:
    with target.peer(greet=False) as peer:
        for version in ([VERSION[0] + 1, 0], [VERSION[0] - 1, 9], "1.0", [VERSION[0]], None):
            hello = {
                "type": "hello",
                "request": peer.next_id(),
                "version": version,
                "client": {"new": "shape"},
            }
            error = peer.refused("version_mismatch", hello)
            told = f"{error.expected} {error.got} {error.problem}"
            expect(".".join(map(str, VERSION)) in told, "the server's version is not named")
            expect(not isinstance(version, list) or str(version[0]) in told, "our version is not named")
        peer.refused("bad_state", {"type": "open", "request": peer.next_id()})
        peer.hello()


@clause("3.1", "a later minor of the same major is welcomed")
def later_minor(target: Target) -> None:
    with target.peer(greet=False) as peer:
        hello = {"type": "hello", "request": peer.next_id(), "version": [VERSION[0], 300], "client": "later"}
        welcome = peer.get(Welcome, hello)
        expect(welcome.version[0] == VERSION[0], f"it says it is {welcome.version}")


@clause("3.2", "an unknown message type is `bad_message`")
def unknown_type(target: Target) -> None:
    with target.peer() as peer:
        for kind in ("teleport", "welcome", ""):
            bad(peer, {"type": kind})
