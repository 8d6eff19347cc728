"""Triton: layer norm, modulation and quantisation of a token in one pass over memory.

What torch.compile makes of `reference` is its rival: it fills rows up to a power of two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from worldwire_runtime.kernels.rows import FORMATS, INT8, MIN_SCALE, Rows, quantise_rows
from worldwire_runtime.kernels.tuning import two_tiles

ROUND = tl.constexpr(12582912.0)
"""1.5 * 2^23: adding and subtracting it rounds a float32 below 2^22 to the nearest, ties to even."""
RUN = tl.constexpr(4)
"""Neighbours that a thread takes: 16 bytes of float32. Triton would take as many of the 8-bit results."""
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
def _both(a, b, MAXIMUM: tl.constexpr, FIRST: tl.constexpr, REST: tl.constexpr):
    """Sum or maximum of both tiles: each thread's own numbers first, so that one exchange serves both."""
    if REST:
        parts = tl.reshape(a, (FIRST // REST, REST))
        a = tl.maximum(tl.max(parts, axis=0), b) if MAXIMUM else tl.sum(parts, axis=0) + b
    return tl.max(a, axis=0) if MAXIMUM else tl.sum(a, axis=0)


@triton.jit
def _modulated(normed, shift, scale, gain, columns, inside, HAS_GAIN: tl.constexpr):
    """0 outside."""
    m = tl.load(scale + columns, mask=inside, other=0.0)
    y = normed * (1.0 + m) + tl.load(shift + columns, mask=inside, other=0.0)
    if HAS_GAIN:
        y = y * tl.load(gain + columns, mask=inside, other=0.0)
    return y


@triton.jit
def _rounded(y, s, INTEGER: tl.constexpr, OUT: tl.constexpr):
    q = y / s
    if INTEGER:
        q = (q + ROUND) - ROUND
    return q.to(OUT)


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
    FIRST: tl.constexpr,
    REST: tl.constexpr,
    HAS_GAIN: tl.constexpr,
    INTEGER: tl.constexpr,
    LARGEST: tl.constexpr,
    LEAST: tl.constexpr,
    OUT: tl.constexpr,
):
    """One token per program, in two tiles: 3,072 columns are 2,048 and 1,024, not 4,096."""
    program = tl.program_id(0)
    row, at = program.to(tl.int64), (program // tokens).to(tl.int64) * modulation_stride
    x, values = x + row * width, values + row * width
    shift, scale = shift + at, scale + at
    first = tl.max_contiguous(tl.arange(0, FIRST), RUN)
    whole = first < FIRST
    a = tl.load(x + first).to(tl.float32)
    b = a
    if REST:
        rest = tl.max_contiguous(FIRST + tl.arange(0, REST), RUN)
        inside = rest < width
        b = tl.load(x + rest, mask=inside, other=0.0).to(tl.float32)
    mean = _both(a, b, False, FIRST, REST) / width
    a = a - mean
    if REST:
        b = tl.where(inside, b - mean, 0.0)
    factor = tl.rsqrt(_both(a * a, b * b, False, FIRST, REST) / width + eps)
    a = _modulated(a * factor, shift, scale, gain, first, whole, HAS_GAIN)
    if REST:
        b = _modulated(b * factor, shift, scale, gain, rest, inside, HAS_GAIN)
    s = tl.maximum(_both(tl.abs(a), tl.abs(b), True, FIRST, REST) / LARGEST, LEAST)
    tl.store(values + first, _rounded(a, s, INTEGER, OUT))
    if REST:
        tl.store(values + rest, _rounded(b, s, INTEGER, OUT), mask=inside)
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
    first, rest = two_tiles(width)
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
        FIRST=first,
        REST=rest,
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
