"""torch.compile around the model's functions, from outside: the model file holds mathematics only.

A session's first clips each have shapes of their own; compiling for every one of them would take minutes.
So whatever is compiled runs as it is until its shapes have come back often enough: `Steady` for functions of
a whole clip, `SteadyCompiled` for a function that is called once per latent.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from worldwire_runtime.kernels.tuning import cache_folder
from worldwire_runtime.model.dit import DiT

log = logging.getLogger(__name__)

WARM_CALLS = 2  # shapes must repeat before they count as a session's steady state
STEADY_CLIPS = 6  # longer than the shapes of any one stage of a session's beginning come in a row
MOST_SHAPES = 8  # of one function of a clip; what comes later runs as it is
MOST_SHAPES_ON_CPU = 1  # where compiling for one takes a minute of standing still
MOST_VARIANTS = 128  # of one compiled block: functions of a clip, shapes, blocks with and without actions
# Norms and roundings of rows up to here read each row once and keep it in registers: the compiler's own bound
# is 1,024, and behind it a row is read again for its mean, its largest value and the result.
WIDEST_ROW_AT_ONCE = 16384
# Expressions of so many tensors stay in registers: beyond the compiler's bound of 8, a rotated key is stored
# in float32, only to be read again and stored in bfloat16.
MOST_READS = 16
COMPILED_FOLDER, COMPILED_VARIABLE = "inductor", "TORCHINDUCTOR_CACHE_DIR"
NETWORK_FUNCTIONS = ("prepare", "forward", "encode_context", "denoise", "roll")
# What stands before and behind the blocks.
NETWORK_ENDS = ("_embed_camera", "_embed_latents", "_embed_time", "_velocity")

_building = threading.RLock()

Tell = Callable[[str], None]
"""Takes what is under way, for people; "" when it is over."""


def silent(_: str) -> None:
    """Tells nobody."""


class Steady:
    """A clip's function in two equal forms: `plain`, and `fused` for argument shapes that keep coming back.

    The first fused call of each shape compiles; `tell` hears of it before and after. after: so many calls of
    a shape are plain.
    """

    def __init__(
        self,
        plain: Callable[..., Any],
        fused: Callable[..., Any],
        most: int = MOST_SHAPES,
        tell: Tell = silent,
        after: int = STEADY_CLIPS,
    ) -> None:
        functools.update_wrapper(self, plain)
        self._plain, self._fused, self._most, self._tell = plain, fused, most, tell
        self._after = after
        self._seen: Counter[Any] = Counter()
        self._compiled: set[Any] = set()

    def __call__(self, *args: Any) -> Any:
        shapes = _shapes(args)
        if shapes in self._compiled:
            return self._fused(*args)
        self._seen[shapes] += 1
        if self._seen[shapes] <= self._after or len(self._compiled) == self._most:
            return self._plain(*args)
        keep_compiled_code()  # a thread's settings are its own from torch 2.13 on
        result = self._build(self._fused, *args)
        self._compiled.add(shapes)
        return self._built_later(result) if callable(result) else result

    def _build(self, function: Callable[..., Any], *args: Any) -> Any:
        """A call that compiles."""
        what = f"compiling {_name(self._plain)} for clips of this shape"
        with announced(what, self._tell), rows_at_once():
            return function(*args)

    def _built_later(self, made: Callable[..., Any]) -> Callable[..., Any]:
        """A function that the fused one made: what it calls is compiled when it is first called."""
        is_built = False

        def call(*args: Any) -> Any:
            nonlocal is_built
            result = made(*args) if is_built else self._build(made, *args)
            is_built = True
            return result

        return call


def compiled_network(dit: DiT, whole: bool | None = None) -> DiT:
    """The same network, weights shared, with compiled functions.

    On a GPU each block is compiled, for blocks are alike: the first one's code serves them all, in seconds
    where the whole network takes minutes; and what stands before and behind them. On a CPU the whole
    functions are, with the weights as constants. whole: which of both, where the weights stand elsewhere, as
    those of an expert that rests do.
    """
    keep_compiled_code()
    twin = copy.copy(dit)
    if whole is None:
        whole = whole_functions_are_compiled(dit)
    if whole:
        for name in NETWORK_FUNCTIONS:
            setattr(twin, name, _compiled(getattr(dit, name), freezing=True))
        return twin
    for name in NETWORK_ENDS:
        setattr(twin, name, _compiled(getattr(dit, name)))
    blocks = [_CompiledBlock(block) for block in dit.blocks]
    twin._blocks = lambda: blocks  # type: ignore[method-assign, return-value, assignment]
    return twin


def whole_functions_are_compiled(dit: DiT) -> bool:
    """Whether compiling goes by functions, not by blocks: on a CPU."""
    return dit.patch_embedding.weight.device.type == "cpu"


class _CompiledBlock:
    """A block, compiled: what it does for a clip, in a step, and for a context's last block."""

    def __init__(self, block: Any) -> None:
        self._call = _compiled(block)
        self.prepare, self.context_keys = _compiled(block.prepare), _compiled(block.context_keys)
        self.roll = _compiled(block.roll)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._call(*args, **options)


