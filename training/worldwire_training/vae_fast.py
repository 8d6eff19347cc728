"""Faster training of the video VAE, wrapped around the model from outside; the arithmetic is the same.

Two things are slow when autograd runs the model's own formulas step by step. The causal convolution slices
its input once per time tap, and every slice's gradient becomes a zero-padded tensor of its own: here one
autograd function adds all taps in place. The norm is a dozen passes over memory: here it is compiled, once
per channel count, as a function of rows.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worldwire_runtime.model.vae import NORM_EPSILON, VAE, CausalConv3d, ChannelNorm
from worldwire_training.common import COMPILE_OPTIONS

RECOMPILE_LIMIT = 64
"""Channel counts times data types that the compiled norm may be specialised for."""


def speed_up(vae: VAE, compile_norms: bool) -> None:
    """Give the VAE's layers the fast forms. Its parameters, names and results stay as they are."""
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    for module in vae.modules():
        if isinstance(module, CausalConv3d) and module.kernel_size[0] > 1:
            module.convolve = partial(_convolve, module)  # type: ignore[method-assign]
        elif isinstance(module, ChannelNorm) and compile_norms:
            module.forward = partial(_norm, module)  # type: ignore[method-assign]


def _convolve(conv: CausalConv3d, x: Tensor, length: int, batch: int) -> Tensor:
    assert conv.bias is not None
    weight, bias = conv.weight, conv.bias
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    return TapSum.apply(x, weight, bias, length, batch)


class TapSum(torch.autograd.Function):
    """`CausalConv3d.convolve` with every tap added in place, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, length: int, batch: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.length, ctx.batch = length, batch
        padding = (weight.shape[3] // 2, weight.shape[4] // 2)
        out = F.conv2d(x[-length:], weight[:, :, -1], bias, padding=padding)
        for tap, source, target in _lagging(weight, x.shape[0], length, batch):
            out[target] += F.conv2d(x[source], weight[:, :, tap], None, padding=padding)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        newest = slice(x.shape[0] - ctx.length, None)
        grad_x, grad_weight = torch.zeros_like(x), torch.zeros_like(weight)
        grad_x[newest], grad_weight[:, :, -1], grad_bias = _conv2d_grads(
            grad, x[newest], weight[:, :, -1], with_bias=True
        )
        for tap, source, target in _lagging(weight, x.shape[0], ctx.length, ctx.batch):
            part, grad_weight[:, :, tap], _ = _conv2d_grads(
                grad[target], x[source], weight[:, :, tap], with_bias=False
            )
            grad_x[source] += part
        return grad_x, grad_weight, grad_bias, None, None


def _lagging(weight: Tensor, seen: int, length: int, batch: int) -> list[tuple[int, slice, slice]]:
    """(tap, frames that it reads, outputs that it adds to) of every tap but the newest that meets a frame."""
    taps, parts = weight.shape[2], []
    for lag in range(1, taps):
        start = seen - length - lag * batch
        missing = max(0, -start)
        if missing < length:
            parts.append((taps - 1 - lag, slice(start + missing, start + length), slice(missing, length)))
    return parts


def _conv2d_grads(
    grad: Tensor, x: Tensor, weight: Tensor, *, with_bias: bool
) -> tuple[Tensor, Tensor, Tensor]:
    padding = [weight.shape[2] // 2, weight.shape[3] // 2]
    wanted = [True, True, with_bias]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], [1, 1], padding, [1, 1], False, [0, 0], 1, wanted
    )


def _norm(norm: ChannelNorm, x: Tensor) -> Tensor:
    """The compiled norm on rows [N * H * W, C], which are a view of channels-last frames."""
    rows, gamma = x.movedim(1, -1).reshape(-1, x.shape[1]), norm.gamma.view(-1)
    torch._dynamo.mark_dynamic(rows, 0)
    torch._dynamo.mark_static(rows, 1)
    torch._dynamo.mark_static(gamma, 0)
    out = _compiled_norm_rows(rows, gamma, norm.silu)
    return out.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


def norm_rows(x: Tensor, gamma: Tensor, silu: bool) -> Tensor:
    """`ChannelNorm` on rows [M, C]."""
    scale = torch.rsqrt(x.float().square().mean(dim=1, keepdim=True) + NORM_EPSILON)
    x = x * scale.to(x.dtype) * gamma.to(x.dtype)
    return F.silu(x) if silu else x


_compiled_norm_rows = torch.compile(norm_rows, options=COMPILE_OPTIONS)
