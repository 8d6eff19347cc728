"""How long the stages of a step take, without waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StageTimer:
    """Milliseconds by stage.

    On a GPU a stage's time is that between two events on the stream that the calling thread uses: stages on
    two streams may overlap, and none waits for the other.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._sums_ms: dict[str, float] = {}
        self._spans: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        if not self._on_gpu:
            start_s = time.perf_counter()
            yield
            self._add(stage, (time.perf_counter() - start_s) * 1000)
            return
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        yield
        end.record()
        self._spans.append((stage, start, end))

    @property
    def stages_ms(self) -> dict[str, float]:
        """What has been timed so far; on a GPU this waits for the end of it."""
        spans, self._spans = self._spans, []
        for stage, start, end in spans:
            end.synchronize()
            self._add(stage, start.elapsed_time(end))
        return dict(self._sums_ms)

    def _add(self, stage: str, elapsed_ms: float) -> None:
        self._sums_ms[stage] = self._sums_ms.get(stage, 0.0) + elapsed_ms
