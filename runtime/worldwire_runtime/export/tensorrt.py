"""TensorRT: engines from exported graphs, and running them on torch's tensors and stream.

Needs the extra `tensorrt` (10.9 or later, below 11: from there on networks are strongly typed, and these
graphs would run in float32) and an NVIDIA GPU. The native library comes from NVIDIA's own package index.

Never executed so far: the library was out of reach wherever this was written. The graphs that it takes are
checked by ONNX Runtime; what is here follows the documented interface of TensorRT 10.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldwire.errors import MachineError, MissingExtraError
from worldwire_runtime.machine import build_facts, check_build

log = logging.getLogger(__name__)

WORKSPACE_BYTES = 8 << 30
FACTS_SUFFIX = ".engine.json"


def library() -> Any:
    """The module `tensorrt`; MissingExtraError where it, or its native library, is not there."""
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as error:
        raise MissingExtraError("running TensorRT engines", "tensorrt") from error


def build_engines(folder: Path, device: torch.device) -> list[Path]:
    """Builds an engine beside every ONNX graph of a folder, in minutes each, on the GPU that will run it.

    Raises MachineError without a GPU, and for a graph that TensorRT refuses.
    """
    trt = library()
    if device.type != "cuda":
        raise MachineError("TensorRT engines are built on the GPU that runs them", got=f"device {device}")
    return [_build(trt, graph, device) for graph in sorted(folder.glob("*.onnx"))]


def engine_facts(trt: Any, device: torch.device) -> dict[str, str]:
    """What an engine depends on."""
    return build_facts(device) | {"tensorrt": str(trt.__version__)}


class Engine:
    """An engine as a function of its input tensors."""

    def __init__(self, path: Path, device: torch.device) -> None:
        trt = library()
        facts = path.with_name(path.stem + FACTS_SUFFIX)
        if not path.is_file() or not facts.is_file():
            raise MachineError(
                f"there is no engine {path}", remedy=f"run `worldwire models build-engine {path.parent}`"
            )
        check_build(
            path,
            json.loads(facts.read_text()),
            engine_facts(trt, device),
            remedy=f"run `worldwire models build-engine {path.parent}` here",
        )
        self._device = device
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise MachineError(f"TensorRT cannot read {path}", remedy="build the engine again")
        self._context = self._engine.create_execution_context()
        tensors = [self._engine.get_tensor_name(place) for place in range(self._engine.num_io_tensors)]
        self._inputs = {name for name in tensors if name.startswith("in_")}
        self._outputs = sorted(
            (name for name in tensors if name.startswith("out_")), key=lambda name: int(name[4:])
        )
        self._types = {
            trt.float32: torch.float32,
            trt.float16: torch.float16,
            trt.bfloat16: torch.bfloat16,
            trt.int64: torch.int64,
            trt.int32: torch.int32,
            trt.bool: torch.bool,
        }

    def __call__(self, *tensors: Tensor) -> Sequence[Tensor]:
        """Runs on torch's current stream, without waiting; the outputs are new tensors."""
        held = {f"in_{place}": tensor.contiguous() for place, tensor in enumerate(tensors)}
        for name in self._inputs:
            self._context.set_tensor_address(name, held[name].data_ptr())
        outputs = [self._empty(name) for name in self._outputs]
        for name, output in zip(self._outputs, outputs, strict=True):
            self._context.set_tensor_address(name, output.data_ptr())
        if not self._context.execute_async_v3(torch.cuda.current_stream(self._device).cuda_stream):
            raise MachineError("a TensorRT engine failed to start")
        return outputs

    def _empty(self, name: str) -> Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        return torch.empty(shape, dtype=self._types[self._engine.get_tensor_dtype(name)], device=self._device)


def _build(trt: Any, graph: Path, device: torch.device) -> Path:
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network()
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        faults = "; ".join(str(parser.get_error(place)) for place in range(parser.num_errors))
        raise MachineError(f"TensorRT cannot read {graph}", got=faults)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    for flag in (trt.BuilderFlag.INT8, trt.BuilderFlag.BF16):
        config.set_flag(flag)
    log.info("building an engine of %s", graph)
    with torch.cuda.device(device):
        built = builder.build_serialized_network(network, config)
    if built is None:
        raise MachineError(f"TensorRT cannot build {graph}", remedy="its lines above say why")
    path = graph.with_suffix(".engine")
    path.write_bytes(bytes(built))
    path.with_name(path.stem + FACTS_SUFFIX).write_text(
        json.dumps(engine_facts(trt, device), indent=1) + "\n"
    )
    return path
