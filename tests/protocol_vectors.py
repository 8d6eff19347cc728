"""The messages behind `sdk/protocol_vectors`; run it to write them anew after a change of the protocol.

python tests/protocol_vectors.py
"""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any, Final

import msgpack

from worldwire.errors import BusyError
from worldwire.protocol import (
    MAX_ID,
    MAX_PROMPT_CHARACTERS,
    MAX_WINDOW_FRAMES,
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
    Prompt,
    Reset,
    Restore,
    ResumedSession,
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
TOKEN: Final = "0123456789abcdef0123456789abcdef"

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
ODD_WORLD: Final = WireWorld(
    name="",
    height=1,
    width=8192,
    frames_per_second=29.97,
    frames_per_step=4096,
    horizontal_fov_deg=90.0,
    trained_keys=(),
    views=(),
    seed_images=tuple(f"seed-{number}" for number in range(17)),
    extra={
        "integers": [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**63 - 1, 2**64 - 1],
        "negative": [-1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**63)],
        "reals": [0.0, -0.0, 1.0, -1.5, 1e-310, 1.7976931348623157e308],
        "texts": ["", "a" * 31, "b" * 32, "c" * 255, "d" * 256],
        "nested": {"list": [[], {}, [None, True, False]], "": {"": {}}},
        "map of 16": {f"{number:02d}": number for number in range(16)},
    },
)
HALF_TURN: Final = {"position_m": (1.5, 0.0, -2.0), "quaternion_xyzw": (0.0, 1.0, 0.0, 0.0)}
WIDE_TEXT: Final = "\N{LATIN SMALL LETTER E}\N{COMBINING ACUTE ACCENT} 世界 \N{FACE WITH TEARS OF JOY}\x00\n"

FROM_CLIENT: Final[dict[str, Message]] = {
    "hello": Hello(request=1, version=VERSION, client="worldwire-python 1.0.0"),
    "hello_resume": Hello(request=1, version=VERSION, client="worldwire-python 1.0.0", resume=TOKEN),
    "hello_of_a_later_minor": Hello(request=1, version=(1, 300), client=""),
    "open": Open(request=2, plan="low-latency", formats=("jpeg", "rgb"), jpeg_quality=85),
    "open_defaults": Open(request=2),
    "open_all_formats": Open(request=2, formats=("h264", "jpeg", "bgra", "rgba", "rgb"), jpeg_quality=1),
    "reset_defaults": Reset(request=3, session=1),
    "reset_prompt": Reset(request=3, session=1, seed=7, prompt="Ein Dorf bei Tag, Häuser"),
    "reset_image_name": Reset(request=3, session=1, image="village-day-1", view="third"),
    "reset_image_payload": Reset(request=3, session=1, image_height=192, image_width=320),
    "reset_largest_seed": Reset(request=MAX_ID, session=MAX_ID, seed=2**63 - 1, prompt=""),
    "step": Step(
        request=4,
        session=1,
        inputs=(Control(keys=("forward", "left"), look_deg=(2.5, -1.0)), Control(**HALF_TURN)),
    ),
    "step_of_16": Step(request=4, session=1, inputs=(Control(),) * 16),
    "prompt": Prompt(request=14, session=1, prompt="it begins to snow"),
    "prompt_wide_text": Prompt(request=14, session=1, prompt=WIDE_TEXT),
    "prompt_longest": Prompt(request=14, session=1, prompt="ä" * MAX_PROMPT_CHARACTERS),
    "start": Start(request=5, session=1, window=12),
    "start_widest": Start(request=5, session=1, window=MAX_WINDOW_FRAMES),
    "pause": Pause(request=6, session=1),
    "input": Input(session=1, seq=1, keys=("back", "jump"), look_deg=(-0.25, 0.0)),
    "input_released": Input(session=1, seq=2),
    "input_pose": Input(session=1, seq=300, **HALF_TURN),
    "input_whole_degrees": Input(session=1, seq=301, look_deg=(-90.0, 180.0)),
    "input_largest_seq": Input(
        session=MAX_ID,
        seq=MAX_ID,
        keys=("attack", "back", "forward", "jump", "left", "right"),
        look_deg=(-0.0, 5e-324),
    ),
    "credit": Credit(session=1, frames=4),
    "credit_most": Credit(session=2**32, frames=MAX_WINDOW_FRAMES),
    "save": Save(request=7, session=1),
    "save_keep": Save(request=8, session=1, keep=True),
    "restore": Restore(request=9, session=1),
    "restore_kept": Restore(request=10, session=1, state="00112233445566ff"),
    "branch": Branch(request=11, session=1),
    "close": Close(request=12, session=1),
    "status": Status(request=13),
    "ping": Ping(t_ns=2**40),
    "ping_last_nanosecond": Ping(t_ns=2**63 - 1),
    "bye": Bye(reason="closed"),
    "bye_wordless": Bye(),
}

