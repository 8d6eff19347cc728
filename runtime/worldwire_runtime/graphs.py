"""CUDA graphs around functions of tensors, from outside: a whole clip is one launch instead of thousands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from worldwire_runtime.acceleration import STEADY_CLIPS, Tell, announced, silent

WARM_CALLS = STEADY_CLIPS + 2  # of equal shapes before they are recorded: what compiles has compiled by then
MOST_GRAPHS = 4  # each holds the memory of its intermediate results; other shapes run as they are

Function = Callable[..., Any]


class Recording(NamedTuple):
    """A recorded call. replay: runs it again on what `inputs` hold now and leaves the result in `outputs`."""

    inputs: list[Tensor]
    replay: Callable[[], None]
    outputs: Any


class Graphed:
    """`function` with the same results, replayed as a CUDA graph for the argument shapes that repeat.

    Arguments are tensors and plain values in tuples, lists and dataclasses. What the function does may depend
    on plain values and shapes, never on a tensor's numbers, and it may not wait for the device. Results are
    copies: a later call does not change them.
    """

    def __init__(
        self,
        function: Function,
        record: Callable[[Function, tuple[Any, ...]], Any] | None = None,
        tell: Tell = silent,
    ):
        self._function, self._tell = function, tell
        self._record = record or record_on_cuda
        self._recordings: dict[Any, Recording] = {}
        self._seen: dict[Any, int] = {}

    def __call__(self, *args: Any) -> Any:
        leaves, shape = flatten(args)
        leaves = [_settled(leaf) for leaf in leaves]
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (shape, *(_key(leaf) for leaf in leaves))
        recording = self._recordings.get(key)
        if recording is None:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] <= WARM_CALLS or len(self._recordings) == MOST_GRAPHS:
                return self._function(*unflatten(leaves, shape))
            recording = self._recordings[key] = self._make(leaves, shape)
        for held, tensor in zip(recording.inputs, tensors, strict=True):
            held.copy_(tensor, non_blocking=True)
        recording.replay()
        return pytree.tree_map(_copied, recording.outputs)

    @property
    def recordings(self) -> int:
        """How many shapes have been recorded."""
        return len(self._recordings)

    def _make(self, leaves: list[Any], shape: Any) -> Recording:
        own = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        name = getattr(self._function, "__name__", "function").replace("_", " ")
        with announced(f"recording {name} as a graph", self._tell):
            replay, outputs = self._record(self._function, unflatten(own, shape))
        return Recording([leaf for leaf in own if isinstance(leaf, Tensor)], replay, outputs)


def record_on_cuda(function: Function, args: tuple[Any, ...]) -> tuple[Callable[[], None], Any]:
    """Records one call on the current GPU: what replays it, and where its results lie."""
    function(*args)  # whatever still has to be built or measured for exactly these arguments is so now
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the device meanwhile (pictures of earlier clips): only this one is watched.
    with torch.cuda.graph(graph, pool=_shared_pool(), capture_error_mode="thread_local"):
        outputs = function(*args)
    return graph.replay, outputs


@cache
def _shared_pool() -> Any:
    """The memory of all recordings. They run one after another and results are copied: scratch is shared."""
    return torch.cuda.graph_pool_handle()


def flatten(args: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """The leaves of arguments, dataclasses opened, and what `unflatten` needs to close them again."""
    opened = [(type(arg), _fields(arg)) if dataclasses.is_dataclass(arg) else (None, arg) for arg in args]
    leaves, spec = pytree.tree_flatten([value for _, value in opened])
    return leaves, (tuple(kind for kind, _ in opened), spec)


def unflatten(leaves: list[Any], shape: Any) -> tuple[Any, ...]:
    """The inverse of `flatten`."""
    kinds, spec = shape
    values = pytree.tree_unflatten(leaves, spec)
    return tuple(value if kind is None else kind(**value) for kind, value in zip(kinds, values, strict=True))


def _fields(instance: Any) -> dict[str, Any]:
    return {item.name: getattr(instance, item.name) for item in dataclasses.fields(instance)}


def _key(leaf: Any) -> Any:
    """What a recording is good for: form and type of a tensor, the value of anything else."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.stride(), leaf.dtype, leaf.device
    return type(leaf), leaf


def _settled(leaf: Any) -> Any:
    """Tensors without gaps: compiled code depends on their strides, and a recording's copies have none."""
    return leaf.contiguous() if isinstance(leaf, Tensor) else leaf


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf
