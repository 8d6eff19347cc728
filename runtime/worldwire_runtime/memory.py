"""The long-term memory of one session: its latents, where each was seen from, and which to recall."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from copy import copy
from itertools import pairwise
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from worldwire.camera import Intrinsics
from worldwire.errors import ConfigError, StateError
from worldwire_runtime.ahead import Ahead
from worldwire_runtime.camera import frustum, released
from worldwire_runtime.camera.frustum import FAR_M, NEAR_M, overlap, paired_overlap, sample_frustum
from worldwire_runtime.latent_store import LatentStore

Selection = Literal["overlap", "official"]

CAPACITY = 4096  # latents: the last 17 minutes at 16 frames/s in full, and what is kept of the time before
POINTS = 256  # sample points per frustum
POINT_SEED = 0  # one fixed sample, so that equal sessions recall equally
RECENCY = 1e-3  # the newest of equal overlaps wins; less than one of the sample points counts
SPACING = 2  # latents: half a second at 16 frames/s; nearer ones show almost the same view
HELD = 0.1  # of overlap, by which another view must be better to take the slot of one that is held
RECENT = 64  # latents that thinning leaves alone, more than any past window holds
OFFICIAL_SINK = 1  # the latent that the official selection pins to the last slot
_FIRST_ROWS = 64


def select_memory(
    overlaps: Tensor, slots: int, indices: Sequence[int] | None = None, held: Collection[int] = ()
) -> list[int]:
    """Which candidates fill the memory slots: for each query in turn the best one not yet taken.

    Latents next to a chosen one show almost the same: they are taken only where nothing else overlaps, so
    that the slots hold different views. overlaps: [Q, K], candidates from old to new; the newest wins ties.
    indices: the candidates' latent indices (default 0 .. K-1). held: indices that are in slots already; they
    stay until something better by `HELD` comes, for what they offer need not be computed anew. Returns up to
    `slots` different columns; fewer where no other candidate overlaps with any query. Waits once for the
    device, for a few numbers per query.
    """
    count = overlaps.shape[1]
    if not (count and slots):
        return []
    newer = RECENCY / count * torch.arange(count, device=overlaps.device, dtype=torch.float64)
    place = range(count) if indices is None else indices
    if held:
        newer[_held_columns(held, place, count)] += HELD
    best = torch.where(overlaps > 0, overlaps + newer, -1.0).topk(_reach(slots, count), dim=1)
    scores, columns = torch.stack([best.values, best.indices.double()]).cpu().numpy()
    ranked = [
        [int(column) for column, score in zip(*row, strict=True) if score > 0]
        for row in zip(columns, scores, strict=True)
    ]
    return _take_turns(ranked, slots, place)


def _reach(slots: int, count: int) -> int:
    """How many of a query's best candidates matter: each chosen one rules out itself and its neighbours."""
    return min(count, (slots - 1) * (2 * SPACING + 1) + 1)


def _held_columns(held: Collection[int], place: Sequence[int], count: int) -> list[int]:
    """Of the latents `held` that are candidates; one that was thinned out is none."""
    columns = ((bisect_left(place, index), index) for index in held)
    return [column for column, index in columns if column < count and place[column] == index]


def _take_turns(ranked: Sequence[Sequence[int]], slots: int, place: Sequence[int]) -> list[int]:
    """The choice of `select_memory` among each query's best columns, best first; place: latent indices."""

    def is_apart(column: int) -> bool:
        return all(abs(place[column] - place[other]) > SPACING for other in chosen)

    chosen: list[int] = []
    while len(chosen) < slots and any(column not in chosen for row in ranked for column in row):
        for row in ranked:
            free = [column for column in row if column not in chosen]
            if len(chosen) < slots and free:
                chosen.append(next(filter(is_apart, free), free[0]))
    return chosen


