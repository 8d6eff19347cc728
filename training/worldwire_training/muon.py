"""Muon: momentum whose matrix is replaced by the nearest orthogonal one (K. Jordan, 2024), for weights with
two or more dimensions; each weight counts as a matrix [outputs, everything else].

Measured here on the tiny VAE (500 steps on a CPU, equal batches): 3 dB above AdamW.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic whose iteration pushes every singular value to about 1."""
NEWTON_SCHULZ_STEPS = 5
ADAM_LIKE_SCALE = 0.2
"""Times sqrt(larger side): updates then have the root mean square of typical Adam updates of that rate."""

MOST_AT_ONCE = 2**28
"""Elements of the weights that move at a time: 5 GiB of what comes and goes. With all of a 5B network at once
it would be more than its activations."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. Weights of equal matrix shape are orthogonalised in one batch."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; a closure is not supported."""
        if closure is not None:
            raise ValueError("Muon takes no closure: call backward() first")
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._update(parameters, group["lr"], group["momentum"])

    def _update(self, parameters: list[nn.Parameter], rate: float, momentum: float) -> None:
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for parameter in parameters:
            by_shape[matrix_shape(parameter)].append(parameter)
        for (rows, columns), alike in by_shape.items():
            count = max(1, MOST_AT_ONCE // (rows * columns))
            for first in range(0, len(alike), count):
                self._move(alike[first : first + count], rate, momentum)

    def _move(self, parameters: list[nn.Parameter], rate: float, momentum: float) -> None:
        """One update of weights of equal matrix shape."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        averages = [self.state[p].setdefault("momentum", torch.zeros_like(p)) for p in parameters]
        torch._foreach_mul_(averages, momentum)
        torch._foreach_add_(averages, gradients)
        ahead = torch._foreach_add(gradients, averages, alpha=momentum)
        shape = matrix_shape(parameters[0])
        directions = orthogonalise(torch.stack([matrix.reshape(shape) for matrix in ahead]))
        shaped = [d.reshape(p.shape) for d, p in zip(directions.unbind(0), parameters, strict=True)]
        torch._foreach_add_([*parameters], shaped, alpha=-rate * ADAM_LIKE_SCALE * max(shape) ** 0.5)


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearly orthogonal matrices nearest to [n, rows, columns], by Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[1] <= matrices.shape[2]
    x = matrices if wide else matrices.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if x.is_cuda:
        x = x.bfloat16()
    for _ in range(NEWTON_SCHULZ_STEPS):  # x becomes a x + (b g + c g g) x with g = x x^T
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


def matrix_shape(parameter: Tensor) -> tuple[int, int]:
    """[outputs, everything else]."""
    return parameter.shape[0], parameter.numel() // parameter.shape[0]


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon applies: not to biases and gains, whatever trailing dimensions of 1 they carry."""
    return parameter.dim() > 1 and min(matrix_shape(parameter)) > 1
