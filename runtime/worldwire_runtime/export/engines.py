"""A world that plays through exported graphs: by TensorRT engines on a GPU, by ONNX Runtime on a CPU.

A graph serves one form of call, a steady session's. Every other call (a session's first clips) goes to the
network itself, as before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from worldwire.errors import ConfigError
from worldwire_runtime.export.onnx import Call, OnnxRuntime
from worldwire_runtime.export.run import DECODER, FORMAT_VERSION, MANIFEST, STEP
from worldwire_runtime.world import World

Runner = Literal["tensorrt", "onnxruntime"]


class GraphCall:
    """A function that a graph computes for the calls that it was made for, and `otherwise` for all others.

    run: tensors to tensors. assemble: the function's result of these. Floating tensors are passed in float32
    and come back in the type of the first one. served: how many calls the graph has taken.
    """

    def __init__(
        self,
        run: Callable[..., Sequence[Tensor]],
        signature: dict[str, Any],
        assemble: Callable[[Sequence[Tensor]], Any],
        otherwise: Callable[..., Any],
    ) -> None:
        self._run, self._signature, self._assemble, self._otherwise = run, signature, assemble, otherwise
        self._known: dict[Any, bool] = {}
        self.served = 0

    def __call__(self, *args: Any) -> Any:
        call = Call.of(args)
        if not self._serves(call):
            return self._otherwise(*args)
        self.served += 1
        first = call.tensors[0]
        tensors = [part.float() if part.is_floating_point() else part for part in call.tensors]
        results = self._run(*tensors)
        return self._assemble([result.to(first.device, first.dtype) for result in results])

    def _serves(self, call: Call) -> bool:
        _, leaves = call.form
        key = (leaves, tuple(tensor.shape for tensor in call.tensors))
        if key not in self._known:
            self._known[key] = call.signature() == self._signature
        return self._known[key]


def use_graphs(world: World, folder: Path, runner: Runner = "tensorrt") -> tuple[GraphCall, GraphCall]:
    """From now on the world's denoising steps and its decoder run by the graphs of a folder, where they fit.

    Raises ConfigError for a folder of another world, MachineError for engines of another GPU or version, and
    MissingExtraError without the runner's package.
    """
    manifest = read_manifest(folder)
    if manifest["world"] != world.config.name:
        raise ConfigError(
            "these graphs belong to another world", expected=world.config.name, got=str(manifest["world"])
        )
    graphs = {graph["name"]: graph for graph in manifest["graphs"]}
    step = GraphCall(
        _runner(folder / graphs[STEP]["file"], runner, world.device),
        graphs[STEP]["signature"],
        lambda results: results[0],
        world.denoiser.step,
    )
    decoder = GraphCall(
        _runner(folder / graphs[DECODER]["file"], runner, world.device),
        graphs[DECODER]["signature"],
        lambda results: (results[0], list(results[1:])),
        world.vae.decode,
    )
    world.denoiser.step = step
    setattr(world.vae, "decode", decoder)  # noqa: B010 - an instance's own
    return step, decoder


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `worldwire export` wrote about a folder of graphs."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder / MANIFEST} cannot be read: {error}", expected="a folder that `worldwire export` wrote"
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT_VERSION:
        raise ConfigError(f"{folder / MANIFEST} has another format", expected=f'"format": {FORMAT_VERSION}')
    return manifest


def _runner(path: Path, runner: Runner, device: torch.device) -> Callable[..., Sequence[Tensor]]:
    if runner == "onnxruntime":
        return OnnxRuntime(path)
    from worldwire_runtime.export.tensorrt import Engine

    return Engine(path.with_suffix(".engine"), device)
