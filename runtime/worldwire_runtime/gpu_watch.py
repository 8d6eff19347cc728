"""Clock and power of a GPU while something runs, by the driver's own `nvidia-smi`.

A chip that is hot or at its limit of power slows down: figures of two runs are alike only if these are.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TOOL: Final = "nvidia-smi"
EVERY_MS: Final = 200
QUERIES: Final = {"clock_mhz": "clocks.sm", "power_w": "power.draw", "power_limit_w": "enforced.power.limit"}


@contextmanager
def watched(gpu: int | None) -> Iterator[dict[str, float]]:
    """Means over what happens inside, filled in at its end: clock_mhz, power_w, power_limit_w.

    gpu: the number that CUDA gives it. Empty without a GPU (None), without the tool, and for what it does
    not tell.
    """
    means: dict[str, float] = {}
    if gpu is None or shutil.which(TOOL) is None:
        yield means
        return
    command = [TOOL, "-i", _as_the_driver_counts(gpu), f"--query-gpu={','.join(QUERIES.values())}"]
    process = subprocess.Popen(
        [*command, "--format=csv,noheader,nounits", "-lms", str(EVERY_MS)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield means
    finally:
        process.terminate()
        means |= means_of(process.communicate()[0])


def means_of(lines: str) -> dict[str, float]:
    """Of what the tool printed; a value that is no number ("[N/A]") is left out."""
    rows = [line.split(",") for line in lines.splitlines()]
    values = {
        name: [float(row[place]) for row in rows if len(row) == len(QUERIES) and _is_number(row[place])]
        for place, name in enumerate(QUERIES)
    }
    return {name: round(statistics.fmean(each), 1) for name, each in values.items() if each}


def _is_number(word: str) -> bool:
    return word.strip().replace(".", "", 1).isdigit()


def _as_the_driver_counts(gpu: int) -> str:
    """The driver counts all GPUs, CUDA those that it may see."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return visible[gpu] if gpu < len(visible) and visible[gpu] else str(gpu)
