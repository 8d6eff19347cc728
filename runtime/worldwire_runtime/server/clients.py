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
LARGEST_SHARE: Final = 0.5
"""The part of the loop's time that the messages of one client may take."""


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
        self._strangers = Client(now(), 0)
        """Stands for all that there is no room for."""

    def heard(self, address: bytes) -> Client | None:
        """Notes a message of a client; None when it is one too many, of this client or of all."""
        now_s, rate = self._now(), self._limits.messages_per_second
        client = self._clients.get(address)
        if client is None:
            if len(self._clients) >= MAX_CLIENTS and not self._forget_one():
                return None
            client = self._clients[address] = Client(now_s, rate)
        client.allowance = min(rate, client.allowance + (now_s - client.last_heard_s) * rate)
        client.last_heard_s = now_s
        if client.allowance < 1:
            return None
        client.allowance -= 1
        return client

    def charge(self, client: Client, seconds: float) -> None:
        """Notes how long a message kept the loop: one that took long counts as several."""
        counts = seconds * self._limits.messages_per_second / LARGEST_SHARE
        client.allowance -= max(0.0, counts - 1)

    def get(self, address: bytes) -> Client | None:
        """The client at an address, if it is there."""
        return self._clients.get(address)

    def may_complain(self, address: bytes) -> bool:
        """Whether it is time to tell a client again that it sends too much."""
        client = self._clients.get(address, self._strangers)
        if self._now() < client.next_complaint_s:
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

    def leave(self, address: bytes) -> tuple[str, ...]:
        """A client is greeted no more; returns the tokens of its sessions, none when it was not greeted.

        Its allowance is remembered until it is silent: who says `bye` may not send more for it.
        """
        client = self._clients.get(address)
        if client is None:
            return ()
        tokens, client.tokens = client.tokens, ()
        return tokens

    def forget(self, address: bytes) -> None:
        """Drops what is known of a client."""
        self._clients.pop(address, None)

    def _forget_one(self) -> bool:
        """Makes room: drops the one that has been silent longest of those that are not greeted."""
        others = [(item.last_heard_s, address) for address, item in self._clients.items() if not item.greeted]
        if others:
            self.forget(min(others)[1])
        return bool(others)
