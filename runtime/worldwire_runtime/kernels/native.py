"""Whether the Triton kernels run on this machine, and making their operators known to torch.

Kept apart from their callers: torch.compile traces through those, and imports have no place in a traced call.
"""

from __future__ import annotations

import importlib.util

import torch

AVAILABLE = importlib.util.find_spec("triton") is not None and torch.cuda.is_available()


def register() -> None:
    """Imports the kernels where they can run, so that `torch.ops.worldwire` holds them."""
    if AVAILABLE:
        from worldwire_runtime.kernels import flash, gemm, prologue, short, turned  # noqa: F401
