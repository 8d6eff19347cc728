"""CUDA graphs around functions of tensors, from outside: a whole clip is one launch instead of thousands."""

from __future__ import annotations

import dataclasses
import inspect
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

from worldwire_runtime.acceleration import STEADY_CLIPS, Tell, announced, silent

WARM_CALLS = STEADY_CLIPS + 2  # of equal shapes before they are recorded: what compiles has compiled by then
MOST_GRAPHS = 8  # each holds the memory of its intermediate results; other shapes run as they are

Function = Callable[..., Any]


class Recorded(NamedTuple):
    """A call that was run once and recorded. result: of that run. outputs: where those of a replay lie."""

    result: Any
    replay: Callable[[], None]
    outputs: Any


Recorder = Callable[[Function, tuple[Any, ...]], Recorded]


class Graphed:
    """`function` with the same results, replayed as a CUDA graph for the argument shapes that repeat.

    Arguments are tensors and plain values in tuples, lists and dataclasses. What the function does may depend
    on plain values and shapes, never on a tensor's numbers, and it may not wait for the device. It reads
    copies of its arguments, and results are copies: a later call does not change them.

    resident: names of parameters whose tensors stay where they are and change in place, such as a context's
    buffers. They are not copied: the function reads, and may write, the caller's own memory, and a recording
    serves only calls with tensors of the same addresses. Once that memory is freed, it makes room for others.
    immutable: names of parameters whose tensors nobody changes once they are made, such as what a network
    makes of a prompt. While the same ones come again they are not copied again.
    warm: so many calls of a shape run as they are.
    """

    def __init__(
        self,
        function: Function,
        record: Recorder | None = None,
        tell: Tell = silent,
        *,
        resident: Collection[str] = (),
        immutable: Collection[str] = (),
        warm: int = WARM_CALLS,
    ):
        self._function, self._tell, self._warm = function, tell, warm
        self._record = record or CudaRecorder()
        self._resident, self._immutable = (_places(function, names) for names in (resident, immutable))
        self._recordings: dict[Any, _Recording] = {}
        self._seen: Counter[Any] = Counter()

    def __call__(self, *args: Any) -> Any:
        leaves, shape = flatten(args)
        resident = _among(shape, self._resident)
        leaves = [leaf if stays else _settled(leaf) for leaf, stays in zip(leaves, resident, strict=True)]
        form = (shape, *(_key(leaf) for leaf in leaves))
        here = [leaf for leaf, stays in zip(leaves, resident, strict=True) if stays and _is_tensor(leaf)]
        key = (form, *(tensor.data_ptr() for tensor in here))
        recording = self._recordings.get(key)
        if recording is None:
            if not self._is_due(form):
                return self._function(*unflatten(leaves, shape))
            self._recordings[key], result = self._make(leaves, shape, here)
            return result
        recording.load(leaves)
        recording.replay()
        return pytree.tree_map(_copied, recording.outputs)

    @property
    def recordings(self) -> int:
        """How many shapes have been recorded."""
        return len(self._recordings)

    def _is_due(self, form: Any) -> bool:
        """Whether a call that no recording serves is to be recorded."""
        self._seen[form] += 1
        for key in [key for key, recording in self._recordings.items() if recording.is_orphan]:
            del self._recordings[key]
        return self._seen[form] > self._warm and len(self._recordings) < MOST_GRAPHS

    def _make(self, leaves: list[Any], shape: Any, here: list[Tensor]) -> tuple[_Recording, Any]:
        """A recording of a call, and that call's result."""
        resident, immutable = (_among(shape, places) for places in (self._resident, self._immutable))
        own = [leaf if stays else _copied(leaf) for leaf, stays in zip(leaves, resident, strict=True)]
        name = getattr(self._function, "__name__", "function").replace("_", " ")
        with announced(f"recording {name} as a graph", self._tell):
            recorded = self._record(self._function, unflatten(own, shape))
        inputs = [
            _Input(index, leaf, immutable[index])
            for index, leaf in enumerate(own)
            if _is_tensor(leaf) and not resident[index]
        ]
        storages = [StorageWeakRef(part.untyped_storage()) for part in here]
        recording = _Recording(inputs, recorded.replay, recorded.outputs, storages)
        return recording, pytree.tree_map(_copied, recorded.result)


