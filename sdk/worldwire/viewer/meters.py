"""What the HUD measures: the frame rate and the time from an input to the picture that shows it."""

from __future__ import annotations

from collections import deque
from typing import Final

RATE_WINDOW_S: Final = 3.0
MAX_PENDING_INPUTS: Final = 10_000


class RateMeter:
    """Events per second over the last seconds."""

    def __init__(self, window_s: float = RATE_WINDOW_S):
        self._window_s = window_s
        self._events: deque[tuple[float, int]] = deque()

    def add(self, count: int, now_s: float) -> None:
        """`count` events happened at `now_s`."""
        self._events.append((now_s, count))
        while self._events[0][0] < now_s - self._window_s:
            self._events.popleft()

    def rate(self, now_s: float) -> float:
        """Events per second up to `now_s`; 0 when nothing came within the window."""
        recent = [event for event in self._events if event[0] >= now_s - self._window_s]
        if len(recent) < 2:
            return 0.0
        # The first burst opens the interval; what it held was made before.
        return sum(count for _, count in recent[1:]) / max(recent[-1][0] - recent[0][0], 1e-3)

    def clear(self) -> None:
        """Starts anew, after a pause."""
        self._events.clear()


class LatencyMeter:
    """Action-to-photon: from sending an input to showing the first frame that acknowledges it."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, float]] = deque(maxlen=MAX_PENDING_INPUTS)
        self.last_ms: float | None = None

    def sent(self, seq: int, at_s: float) -> None:
        """Input number `seq` was made by the player at `at_s`."""
        self._sent.append((seq, at_s))

    def shown(self, ack: int, now_s: float) -> None:
        """A frame that acknowledges input `ack` is on the screen; the longest wait of its inputs counts."""
        waits_s: list[float] = []
        while self._sent and self._sent[0][0] <= ack:
            waits_s.append(now_s - self._sent.popleft()[1])
        if waits_s:
            self.last_ms = 1000 * max(waits_s)

    def clear(self) -> None:
        """Forgets inputs that no frame will ever show: after a reset or a pause."""
        self._sent.clear()
