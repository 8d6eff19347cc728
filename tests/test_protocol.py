"""The messages: golden bytes, ranges, versions, errors, and decoders that survive anything."""

import dataclasses
import json
import math
import re
import socket

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol_vectors import FOLDER, REFUSED, TOLERATED, VECTORS, files
from worldwire import errors
from worldwire.errors import InputError, MissingExtraError, ProtocolError, VersionError, WorldwireError
from worldwire.inputs import Inputs
from worldwire.protocol import (
    VERSION,
    Control,
    ErrorMessage,
    Hello,
    Input,
    check_version,
    control_fields,
    correlation,
    decode,
    encode,
)
from worldwire.schema import MAX_HEADER_BYTES, Message, unpack_map


@pytest.mark.parametrize("name", VECTORS)
def test_golden_vectors_encode_and_decode(name):
    golden = (FOLDER / f"{name}.msgpack").read_bytes()
    assert encode(VECTORS[name]) == golden
    assert decode([golden]) == (VECTORS[name], None)


@pytest.mark.parametrize("name", REFUSED)
def test_golden_refusals(name):
    with pytest.raises(ProtocolError) as refusal:
        decode([(FOLDER / "refused" / f"{name}.msgpack").read_bytes()])
    assert refusal.value.code == json.loads((FOLDER / "refused" / f"{name}.json").read_text())["code"]


@pytest.mark.parametrize("name", TOLERATED)
def test_golden_tolerance(name):
    same_as = json.loads((FOLDER / "tolerated" / f"{name}.json").read_text())["same_as"]
    assert decode([(FOLDER / "tolerated" / f"{name}.msgpack").read_bytes()])[0] == VECTORS[same_as]


def test_the_folder_holds_these_vectors_and_no_others():
    stored = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in FOLDER.rglob("*.*")}
    assert stored == files()


def test_every_message_has_a_vector():
    assert {message.kind for message in VECTORS.values()} == set(Message.kinds)


def test_the_specification_names_every_message_field_error_and_vector():
    text = (FOLDER.parent / "PROTOCOL.md").read_text()
    for kind, cls in Message.kinds.items():
        assert f"`{kind}`" in text
        for field in dataclasses.fields(cls):
            assert f"`{field.name}`" in text, f"{kind}.{field.name}"
    for cls in vars(errors).values():
        if isinstance(cls, type) and issubclass(cls, WorldwireError):
            assert f"`{cls.code}`" in text
    unspaced = "".join(text.split())
    for name in ("hello", "input", "credit", "prompt", "pong", "error_fatal"):
        assert encode(VECTORS[name]).hex() in unspaced, name
    assert f"version {VERSION[0]}.{VERSION[1]}" in text


def test_the_bytes_of_the_specification_talk_to_libzmq():
    """Section 1.3: a client that knows no library sends these bytes over plain TCP."""
    section = (FOLDER.parent / "PROTOCOL.md").read_text().split("### 1.3")[1].split("## 2.")[0]
    blocks = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    handshake, message = (
        bytes.fromhex("".join(re.findall(r"\b(?:[0-9a-f]{2})+\b", block))) for block in blocks
    )
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        port = router.bind_to_random_port("tcp://127.0.0.1")
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            plain.sendall(handshake)
            came = b""
            while b"ROUTER" not in came:
                came += plain.recv(4096)
            plain.sendall(message)
            assert router.poll(2000)
            _, header = router.recv_multipart()
    assert decode([header]) == (VECTORS["ping"], None)


def test_a_message_has_one_or_two_parts():
    data = encode(VECTORS["ping"])
    assert decode([data, b"payload"]) == (VECTORS["ping"], b"payload")
    for parts in ([], [data, b"", b""]):
        with pytest.raises(ProtocolError, match="one or two parts"):
            decode(parts)


def test_a_large_header_is_refused_unread():
    with pytest.raises(ProtocolError, match="too large"):
        unpack_map(bytes(MAX_HEADER_BYTES + 1))


def test_errors_name_the_field_and_both_sides():
    wrong = msgpack.packb({"type": "input", "session": 1, "seq": 1, "look_deg": "left" * 100})
    with pytest.raises(
        ProtocolError, match=r"input\.look_deg is wrong; expected: a list of 2 entries"
    ) as error:
        decode([wrong])
    assert len(error.value.got or "") <= 80