class Memory:
    """Latents and camera poses of one session; a latent is named by its index in the session.

    Bounded: it holds `capacity` latents. When they are full, thinning drops a quarter of the capacity: of
    every second latent those whose view the latent before shows best, so that somebody who stands still or
    walks straight on loses least. The first latent and the newest `RECENT` always stay. `tiny` takes 23 kB
    per latent in bfloat16: 94 MB after any time of play, where an hour in full would take 330 MB.

    resident: how many of the newest latents stay on the device, all others in host memory (None: all stay);
    see `LatentStore`. choose_on: another device that compares cameras, for measuring what that costs. ahead:
    where cameras are compared while a network computes. Cameras are held twice: on the device, where they are
    compared, and on the host, where clips are told of them.

    selection: "overlap" recalls different latents by unbiased overlap (`select_memory`); "official" copies
    the released choice: biased samples, the oldest of the best, repeats allowed, latent 1 always last.
    """

    def __init__(
        self,
        intrinsics: Intrinsics,
        *,
        near_m: float = NEAR_M,
        far_m: float = FAR_M,
        points: int = POINTS,
        capacity: int = CAPACITY,
        selection: Selection = "overlap",
        resident: int | None = None,
        choose_on: torch.device | str | None = None,
        ahead: Ahead | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.bfloat16,
    ):
        if selection not in get_args(Selection):
            raise ConfigError(
                "unknown memory selection", expected=" or ".join(get_args(Selection)), got=repr(selection)
            )
        if capacity < 4 * RECENT:
            raise ConfigError(
                "the memory is too small", expected=f"at least {4 * RECENT} latents", got=str(capacity)
            )
        self._intrinsics, self._near_m, self._far_m = intrinsics, near_m, far_m
        self._capacity, self._selection = capacity, selection
        if resident is not None and resident < RECENT:
            raise ConfigError(
                "too few latents stay on the device", expected=f"at least {RECENT}", got=str(resident)
            )
        self._device, self._dtype, self._resident = torch.device(device), dtype, resident
        self._ahead = ahead or Ahead(self._device, False)
        generator = torch.Generator().manual_seed(POINT_SEED)
        self._choose_on = torch.device(choose_on) if choose_on is not None else self._device
        self._points = sample_frustum(intrinsics, near_m, far_m, points, generator).to(self._choose_on)
        self._indices: list[int] = []  # of the rows in use, increasing
        self._latents = self._new_store()
        self._c2w = torch.empty(0, 4, 4)
        self._host_c2w = torch.empty(0, 4, 4)
        self.generation = 0
        """Changes whenever latents have gone: what was held before may be held no more."""

    def __len__(self) -> int:
        """How many latents are held; see `next_index` for how many there have been."""
        return len(self._indices)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and self._find(index) is not None

    @property
    def next_index(self) -> int:
        """The index of the next latent: as many as the session has had, thinned ones included."""
        return self._indices[-1] + 1 if self._indices else 0

    def add(self, latents: Tensor, c2w: Tensor, indices: Sequence[int] | None = None) -> None:
        """Appends latents [n, C, h, w] with cameras [n, 4, 4] (metres), numbered on unless `indices` says.

        Raises StateError when shapes do not fit each other or earlier latents, or indices do not increase.
        """
        numbers = range(self.next_index, self.next_index + len(latents)) if indices is None else indices
        self._check(latents, c2w, numbers)
        for start in range(0, len(latents), RECENT):
            part = slice(start, start + RECENT)
            self._append(latents[part], c2w[part], numbers[part])

    def select(self, query_c2w: Tensor, slots: int, before: int, held: Collection[int] = ()) -> list[int]:
        """Up to `slots` latents with an index below `before` that show best what the cameras [Q, 4, 4] see.

        The most important query comes first. Nothing that overlaps, nothing recalled: fewer slots are filled.
        held: latents that stay unless others are clearly better (see `select_memory`).
        """
        count = bisect_left(self._indices, before)
        if not (count and slots and len(query_c2w)):
            return []
        with self._ahead.beside():
            return self._select(query_c2w, count, slots, held)

    def newest(self, count: int) -> list[int]:
        """Indices of the newest latents, at most `count`, oldest of them first."""
        return self._indices[max(0, len(self) - count) :]

    def latents(self, indices: Iterable[int]) -> Tensor:
        """Latents [n, C, h, w] by their indices; StateError for one that is not held."""
        return self._latents.take(self._rows(indices))

    def c2w(self, indices: Iterable[int]) -> Tensor:
        """Cameras [n, 4, 4], float64 on the host, by indices of latents; StateError for one not held."""
        return self._host_c2w[torch.tensor(self._rows(indices), dtype=torch.int64)]

    def state(self) -> dict[str, Tensor]:
        """Everything held, as tensors that share no storage with the memory."""
        return {
            "latents": self._latents.all(),
            "c2w": self.c2w(self._indices),
            "indices": torch.tensor(self._indices, dtype=torch.int64),
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Replaces everything held by what `state()` of such a memory gave; StateError for anything else."""
        expected = {"latents", "c2w", "indices"}
        if state.keys() != expected:
            raise StateError("this is no memory", expected=str(sorted(expected)), got=str(sorted(state)))
        numbers = [int(number) for number in state["indices"].tolist()]
        if len(numbers) > self._capacity:
            raise StateError(
                "the saved memory is larger", expected=f"at most {self._capacity}", got=str(len(numbers))
            )
        self._indices, self._latents = [], self._new_store()
        self.generation += 1
        self._c2w, self._host_c2w = torch.empty(0, 4, 4), torch.empty(0, 4, 4)
        if numbers:
            self.add(state["latents"], state["c2w"], numbers)

    def copy(self) -> Self:
        """An independent memory with the same content."""
        twin = copy(self)
        twin._indices = list(self._indices)
        twin._latents = self._latents.clone()
        with self._ahead.beside():
            twin._c2w = self._c2w.clone()
        twin._host_c2w = self._host_c2w.clone()
        return twin

    # ------------------------------------------------------------------ parts of them

    def _select(self, query_c2w: Tensor, count: int, slots: int, held: Collection[int]) -> list[int]:
        """Among the oldest `count` latents."""
        candidates = self._c2w[:count].to(self._choose_on)
        if self._selection == "overlap" and frustum.has_kernel(candidates):
            rows = self._select_by_kernel(query_c2w, candidates, slots, held)
            return [self._indices[row] for row in rows]
        queries = query_c2w.to(self._choose_on)
        if self._selection == "official":
            return self._select_official(queries, candidates, slots)
        shares = overlap(queries, candidates, self._points, self._intrinsics, self._near_m, self._far_m)
        return [self._indices[row] for row in select_memory(shares, slots, self._indices[:count], held)]

    def _select_by_kernel(
        self, queries: Tensor, candidates: Tensor, slots: int, held: Collection[int]
    ) -> list[int]:
        """`select_memory` of `overlap`, in two launches: this stands before each clip."""
        from worldwire_runtime.kernels.frustum import best_columns

        count = len(candidates)
        ranked = best_columns(
            queries,
            candidates,
            self._points,
            frustum.image_scales(self._intrinsics),
            self._near_m,
            self._far_m,
            reach=_reach(slots, count),
            newest=RECENCY,
            held=_held_columns(held, self._indices, count),
            bonus=HELD,
        )
        return _take_turns(ranked, slots, self._indices)

    def _select_official(self, queries: Tensor, candidates: Tensor, slots: int) -> list[int]:
        """The released choice with one camera per latent; slot j belongs to query j, over and over."""
        first = bisect_left(self._indices, OFFICIAL_SINK)
        if first == len(candidates):
            return []
        shares = released.biased_overlap(queries, candidates[first:], self._intrinsics)
        best = [self._indices[first + row] for row in released.oldest_best(shares)]
        return [*(best[slot % len(best)] for slot in range(slots - 1)), self._indices[first]]

    def _check(self, latents: Tensor, c2w: Tensor, numbers: Sequence[int]) -> None:
        count = len(latents)
        shape = self._latents.shape or latents.shape[1:]
        if latents.ndim != 4 or latents.shape[1:] != shape or c2w.shape != (count, 4, 4):
            raise StateError(
                "latents or cameras do not fit the memory",
                expected=f"latents [n, {', '.join(map(str, shape))}] and cameras [n, 4, 4]",
                got=f"{list(latents.shape)} and {list(c2w.shape)}",
            )
        order = [self.next_index - 1, *numbers]
        if len(numbers) != count or any(later <= earlier for earlier, later in pairwise(order)):
            raise StateError(
                "latents must be added in order",
                expected=f"{count} increasing indices from {self.next_index} on",
                got=str(list(numbers)),
            )

    def _append(self, latents: Tensor, c2w: Tensor, numbers: Sequence[int]) -> None:
        if len(self) + len(latents) > self._capacity:
            self._thin()
        rows = slice(len(self), len(self) + len(latents))
        self._latents.append(latents)
        with self._ahead.beside():
            self._reserve(rows.stop)
            self._c2w[rows] = c2w.to(self._device, torch.float64)
        self._host_c2w[rows] = c2w.to("cpu", torch.float64)
        self._indices.extend(int(number) for number in numbers)

    def _new_store(self) -> LatentStore:
        return LatentStore(self._capacity, self._device, self._dtype, self._resident)

    def _reserve(self, rows: int) -> None:
        """Makes room for `rows` cameras, doubling, so that adding stays cheap."""
        if rows <= len(self._c2w):
            return
        size = min(self._capacity, max(_FIRST_ROWS, 2 * len(self._c2w), rows))
        # A session may add within inference mode and again outside, which inference tensors would not allow.
        with torch.inference_mode(False):
            c2w = torch.empty(size, 4, 4, device=self._device, dtype=torch.float64)
            host_c2w = torch.empty(size, 4, 4, dtype=torch.float64)
        c2w[: len(self)] = self._c2w[: len(self)]
        host_c2w[: len(self)] = self._host_c2w[: len(self)]
        self._c2w, self._host_c2w = c2w, host_c2w

    def _thin(self) -> None:
        """Drops a quarter of the capacity: see the class."""
        with self._ahead.beside():
            rows = torch.arange(1, len(self) - RECENT, 2, device=self._device)
            points = self._points.to(self._device)
            shown = paired_overlap(
                self._c2w[rows], self._c2w[rows - 1], points, self._intrinsics, self._near_m, self._far_m
            )
            order = shown.sort(descending=True, stable=True).indices[: self._capacity // 4]
            dropped = set(rows[order].tolist())
            kept = [row for row in range(len(self)) if row not in dropped]
            self._c2w[: len(kept)] = self._c2w[kept]
        self._host_c2w[: len(kept)] = self._host_c2w[kept]
        self.generation += 1
        self._latents.keep(kept)
        self._indices = [self._indices[row] for row in kept]

    def _find(self, index: int) -> int | None:
        row = bisect_left(self._indices, index)
        return row if row < len(self) and self._indices[row] == index else None

    def _rows(self, indices: Iterable[int]) -> list[int]:
        wanted = list(indices)
        rows = [row for row in map(self._find, wanted) if row is not None]
        if len(rows) != len(wanted):
            missing = [index for index in wanted if index not in self]
            raise StateError(
                "latents are not in the memory", expected="indices that it holds", got=str(missing)
            )
        return rows
