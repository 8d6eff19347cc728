"""Triton: layer norm, modulation and quantisation of a token in one pass over memory.

What torch.compile makes of `reference` is its rival; this is for eager calls and where that is slower.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from worldwire_runtime.kernels.rows import FORMATS, INT8, MIN_SCALE, Rows, quantise_rows

ROUND = tl.constexpr(12582912.0)
"""1.5 * 2^23: adding and subtracting it rounds a float32 below 2^22 to the nearest, ties to even."""
WIDE_ROW = 4096
"""Rows of at least so many columns are worked on by eight warps instead of four."""
TRITON_TYPES = {torch.int8: tl.int8, torch.float8_e4m3fn: tl.float8e4nv}


def reference(x: Tensor, shift: Tensor, scale: Tensor, eps: float, gain: Tensor | None, kind: str) -> Rows:
    """The definition: rows of (layer_norm(x) * (1 + scale) + shift) * gain, in 8 bits.

    x [M, d] in any float type; shift and scale [L, d] float32, M / L consecutive tokens share a row of them.
    """
    tokens = x.shape[0] // shift.shape[0]
    shift, scale = (part.repeat_interleave(tokens, dim=0) for part in (shift, scale))
    y = F.layer_norm(x.float(), x.shape[-1:], eps=eps) * (1 + scale) + shift
    return quantise_rows(y if gain is None else y * gain, FORMATS[kind])


@triton.jit
def prologue_kernel(
    x,
    shift,
    scale,
    gain,
    values,
    row_scale,
    width,
    tokens,
    modulation_stride,
    eps,
    BLOCK: tl.constexpr,
    HAS_GAIN: tl.constexpr,
    INTEGER: tl.constexpr,
    LARGEST: tl.constexpr,
    LEAST: tl.constexpr,
    OUT: tl.constexpr,
):
    """One token per program."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    v = tl.load(x + row * width + columns, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(v, axis=0) / width
    centred = tl.where(inside, v - mean, 0.0)
    variance = tl.sum(centred * centred, axis=0) / width
    modulation = (row // tokens) * modulation_stride + columns
    m = tl.load(scale + modulation, mask=inside, other=0.0)
    b = tl.load(shift + modulation, mask=inside, other=0.0)
    y = centred * tl.rsqrt(variance + eps) * (1.0 + m) + b
    if HAS_GAIN:
        y = y * tl.load(gain + columns, mask=inside, other=0.0)
    s = tl.maximum(tl.max(tl.abs(y), axis=0) / LARGEST, LEAST)
    q = y / s
    if INTEGER:
        q = (q + ROUND) - ROUND
    tl.store(values + row * width + columns, q.to(OUT), mask=inside)
    tl.store(row_scale + row, s)


@torch.library.custom_op("worldwire::norm_modulate_quantise", mutates_args=())
def norm_modulate_quantise(
    x: Tensor, shift: Tensor, scale: Tensor, eps: float, gain: Tensor | None, kind: str
) -> tuple[Tensor, Tensor]:
    """`reference` by the kernel: values [M, d], scales [M, 1]. shift and scale may be rows of one tensor."""
    x = x.contiguous()
    rows, width = x.shape
    if shift.stride() != scale.stride() or shift.stride(1) != 1:
        shift, scale = shift.contiguous(), scale.contiguous()
    made = FORMATS[kind]
    values, row_scale = torch.empty_like(x, dtype=made.dtype), x.new_empty(rows, 1, dtype=torch.float32)
    prologue_kernel[(rows,)](
        x,
        shift,
        scale,
        gain,
        values,
        row_scale,
        width,
        rows // shift.shape[0],
        shift.stride(0),
        eps,
        BLOCK=triton.next_power_of_2(width),
        HAS_GAIN=gain is not None,
        INTEGER=made is INT8,
        LARGEST=made.largest,
        LEAST=MIN_SCALE,
        OUT=TRITON_TYPES[made.dtype],
        num_warps=8 if width >= WIDE_ROW else 4,
    )
    return values, row_scale


@norm_modulate_quantise.register_fake
def _(
    x: Tensor, shift: Tensor, scale: Tensor, eps: float, gain: Tensor | None, kind: str
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(x, dtype=FORMATS[kind].dtype, memory_format=torch.contiguous_format),
        x.new_empty(x.shape[0], 1, dtype=torch.float32),
    )