class SteadyCompiled:
    """A function, compiled for the first argument shapes that repeat; it runs eagerly for all others."""

    def __init__(self, function: Callable[..., Any], tell: Tell = silent):
        self._function, self._tell = function, tell
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
        keep_compiled_code()
        with announced(f"compiling {_name(self._function)}", self._tell):
            self._compiled = _compiled(self._function, freezing=_on_cpu(args))
            self._shapes = shapes
            return self._compiled(*args)


@contextmanager
def announced(what: str, tell: Tell) -> Iterator[None]:
    """Says, and logs, that something takes a while: one thing at a time, whatever thread does it.

    What is compiled may wait for the whole device, which is an error while another thread records a graph.
    """
    with _building:
        log.info("%s (once; kept on disk)", what)
        tell(what)
        start = time.perf_counter()
        try:
            yield
        finally:
            tell("")
            log.info("%s: done in %.0f s", what, time.perf_counter() - start)


@contextmanager
def rows_at_once() -> Iterator[None]:
    """What is compiled inside reads rows of up to `WIDEST_ROW_AT_ONCE` once and stores none halfway (GPUs).

    Several sums of scattered reads, of queries and keys that are rotated, are not among them: both rows at
    once would leave a multiprocessor with registers for nothing else.
    """
    from torch._inductor import config
    from torch._inductor.choices import InductorChoices
    from torch._inductor.runtime.hints import ReductionHint
    from torch._inductor.virtualized import V

    class Choices(InductorChoices):
        @staticmethod
        def should_use_persistent_reduction(features: Any, cooperative_reduction: bool) -> bool:
            hint = features.get_reduction_hint()
            one = hint == ReductionHint.DEFAULT and len(features.reduction_nodes()) == 1
            is_row = (hint == ReductionHint.INNER or one) and not cooperative_reduction
            if is_row and V.graph.sizevars.statically_known_leq(features.reduction_numel, WIDEST_ROW_AT_ONCE):
                return True
            return InductorChoices.should_use_persistent_reduction(features, cooperative_reduction)

    with V.set_choices_handler(Choices()), config.patch(realize_acc_reads_threshold=MOST_READS):
        yield


def keep_compiled_code() -> None:
    """Compiled code is kept where all that is built once is kept, unless the user said where."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # torch writes its own choice into the variable when it first looks for it.
    if os.environ.get(COMPILED_VARIABLE) in (None, default_cache_dir()):
        os.environ[COMPILED_VARIABLE] = str(cache_folder() / COMPILED_FOLDER)
    # Shapes are bounded here, by `Steady`; torch's own bound would count those of all blocks together.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MOST_VARIANTS)


def compiler_missing() -> str | None:
    """Why torch.compile cannot work on this CPU-only machine, or None."""
    if not any(shutil.which(name) for name in ("g++", "clang++", "cl")):
        return "there is no C++ compiler (install g++, clang or the Visual Studio build tools)"
    return None


def _compiled(function: Callable[..., Any], freezing: bool = False) -> Callable[..., Any]:
    options: dict[str, Any] = {"freezing": True} if freezing else {}
    return torch.compile(function, dynamic=False, options=options)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__).strip("_").replace("_", " ")


def _leaves(args: tuple[Any, ...]) -> list[Any]:
    """Tensors and plain values of nested tuples, lists and dataclasses (which pytree takes for leaves)."""
    opened = [vars(arg) if dataclasses.is_dataclass(arg) else arg for arg in args]
    return pytree.tree_leaves(opened)


def _shapes(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((leaf.shape, leaf.dtype) if isinstance(leaf, Tensor) else leaf for leaf in _leaves(args))


def _on_cpu(args: tuple[Any, ...]) -> bool:
    return all(leaf.device.type == "cpu" for leaf in _leaves(args) if isinstance(leaf, Tensor))
