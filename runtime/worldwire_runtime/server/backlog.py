"""What was given to the socket and has not left it: the memory that clients take that do not read."""

from __future__ import annotations

from collections import deque
from typing import Final

import zmq

LARGE_BYTES: Final = 2**16
"""Smaller payloads are not counted: the queue of a client holds few of them."""
MOST_OF_ONE_BYTES: Final = 2**28
MOST_OF_ALL_BYTES: Final = 2**30


class Backlog:
    """Counts large payloads from `send` until libzmq lets go of them."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[tuple[zmq.MessageTracker, int]]] = {}

    def add(self, client: bytes, tracker: zmq.MessageTracker, size: int) -> None:
        """Notes a payload that is on its way to a client."""
        self._waiting.setdefault(client, deque()).append((tracker, size))

    def crowded(self) -> frozenset[bytes]:
        """The clients that get no more until they have read: those with too much, or all when all have."""
        held = {client: self._held(client) for client in list(self._waiting)}
        if sum(held.values()) > MOST_OF_ALL_BYTES:
            return frozenset(client for client, size in held.items() if size)
        return frozenset(client for client, size in held.items() if size > MOST_OF_ONE_BYTES)

    def _held(self, client: bytes) -> int:
        """Bytes that wait for a client; what has left is forgotten."""
        waiting = self._waiting[client]
        while waiting and waiting[0][0].done:
            waiting.popleft()
        if not waiting:
            del self._waiting[client]
        return sum(size for _, size in waiting)
