"""How much memory this process has used at most."""

from __future__ import annotations

import sys

import psutil

GIB = 2**30


def peak_memory_gib() -> float:
    """Peak GPU memory over all devices if a GPU is in use, else the peak resident memory of the process."""
    # Not imported here: before a world is loaded no GPU is in use. Another thread may be importing it now.
    torch = sys.modules.get("torch")
    is_initialized = getattr(getattr(torch, "cuda", None), "is_initialized", None)
    if torch is not None and is_initialized is not None and is_initialized():
        peaks = (torch.cuda.max_memory_reserved(device) for device in range(torch.cuda.device_count()))
        return float(sum(peaks)) / GIB
    return _peak_resident_bytes() / GIB


def _peak_resident_bytes() -> int:
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
