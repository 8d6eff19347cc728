"""A function of tensors as an ONNX file, and running such a file by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from worldwire_runtime.export import static  # noqa: F401 - registers the operators

OPSET: Final = 20
ONE_FILE_BYTES: Final = 1 << 30
"""Larger weights go into a file beside the graph: a protobuf holds at most 2 GiB."""
TENSOR: Final = "a tensor"


@dataclass(frozen=True)
class Call:
    """One call of a function: its tensors in order, and the form that holds them.

    Plain values among the arguments are part of the form: a graph is made for them.
    """

    tensors: list[Tensor]
    form: tuple[Any, tuple[Any, ...]]

    @classmethod
    def of(cls, args: tuple[Any, ...]) -> Call:
        """The call with these arguments: tensors and plain values in tuples and lists."""
        leaves, spec = pytree.tree_flatten(args)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        return cls(tensors, (spec, tuple(TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves)))

    def filled(self, tensors: Sequence[Tensor]) -> Any:
        """The arguments again, with these tensors in place of its own."""
        spec, leaves = self.form
        supply = iter(tensors)
        return pytree.tree_unflatten([next(supply) if leaf is TENSOR else leaf for leaf in leaves], spec)

    def signature(self) -> dict[str, Any]:
        """What a graph made for this call serves, as plain data: its form, shapes and types."""
        spec, leaves = self.form
        return {
            "form": f"{spec} {leaves}",
            "tensors": [[str(tensor.dtype), *tensor.shape] for tensor in self.tensors],
        }


class Graph(nn.Module):
    """A function of plain tensors; `owner` holds the weights that it uses."""

    def __init__(self, owner: nn.Module, function: Callable[..., Any], call: Call) -> None:
        super().__init__()
        self.owner, self._function, self._call = owner, function, call

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The results' tensors in order."""
        return tuple(Call.of((self._function(*self._call.filled(tensors)),)).tensors)


def export(graph: Graph, call: Call, path: Path) -> None:
    """Writes `graph` for calls of this form, with inputs in_0 ... and outputs out_0 ...; parents are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        results = graph(*call.tensors)
        weights = sum(tensor.nbytes for tensor in graph.state_dict().values())
        torch.onnx.export(
            graph,
            tuple(call.tensors),
            str(path),
            input_names=names("in", call.tensors),
            output_names=names("out", results),
            opset_version=OPSET,
            dynamo=True,
            external_data=weights > ONE_FILE_BYTES,
            custom_translation_table=_translations(),
            verbose=False,
        )


def names(kind: str, tensors: Sequence[Tensor]) -> list[str]:
    """How a graph calls its inputs ("in") or outputs ("out")."""
    return [f"{kind}_{place}" for place in range(len(tensors))]


class OnnxRuntime:
    """An exported graph on the CPU: a function of its input tensors."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = {given.name for given in self._session.get_inputs()}

    def __call__(self, *tensors: Tensor) -> list[Tensor]:
        """The outputs, on the CPU. Inputs that the graph turned out not to need are left out."""
        given = zip(names("in", tensors), tensors, strict=True)
        feed = {name: tensor.detach().cpu().numpy() for name, tensor in given if name in self._inputs}
        return [torch.from_numpy(output) for output in self._session.run(None, feed)]


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Our operators as the nodes that they mean."""
    import onnx
    import onnxscript

    op: Any = onnxscript.opset20
    zero = onnx.helper.make_tensor("zero", onnx.TensorProto.INT8, [], [0])

    def round_static(x: Any, scale: Any) -> Any:
        point = op.Constant(value=zero)
        return op.DequantizeLinear(op.QuantizeLinear(x, scale, point), scale, point)

    def dequantise_static(values: Any, scale: Any, axis: int) -> Any:
        return op.DequantizeLinear(values, scale, axis=axis)

    return {
        torch.ops.worldwire.round_static.default: round_static,
        torch.ops.worldwire.dequantise_static.default: dequantise_static,
    }
