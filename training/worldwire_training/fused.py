"""Fuses the transformer's elementwise work for training: several passes over memory become one.

Whole blocks take torch.compile minutes for the many clip shapes of a run. Their matrix products and attention
are library kernels anyway, so only the pure functions between them are compiled, once for all shapes. The
model's files stay as they are; the results are those of the plain functions but for rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, cast

import torch

from worldwire_runtime.model import action, attention, blocks
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT
from worldwire_training.common import COMPILE_OPTIONS

RECOMPILE_LIMIT = 64
"""Lengths of one are special to the compiler, and there are two number formats."""
BLOCK_LIMIT = 256
"""Blocks with and without actions, times clip shapes."""
PLACES: tuple[tuple[ModuleType | type, str], ...] = (
    (blocks, "modulate"),
    (blocks, "see_camera"),
    (blocks, "gated_add"),
    (blocks, "rotate"),
    (action, "rotate"),
    (attention.RMSNorm, "forward"),
)


@contextmanager
def fused_elementwise(enabled: bool = True) -> Iterator[None]:
    """Inside, the transformers' blocks call the compiled forms of these functions."""
    plain = [(owner, name, getattr(owner, name)) for owner, name in PLACES]
    compiled: dict[Any, Any] = {}
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    try:
        for owner, name, function in plain if enabled else ():
            if function not in compiled:
                compiled[function] = torch.compile(function, dynamic=True, options=COMPILE_OPTIONS)
            setattr(owner, name, compiled[function])
        yield
    finally:
        for owner, name, function in plain:
            setattr(owner, name, function)


def compile_blocks(dit: DiT) -> None:
    """Compile whole blocks in place, for each clip shape: the fastest steps after minutes of compilation.

    All blocks share what is compiled, but those with actions and those without. Dynamic shapes
    take 8 times as long to trace and save few graphs.
    """
    torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = BLOCK_LIMIT
    for block in cast(Sequence[Block], dit.blocks):
        block.compile(dynamic=False, options=COMPILE_OPTIONS)
        for owner, name in ((block, "prepare"), (block, "context_keys"), (block.cross_attn, "keys")):
            setattr(owner, name, torch.compile(getattr(owner, name), dynamic=False, options=COMPILE_OPTIONS))
