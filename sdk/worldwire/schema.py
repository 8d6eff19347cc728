"""Checked msgpack maps: a message is a frozen dataclass, its annotations are its schema.

    @dataclass(frozen=True, kw_only=True)
    class Credit(Message, type="credit"):
        session: Id
        frames: Annotated[int, Span(1, 4096)]

`pack` writes the fields in their order, `type` first, and leaves out None. `unpack_map` and `from_map` read
one back: they check every field's type and range and ignore fields they do not know.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgpack

from worldwire.errors import ProtocolError

MAX_HEADER_BYTES = 256 * 1024
SHOWN_CHARACTERS = 80

Check = Callable[[Any], Any]
M = TypeVar("M", bound="Message")


@dataclasses.dataclass(frozen=True)
class Span:
    """The allowed numbers, or lengths of a text or list, both ends included."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """Base of every message; `kind` is its name on the wire and `kinds` finds the class of a name."""

    kind: ClassVar[str] = ""
    kinds: ClassVar[dict[str, type[Message]]] = {}

    def __init_subclass__(cls, type: str | None = None, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if type is not None:
            cls.kind = type
            Message.kinds[type] = cls


def pack(message: Message) -> bytes:
    """The bytes of part 0: a msgpack map with `type` first, then the fields in the order of the class."""
    try:
        packed: bytes = msgpack.packb({"type": message.kind, **_plain(message)}, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"a {message.kind!r} cannot be packed: {error}") from error
    return packed


def from_map(values: dict[str, Any]) -> Message:
    """The message that a map holds; ProtocolError if it is none of this protocol."""
    cls = Message.kinds.get(str(values.get("type")))
    if cls is None:
        raise ProtocolError(
            "unknown message type",
            expected=", ".join(sorted(Message.kinds)),
            got=shorten(values.get("type")),
            remedy="compare both sides' protocol versions",
        )
    return build(cls, values, cls.kind)


def unpack_map(data: bytes | memoryview) -> dict[str, Any]:
    """The msgpack map in `data`, unchecked but for its size and that all keys are texts."""
    if len(data) > MAX_HEADER_BYTES:
        raise ProtocolError("part 0 is too large", expected=f"{MAX_HEADER_BYTES} bytes", got=f"{len(data)}")
    try:
        values = msgpack.unpackb(data, raw=False, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise ProtocolError("part 0 is no msgpack", got=f"{len(data)} bytes ({error})") from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ProtocolError("part 0 is no map with texts as keys", got=shorten(values))
    return values


def build(cls: type[M], values: dict[str, Any], where: str) -> M:
    """An object of the dataclass `cls` from checked `values`."""
    checks = _checks(cast(Any, cls))
    given = {name: value for name, value in values.items() if name in checks and value is not None}
    absent = [
        field.name
        for field in dataclasses.fields(cls)
        if field.name not in given
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if absent:
        raise ProtocolError(f"{where} lacks {', '.join(absent)}", expected=", ".join(checks))
    fields: dict[str, Any] = {}
    for name, value in given.items():
        try:
            fields[name] = checks[name](value)
        except ValueError as error:
            raise ProtocolError(f"{where}.{name} is wrong", expected=str(error), got=shorten(value)) from None
    return cls(**fields)


def shorten(value: object) -> str:
    """What came, short enough for an error message."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def _plain(message: object) -> dict[str, Any]:
    """The fields of a dataclass that are not None, nested dataclasses as maps, tuples as lists."""
    assert dataclasses.is_dataclass(message)
    named = ((field.name, getattr(message, field.name)) for field in dataclasses.fields(message))
    return {name: _plain_value(value) for name, value in named if value is not None}


def _plain_value(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _plain(value)
    if isinstance(value, (tuple, list)):
        return [_plain_value(item) for item in value]
    return value


@cache
def _checks(cls: Any) -> dict[str, Check]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: _check(hints[field.name], None) for field in dataclasses.fields(cls)}


def _check(hint: Any, span: Span | None) -> Check:
    """A function that returns the value as `hint` wants it, or raises ValueError(what was expected)."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _check(args[0], args[1])
    if origin in (Union, types.UnionType):
        (inner,) = (arg for arg in args if arg is not type(None))
        return _check(inner, span)
    if origin is tuple:
        return _tuple_check(args, span)
    if origin is dict:
        return _dict_check(args[1])
    if dataclasses.is_dataclass(hint):
        return _nested_check(hint)
    return _SCALARS[hint](span)


def _tuple_check(args: tuple[Any, ...], span: Span | None) -> Check:
    """A list of one kind (`tuple[X, ...]`, its length in `span`) or of a fixed shape (`tuple[X, Y]`)."""
    if args[-1] is Ellipsis:
        item = _check(args[0], None)
        low, high = (span.low, span.high) if span else (0, math.inf)

        def listed(value: Any) -> tuple[Any, ...]:
            if not isinstance(value, list) or not low <= len(value) <= high:
                raise ValueError(f"a list of {low:g} to {high:g} entries")
            return tuple(item(entry) for entry in value)

        return listed
    items = [_check(arg, None) for arg in args]

    def shaped(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) != len(items):
            raise ValueError(f"a list of {len(items)} entries")
        return tuple(check(entry) for check, entry in zip(items, value, strict=True))

    return shaped


def _dict_check(value_hint: Any) -> Check:
    inner: Check = _anything if value_hint is Any else _check(value_hint, None)

    def mapping(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError("a map with texts as keys")
        return {key: inner(entry) for key, entry in value.items()}

    return mapping


def _anything(value: Any) -> Any:
    return value


def _nested_check(cls: Any) -> Check:
    def nested(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"a map with {', '.join(_checks(cls))}")
        return build(cls, value, cls.__name__.lower())

    return nested


def _int_check(span: Span | None) -> Check:
    low, high = (span.low, span.high) if span else (0, 2**63 - 1)

    def integer(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"a whole number from {low:.15g} to {high:.15g}")
        return value

    return integer


def _float_check(span: Span | None) -> Check:
    low, high = (span.low, span.high) if span else (-math.inf, math.inf)

    def real(value: Any) -> float:
        wrong = isinstance(value, bool) or not isinstance(value, (int, float))
        if wrong or not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"a finite number from {low:g} to {high:g}")
        return float(value)

    return real


def _str_check(span: Span | None) -> Check:
    low, high = (span.low, span.high) if span else (0, math.inf)

    def text(value: Any) -> str:
        if not isinstance(value, str) or not low <= len(value) <= high:
            raise ValueError(f"a text of {low:g} to {high:g} characters")
        return value

    return text


def _bool_check(_: Span | None) -> Check:
    def boolean(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("true or false")
        return value

    return boolean


_SCALARS: dict[Any, Callable[[Span | None], Check]] = {
    int: _int_check,
    float: _float_check,
    str: _str_check,
    bool: _bool_check,
}
