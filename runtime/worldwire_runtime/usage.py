"""How much memory this process has used at most."""

from __future__ import annotations

import resource
import sys

import torch

GIB = 2**30


def peak_memory_gib() -> float:
    """Peak GPU memory over all devices if a GPU is in use, else the peak resident memory of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        peaks = (torch.cuda.max_memory_reserved(device) for device in range(torch.cuda.device_count()))
        return sum(peaks) / GIB
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB
