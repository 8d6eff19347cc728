"""The main path of `worldwire export`: walk, fix scales, write the graphs, check them with ONNX Runtime."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from worldwire.errors import ConfigError
from worldwire_runtime.config import ClipPlan
from worldwire_runtime.export.onnx import Call, Graph, OnnxRuntime, export
from worldwire_runtime.export.static import static_convolution, static_linear
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.vae import VAE, CausalConv3d
from worldwire_runtime.quantize.calibration import Samples, recorded, walk_through
from worldwire_runtime.quantize.layers import groups, layer_names
from worldwire_runtime.world import World

MANIFEST = "graphs.json"
FORMAT_VERSION = 1
STEP, DECODER = "step", "decoder"
# The head and the attention's 1 x 1 convolutions are a small part of the work; their errors are seen at once.
CONVOLUTIONS = re.compile(r"decoder\.(middle\.[02]|upsamples\.\d+)\..*")


@dataclass(frozen=True)
class Exported:
    """One graph.

    error_int8: of the torch network with static scales against the float one, on a recorded call.
    error_runtime: of ONNX Runtime against that torch network: values on a border between two steps.
    """

    name: str
    file: str
    signature: dict[str, Any]
    error_int8: float
    error_runtime: float


@dataclass
class Captured:
    """The last call of a function: its arguments and results."""

    call: Call | None = None
    results: list[Tensor] = dataclasses.field(default_factory=list)


def export_world(
    world: World,
    folder: Path,
    plan: ClipPlan,
    *,
    images: int,
    advanced: Callable[[int, int], None] = lambda *_: None,
) -> list[Exported]:
    """Writes the step and the decoder of a steady session with this plan, and the manifest beside them.

    The world's networks are changed in place: their layers become the static int8 ones that the graphs hold.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError("the output folder is in use", expected="a new or empty folder", got=str(folder))
    dit, vae = world.denoiser.dit, world.vae
    linears = layer_names(dit, "all")
    convolutions = convolution_names(vae)
    layers = {name: dit.get_submodule(name) for name in linears}
    layers |= {name: vae.get_submodule(name) for name in convolutions}
    with recorded(layers) as samples, captured(world) as (step, decoder):
        walk_through(world, images=images, plan=plan, advanced=advanced)
    make_linears_static(dit, linears, samples)
    make_convolutions_static(vae, convolutions, samples)
    exported = [
        write_graph(folder, STEP, dit, step_function(dit), step),
        write_graph(folder, DECODER, vae, vae.decode, decoder),
    ]
    facts = {
        "format": FORMAT_VERSION,
        "world": world.config.name,
        "plan": dataclasses.asdict(plan),
        "graphs": [dataclasses.asdict(graph) for graph in exported],
    }
    (folder / MANIFEST).write_text(json.dumps(facts, indent=1) + "\n")
    return exported


def step_function(dit: DiT) -> Callable[..., Tensor]:
    """What a denoising step calls: the whole network, or its part behind a cached context."""
    return dit.forward if dit.config.attention == "joint" else dit.denoise


def convolution_names(vae: VAE) -> list[str]:
    """The decoder's convolutions that are exported in int8."""
    return [
        name
        for name, module in vae.named_modules()
        if CONVOLUTIONS.fullmatch(name) and isinstance(module, CausalConv3d | nn.Conv2d)
    ]


def make_linears_static(dit: DiT, names: list[str], samples: dict[str, Samples]) -> None:
    """Replaces the named linear layers; those that read the same tensor get one scale."""
    for group in groups(names):
        layers = [cast(nn.Linear, dit.get_submodule(name)) for name in group]
        for name, layer in zip(group, static_linear(layers, samples[group[0]]), strict=True):
            put(dit, name, layer)


def make_convolutions_static(vae: VAE, names: list[str], samples: dict[str, Samples]) -> None:
    """Replaces the named convolutions."""
    for name in names:
        layer = cast(CausalConv3d | nn.Conv2d, vae.get_submodule(name))
        put(vae, name, static_convolution(layer, samples[name]))


def put(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts a layer in the place of the one with this name."""
    parent, _, child = name.rpartition(".")
    container = network.get_submodule(parent)
    if isinstance(container, nn.ModuleDict):
        container[child] = layer
    else:
        setattr(container, child, layer)


@contextmanager
def captured(world: World) -> Iterator[tuple[Captured, Captured]]:
    """Notes the last calls of the denoising step and of the decoder while the block runs."""
    denoiser, vae = world.denoiser, world.vae
    step, decoder = Captured(), Captured()
    before = denoiser.step
    denoiser.step = _noting(before, step)
    setattr(vae, "decode", _noting(vae.decode, decoder))  # noqa: B010 - an instance's own, until the end
    try:
        yield step, decoder
    finally:
        denoiser.step = before
        delattr(vae, "decode")


def _noting(function: Callable[..., Any], noted: Captured) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        results = function(*args)
        noted.call, noted.results = Call.of(args), Call.of((results,)).tensors
        return results

    return call


def write_graph(
    folder: Path, name: str, owner: nn.Module, function: Callable[..., Any], noted: Captured
) -> Exported:
    """One ONNX file, its results compared on the noted call."""
    if noted.call is None:
        raise ConfigError(f"the walk never called the {name}")
    call, path = (
        Call([tensor.clone() for tensor in noted.call.tensors], noted.call.form),
        folder / f"{name}.onnx",
    )
    graph = Graph(owner, function, call).eval()
    export(graph, call, path)
    with torch.no_grad():
        static = graph(*call.tensors)
    return Exported(
        name,
        path.name,
        call.signature(),
        error_int8=relative_error(static, noted.results),
        error_runtime=relative_error(OnnxRuntime(path)(*call.tensors), static),
    )


def relative_error(got: Any, wanted: Any) -> float:
    """Norm of the difference over the norm, over the first tensor of each: the velocities, the frames."""
    return float((got[0].float().cpu() - wanted[0].float().cpu()).norm() / wanted[0].float().norm())
