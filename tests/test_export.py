"""ONNX graphs of a small random world, checked by ONNX Runtime; engines where TensorRT is installed."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from worlds import write_random_world

from worldwire.cli import main
from worldwire.errors import ConfigError, MissingExtraError

pytest.importorskip("onnx", reason="the extra 'export' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")

import onnx

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.export import tensorrt
from worldwire_runtime.export.engines import use_graphs
from worldwire_runtime.export.onnx import Call, Graph, OnnxRuntime, export
from worldwire_runtime.export.run import CONVOLUTIONS, make_linears_static, relative_error
from worldwire_runtime.export.static import StaticConv2d, StaticLinear, static_linear
from worldwire_runtime.model.dit import ClipConditions, DiT
from worldwire_runtime.quantize.calibration import WALK, Samples, recorded
from worldwire_runtime.quantize.layers import layer_names
from worldwire_runtime.sources import CONFIG_FILE, preset_folder
from worldwire_runtime.world import World

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporter's, about its own parts


@pytest.fixture(scope="module", params=["cached", "joint"])
def exported(request, tmp_path_factory):
    """The folders of a random world and of its graphs."""
    folder = write_random_world(tmp_path_factory.mktemp("world"), attention=request.param)
    graphs = tmp_path_factory.mktemp("out") / "graphs"
    options = ["--preset", str(folder), "--out", str(graphs), "--device", "cpu", "--images", "1"]
    assert main(["export", *options]) == 0
    return folder, graphs


def test_graphs_hold_int8_nodes_and_equal_the_network(exported):
    _, graphs = exported
    for graph in json.loads((graphs / "graphs.json").read_text())["graphs"]:
        model = onnx.load(graphs / graph["file"])
        nodes = [node.op_type for node in model.graph.node]
        weights = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
        assert nodes.count("QuantizeLinear") > 10
        assert sum(len(tensor.dims) > 1 for tensor in weights) >= nodes.count("QuantizeLinear") - 1
        assert graph["error_runtime"] < 0.02
        assert 0 < graph["error_int8"] < 0.2


def test_a_world_plays_through_its_graphs(exported):
    folder, graphs = exported
    plain, through = (World.load(folder, "cpu", "float32") for _ in range(2))
    step, decoder = use_graphs(through, graphs, "onnxruntime")
    shown = []
    for world in (plain, through):
        with world.session() as session:
            session.reset(image="meadow", seed=1)
            for _ in range(6):
                frames = session.step([WALK[0]] * session.frames_per_step)
            shown.append(np.stack([frame.pixels for frame in frames]).astype(float))
    assert step.served > 0  # the first clips, whose shapes are others, went to the network
    assert decoder.served > 10
    assert np.abs(shown[0] - shown[1]).mean() < 12


def test_graphs_of_another_world_are_refused(exported, tmp_path):
    folder, graphs = exported
    facts = json.loads((graphs / "graphs.json").read_text())
    (tmp_path / "graphs.json").write_text(json.dumps(facts | {"world": "another"}))
    world = World.load(folder, "cpu", "float32")
    with pytest.raises(ConfigError, match="another world"):
        use_graphs(world, tmp_path, "onnxruntime")
    with pytest.raises(ConfigError, match="cannot be read"):
        use_graphs(world, tmp_path / "absent", "onnxruntime")


def test_a_folder_in_use_is_not_overwritten(exported):
    folder, graphs = exported
    assert main(["export", "--preset", str(folder), "--out", str(graphs), "--device", "cpu"]) == 2


def test_a_static_layer_is_exported_exactly(tmp_path):
    torch.manual_seed(0)
    layer = nn.Sequential(StaticConv2d(nn.Conv2d(3, 4, 3, padding=1), 0.02), nn.Flatten(2)).eval()
    layer.append(StaticLinear(nn.Linear(20, 6), 0.01, torch.rand(20) + 0.5))
    call = Call.of((torch.randn(2, 3, 4, 5),))
    graph = Graph(layer, layer.forward, call).eval()
    export(graph, call, tmp_path / "layer.onnx")
    got = OnnxRuntime(tmp_path / "layer.onnx")(*call.tensors)
    assert relative_error(got, graph(*call.tensors)) < 1e-5


def test_scales_are_searched():
    """A rare large value is cut off where that makes all others finer."""
    torch.manual_seed(0)
    layer, rows = nn.Linear(32, 16), torch.randn(4000, 32)
    rows[0, 0] = 30.0
    (chosen,) = static_linear([layer], Samples([rows], rows.abs().amax(0)))
    gain = 1.0 if chosen.input_gain is None else chosen.input_gain
    assert chosen.input_scale < (rows * gain).abs().max() / 127


def test_calls_keep_their_form():
    tensors = [torch.zeros(2), torch.ones(3)]
    call = Call.of(((tensors[0], None, 7), [tensors[1]]))
    (first, none, seven), (second,) = call.filled([part + 1 for part in tensors])
    assert (none, seven) == (None, 7)
    assert torch.equal(first, torch.ones(2))
    assert torch.equal(second, torch.full((3,), 2.0))
    assert call.signature() == Call.of(((tensors[1][:2], None, 7), [tensors[1]])).signature()
    assert call.signature() != Call.of(((tensors[0], None, 8), [tensors[1]])).signature()


def test_the_decoders_large_convolutions_alone_are_exported_in_int8():
    assert CONVOLUTIONS.fullmatch("decoder.upsamples.0.upsamples.1.residual.2")
    assert CONVOLUTIONS.fullmatch("decoder.middle.2.residual.6")
    for name in ("decoder.middle.1.proj", "decoder.head.2", "decoder.conv1", "encoder.conv1"):
        assert not CONVOLUTIONS.fullmatch(name)


def test_without_tensorrt_its_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    with pytest.raises(MissingExtraError, match=r"worldwire\[tensorrt\]"):
        tensorrt.build_engines(tmp_path, torch.device("cpu"))


@pytest.mark.gpu
def test_a_block_of_full_width_is_exported(tmp_path):
    """The released sizes, in one block; the numbers come from the GPU, the graph runs on the CPU."""
    if not torch.cuda.is_available():
        pytest.skip("a block of full width needs a GPU")
    torch.manual_seed(0)
    released = WorldConfig.from_file(preset_folder("5b-720p") / CONFIG_FILE).dit
    one = replace(released.action_config, blocks=(0,))
    config = replace(released, num_layers=1, rays_per_cell=1, text_dim=64, text_len=16, action_config=one)
    dit = DiT(config).cuda().eval().requires_grad_(False)
    for parameter in dit.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    conditions = ClipConditions(
        text=torch.randn(1, 16, 64),
        plucker=torch.randn(1, 2, config.plucker_channels, 8, 16),
        keyboard=torch.randn(1, 16, 6),
        mouse=torch.randn(1, 16, 2),
        memory_times=torch.arange(0),
        window_times=torch.arange(2),
    )
    conditions = ClipConditions(
        *(None if part is None else part.cuda() for part in vars(conditions).values())
    )
    args = (torch.randn(1, 48, 2, 8, 16).cuda(), torch.tensor([[0.0, 700.0]]).cuda(), dit.prepare(conditions))
    layers = {name: dit.get_submodule(name) for name in layer_names(dit, "all")}
    with recorded(layers) as samples:
        dit.prepare(conditions)
        wanted = dit(*args)
    make_linears_static(dit, list(layers), samples)
    call = Call.of(args)
    graph = Graph(dit, dit.forward, call).eval()
    export(graph, call, tmp_path / "block.onnx")
    static = graph(*call.tensors)
    assert relative_error(static, [wanted]) < 0.1
    assert relative_error(OnnxRuntime(tmp_path / "block.onnx")(*call.tensors), static) < 0.02


@pytest.mark.gpu
def test_engines_give_what_onnx_runtime_gives(exported):
    pytest.importorskip("tensorrt", reason="TensorRT's native library is not installed (NVIDIA's own index)")
    if not torch.cuda.is_available():
        pytest.skip("TensorRT engines need a GPU")
    _, graphs = exported
    device = torch.device("cuda")
    for path in tensorrt.build_engines(graphs, device):
        graph = next(
            graph
            for graph in json.loads((graphs / "graphs.json").read_text())["graphs"]
            if graph["file"] == f"{path.stem}.onnx"
        )
        inputs = [random_input(*given) for given in graph["signature"]["tensors"]]
        wanted = OnnxRuntime(path.with_suffix(".onnx"))(*inputs)
        got = tensorrt.Engine(path, device)(*(tensor.to(device) for tensor in inputs))
        assert relative_error([part.cpu() for part in got], wanted) < 0.05


def random_input(dtype, *shape):
    kind = getattr(torch, dtype.removeprefix("torch."))
    return torch.randn(shape, dtype=kind) if kind.is_floating_point else torch.zeros(shape, dtype=kind)
