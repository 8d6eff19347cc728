"""Messages that are almost right: the golden vectors, damaged as a careless or hostile peer may do it.

A seed makes a run repeatable. Damage is done to the bytes (bits, cuts, lengths), to the values (types, sizes,
unknown and missing fields) and to the parts of a message.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack

VECTORS: Final = Path(__file__).parents[1] / "sdk" / "protocol_vectors"

NASTY: Final[tuple[Any, ...]] = (
    *(None, True, False, -1, 0, 1, 2**31, 2**32, 2**53, 2**53 + 1, 2**63 - 1, 2**64 - 1, -(2**63)),
    *(0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "\0", "x" * 300, "x" * 70_000, "\ud800", b"", b"\xff" * 40),
    *([], [[]], [None] * 40, list(range(5000)), {}, {"a": 1}, {str(n): n for n in range(500)}),
    msgpack.ExtType(5, b"abc"),
    msgpack.Timestamp(1),
)
"""Values that a field was not made for."""

HUGE: Final = (
    *(b"\xdb\xff\xff\xff\xff", b"\xda\xff\xff", b"\xd9\xff"),  # texts of 4 GiB, 64 KiB, 255 bytes
    *(b"\xc6\xff\xff\xff\xff", b"\xc5\xff\xff", b"\xc9\xff\xff\xff\xff\x01"),  # binaries, an extension
    *(b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xde\xff\xff"),  # lists and maps
    *(b"\xdd\x7f\xff\xff\xff", b"\xdf\x0f\xff\xff\xff"),  # sizes whose product overflows
    b"\xc1",  # never used
)
"""Heads that promise more than there is."""

NESTS: Final = (b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\x92\xc0")
DEPTHS: Final = (3, 30, 300, 3_000, 60_000)


def golden() -> list[bytes]:
    """Part 0 of every vector, those that must be refused among them."""
    return [path.read_bytes() for path in sorted(VECTORS.rglob("*.msgpack"))]


class Mutator:
    """An endless source of damaged messages. originals: part 0 of good ones."""

    def __init__(self, seed: int, originals: list[bytes] | None = None):
        self._random = random.Random(seed)
        self._originals = originals or golden()
        self._values = [_readable(data) for data in self._originals]
        self._readable = [values for values in self._values if values]
        self._damages: list[Callable[[bytes], bytes]] = [
            *(self._flip_bits, self._cut, self._append, self._splice, self._promise_too_much, self._nest),
            *(self._repeat_a_field, self._overwrite),
        ]

    def header(self, **replace: Any) -> bytes:
        """One damaged part 0. replace: values of fields that occur, such as a session that exists."""
        choose = self._random
        if choose.random() < 0.5:
            data = self._strange_values(replace)
        else:
            data = self._packed(dict(choose.choice(self._readable)), replace)
        for _ in range(choose.choice((0, 0, 0, 1, 1, 2))):
            data = choose.choice(self._damages)(data)
        return data

    def parts(self, **replace: Any) -> list[bytes]:
        """All parts of one damaged message."""
        choose, header = self._random, self.header(**replace)
        if choose.random() < 0.6:
            return [header]
        payload = choose.randbytes(choose.choice((0, 1, 100, 46_080, 46_081)))
        if choose.random() < 0.8:
            return [header, payload]
        return [header, payload] * choose.randint(2, 4) if choose.random() < 0.5 else [payload, header]

    # ------------------------------------------------------------------ values

    def _strange_values(self, replace: dict[str, Any]) -> bytes:
        values = copy.deepcopy(self._random.choice(self._readable))
        for _ in range(self._random.randint(1, 3)):
            if values:
                self._replace(*self._place(values))
        return self._packed(values, replace)

    def _place(self, holder: Any) -> tuple[Any, Any]:
        """A map or list somewhere in a filled one, and a key or index of it."""
        key = self._random.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        inner = holder[key]
        if isinstance(inner, (dict, list)) and inner and self._random.random() < 0.7:
            return self._place(inner)
        return holder, key

    def _replace(self, holder: Any, key: Any) -> None:
        choose = self._random
        what = choose.random()
        if what < 0.7:
            holder[key] = self._nasty()
        elif what < 0.85 and isinstance(holder, dict):
            holder.pop(key, None)
        elif isinstance(holder, dict):
            holder[self._random.choice(("unknown", "", "\0", "x" * 300, "type"))] = self._nasty()

    def _nasty(self) -> Any:
        return copy.deepcopy(self._random.choice(NASTY))

    def _packed(self, values: dict[str, Any], replace: dict[str, Any]) -> bytes:
        if self._random.random() < 0.8:
            values |= {name: value for name, value in replace.items() if name in values}
        items = list(values.items())
        if self._random.random() < 0.1:
            self._random.shuffle(items)
        return _pack(dict(items))

    # ------------------------------------------------------------------ bytes

    def _flip_bits(self, data: bytes) -> bytes:
        damaged = bytearray(data or b"\0")
        for _ in range(self._random.randint(1, 6)):
            damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        return bytes(damaged)

    def _overwrite(self, data: bytes) -> bytes:
        place = self._random.randrange(len(data) + 1)
        return data[:place] + self._random.randbytes(self._random.randint(1, 9)) + data[place + 1 :]

    def _cut(self, data: bytes) -> bytes:
        return data[: self._random.randrange(len(data) + 1)]

    def _append(self, data: bytes) -> bytes:
        return data + self._random.randbytes(self._random.randint(1, 20))

    def _splice(self, data: bytes) -> bytes:
        other = self._random.choice(self._originals)
        return data[: self._random.randrange(len(data) + 1)] + other[self._random.randrange(len(other) + 1) :]

    def _promise_too_much(self, data: bytes) -> bytes:
        place = self._random.randrange(len(data) + 1)
        return data[:place] + self._random.choice(HUGE) + data[place + self._random.randint(0, 3) :]

    def _nest(self, data: bytes) -> bytes:
        nest = self._random.choice(NESTS) * self._random.choice(DEPTHS)
        place = self._random.choice((0, self._random.randrange(len(data) + 1)))
        return data[:place] + nest + data[place:]

    def _repeat_a_field(self, data: bytes) -> bytes:
        """The map with one of its fields twice, the second time perhaps with another value."""
        if not data or not 0x81 <= data[0] < 0x8F:
            return self._flip_bits(data)
        values = _readable(data)
        name = self._random.choice(sorted(values)) if values else "type"
        value = self._random.choice(NASTY) if self._random.random() < 0.5 else values.get(name)
        return bytes([data[0] + 1]) + data[1:] + _pack(name) + _pack(value)


def _pack(value: Any) -> bytes:
    """msgpack, lone surrogates (no UTF-8) included; what nests too deep for it becomes a plain deep list."""
    try:
        packed: bytes = msgpack.packb(value, unicode_errors="surrogatepass")
    except ValueError:
        return NESTS[0] * DEPTHS[-2] + b"\xc0"
    return packed


def _readable(data: bytes) -> dict[str, Any]:
    """The map in `data`; an empty one if there is none."""
    try:
        values = msgpack.unpackb(data, strict_map_key=True)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException):
        return {}
    return values if isinstance(values, dict) and all(isinstance(key, str) for key in values) else {}
