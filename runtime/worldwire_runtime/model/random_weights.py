"""Random weights in the shapes of a network: speed and memory do not depend on what the numbers are."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor, nn

ONES = ("gamma", "norm_q.weight", "norm_k.weight", "_norm.weight", "norm3.weight", "mouse_mlp.3.weight")
"""How the names of gains end: networks start with them at one."""


def random_tensors(
    module: nn.Module, dtype: torch.dtype, generator: torch.Generator
) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors for a module on the meta device: activations keep their size from layer to layer.

    Made one by one, on the generator's device; the names are those that the module has now.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    return ((name, _random(name, shape, dtype, generator)) for name, shape in shapes.items())


def _random(name: str, shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    device = generator.device
    if name.endswith(ONES):
        return torch.ones(shape, dtype=dtype, device=device)
    if name.endswith("bias"):
        return torch.zeros(shape, dtype=dtype, device=device)
    inputs = prod(shape[1:]) if len(shape) > 1 else shape[0]
    return torch.empty(shape, dtype=dtype, device=device).normal_(std=inputs**-0.5, generator=generator)
