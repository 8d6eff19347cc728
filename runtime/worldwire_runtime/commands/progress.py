"""Progress bars of the commands: one after another, by phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Bar:
    """One progress bar after another. units: of a phase's counts, by its name; else `unit`.

    Nothing is shown where nobody watches: standard error is a file.
    """

    def __init__(self, unit: str = "it", units: Mapping[str, str] | None = None) -> None:
        self._unit, self._units = unit, units or {}
        self._bar: Any = None
        self._phase = ""

    def show(self, phase: str, done: int, total: int) -> None:
        """Moves the bar of `phase`, which begins when another phase was shown before."""
        from tqdm import tqdm

        if phase != self._phase:
            self._close()
            unit = self._units.get(phase, self._unit)
            self._bar = tqdm(
                total=total, desc=phase, unit=unit, unit_scale=unit == "B", disable=None, leave=unit != "B"
            )
            self._phase = phase
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