FROM_SERVER: Final[dict[str, Message]] = {
    "welcome": Welcome(
        request=1,
        version=VERSION,
        server="worldwire 1.0.0",
        world=TINY,
        limits=Limits(message_bytes=2**28),
        token=TOKEN,
        formats=("rgb", "rgba", "bgra", "jpeg"),
    ),
    "welcome_resumed": Welcome(
        request=1,
        version=VERSION,
        server="worldwire 1.0.0",
        world=TINY,
        limits=Limits(sessions=64, messages_per_second=5000, resume_s=120.0),
        token=TOKEN,
        resumed=(
            ResumedSession(session=1, epoch=2, frames_per_step=8, format="jpeg", seq=300),
            ResumedSession(session=MAX_ID, epoch=0, frames_per_step=56, format="rgb"),
        ),
        formats=("rgb", "rgba", "bgra", "jpeg", "h264"),
    ),
    "welcome_odd_world": Welcome(
        request=MAX_ID, version=(1, 300), server="", world=ODD_WORLD, limits=Limits(), formats=()
    ),
    "opened": Opened(request=2, session=1, frames_per_step=8, format="jpeg"),
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
    "frame_between_keys": FrameMessage(
        session=1,
        epoch=MAX_ID,
        index=MAX_ID,
        format="h264",
        height=8192,
        width=1,
        position_m=(-1e-9, 12345.678, 1.0),
        quaternion_xyzw=(0.5, -0.5, 0.5, -0.5),
        t_ns=2**63 - 1,
        ack=MAX_ID,
        memory_latents=tuple(range(250, 270)),
        key=False,
    ),
    "done": Done(request=12, session=1, epoch=2, frames_per_step=8),
    "saved": Saved(request=7, session=1, size=123456),
    "saved_kept": Saved(request=8, session=1, size=123456, state="00112233445566ff"),
    "status_report": StatusReport(
        request=13,
        state="ready",
        version=VERSION,
        sessions=1,
        max_sessions=4,
        uptime_s=12.5,
        peak_memory_gib=0.75,
        queue=3,
    ),
    "status_report_loading": StatusReport(
        request=13,
        state="loading",
        version=VERSION,
        sessions=0,
        max_sessions=4,
        uptime_s=2.0,
        progress=0.25,
        stage="reading weights",
    ),
    "status_report_busy": StatusReport(
        request=13, state="busy", version=VERSION, sessions=4, max_sessions=4, uptime_s=86400.0, progress=1.0
    ),
    "pong": Pong(t_ns=2**40, server_t_ns=2**41),
    "error": ErrorMessage.of(
        BusyError("the server has no room for another session", expected="at most 4 sessions", remedy="wait"),
        request=2,
    ),
    "error_of_an_input": ErrorMessage(
        code="bad_input", problem="unknown keys", got="fly", session=1, seq=MAX_ID
    ),
    "error_of_the_future": ErrorMessage(code="too_warm", problem="new in 1.7", request=1),
    "error_fatal": ErrorMessage(code="error", problem="the server failed", session=1, fatal=True),
    "bye_of_server": Bye(reason="the server stops"),
    "bye_until_later": Bye(reason="nothing was heard of this client for 10 s", resume=True),
}

VECTORS: Final = FROM_CLIENT | FROM_SERVER


def packed(name: str, **changes: Any) -> bytes:
    """The vector `name` with other values; a field whose new value is ... is left out."""
    values = msgpack.unpackb(encode(VECTORS[name]), strict_map_key=False) | changes
    return bytes(msgpack.packb({key: value for key, value in values.items() if value is not ...}))


