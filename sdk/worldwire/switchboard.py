"""Who waits for which message of a server: requests for their answers, sessions for their frames.

No sockets and no threads of its own; every method may be called from any thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from worldwire.channel import Arrival, Channel, session_lost
from worldwire.errors import MissingExtraError, ProtocolError, RequestLostError, WorldwireError
from worldwire.protocol import (
    Close,
    Done,
    ErrorMessage,
    FrameMessage,
    Input,
    Opened,
    ResumedSession,
    Start,
    Welcome,
)
from worldwire.schema import Message

log = logging.getLogger(__name__)

Answers = queue.SimpleQueue[Arrival | WorldwireError]


class Waiter(NamedTuple):
    """Somebody who waits for the answers of a request. session: the one that it is about, if any."""

    answers: Answers
    session: int | None


class Switchboard:
    """The requests under way and the sessions of one client."""

    def __init__(self, address: str):
        """address: of the server, for error messages."""
        self._address = address
        self._lock = threading.Lock()
        self._waiting: dict[int, Waiter] = {}
        self._channels: dict[int, Channel] = {}
        self._cut_off: list[int] = []

    def expect(self, request: int, session: int | None) -> Answers:
        """Where the answers of a request will come."""
        answers: Answers = queue.SimpleQueue()
        with self._lock:
            self._waiting[request] = Waiter(answers, session)
        return answers

    def forget(self, request: int) -> None:
        """Nobody waits for it any more."""
        with self._lock:
            self._waiting.pop(request, None)

    def attach(self, opened: Opened) -> Channel:
        """The channel of a session that was just opened."""
        with self._lock:
            return self._channels.setdefault(opened.session, Channel(opened.frames_per_step))

    def detach(self, session: int) -> None:
        """Forgets a closed session."""
        with self._lock:
            self._channels.pop(session, None)

    def note_input(self, message: Input) -> None:
        """What the player does now; it is sent again if a lost connection swallows it."""
        with self._lock:
            channel = self._channels.get(message.session)
        if channel is not None:
            channel.newest_input = message

    # ------------------------------------------------------------------ what comes from the server

    def deliver(self, arrival: Arrival) -> None:
        """Hands an answer or a frame to whoever waits for it; nobody may."""
        message = arrival.message
        with self._lock:
            waiter = self._waiting.get(getattr(message, "request", None) or 0)
            if isinstance(message, Opened) and waiter is not None:  # a loss right now must find its channel
                self._channels.setdefault(message.session, Channel(message.frames_per_step))
            channel = self._channels.get(getattr(message, "session", 0))
        if channel is not None and isinstance(message, FrameMessage):
            try:
                arrival = channel.prepare(arrival)
            except (ProtocolError, MissingExtraError) as error:
                channel.fail(error, fatal=False)
                return
        if channel is not None and isinstance(message, (FrameMessage, Done)):
            channel.advance(message.epoch)
        if waiter is not None:
            waiter.answers.put(arrival)
        elif channel is not None and isinstance(message, FrameMessage) and message.request is None:
            channel.deliver(arrival)

    def complain(self, message: ErrorMessage) -> bool:
        """Hands an error to whoever it concerns; False if that is the whole connection."""
        error, ended = message.exception(), message.session if message.fatal else None
        with self._lock:
            waiter = self._waiting.get(message.request or 0)
            channel = self._channels.get(message.session or 0)
            concerned = [
                each
                for each in self._waiting.values()
                if each is waiter or (ended is not None and each.session == ended)
            ]
        for each in concerned:
            each.answers.put(error)
        if channel is not None and (message.fatal or waiter is None):
            channel.fail(error, message.fatal)
        elif message.fatal and message.session is None:
            return False
        elif waiter is None:
            log.warning("the server at %s complains: %s", self._address, error)
        return True

    # ------------------------------------------------------------------ losing the connection

    def cut_off(self) -> None:
        """The connection is lost: the answers of all requests under way are lost with it."""
        with self._lock:
            self._cut_off = list(self._waiting)

    def resume(self, welcome: Welcome, next_id: Callable[[], int]) -> list[Message]:
        """The connection is back: sessions that the server has go on, others are over. Returns messages."""
        resumed = {session.session: session for session in welcome.resumed}
        with self._lock:
            channels = dict(self._channels)
            cut_off = [self._waiting[request] for request in self._cut_off if request in self._waiting]
            self._cut_off = []
        messages: list[Message] = []
        for number, channel in channels.items():
            if number in resumed:
                messages += _go_on(channel, resumed[number], next_id)
            else:
                channel.fail(session_lost(self._address), fatal=True)
        for number in (
            resumed.keys() - channels.keys()
        ):  # the answer to its `open` was lost, or it was given up
            messages.append(Close(request=next_id(), session=number))
        for waiter in cut_off:
            waiter.answers.put(self._lost_answer(waiter, resumed))
        return messages

    def _lost_answer(self, waiter: Waiter, resumed: dict[int, ResumedSession]) -> WorldwireError:
        if waiter.session is not None and waiter.session not in resumed:
            return session_lost(self._address)
        return RequestLostError(
            f"the connection to {self._address} was lost before the answer came, and is back",
            remedy="ask again; whether it was done shows in the next answer",
        )

    def end(self, error: WorldwireError) -> None:
        """The connection is over for good: everybody who waits gets `error`."""
        with self._lock:
            waiting, channels = list(self._waiting.values()), list(self._channels.values())
        for waiter in waiting:
            waiter.answers.put(error)
        for channel in channels:
            channel.fail(error, fatal=True)


def _go_on(channel: Channel, session: ResumedSession, next_id: Callable[[], int]) -> list[Message]:
    """What brings a session to where it was: the input that was missed, and `start` if it was live."""
    messages: list[Message] = []
    missed = channel.resume(session)
    if missed is not None:
        messages.append(missed)
    if channel.window:
        messages.append(Start(request=next_id(), session=session.session, window=channel.window))
    return messages
