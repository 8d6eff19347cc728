"""One line on the terminal that says how far a long job is."""

from __future__ import annotations

import sys
import time
from typing import Final

BAR_CHARACTERS: Final = 30
REDRAW_S: Final = 0.2


class ProgressLine:
    """Redraws one line on a terminal; into a file or pipe it writes only the last state."""

    def __init__(self, label: str):
        self._label, self._terminal = label, sys.stderr.isatty()
        self._started_s, self._drawn_s = time.monotonic(), 0.0

    def update(self, done: int, total: int) -> None:
        """`done` of `total` steps are done."""
        elapsed_s = time.monotonic() - self._started_s
        filled = BAR_CHARACTERS * done // total
        bar = "█" * filled + "░" * (BAR_CHARACTERS - filled)
        rate = done / max(elapsed_s, 1e-3)
        self._draw(f"{self._label} {bar} {done}/{total}  {rate:.1f}/s", final=done >= total)

    def wait(self, what: str) -> None:
        """Shows that something of unknown length still goes on."""
        elapsed_s = time.monotonic() - self._started_s
        self._draw(f"{self._label} {elapsed_s:4.0f} s  {what}", final=False)

    def finish(self, what: str) -> None:
        """Writes the last state and ends the line."""
        self._draw(f"{self._label} {what} ({time.monotonic() - self._started_s:.1f} s)", final=True)

    def _draw(self, line: str, final: bool) -> None:
        now_s = time.monotonic()
        if not final and (not self._terminal or now_s - self._drawn_s < REDRAW_S):
            return
        self._drawn_s = now_s
        clear = "\r\x1b[K" if self._terminal else ""
        end = "\n" if final else ""
        sys.stderr.write(clear + line + end)
        sys.stderr.flush()
