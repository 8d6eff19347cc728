"""The clients of a server: who said hello, who is alive, who talks too much."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from worldwire.protocol import Limits

MAX_CLIENTS: Final = 1024
MAX_TOKENS: Final = 8
TOKEN_BYTES: Final = 16
COMPLAINT_S: Final = 1.0
"""A client that is over its rate hears of it this often."""


@dataclass
class Client:
    """One connection. allowance: messages that it may send at once (a token bucket).

    tokens: what resumes its sessions after it was lost, oldest first: those of its `welcome`s,
    behind the one that it resumed with, for an answer may be lost too. None before `hello`.
    """

    last_heard_s: float
    allowance: float
    tokens: tuple[str, ...] = ()
    next_complaint_s: float = 0.0

    @property
    def greeted(self) -> bool:
        """Whether it said hello."""
        return bool(self.tokens)

    def add_token(self, before: tuple[str, ...]) -> str:
        """A fresh token, behind those that stay valid."""
        token = secrets.token_hex(TOKEN_BYTES)
        self.tokens = (*before, token)[-MAX_TOKENS:]
        return token


class Clients:
    """All connections that were heard of lately. now: a monotonic clock in seconds."""

    def __init__(self, limits: Limits, now: Callable[[], float]):
        self._limits, self._now = limits, now
        self._clients: dict[bytes, Client] = {}

    def heard(self, address: bytes) -> Client | None:
        """Notes a message of a client; None when it is one too many, of this client or of all."""
        now_s, rate = self._now(), self._limits.messages_per_second
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS:
                return None
            client = self._clients[address] = Client(now_s, rate)
        client.allowance = min(rate, client.allowance + (now_s - client.last_heard_s) * rate)
        client.last_heard_s = now_s
        if client.allowance < 1:
            return None
        client.allowance -= 1
        return client

    def get(self, address: bytes) -> Client | None:
        """The client at an address, if it is there."""
        return self._clients.get(address)

    def may_complain(self, address: bytes) -> bool:
        """Whether it is time to tell a client again that it sends too much."""
        client = self._clients.get(address)
        if client is None or self._now() < client.next_complaint_s:
            return False
        client.next_complaint_s = self._now() + COMPLAINT_S
        return True

    def greeted(self) -> list[bytes]:
        """The clients that said hello."""
        return [address for address, client in self._clients.items() if client.greeted]

    def with_token(self, token: str) -> bytes | None:
        """The client whose sessions a token resumes, if it is still there."""
        return next((address for address, client in self._clients.items() if token in client.tokens), None)

    def silent(self) -> list[bytes]:
        """The clients that have shown no sign of life for too long."""
        oldest_s = self._now() - self._limits.liveness_s
        return [address for address, client in self._clients.items() if client.last_heard_s < oldest_s]

    def forget(self, address: bytes) -> tuple[str, ...]:
        """Drops a client and returns the tokens of its sessions; none when it was not greeted."""
        client = self._clients.pop(address, None)
        return () if client is None else client.tokens
