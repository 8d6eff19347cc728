"""The messages behind `sdk/protocol_vectors`; run it to write them anew after a change of the protocol.

python tests/protocol_vectors.py
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Final

import msgpack

from worldwire.errors import BusyError
from worldwire.protocol import (
    VERSION,
    Branch,
    Bye,
    Close,
    Control,
    Credit,
    Done,
    ErrorMessage,
    FrameMessage,
    Hello,
    Input,
    Limits,
    Open,
    Opened,
    Pause,
    Ping,
    Pong,
    Reset,
    Restore,
    Save,
    Saved,
    Start,
    Status,
    StatusReport,
    Step,
    Welcome,
    WireWorld,
    encode,
)
from worldwire.schema import Message

FOLDER: Final = Path(__file__).parents[1] / "sdk" / "protocol_vectors"

TINY: Final = WireWorld(
    name="tiny",
    height=192,
    width=320,
    frames_per_second=16.0,
    frames_per_step=8,
    horizontal_fov_deg=80.0,
    trained_keys=("forward", "back", "left", "right"),
    views=("first", "third"),
    seed_images=("village-day-1",),
    extra={"attention": "cached", "steps": 4},
)
HALF_TURN: Final = {"position_m": (1.5, 0.0, -2.0), "quaternion_xyzw": (0.0, 1.0, 0.0, 0.0)}

VECTORS: Final[dict[str, Message]] = {
    "hello": Hello(request=1, version=VERSION, client="worldwire-python 0.1.0"),
    "welcome": Welcome(
        request=1, version=VERSION, server="worldwire 0.1.0", world=TINY, limits=Limits(message_bytes=2**28)
    ),
    "open": Open(request=2, plan="low-latency", formats=("jpeg", "rgb"), jpeg_quality=85),
    "open_defaults": Open(request=2),
    "opened": Opened(request=2, session=1, frames_per_step=8, format="jpeg"),
    "reset_prompt": Reset(request=3, session=1, seed=7, prompt="Ein Dorf bei Tag, Häuser"),
    "reset_image_name": Reset(request=3, session=1, image="village-day-1", view="third"),
    "reset_image_payload": Reset(request=3, session=1, image_height=192, image_width=320),
    "step": Step(
        request=4,
        session=1,
        inputs=(Control(keys=("forward", "left"), look_deg=(2.5, -1.0)), Control(**HALF_TURN)),
    ),
    "start": Start(request=5, session=1, window=12),
    "pause": Pause(request=6, session=1),
    "input": Input(session=1, seq=1, keys=("back", "jump"), look_deg=(-0.25, 0.0)),
    "input_released": Input(session=1, seq=2),
    "input_pose": Input(session=1, seq=300, **HALF_TURN),
    "credit": Credit(session=1, frames=4),
    "save": Save(request=7, session=1),
    "save_keep": Save(request=8, session=1, keep=True),
    "saved": Saved(request=7, session=1, size=123456),
    "saved_kept": Saved(request=8, session=1, size=123456, state="00112233445566ff"),
    "restore": Restore(request=9, session=1),
    "restore_kept": Restore(request=10, session=1, state="00112233445566ff"),
    "branch": Branch(request=11, session=1),
    "close": Close(request=12, session=1),
    "done": Done(request=12, session=1, epoch=2, frames_per_step=8),
    "status": Status(request=13),
    "status_report": StatusReport(
        request=13,
        state="ready",
        version=VERSION,
        sessions=1,
        max_sessions=4,
        uptime_s=12.5,
        peak_memory_gib=0.75,
    ),
    "frame_live": FrameMessage(
        session=1,
        epoch=1,
        index=70000,
        format="rgb",
        height=192,
        width=320,
        **HALF_TURN,
        t_ns=1234567890123456789,
        ack=300,
        dropped=6,
        memory_latents=(3, 17, 42, 90, 1000),
        timings_ms={"denoise": 81.5, "encode": 0.25},
    ),
    "frame_of_request": FrameMessage(
        session=1, epoch=1, index=0, format="jpeg", height=192, width=320, **HALF_TURN, t_ns=0, request=3
    ),
    "ping": Ping(t_ns=2**40),
    "pong": Pong(t_ns=2**40, server_t_ns=2**41),
    "error": ErrorMessage.of(
        BusyError("the server has no room for another session", expected="at most 4 sessions", remedy="wait"),
        request=2,
    ),
    "error_fatal": ErrorMessage(code="error", problem="the server failed", session=1, fatal=True),
    "bye": Bye(reason="closed"),
}

REFUSED: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", "bad_message"),
    "no_map": (msgpack.packb([1, 2]), "bad_message"),
    "truncated": (encode(VECTORS["input"])[:-3], "bad_message"),
    "trailing_bytes": (encode(VECTORS["ping"]) + b"\x00", "bad_message"),
    "no_type": (msgpack.packb({"request": 1}), "bad_message"),
    "unknown_type": (msgpack.packb({"type": "teleport"}), "bad_message"),
    "missing_field": (msgpack.packb({"type": "credit", "session": 1}), "bad_message"),
    "wrong_kind": (msgpack.packb({"type": "credit", "session": "1", "frames": 1}), "bad_message"),
    "boolean_is_no_number": (msgpack.packb({"type": "credit", "session": 1, "frames": True}), "bad_message"),
    "out_of_range": (msgpack.packb({"type": "credit", "session": 1, "frames": 0}), "bad_message"),
    "nan": (
        msgpack.packb({"type": "input", "session": 1, "seq": 1, "look_deg": [float("nan"), 0]}),
        "bad_message",
    ),
    "other_version": (msgpack.packb({"type": "hello", "version": [99, 0]}), "version_mismatch"),
}

TOLERATED: Final[dict[str, tuple[bytes, str]]] = {
    "unknown_field": (
        msgpack.packb({"type": "credit", "session": 1, "frames": 4, "from_the_future": {"a": [1]}}),
        "credit",
    ),
    "integers_for_reals": (
        msgpack.packb({"type": "input", "session": 1, "seq": 2, "keys": [], "look_deg": [0, 0]}),
        "input_released",
    ),
    "nil_is_absent": (msgpack.packb({"type": "open", "request": 2, "plan": None}), "open_defaults"),
}


def fields_of(message: Message) -> dict[str, object]:
    """The fields for people to read: `type` first, what is absent left out."""
    named = dataclasses.asdict(message)
    return {"type": message.kind} | {name: value for name, value in named.items() if value is not None}


def files() -> dict[str, bytes]:
    """Every file of the folder by its name."""
    found: dict[str, bytes] = {}
    for name, message in VECTORS.items():
        found[f"{name}.msgpack"] = encode(message)
        found[f"{name}.json"] = (json.dumps(fields_of(message), ensure_ascii=False) + "\n").encode()
    for name, (data, code) in REFUSED.items():
        found[f"refused/{name}.msgpack"] = data
        found[f"refused/{name}.json"] = (json.dumps({"code": code}) + "\n").encode()
    for name, (data, same_as) in TOLERATED.items():
        found[f"tolerated/{name}.msgpack"] = data
        found[f"tolerated/{name}.json"] = (json.dumps({"same_as": same_as}) + "\n").encode()
    return found


def main() -> None:
    for name, data in files().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
