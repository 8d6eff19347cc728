"""torch.compile around the model's functions, from outside: the model file holds mathematics only."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

log = logging.getLogger(__name__)

WARM_CALLS = 2  # shapes must repeat before they count as a session's steady state


class SteadyCompiled:
    """A function that is compiled for the first argument shapes that repeat, and runs eagerly for all others.

    A session's first clips each have shapes of their own; compiling for every one of them would cost minutes.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._compiled: Callable[..., Any] | None = None
        self._shapes: tuple[Any, ...] | None = None
        self._last: tuple[Any, ...] | None = None
        self._repeats = 0

    def __call__(self, *args: Any) -> Any:
        shapes = _shapes(args)
        if shapes == self._shapes and self._compiled is not None:
            return self._compiled(*args)
        self._repeats = self._repeats + 1 if shapes == self._last else 1
        self._last = shapes
        if self._compiled is None and self._repeats > WARM_CALLS:
            return self._compile(shapes, args)
        return self._function(*args)

    def _compile(self, shapes: tuple[Any, ...], args: tuple[Any, ...]) -> Any:
        start = time.perf_counter()
        name = self._function.__name__
        log.info("compiling %s for this session's shapes (once; kept on disk)", name)
        options: dict[str, Any] = {"freezing": True} if _on_cpu(args) else {}
        self._compiled = torch.compile(self._function, dynamic=False, options=options)
        self._shapes = shapes
        result = self._compiled(*args)
        log.info("compiled %s in %.0f s", name, time.perf_counter() - start)
        return result


def compiler_missing() -> str | None:
    """Why torch.compile cannot work on this CPU-only machine, or None."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        return "there is no C++ compiler (install g++, clang or the Visual Studio build tools)"
    return None


def _leaves(args: tuple[Any, ...]) -> list[Any]:
    """Tensors and plain values of nested tuples, lists and dataclasses (which pytree takes for leaves)."""
    opened = [vars(arg) if dataclasses.is_dataclass(arg) else arg for arg in args]
    return pytree.tree_leaves(opened)


def _shapes(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in _leaves(args))


def _on_cpu(args: tuple[Any, ...]) -> bool:
    return all(leaf.device.type == "cpu" for leaf in _leaves(args) if isinstance(leaf, Tensor))
