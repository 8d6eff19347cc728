"""Tile sizes by measurement: each candidate is timed once per GPU and problem, the best is kept on disk.

Triton's own autotuner measures again in every process and must not run while a CUDA graph is captured. Here a
problem that was never measured runs with the first candidate during a capture, and is measured at the first
call outside of one: run each shape once before capturing it.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

log = logging.getLogger(__name__)

CACHE_VARIABLE = "WORLDWIRE_CACHE"
FILE = "kernel_tiles.json"
REVISION = 3
"""Of the kernels and of how they are timed: what an older one measured is not used."""
WARM_UP_RUNS, TIMED_RUNS = 1, 7
CYCLES_TO_ISSUE = 400_000
"""For so long the GPU waits per timed run: 0.2 ms, more than a launch from Python takes."""


@dataclass(frozen=True)
class Tiles:
    """How a kernel is cut: tile rows and columns, depth of one step, warps, pipelined steps.

    persistent: one program per multiprocessor works through many tiles. apart: sums of a step are kept apart
    before they join the others. specialised: groups of warps have different roles.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    persistent: bool = False
    apart: bool = False
    specialised: bool = False


def two_tiles(length: int) -> tuple[int, int]:
    """Powers of two that cover a row: the largest that fits, and one that may reach over the end, or 0.

    Filled up to one power of two, a quarter of 3,072 columns would be nothing.
    """
    first = 1 << (length.bit_length() - 1)
    return first, 1 << (length - first - 1).bit_length() if length > first else 0


class Tuner:
    """The best tiles by problem, for one GPU and version of Triton.

    A problem's key is plain text. path None: nothing is read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: dict[str, Tiles] = {}
        if path is not None and path.is_file():
            self._known = _read(path)

    def best(self, key: str, candidates: Sequence[Tiles], run: Callable[[Tiles], object]) -> Tiles:
        """The tiles to run `key` with. run: the kernel with some tiles; called only to measure."""
        if key in self._known:
            return self._known[key]
        if len(candidates) == 1 or not _may_measure():
            return candidates[0]
        times_ms = {tiles: _time_ms(run, tiles) for tiles in candidates}
        best = min(times_ms, key=lambda tiles: times_ms[tiles])
        log.debug("%s, ms: %s", key, {str(tiles): round(ms, 4) for tiles, ms in times_ms.items()})
        if times_ms[best] == float("inf"):  # the caller hears why; another version may run some
            return best
        self._known[key] = best
        self._write()
        return best

    def _write(self) -> None:
        """The whole table, complete or not at all; a read-only disk only costs measuring again."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial = self._path.with_suffix(f".{os.getpid()}")
            known = (_read(self._path) if self._path.is_file() else {}) | self._known  # others write it, too
            partial.write_text(json.dumps({key: asdict(tiles) for key, tiles in known.items()}, indent=1))
            partial.replace(self._path)
        except OSError as error:
            log.warning("kernel tiles cannot be kept in %s: %s", self._path, error)


@cache
def tuner() -> Tuner:
    """The one of this process, with the table in the cache folder."""
    return Tuner(cache_folder() / FILE)


def cache_folder() -> Path:
    """Where compiled and measured things are kept between runs: `$WORLDWIRE_CACHE`, or the user's cache."""
    named = os.environ.get(CACHE_VARIABLE)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "worldwire"


def gpu_name(device: torch.device) -> str:
    """What measured tiles are valid for: the GPU, Triton's version and ours."""
    import triton

    return f"{torch.cuda.get_device_name(device)}, triton {triton.__version__}, revision {REVISION}"


def _may_measure() -> bool:
    return torch.cuda.is_available() and not torch.cuda.is_current_stream_capturing()


def _time_ms(run: Callable[[Tiles], object], tiles: Tiles) -> float:
    """Median milliseconds; infinity for tiles that this GPU refuses (too much shared memory, say)."""
    try:
        for _ in range(WARM_UP_RUNS):
            run(tiles)
        return statistics.median(launched_ms(lambda: run(tiles), TIMED_RUNS))
    except _refusals() as error:
        log.debug("%s cannot run here: %s", tiles, error)
        return float("inf")


def launched_ms(run: Callable[[], object], times: int) -> list[float]:
    """Device milliseconds of each of some runs, as a graph's replay would see them.

    Issuing a launch takes longer than a small kernel: all are queued while the GPU is kept busy, or the gaps
    between two launches would be timed instead. Before each one the L2 cache is overwritten, as the layers
    between two calls of a layer do.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    cache_bytes = torch.cuda.get_device_properties(device).L2_cache_size
    other_data = torch.empty(2 * cache_bytes, dtype=torch.uint8, device=device)
    spans = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(times)]
    torch.cuda._sleep(times * CYCLES_TO_ISSUE)
    for begin, end in spans:
        other_data.zero_()
        begin.record()
        run()
        end.record()
    spans[-1][1].synchronize()
    return [begin.elapsed_time(end) for begin, end in spans]


def _refusals() -> tuple[type[Exception], ...]:
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources, PTXASError

    return OutOfResources, CompilationError, PTXASError


def _read(path: Path) -> dict[str, Tiles]:
    """What an earlier run measured; a file that is no such table counts as empty."""
    try:
        stored: Mapping[str, Any] = json.loads(path.read_text())
        return {key: Tiles(**tiles) for key, tiles in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("%s is ignored: %s", path, error)
        return {}