def longest_forms(value: Any) -> bytes:
    """msgpack in its longest forms, which no sender writes and every receiver reads."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return struct.pack(">BQ", 0xCF, value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(longest_forms, value))
    pairs = (longest_forms(key) + longest_forms(entry) for key, entry in value.items())
    return struct.pack(">BI", 0xDF, len(value)) + b"".join(pairs)


BAD, VERSIONS = "bad_message", "version_mismatch"

REFUSED_ANYWHERE: Final[dict[str, tuple[bytes, str]]] = {
    "empty": (b"", BAD),
    "no_map": (msgpack.packb([1, 2]), BAD),
    "reserved_byte": (b"\xc1", BAD),
    "truncated": (encode(VECTORS["bye"])[:-3], BAD),
    "trailing_bytes": (encode(VECTORS["bye"]) + b"\x00", BAD),
    "two_maps": (encode(VECTORS["bye"]) * 2, BAD),
    "no_type": (msgpack.packb({"request": 1}), BAD),
    "type_is_no_text": (msgpack.packb({"type": 7}), BAD),
    "unknown_type": (msgpack.packb({"type": "teleport"}), BAD),
    "key_is_no_text": (b"\x82\xa4type\xa3bye\x01\x02", BAD),
    "text_is_no_utf8": (b"\x82\xa4type\xa3bye\xa6reason\xa2\xff\xfe", BAD),
    "binary_for_text": (b"\x82\xa4type\xa3bye\xa6reason\xc4\x02hi", BAD),
    "endless_map": (b"\xdf\xff\xff\xff\xff\xa4type\xa3bye", BAD),
    "endless_list": (b"\x82\xa4type\xa3bye\xa6reason\xdd\xff\xff\xff\xff", BAD),
    "endless_text": (b"\x82\xa4type\xa3bye\xa6reason\xdb\xff\xff\xff\xff", BAD),
    "endless_binary": (b"\x82\xa4type\xa3bye\xa4more\xc6\xff\xff\xff\xff", BAD),
    "endless_nesting": (b"\x82\xa4type\xa3bye\xa4more" + b"\x91" * 20000, BAD),
}
REFUSED_FROM_CLIENT: Final[dict[str, tuple[bytes, str]]] = {
    "missing_field": (packed("credit", frames=...), BAD),
    "nil_for_needed": (packed("credit", frames=None), BAD),
    "wrong_kind": (packed("credit", session="1"), BAD),
    "boolean_is_no_number": (packed("credit", frames=True), BAD),
    "real_is_no_integer": (packed("credit", frames=4.0), BAD),
    "below_range": (packed("credit", frames=0), BAD),
    "above_range": (packed("credit", frames=MAX_WINDOW_FRAMES + 1), BAD),
    "negative_id": (packed("credit", session=-1), BAD),
    "id_beyond_doubles": (packed("credit", session=MAX_ID + 1), BAD),
    "seed_beyond_int64": (packed("reset_defaults", seed=2**63), BAD),
    "prompt_too_long": (packed("prompt", prompt="a" * (MAX_PROMPT_CHARACTERS + 1)), BAD),
    "nan": (packed("input", look_deg=[float("nan"), 0.0]), BAD),
    "infinity": (packed("input", look_deg=[0.0, float("-inf")]), BAD),
    "short_list": (packed("input", look_deg=[1.0]), BAD),
    "long_list": (packed("input", look_deg=[1.0, 2.0, 3.0]), BAD),
    "number_for_list": (packed("input", keys=1), BAD),
    "no_formats": (packed("open", formats=[]), BAD),
    "too_many_formats": (packed("open", formats=["rgb"] * 17), BAD),
    "control_is_no_map": (packed("step", inputs=[1]), BAD),
    "wrong_inside_control": (packed("step", inputs=[{"keys": [1]}]), BAD),
    "number_for_boolean": (packed("save", keep=1), BAD),
    "other_version": (packed("hello", version=[99, 0]), VERSIONS),
    "earlier_version": (packed("hello", version=[0, 1]), VERSIONS),
    "other_version_and_shape": (msgpack.packb({"type": "hello", "version": [2, 0], "request": {}}), VERSIONS),
    "no_version": (packed("hello", version=...), VERSIONS),
    "hello_without_request": (packed("hello", request=...), BAD),
}
REFUSED_FROM_SERVER: Final[dict[str, tuple[bytes, str]]] = {
    "frame_without_pose": (packed("frame_live", position_m=...), BAD),
    "frame_of_no_width": (packed("frame_live", width=0), BAD),
    "frame_with_short_quaternion": (packed("frame_live", quaternion_xyzw=[0.0, 0.0, 1.0]), BAD),
    "frame_with_nan": (packed("frame_live", position_m=[float("nan"), 0.0, 0.0]), BAD),
    "frame_with_negative_index": (packed("frame_live", index=-1), BAD),
    "frame_with_text_timing": (packed("frame_live", timings_ms={"denoise": "81"}), BAD),
    "done_without_epoch": (packed("done", epoch=...), BAD),
    "world_is_no_map": (packed("welcome", world="tiny"), BAD),
    "world_without_height": (packed("welcome", world={"name": "tiny"}), BAD),
    "negative_heartbeat": (packed("welcome", limits={"heartbeat_s": -1.0}), BAD),
    "resumed_without_session": (packed("welcome", resumed=[{"epoch": 1}]), BAD),
    "progress_above_one": (packed("status_report_loading", progress=1.5), BAD),
    "error_without_code": (packed("error", code=...), BAD),
}

TOLERATED_FROM_CLIENT: Final[dict[str, tuple[bytes, str]]] = {
    "unknown_field": (packed("credit", from_the_future={"a": [1]}), "credit"),
    "unknown_fields_of_every_kind": (
        packed(
            "credit",
            binary=b"\x00\xff",
            extension=msgpack.ExtType(7, b"abc"),
            deep=[[[{"a": [{"b": [None, True, -1, 2**64 - 1, 1.5]}]}]]],
            nothing=None,
        ),
        "credit",
    ),
    "unknown_field_of_a_control": (
        packed("step_of_16", inputs=[{"keys": [], "look_deg": [0.0, 0.0], "t_ns": 1}] * 16),
        "step_of_16",
    ),
    "integers_for_reals": (packed("input_released", look_deg=[0, 0]), "input_released"),
    "negative_integers_for_reals": (
        packed("input_whole_degrees", look_deg=[-90, 180]),
        "input_whole_degrees",
    ),
    "float32_for_reals": (
        encode(VECTORS["input"]).replace(
            struct.pack(">BdBd", 0xCB, -0.25, 0xCB, 0.0), struct.pack(">BfBf", 0xCA, -0.25, 0xCA, 0.0)
        ),
        "input",
    ),
    "nil_is_absent": (packed("open_defaults", plan=None), "open_defaults"),
    "defaults_left_out": (msgpack.packb({"type": "open", "request": 2}), "open_defaults"),
    "control_of_defaults": (packed("step_of_16", inputs=[{}] * 16), "step_of_16"),
    "other_order": (msgpack.packb({"frames": 4, "session": 1, "type": "credit"}), "credit"),
    "longest_forms": (longest_forms(msgpack.unpackb(encode(VECTORS["open"]))), "open"),
}
TOLERATED_FROM_SERVER: Final[dict[str, tuple[bytes, str]]] = {
    "frame_with_unknown_fields": (packed("frame_live", stereo={"eye": "left"}, depth=None), "frame_live"),
    "frame_of_few_fields": (
        packed("frame_of_request", ack=..., dropped=..., memory_latents=..., timings_ms=..., key=...),
        "frame_of_request",
    ),
    "frame_in_longest_forms": (longest_forms(msgpack.unpackb(encode(VECTORS["frame_live"]))), "frame_live"),
    "frame_with_integers_for_reals": (
        packed("frame_of_request", quaternion_xyzw=[0, 1, 0, 0], position_m=[1.5, 0, -2]),
        "frame_of_request",
    ),
    "welcome_without_limits": (packed("welcome", limits={}, token=TOKEN, later=[1]), "welcome"),
    "status_without_progress": (
        packed("status_report", progress=None, stage=None, temperature=21.5),
        "status_report",
    ),
    "done_in_another_order": (
        msgpack.packb({"frames_per_step": 8, "epoch": 2, "session": 1, "request": 12, "type": "done"}),
        "done",
    ),
}

REFUSED: Final = REFUSED_ANYWHERE | REFUSED_FROM_CLIENT | REFUSED_FROM_SERVER
TOLERATED: Final = TOLERATED_FROM_CLIENT | TOLERATED_FROM_SERVER


def sender(name: str, from_client: dict[str, Any], from_server: dict[str, Any]) -> str:
    """Who would send it: `client`, `server` or `any`."""
    if name in from_client:
        return "client"
    return "server" if name in from_server else "any"


def fields_of(message: Message) -> dict[str, object]:
    """The fields for people to read: `type` first, what is absent left out."""
    return {"type": message.kind} | present(dataclasses.asdict(message))


def present(value: Any) -> Any:
    """Without the dataclass fields that are None; what stands in `extra` stays as it is."""
    if isinstance(value, dict):
        kept = {name: entry for name, entry in value.items() if entry is not None}
        return {name: entry if name == "extra" else present(entry) for name, entry in kept.items()}
    if isinstance(value, (tuple, list)):
        return [present(entry) for entry in value]
    return value


def index() -> dict[str, Any]:
    """What the folder holds, for test programs that walk it."""
    return {
        "version": list(VERSION),
        "vectors": [
            {"name": name, "type": message.kind, "from": sender(name, FROM_CLIENT, FROM_SERVER)}
            for name, message in VECTORS.items()
        ],
        "refused": [
            {"name": name, "code": code, "from": sender(name, REFUSED_FROM_CLIENT, REFUSED_FROM_SERVER)}
            for name, (_, code) in REFUSED.items()
        ],
        "tolerated": [
            {
                "name": name,
                "same_as": same_as,
                "from": sender(name, TOLERATED_FROM_CLIENT, TOLERATED_FROM_SERVER),
            }
            for name, (_, same_as) in TOLERATED.items()
        ],
    }


def files() -> dict[str, bytes]:
    """Every file of the folder by its name."""
    found = {"index.json": (json.dumps(index(), indent=1) + "\n").encode()}
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
    for stale in (path for path in FOLDER.rglob("*.*") if path.is_file()):
        stale.unlink()
    for name, data in files().items():
        path = FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
