"""A decoding lane on a CPU: a real thread, with streams and events that only stand for a GPU's."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import torch
from torch import Tensor

from worldwire_runtime.decoder import Lane


class FakeStream:
    """Notes what was waited for, in the thread that did."""

    device = torch.device("cpu")

    def __init__(self, *_, priority=0):
        self.priority, self.waited = priority, []

    def wait_event(self, event):
        self.waited.append((event.number, threading.current_thread().name))


class FakeEvent:
    made = 0

    def record(self, _stream):
        FakeEvent.made += 1
        self.number = FakeEvent.made


def fake_lane(monkeypatch) -> Lane:
    """A lane whose `stream.waited` says which events were waited for, and in which thread."""

    @contextmanager
    def stream(_):
        yield

    for name, fake in {
        "Stream": FakeStream,
        "Event": FakeEvent,
        "stream": stream,
        "current_stream": lambda _: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)
    FakeEvent.made = 0
    return Lane(torch.device("cuda"))