@pytest.mark.parametrize(
    ("theirs", "fits"),
    [
        (VERSION, True),
        ([VERSION[0], VERSION[1] + 1], True),
        ([9, 0], False),
        ([VERSION[0] - 1, 9], False),
        ([True, 0], False),
        ([1.0, 0], False),
        ([1], False),
        ("1.0", False),
        (None, False),
    ],
)
def test_versions(theirs, fits):
    if fits:
        check_version(theirs, "server")
    else:
        with pytest.raises(VersionError, match="the same release"):
            check_version(theirs, "server")


def test_another_version_is_refused_before_its_fields_are_read():
    with pytest.raises(VersionError):
        decode([msgpack.packb({"type": "hello", "version": [99, 1], "request": {"new": "shape"}})])


def test_what_came_can_be_answered_even_if_it_was_wrong():
    assert correlation([msgpack.packb({"type": "x", "request": 5, "session": "a", "seq": -1})]) == {
        "request": 5
    }
    assert correlation([b"\xc1"]) == {}
    assert correlation([]) == {}


@pytest.mark.parametrize("cls", [*WorldwireError.__subclasses__(), VersionError, WorldwireError])
def test_errors_travel(cls):
    sent = (
        cls("what", "runtime") if cls is MissingExtraError else cls("what", expected="a", got="b", remedy="c")
    )
    message = decode([encode(ErrorMessage.of(sent, request=1))])[0]
    assert isinstance(message, ErrorMessage)
    came = message.exception()
    assert type(came) is cls
    assert str(came) == str(sent)


def test_an_unknown_error_code_is_still_an_error():
    assert type(ErrorMessage(code="from_the_future", problem="x").exception()) is WorldwireError


def test_inputs_travel_exactly():
    pose = Inputs(frozenset({"left", "forward"}), 3.25, -0.5, np.eye(4))
    back = decode([encode(Input(session=1, seq=1, **control_fields(pose)))])[0]
    assert isinstance(back, Input)
    again = back.inputs()
    assert (again.keys, again.yaw_deg, again.pitch_deg) == (pose.keys, 3.25, -0.5)
    np.testing.assert_allclose(again.c2w, np.eye(4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"keys": ("fly",)},
        {"look_deg": (181.0, 0.0)},
        {"position_m": (0.0, 0.0, 0.0)},
        {"position_m": (0.0, 0.0, 0.0), "quaternion_xyzw": (0.0, 0.0, 0.0, 0.0)},
        {"position_m": (1e9, 0.0, 0.0), "quaternion_xyzw": (0.0, 0.0, 0.0, 1.0)},
    ],
)
def test_unusable_controls_are_input_errors(wrong):
    with pytest.raises(InputError):
        Control(**wrong).inputs()


def test_values_that_msgpack_cannot_pack_are_typed_errors():
    with pytest.raises(ProtocolError, match="cannot be packed"):
        encode(Hello(request=2**70, version=VERSION, client="x"))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_decoder(data):
    survive(data)


nasty = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(VECTORS)), st.data())
def test_no_field_values_break_the_decoder(name, data):
    values = unpack_map(encode(VECTORS[name]))
    for field in data.draw(st.sets(st.sampled_from(sorted(values)), min_size=1, max_size=3)):
        values[field] = data.draw(nasty)
    survive(msgpack.packb(values))


@settings(deadline=None)
@given(st.sampled_from(sorted(VECTORS)), st.data())
def test_no_flipped_bytes_break_the_decoder(name, data):
    changed = bytearray(encode(VECTORS[name]))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    survive(bytes(changed[: data.draw(st.integers(0, len(changed)))]))


def survive(data: bytes) -> None:
    """A message, or a ProtocolError; what is a message can be sent on."""
    try:
        message, _ = decode([data])
    except ProtocolError:
        return
    again = decode([encode(message)])[0]
    assert again == message or any(isinstance(value, float) and math.isnan(value) for value in walk(again))


def walk(value):
    """All leaves of a message, for free-form maps may hold NaN."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in walk(item)]
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in walk(item)]
    return [value]
