"""The next clip is prepared while a GPU still computes the one before.

What a clip is told (cameras, the memory's choice, actions, noise) depends on inputs alone, never on the
pictures of the clip before. So it is made on a stream of its own: none of its waits for the device waits for
a network. And a step of a served session ends when there is just time for that before the GPU has nothing to
do: behind a clip its pictures are decoded, which comes first in any case. So inputs are taken as late as they
can be, and the GPU goes on where it took turns with the host.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldwire_runtime.graphs import flatten

HIGH_PRIORITY = -1
"""Of a CUDA stream: what is prepared, or decoded, comes first between two kernels of a network."""
SLACK, HAND_OVER_S = 1.2, 0.001
"""Of the time that the last clips took to prepare, which varies; and for the server's part between two steps.

Too much delays inputs, too little leaves the GPU without work.
"""
MOST_LEAD = 0.5
"""Of a clip's time. An input that comes later than that is applied a clip later."""
REMEMBERED = 5
NAP_S = 0.0005


class Decoding:
    """That of a clip's pictures. took_s: what the newest ones of its plan took."""

    def __init__(self, took_s: deque[float]) -> None:
        self._took_s, self.is_over = took_s, threading.Event()

    def over(self, milliseconds: float) -> None:
        """The last picture is there, and all took so long; from any thread."""
        self._took_s.append(milliseconds / 1000)
        self.is_over.set()

    @property
    def takes_s(self) -> float:
        """With nothing beside it, or less."""
        return min(tuple(self._took_s), default=0.0)


class Launched(NamedTuple):
    """A clip on its way. form: clips of the same take equally long. launched_s: host time, behind it."""

    form: Hashable
    start: torch.cuda.Event
    end: torch.cuda.Event
    launched_s: float
    decoding: Decoding


class Ahead:
    """Of one world on a device. is_on: False, or another device than a GPU, prepares where all else happens.

    One caller at a time, as of the sessions.
    """

    def __init__(self, device: torch.device, is_on: bool) -> None:
        self._device = device
        on = is_on and device.type == "cuda"
        self.stream = torch.cuda.Stream(device, priority=HIGH_PRIORITY) if on else None
        self._begun_s = 0.0
        self._preparing_s: deque[float] = deque(maxlen=REMEMBERED)  # of the last clips
        self._clips: list[Launched] = []  # the last two, whosever they are
        self._took_s: dict[Hashable, float] = {}  # by form, of the newest that is done
        self._decoding_s: dict[Hashable, deque[float]] = {}  # by plan, of the newest

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """What is launched inside waits for no network."""
        self._begun_s = time.perf_counter()
        with self.beside():
            yield

    @contextmanager
    def beside(self) -> Iterator[None]:
        """The stream of all that is prepared, for what is kept of it from clip to clip."""
        if self.stream is None:
            yield
            return
        with torch.cuda.stream(self.stream):
            yield

    def settle(self) -> None:
        """Until the device has done what this thread gave it, also of what is prepared."""
        if self.stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self.stream)
        wait_for(self._device)

    def hand_over(self, *parts: Any) -> None:
        """The caller's stream waits for what was prepared; its memory stays until that stream is done."""
        if self.stream is None:
            return
        here = torch.cuda.current_stream(self._device)
        here.wait_stream(self.stream)
        for leaf in flatten(parts)[0]:
            if isinstance(leaf, Tensor) and leaf.is_cuda:
                leaf.record_stream(here)

    @contextmanager
    def computing(self, plan: Hashable, latents: int) -> Iterator[Decoding]:
        """Around the launch of a clip's network, on the caller's stream; gives what waits for its pictures.

        plan: its clips are decoded alike. latents: how many the network sees.
        """
        decoding = Decoding(self._decoding_s.setdefault(plan, deque(maxlen=REMEMBERED)))
        if self.stream is None:
            yield decoding
            return
        start, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        here = torch.cuda.current_stream(self._device)
        start.record(here)
        yield decoding
        end.record(here)
        now = time.perf_counter()
        self._preparing_s.append(now - self._begun_s)
        self._clips = [*self._clips[-1:], Launched((plan, latents), start, end, now, decoding)]

    def wait(self) -> None:
        """Until there is just time to prepare a clip before the newest one is done and decoded.

        A clip of a form that was not measured before is waited for to its end.
        """
        if self.stream is None or not self._clips:
            wait_for(self._device)
            return
        *before, newest = self._clips
        started_s = newest.launched_s
        for last in before:
            if not last.end.query():
                last.end.synchronize()
                started_s = time.perf_counter()
            self._took_s[last.form] = last.start.elapsed_time(last.end) / 1000
        clip_s = self._took_s.get(newest.form)
        spare_s = newest.decoding.takes_s - lead(statistics.median(self._preparing_s), clip_s)
        if clip_s is not None and spare_s < 0:
            until_s = started_s + clip_s + spare_s
            while (left_s := until_s - time.perf_counter()) > 0 and not newest.end.query():
                time.sleep(min(NAP_S, left_s))
            return
        if clip_s is not None and newest.end.query():  # this comes late: the end was before now
            ended_s = started_s + clip_s
        else:
            newest.end.synchronize()
            ended_s = time.perf_counter()
        newest.decoding.is_over.wait(max(ended_s + spare_s - time.perf_counter(), 0))


def wait_for(device: torch.device) -> None:
    """Until a device has done what this thread gave it; a GPU's other streams go on."""
    if device.type == "cuda":
        done = torch.cuda.Event(blocking=True)
        done.record(torch.cuda.current_stream(device))
        done.synchronize()


def lead(preparing_s: float, clip_s: float | None) -> float:
    """Seconds before the GPU has nothing to do at which the next clip begins to be prepared.

    preparing_s: what the last ones took; their median, for one of them may have been compiled. clip_s: what
    the clip takes, None: not known.
    """
    wanted_s = SLACK * preparing_s + HAND_OVER_S
    return wanted_s if clip_s is None else min(wanted_s, MOST_LEAD * clip_s)
