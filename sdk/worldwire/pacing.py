"""When frames are taken and shown: never faster than the world, and evenly although they come in bursts.

Pure: the caller brings the clock, any monotonic one in seconds.

    playback = Playback(client.info.frames_per_second, limit=session.frames_per_step + 4)
    while playing:                                   # at the rate of the screen
        playback.push(session.poll_frames(), time.monotonic())
        for frame in playback.due(time.monotonic()):
            show(frame)
"""

from __future__ import annotations

from collections import deque
from typing import Final

from worldwire.api import Frame

RATE_WINDOW_BURSTS: Final = 6
BURST_GAP_S: Final = 0.03
"""Frames that arrive closer together than this belong to one burst."""
MARGIN_FRAMES: Final = 1
"""Frames that may wait when the next burst arrives; hides the jitter of arrivals."""
CATCH_UP_PER_FRAME: Final = 0.15
"""How much faster the playback runs for each frame that waits beyond the margin."""


class Pacer:
    """How many frames may be taken now, so that a fast world does not run faster than its own time.

    What a slow world lags behind is made up for up to `burst` frames, for its frames come step by step.
    """

    def __init__(self, frames_per_second: float, burst: int):
        self._rate, self._burst = frames_per_second, burst
        self._allowance, self._last_s = float(burst), 0.0

    def allowance(self, now_s: float) -> int:
        """Frames that may be taken at the time `now_s`."""
        gained = (now_s - self._last_s) * self._rate
        self._allowance, self._last_s = min(self._allowance + gained, self._burst), now_s
        return int(self._allowance)

    def taken(self, frames: int) -> None:
        """So many were taken."""
        self._allowance -= frames


class Playback:
    """A jitter buffer: plays frames at the rate at which they arrive.

    At each burst the backlog tells whether the playback is behind; if so it runs faster in proportion, so the
    delay settles near one burst whatever the arrival rate does. It never holds more than `limit` frames.
    """

    def __init__(self, initial_rate: float, limit: int | None = None):
        """initial_rate: pictures per second until two bursts have come (the world's own rate).

        limit: frames that may wait; when more come the oldest are skipped. A burst and a few more hide the
        jitter of a network. None skips nothing, for recordings.
        """
        self._initial_rate = initial_rate
        self._queue: deque[Frame] = deque(maxlen=limit)
        self._skipped = 0
        self._bursts: deque[tuple[float, int]] = deque(maxlen=RATE_WINDOW_BURSTS)
        self._behind = 0
        self._next_s = 0.0

    @property
    def backlog(self) -> int:
        """Frames that wait to be shown."""
        return len(self._queue)

    @property
    def skipped(self) -> int:
        """Frames that were never shown, for more than `limit` waited."""
        return self._skipped

    @property
    def rate(self) -> float:
        """Pictures per second at which frames arrive."""
        if len(self._bursts) < 2:
            return self._initial_rate
        duration_s = self._bursts[-1][0] - self._bursts[0][0]
        return sum(count for _, count in list(self._bursts)[:-1]) / duration_s

    def push(self, frames: list[Frame], now_s: float) -> None:
        """Frames arrived at the time `now_s`."""
        if not frames:
            return
        if self._bursts and now_s - self._bursts[-1][0] < BURST_GAP_S:
            started_s, count = self._bursts[-1]
            self._bursts[-1] = (started_s, count + len(frames))
        else:
            self._behind = max(len(self._queue) - MARGIN_FRAMES, 0)
            self._bursts.append((now_s, len(frames)))
        if not self._queue:
            self._next_s = max(self._next_s, now_s)
        waiting = len(self._queue) + len(frames)
        self._queue.extend(frames)
        self._skipped += waiting - len(self._queue)

    def due(self, now_s: float) -> list[Frame]:
        """The frames whose time has come, oldest first; a slow screen shows only the last of them."""
        interval_s = 1 / (self.rate * (1 + CATCH_UP_PER_FRAME * self._behind))
        shown: list[Frame] = []
        while self._queue and now_s >= self._next_s:
            shown.append(self._queue.popleft())
            self._next_s += interval_s
        return shown

    def clear(self) -> None:
        """Forgets what waits and the measured rate: a new walk begins."""
        self._queue.clear()
        self.forget_rate()

    def forget_rate(self) -> None:
        """Measures the rate anew: after a pause."""
        self._bursts.clear()
        self._behind = 0
        self._next_s = 0.0
