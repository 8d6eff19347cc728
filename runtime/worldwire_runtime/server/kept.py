"""Saved states that stay on the server."""

from __future__ import annotations

import secrets
from collections import OrderedDict

from worldwire.errors import StateError
from worldwire.protocol import Limits


class KeptStates:
    """States by unguessable names; the oldest ones go when there are too many or they are too large."""

    def __init__(self, limits: Limits):
        self._limits = limits
        self._states: OrderedDict[str, bytes] = OrderedDict()

    def add(self, state: bytes) -> str:
        """Keeps a state and returns its name; StateError if it alone is too large."""
        if len(state) > self._limits.kept_bytes:
            raise StateError(
                "the state is too large to be kept",
                expected=f"at most {self._limits.kept_bytes} bytes",
                got=f"{len(state)} bytes",
            )
        name = secrets.token_hex(8)
        self._states[name] = state
        while len(self._states) > self._limits.kept_states or self._size() > self._limits.kept_bytes:
            self._states.popitem(last=False)
        return name

    def get(self, name: str) -> bytes:
        """A kept state, or StateError."""
        if name not in self._states:
            raise StateError(
                "the server keeps no such state",
                expected=f"one of the newest {self._limits.kept_states}",
                got=repr(name),
                remedy="keep it again, or save() it as bytes",
            )
        return self._states[name]

    def _size(self) -> int:
        return sum(map(len, self._states.values()))