@dataclasses.dataclass
class _Input:
    """A tensor that a recording reads, at `index` among the leaves. holds: whose numbers are in it."""

    index: int
    tensor: Tensor
    is_immutable: bool
    holds: Callable[[], Tensor | None] = lambda: None


@dataclasses.dataclass
class _Recording:
    """A recorded call. replay: runs it again on what `inputs` hold now and leaves the result in `outputs`."""

    inputs: list[_Input]
    replay: Callable[[], None]
    outputs: Any
    resident: list[StorageWeakRef]

    @property
    def is_orphan(self) -> bool:
        """Whether memory that it reads in place is gone, so that no call can come for it."""
        return any(storage.expired() for storage in self.resident)

    def load(self, leaves: Sequence[Any]) -> None:
        """Puts the arguments into the inputs that do not hold them yet."""
        stale = [each for each in self.inputs if each.holds() is not leaves[each.index]]
        for dtype in {each.tensor.dtype for each in stale}:  # one launch for many tensors of a type
            same = [each for each in stale if each.tensor.dtype == dtype]
            torch._foreach_copy_([each.tensor for each in same], [leaves[each.index] for each in same])
        for each in stale:
            if each.is_immutable:
                each.holds = weakref.ref(leaves[each.index])


class CudaRecorder:
    """Records calls on the current GPU, on a stream of their own or on `stream`, whose priority they keep.

    Recordings run one after another and results are copied: all of one recorder share the memory in which
    they work, for as long as one of them lives.
    """

    def __init__(self, stream: torch.cuda.Stream | None = None) -> None:
        self._stream = stream
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()

    def __call__(self, function: Function, args: tuple[Any, ...]) -> Recorded:
        """Runs the call, and records it: whatever it has to build or measure is there by then."""
        result = function(*args)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        # A pool is gone for good with the last graph in it: its number may not be used again.
        pool = next((living.pool() for living in self._graphs), None)
        # Other threads may use the device meanwhile (pictures of earlier clips): only this one is watched.
        with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
            outputs = function(*args)
        self._graphs.add(graph)
        return Recorded(result, graph.replay, outputs)


def flatten(args: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """The leaves of arguments, dataclasses opened, and what `unflatten` needs to close them again."""
    leaves, shape = [], []
    for arg in args:
        kind, value = (type(arg), _fields(arg)) if dataclasses.is_dataclass(arg) else (None, arg)
        inside, spec = pytree.tree_flatten(value)
        leaves.extend(inside)
        shape.append((kind, spec))
    return leaves, tuple(shape)


def unflatten(leaves: list[Any], shape: Any) -> tuple[Any, ...]:
    """The inverse of `flatten`."""
    values, start = [], 0
    for kind, spec in shape:
        value = pytree.tree_unflatten(leaves[start : start + spec.num_leaves], spec)
        values.append(value if kind is None else kind(**value))
        start += spec.num_leaves
    return tuple(values)


def _among(shape: Any, places: Collection[int]) -> list[bool]:
    """Of each leaf, whether its argument is one of those at `places`."""
    return [place in places for place, (_, spec) in enumerate(shape) for _ in range(spec.num_leaves)]


def _places(function: Function, names: Collection[str]) -> frozenset[int]:
    """Where parameters of these names stand in a call."""
    if not names:
        return frozenset()
    parameters = list(inspect.signature(function).parameters)
    return frozenset(parameters.index(name) for name in names)


def _fields(instance: Any) -> dict[str, Any]:
    return {item.name: getattr(instance, item.name) for item in dataclasses.fields(instance)}


def _is_tensor(leaf: Any) -> bool:
    return isinstance(leaf, Tensor)


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
