"""What goes out to clients, in order: pictures are encoded when it is certain that they are sent.

Encoding runs in a thread of its own, so that it delays neither the world nor other messages. What a session
sends behind a picture that is still being encoded waits for it in the same queue.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from worldwire.api import Frame
from worldwire.schema import Message
from worldwire_runtime.server import replies
from worldwire_runtime.server.pixels import Payload
from worldwire_runtime.server.replies import Shot
from worldwire_runtime.server.sessions import Slot

STOP_S: Final = 2.0

Send = Callable[[bytes, Message, Any], None]
Failed = Callable[[Slot, int | None, Exception], None]


@dataclass
class Parcel:
    """What waits in the queue: a picture, whose payload the thread makes, or a message with its payload."""

    slot: Slot
    client: bytes
    content: Shot | Message
    payload: Any = None
    encode_ms: float = 0.0
    failure: Exception | None = None


class Outbox:
    """Sends what sessions have to say; `send` and `failed` are called in the thread that calls our methods.

    wake: called in the encoder's thread when `flush` has something to do.
    failed: a picture, of a request or of live play, could not be encoded.
    """

    def __init__(
        self, send: Send, failed: Callable[[Slot, int | None, Exception], None], wake: Callable[[], None]
    ):
        self._send, self._failed, self._wake = send, failed, wake
        self._waiting: queue.SimpleQueue[Parcel | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Parcel] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def picture(self, slot: Slot, frame: Frame, request: int | None) -> None:
        """Sends a picture, as soon as it is encoded."""
        dropped = slot.take_dropped() if request is None else 0
        shot = Shot(frame, slot.epoch, dropped, request, slot.take_key_wish())
        parcel = Parcel(slot, slot.client, shot)
        if slot.encoder.is_free:
            parcel.payload = slot.encoder.encode(frame.pixels)
            self._deliver(parcel)
        else:
            self._queue(parcel)

    def answer(self, slot: Slot, client: bytes, message: Message, payload: Any = None) -> None:
        """Sends a message behind the pictures of its session."""
        parcel = Parcel(slot, client, message, payload)
        if slot.encoding:
            self._queue(parcel)
        else:
            self._deliver(parcel)

    def flush(self) -> None:
        """Sends what the encoder has done."""
        while not self._ready.empty():
            parcel = self._ready.get()
            parcel.slot.encoding -= 1
            self._deliver(parcel)

    def stop(self) -> None:
        """Ends the thread; what waits is not sent."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join(STOP_S)

    def _queue(self, parcel: Parcel) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="worldwire-encoder", daemon=True)
            self._thread.start()
        parcel.slot.encoding += 1
        self._waiting.put(parcel)

    def _deliver(self, parcel: Parcel) -> None:
        slot, content = parcel.slot, parcel.content
        if slot.client != parcel.client:
            return  # its client went away in the meantime
        if not isinstance(content, Shot):
            self._send(parcel.client, content, parcel.payload)
            return
        if parcel.failure is None:
            try:
                data, key = parcel.payload
                self._send(parcel.client, replies.frame(slot, content, key, parcel.encode_ms), data)
            except Exception as error:  # numbers that no header holds, from a state that was tampered with
                parcel.failure = error
        if parcel.failure is not None:
            self._failed(slot, content.request, parcel.failure)

    def _run(self) -> None:
        while (parcel := self._waiting.get()) is not None:
            if isinstance(parcel.content, Shot):
                start = time.perf_counter()
                try:
                    parcel.payload = self._encode(parcel.slot, parcel.content)
                except Exception as error:  # the loop closes the session; the server lives
                    parcel.failure = error
                parcel.encode_ms = (time.perf_counter() - start) * 1000
            self._ready.put(parcel)
            self._wake()

    def _encode(self, slot: Slot, shot: Shot) -> Payload:
        return slot.encoder.encode(shot.frame.pixels, shot.key)
