"""The compiled forms give what the plain functions give, and compile only for shapes that repeat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldwire_runtime.acceleration import WARM_CALLS, SteadyCompiled


@dataclass(frozen=True)
class Pair:
    left: Tensor
    right: Tensor


def add(pair: Pair, scale: float) -> Tensor:
    return (pair.left + pair.right) * scale


def test_compiles_only_for_shapes_that_repeat(monkeypatch):
    compiled_for = []

    def fake_compile(function, **_):
        def compiled(*args):
            compiled_for.append(args[0].left.shape)
            return function(*args)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    steady = SteadyCompiled(add)
    for size in (1, 2, 3, 3):
        pair = Pair(torch.ones(size), torch.ones(size))
        assert torch.equal(steady(pair, 2.0), add(pair, 2.0))
    assert not compiled_for
    for _ in range(WARM_CALLS):
        steady(Pair(torch.ones(3), torch.ones(3)), 2.0)
    steady(Pair(torch.ones(5), torch.ones(5)), 2.0)
    assert set(compiled_for) == {torch.Size([3])}
