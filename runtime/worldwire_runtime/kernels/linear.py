"""A linear layer of 8-bit rows: its definition in exact arithmetic, and the fastest equal of it per device.

Weights [N, K] and inputs [M, K] are both `Rows`, and y = (values x values) * scale * scale + bias.
int8: integers are really multiplied, sums are int32. fp8: products of e4m3 numbers, sums in float32.

| device | int8 | fp8 |
|---|---|---|
| CUDA with Triton | `kernels.gemm`, bias and GELU inside | `torch._scaled_mm`, scales inside |
| CUDA without | `torch._int_mm` | the same |
| CPU with VNNI | `torch._int_mm` | float32 products of the 8-bit values |
| CPU without | float32 products, in slices whose sums are exact | the same |
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from worldwire_runtime.kernels import native
from worldwire_runtime.kernels.rows import Rows

MIN_CUBLAS_ROWS = 17
"""The library's int8 product on CUDA refuses fewer rows."""
EXACT_PRODUCTS = 2**24 // 128**2
"""Sums of so many products of int8 numbers are integers that float32 holds exactly."""
COPY_BYTES = 16
"""Hopper's copy engine takes rows that begin at multiples of this."""


def linear(x: Rows, weight: Rows, bias: Tensor | None, dtype: torch.dtype, *, gelu: bool = False) -> Tensor:
    """y [M, N] in `dtype` = x [M, K] times weight [N, K] transposed, plus bias [N]; then GELU (tanh form)."""
    if x.values.is_cuda and x.values.dtype == torch.int8 and native.AVAILABLE and fits(weight.values, dtype):
        return torch.ops.worldwire.linear_8bit(*x, *weight, bias, dtype, gelu)
    if x.values.is_cuda and x.values.dtype == torch.float8_e4m3fn:
        return _activated(_library_fp8(x, weight, bias), gelu).to(dtype)
    products = _integer_products(x, weight) if x.values.dtype == torch.int8 else _float_products(x, weight)
    y = products.float() * x.scale * weight.scale.t()
    return _activated(y if bias is None else y + bias.float(), gelu).to(dtype)


def exact_linear(x: Rows, weight: Rows, bias: Tensor | None, *, gelu: bool = False) -> Tensor:
    """The definition, slow: sums of integers in int64 (fp8: in float64), all else in float64."""
    wide = torch.int64 if x.values.dtype == torch.int8 else torch.float64
    left, right = (matrix.values.to(torch.float32).to(wide) for matrix in (x, weight))
    products = (left[:, None, :] * right[None, :, :]).sum(dim=-1)
    y = products.double() * x.scale.double() * weight.scale.double().t()
    return _activated(y if bias is None else y + bias.double(), gelu)


def fits(weight: Tensor, dtype: torch.dtype) -> bool:
    """Whether the Triton kernel can take these weights [N, K] and store results as `dtype`."""
    outputs, inputs = weight.shape
    return inputs % COPY_BYTES == 0 and outputs * dtype.itemsize % COPY_BYTES == 0


def _integer_products(x: Rows, weight: Rows) -> Tensor:
    """int32 [M, N]."""
    rows = x.values.shape[0]
    values = x.values
    if values.device.type == "cpu" and not torch.cpu._is_vnni_supported():
        return sliced_products(values, weight.values)
    if values.is_cuda and rows < MIN_CUBLAS_ROWS:
        values = F.pad(values, (0, 0, 0, MIN_CUBLAS_ROWS - rows))
    return torch._int_mm(values, weight.values.t())[:rows]


def sliced_products(x: Tensor, weight: Tensor) -> Tensor:
    """int32 [M, N] of int8 [M, K] and [N, K]: exact, and 20 times faster than a CPU's loop over integers."""
    slices = zip(x.split(EXACT_PRODUCTS, 1), weight.split(EXACT_PRODUCTS, 1), strict=True)
    first, *others = ((left.float() @ right.float().t()).to(torch.int32) for left, right in slices)
    return sum(others, first)


def _float_products(x: Rows, weight: Rows) -> Tensor:
    return x.values.float() @ weight.values.float().t()


def _library_fp8(x: Rows, weight: Rows, bias: Tensor | None) -> Tensor:
    """In bfloat16, the only output that the library offers for scales per row."""
    short = None if bias is None else bias.to(torch.bfloat16)
    return torch._scaled_mm(
        x.values,
        weight.values.t(),
        scale_a=x.scale,
        scale_b=weight.scale.t(),
        bias=short,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def _activated(y: Tensor, gelu: bool) -> Tensor:
    return F.gelu(y, approximate="tanh") if gelu else y
