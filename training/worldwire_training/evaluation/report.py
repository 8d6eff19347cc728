"""The JSON of an evaluation: whole on disk after every metric, so that a stopped run leaves what it had."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SUMMARY_NAMES = (
    "psnr_db",
    "psnr_freeze_db",
    "psnr_wrong_actions_db",
    "ssim",
    "turn_direction_accuracy",
    "step_direction_accuracy",
    "prompt_accuracy",
    "revisit_psnr_db",
    "sharpness_ratio_60s",
    "contrast_ratio_60s",
    "seconds",
)


class Report:
    """Gathers results and writes them. path: None keeps them in memory only."""

    def __init__(self, path: Path | None, header: Mapping[str, Any]):
        self.values: dict[str, Any] = {}
        self._path = path
        self.add(header)

    def add(self, *results: Mapping[str, Any]) -> None:
        """Merges results; maps of the same name (counts, intervals) are merged, all else is replaced."""
        for result in results:
            self.values = _merged(self.values, result)
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_name(self._path.name + ".partial")
            partial.write_text(json.dumps(self.values, indent=2) + "\n", encoding="utf-8")
            partial.replace(self._path)

    def summary(self) -> Iterator[str]:
        """The figures that are asked for most, one line each."""
        for name in SUMMARY_NAMES:
            if name in self.values:
                yield f"{name:24} {json.dumps(self.values[name])}"


def _merged(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(values)
    for name, value in more.items():
        old = both.get(name)
        both[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return both
