"""What the Gluon kernels share: their roles for groups of warps, and names that change with Triton's version.

Two groups of four warps compute, half of a program's rows each; one warp copies ahead for both.
"""

from __future__ import annotations

from torch import Tensor
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

GROUPS = 2
GROUP_WARPS = gl.constexpr(4)
COMPUTING_REGISTERS, COPYING_REGISTERS = gl.constexpr(240), gl.constexpr(24)
REGISTERS_AT_START = 168
"""Of each of the 12 warps (the copying one is given a group, too): all that a multiprocessor has."""

# Copies by Hopper's engine: Triton 3.6 has only the older names, 3.9 only the newer ones.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global


def tiled(matrix: Tensor, block: list[int], dtype: gl.dtype) -> TensorDescriptor:
    """A matrix that is copied block by block."""
    return TensorDescriptor.from_tensor(matrix, block, gl.NVMMASharedLayout.get_default_for(block, dtype))
