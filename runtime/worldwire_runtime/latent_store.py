"""The latents of one session by row: on the device, or only the newest there and all in host memory."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Self

import torch
from torch import Tensor

_FIRST_ROWS = 64


class LatentStore:
    """Rows of equal shape that grow to `capacity`.

    resident: how many of the newest rows stay on the device; all are kept in host memory then (pinned beside
    a GPU), from where `take` fetches older ones without waiting for the device. None keeps every row on the
    device. One of 720p takes 0.34 MB in bfloat16: an hour in full is 4.9 GB, its newest 64 are 22 MB.
    """

    def __init__(
        self, capacity: int, device: torch.device, dtype: torch.dtype, resident: int | None = None
    ) -> None:
        self._capacity, self._device, self._dtype = capacity, device, dtype
        self._resident = resident
        self._rows = torch.empty(0)
        self._newest = torch.empty(0)
        self._copied: torch.cuda.Event | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def shape(self) -> torch.Size | None:
        """The shape of one row, None before the first."""
        return self._rows.shape[1:] if self._count else None

    def append(self, rows: Tensor) -> None:
        """Adds rows [n, ...] behind the others; there must be room for them."""
        self._reserve(self._count + len(rows), rows.shape[1:])
        places = slice(self._count, self._count + len(rows))
        self._count = places.stop
        if self._resident is None:
            self._rows[places] = rows.to(self._device, self._dtype)
            return
        here = rows.to(self._device, self._dtype)
        self._rows[places].copy_(here, non_blocking=True)
        if self._device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record()
        kept = here[-self._resident :]
        numbers = torch.arange(self._count - len(kept), self._count) % self._resident
        self._newest[self._there(numbers)] = kept

    def take(self, numbers: Sequence[int]) -> Tensor:
        """Rows [n, ...] on the device."""
        index = torch.tensor(numbers, dtype=torch.int64)
        if self._resident is None:
            return self._rows[self._there(index)]
        new = index >= self._count - self._resident
        if bool(new.all()):
            return self._newest[self._there(index % self._resident)]
        taken = torch.empty(len(index), *self._rows.shape[1:], dtype=self._dtype, device=self._device)
        taken[self._there(new.nonzero()[:, 0])] = self._newest[self._there(index[new] % self._resident)]
        taken[self._there((~new).nonzero()[:, 0])] = self._fetch(index[~new])
        return taken

    def keep(self, numbers: Sequence[int]) -> None:
        """Forgets all other rows; those that stay are renumbered in their order."""
        self._wait()
        self._rows[: len(numbers)] = self._rows[torch.tensor(numbers, device=self._rows.device)]
        self._count = len(numbers)
        if self._resident is not None:
            recent = range(max(0, self._count - self._resident), self._count)
            places = torch.tensor([number % self._resident for number in recent], device=self._device)
            self._newest[places] = self._rows[recent.start : recent.stop].to(self._device)

    def all(self) -> Tensor:
        """A copy of every row, on the host if older ones are there."""
        self._wait()
        return self._rows[: self._count].clone()

    def clone(self) -> Self:
        """An independent store with the same rows."""
        self._wait()
        twin = copy(self)
        twin._rows, twin._newest = self._rows.clone(), self._newest.clone()
        return twin

    # ------------------------------------------------------------------ parts of them

    def _there(self, index: Tensor) -> Tensor:
        """A few numbers on the device, without waiting for what it does."""
        return index.to(self._device, non_blocking=True)

    def _fetch(self, index: Tensor) -> Tensor:
        """Older rows from host memory; they were copied there long ago, so this waits for nothing new."""
        self._wait()
        fetched = self._rows[index]
        if self._device.type != "cuda":
            return fetched
        return fetched.pin_memory().to(self._device, non_blocking=True)

    def _wait(self) -> None:
        """Until the host has what was copied to it."""
        if self._copied is not None:
            self._copied.synchronize()

    def _reserve(self, rows: int, shape: torch.Size) -> None:
        """Makes room for `rows` rows, doubling, so that adding stays cheap."""
        if rows <= len(self._rows):
            return
        size = min(self._capacity, max(_FIRST_ROWS, 2 * len(self._rows), rows))
        on_host = self._resident is not None
        # A session may add within inference mode and again outside, which inference tensors would not allow.
        with torch.inference_mode(False):
            grown = torch.empty(
                size,
                *shape,
                dtype=self._dtype,
                device="cpu" if on_host else self._device,
                pin_memory=on_host and self._device.type == "cuda",
            )
            if self._resident is not None and not len(self._rows):
                self._newest = torch.empty(self._resident, *shape, dtype=self._dtype, device=self._device)
        if self._count:
            self._wait()
            grown[: self._count] = self._rows[: self._count]
        self._rows = grown
