"""Compiled forms give what the plain functions give, and compile only for shapes that keep coming back."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import sympy
import torch
from torch import Tensor
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch._inductor.runtime.hints import ReductionHint
from torch._inductor.virtualized import V
from worlds import random_config, write_random_world

from worldwire.inputs import Inputs
from worldwire_runtime import acceleration, denoiser
from worldwire_runtime.acceleration import (
    STEADY_CLIPS,
    WARM_CALLS,
    Steady,
    SteadyCompiled,
    compiled_network,
    keep_compiled_code,
    rows_at_once,
)
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.model.config import DiTConfig
from worldwire_runtime.model.dit import ClipConditions, DiT
from worldwire_runtime.world import World


@dataclass(frozen=True)
class Pair:
    left: Tensor
    right: Tensor


def add(pair: Pair, scale: float) -> Tensor:
    return (pair.left + pair.right) * scale


@pytest.fixture(autouse=True)
def _compiled_code_of_tests(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()


def test_compiles_only_for_shapes_that_repeat(monkeypatch):
    compiled_for = []

    def fake_compile(function, **_):
        def compiled(*args):
            compiled_for.append(args[0].left.shape)
            return function(*args)

        return compiled

    monkeypatch.setattr(torch, "compile", fake_compile)
    steady = SteadyCompiled(add)
    for size in (1, 2, 3, 3):
        pair = Pair(torch.ones(size), torch.ones(size))
        assert torch.equal(steady(pair, 2.0), add(pair, 2.0))
    assert not compiled_for
    for _ in range(WARM_CALLS):
        steady(Pair(torch.ones(3), torch.ones(3)), 2.0)
    steady(Pair(torch.ones(5), torch.ones(5)), 2.0)
    assert set(compiled_for) == {torch.Size([3])}


def test_a_shape_that_keeps_coming_back_is_steady_and_somebody_hears_of_it():
    told: list[str] = []

    def fused(x: Tensor) -> Tensor:
        told.append("fused")
        return x + 1

    steady = Steady(lambda x: x + 1, fused, most=1, tell=told.append)
    for _ in range(STEADY_CLIPS):
        steady(torch.ones(2))
        steady(torch.ones(3))
    assert not told
    assert torch.equal(steady(torch.ones(2)), torch.full((2,), 2.0))
    assert [bool(told[0]), *told[1:]] == [True, "fused", ""]
    steady(torch.ones(3))  # one shape is the most
    steady(torch.ones(2))
    assert told[3:] == ["fused"]


def test_what_a_compiled_function_makes_is_announced_when_it_is_first_called():
    told: list[str] = []
    steady = Steady(lambda x: x.add, lambda x: x.mul, tell=told.append, after=0)
    made = steady(torch.ones(2))
    assert len(told) == 2  # compiling, and done
    for _ in range(2):
        assert torch.equal(made(3.0), torch.full((2,), 3.0))
    assert [bool(words) for words in told] == [True, False] * 2


@pytest.mark.parametrize("device", [None, torch.device("cpu"), torch.device("cuda")])
def test_weights_that_wait_on_a_cpu_are_compiled_for_where_they_run(tmp_path, monkeypatch, device):
    world = World.load(write_random_world(tmp_path), "cpu", "float32")
    asked: list[bool] = []
    monkeypatch.setattr(denoiser, "compiled_network", lambda dit, whole: asked.append(whole) or dit)
    Denoiser(world.denoiser.dit, 3.0, compiled=True, device=device)
    assert asked == [device is None or device.type == "cpu"]


@torch.inference_mode()
def test_a_recording_copies_the_keys_of_a_prompt_once(tmp_path):
    world = World.load(write_random_world(tmp_path), "cpu", "float32")
    keys = denoiser.Prompts(world.denoiser.dit)(world.encode_prompt("a village"))
    assert all(tensor.is_contiguous() for block in keys.blocks for tensor in block)


@pytest.mark.parametrize("attention", ["joint", "cached", "rolling"])
@pytest.mark.parametrize("device", ["cpu", "as on a GPU"])
def test_a_session_goes_on_as_it_was_once_it_is_compiled(tmp_path, monkeypatch, attention, device):
    """By torch's tracer, without its code generator, which takes minutes."""
    world = World.load(write_random_world(tmp_path / "world", attention=attention), "cpu", "float32")
    plain = walk(world)
    traced: list[str] = []
    monkeypatch.setattr(acceleration, "_compiled", tracer(traced))
    if device != "cpu":
        for module in (acceleration, denoiser):
            monkeypatch.setattr(module, "whole_functions_are_compiled", lambda _: False)
    world.denoiser = Denoiser(world.denoiser.dit, world.config.sampler.shift, compiled=True)
    assert (walk(world).float() - plain.float()).abs().max() <= 1
    assert traced
    # Blocks with and without actions, by call; what is prepared of both; a context's last block; the ends.
    # (Under `joint` the last block has two calls of its own, in place of that of the others.)
    variants = {"joint": 9, "cached": 13, "rolling": 13}[attention]
    assert device == "cpu" or len(traced) <= variants, len(traced)


def test_a_compiled_network_shares_the_weights(tmp_path):
    world = World.load(write_random_world(tmp_path), "cpu", "float32")
    twin = compiled_network(world.denoiser.dit)
    assert twin.patch_embedding is world.denoiser.dit.patch_embedding
    assert "forward" not in vars(world.denoiser.dit)


def test_blocks_of_one_kind_are_compiled_once(monkeypatch):
    traced: list[str] = []
    monkeypatch.setattr(acceleration, "_compiled", tracer(traced))
    monkeypatch.setattr(acceleration, "whole_functions_are_compiled", lambda _: False)
    config = random_config("rolling").dit
    action = dataclasses.replace(config.action_config, blocks=(0, 1, 2))
    dit = DiT(dataclasses.replace(config, num_layers=6, action_config=action)).eval().requires_grad_(False)
    noisy, times = torch.randn(1, config.in_dim, 2, 2, 4), torch.full((1, 2), 500.0)
    results = []
    for network in (dit, compiled_network(dit)):
        with torch.inference_mode():
            prepared = network.prepare(conditions(config))
            cache = network.extend(noisy, prepared)
            results.append(network.denoise(noisy, times, prepared, cache))
    assert torch.allclose(*results, atol=1e-5)
    # With actions and without: prepared, before a context, behind one; the last; four ends, one twice.
    assert len(traced) == 12


def conditions(config: DiTConfig) -> ClipConditions:
    torch.manual_seed(0)
    return ClipConditions(
        text=torch.randn(1, config.text_len, config.text_dim),
        plucker=torch.randn(1, 2, config.plucker_channels, 2, 4),
        keyboard=torch.zeros(1, 16, 6),
        mouse=torch.zeros(1, 16, 2),
        memory_times=torch.arange(0),
        window_times=torch.arange(2),
    )


def tracer(traced: list[str]):
    """Stands for torch.compile: the tracer without the code generator. Notes each graph."""

    def backend(graph, _):
        traced.append("graph")
        return graph.forward

    def compiled(function, freezing=False):
        return torch.compile(function, dynamic=False, backend=backend)

    return compiled


def walk(world: World) -> Tensor:
    session = world.session()
    session.reset(seed=1)
    steps = STEADY_CLIPS + 9
    frames = [frame for _ in range(steps) for frame in session.step(Inputs(frozenset({"forward"})))]
    return torch.stack([torch.from_numpy(frame.pixels) for frame in frames])


@pytest.mark.parametrize(
    ("width", "hint", "sums", "at_once"),
    [
        (14336, "INNER", 2, True),
        (20480, "INNER", 1, False),
        (3072, "DEFAULT", 1, True),
        (3072, "DEFAULT", 2, False),
    ],
)
def test_rows_of_the_network_are_read_once(width, hint, sums, at_once):
    features = SimpleNamespace(
        get_reduction_hint=lambda: ReductionHint[hint],
        reduction_nodes=lambda: [None] * sums,
        reduction_numel=sympy.Integer(width),
        numel=sympy.Integer(100 * width),
    )
    sizes = SimpleNamespace(statically_known_leq=lambda one, other: bool(one <= other))
    before = V.choices
    with V.set_graph_handler(SimpleNamespace(sizevars=sizes)), rows_at_once():
        assert V.choices.should_use_persistent_reduction(features, False) is at_once
    assert V.choices is before


def test_compiled_code_is_kept_where_the_user_said_or_with_all_else(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLDWIRE_CACHE", str(tmp_path))
    keep_compiled_code()  # the fixture's folder: the user's choice
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # torch's own
    keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")
