"""CUDA graphs: what a replayed call gives, with a recorder that stands for a GPU, and on one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from worlds import write_random_world

from worldwire.inputs import Inputs
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.graphs import (
    MOST_GRAPHS,
    WARM_CALLS,
    CudaRecorder,
    Graphed,
    Recorded,
    flatten,
    unflatten,
)
from worldwire_runtime.world import World


@dataclasses.dataclass(frozen=True)
class Pair:
    left: Tensor
    right: Tensor | None = None


def fake_record(function, args):
    """As a graph: replaying reads the recorded arguments' memory and writes the recorded results' memory."""
    result = function(*args)
    outputs = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, result)

    def replay():
        for held, new in zip(tree_leaves(outputs), tree_leaves(function(*args)), strict=True):
            if isinstance(held, Tensor):
                held.copy_(new)

    return Recorded(result, replay, outputs)


def add_and_scale(pair, parts, times):
    calls.append(times)
    right = 0 if pair.right is None else pair.right
    return pair.left + right, parts[0] * times


calls: list[int] = []


def test_replayed_calls_equal_plain_ones_and_their_results_stay():
    graphed, results = Graphed(add_and_scale, fake_record), []
    for _ in range(WARM_CALLS + 4):
        pair, parts = Pair(torch.rand(3), torch.rand(3)), (torch.rand(2),)
        results.append((graphed(pair, parts, 3), (pair.left + pair.right, parts[0] * 3)))
    for ours, plain in results:
        assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))


def test_other_shapes_values_and_missing_tensors_are_other_recordings():
    graphed = Graphed(add_and_scale, fake_record)
    for _ in range(WARM_CALLS + 2):
        for pair, times in ((Pair(torch.ones(3)), 1), (Pair(torch.ones(3), torch.ones(3)), 1)):
            for size in (2, 5):
                left, scaled = graphed(pair, (torch.ones(size),), times)
                assert left.sum() == 3 * (1 + (pair.right is not None))
                assert scaled.shape == (size,)
    assert len(graphed._recordings) == 4
    calls.clear()
    for number in range(3 * MOST_GRAPHS):  # a full set runs others as they are
        graphed(Pair(torch.ones(number + 10)), (torch.ones(2),), 1)
    assert len(calls) == 3 * MOST_GRAPHS


def add_at(buffer, offset, place):
    """In place, and another thing if it is done twice."""
    buffer.index_add_(0, place, offset)
    return buffer.sum()


def test_resident_arguments_are_read_and_written_in_place():
    graphed = Graphed(add_at, fake_record, resident=("buffer",))
    for recordings in (1, 2):  # each buffer has its own
        buffer = torch.zeros(2 * WARM_CALLS, 3)
        for place in range(1, len(buffer)):
            offset = torch.rand(1, 3)
            total = graphed(buffer, offset, torch.tensor([place]))
            assert torch.equal(buffer[place], offset[0])
            assert torch.equal(total, buffer.sum())
        assert graphed.recordings == recordings


def test_recordings_end_with_the_memory_that_they_read_in_place():
    nothing = Recorded(None, lambda: None, None)
    graphed = Graphed(add_at, lambda *_: nothing, resident=("buffer",))
    for _ in range(2 * MOST_GRAPHS):
        buffer = torch.zeros(2, 3)
        for _ in range(WARM_CALLS + 1):
            graphed(buffer, torch.ones(1, 3), torch.tensor([1]))
        assert graphed.recordings == 1


def test_immutable_arguments_are_copied_once():
    def add(table, x):
        return table + x

    graphed, table, other = Graphed(add, fake_record, immutable=("table",)), torch.rand(3), torch.rand(3)
    for _ in range(WARM_CALLS + 2):
        assert torch.equal(graphed(table, torch.ones(3)), table + 1)
    (held,) = [each.tensor for each in next(iter(graphed._recordings.values())).inputs if each.is_immutable]
    before = held._version
    graphed(table, torch.zeros(3))
    assert held._version == before
    for again in (other, other, table):
        assert torch.equal(graphed(again, torch.ones(3)), again + 1)
    assert held._version == before + 2


def test_arguments_come_back_as_they_were():
    args = (Pair(torch.ones(2)), [1, (torch.zeros(1), None)], "name")
    again = unflatten(*flatten(args))
    assert isinstance(again[0], Pair)
    assert again[0].right is None
    assert again[1:] == args[1:]


def walk(world: World) -> Tensor:
    session = world.session()
    session.reset(seed=1)
    frames = [frame for _ in range(20) for frame in session.step(Inputs(frozenset({"forward"}), yaw_deg=2.0))]
    return torch.stack([torch.from_numpy(frame.pixels) for frame in frames])


@pytest.mark.parametrize("attention", ["joint", "cached", "rolling"])
def test_a_session_shows_the_same_with_recorded_clips(tmp_path, attention, monkeypatch):
    folder = write_random_world(tmp_path, attention=attention)
    world = World.load(folder, device="cpu", precision="float32")
    plain = walk(world)
    recorded = []

    def record(function, args):
        recorded.append(function.__name__)
        return fake_record(function, args)

    monkeypatch.setattr("worldwire_runtime.denoiser.CudaRecorder", lambda: record)
    world.denoiser = Denoiser(world.denoiser.dit, world.config.sampler.shift, graphs=True)
    assert torch.equal(walk(world), plain)
    assert ("sample_after" if attention == "rolling" else "sample") in recorded


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recordings_come_and_go_on_a_gpu():
    """Memory that a recorder's last graph has left is not asked for again."""
    record = CudaRecorder()
    for size in (2, 3):
        recorded = record(torch.add, (torch.ones(size, device="cuda"), 1))
        recorded.replay()
        assert recorded.outputs.sum() == recorded.result.sum() == 2 * size
        del recorded


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("attention", ["joint", "cached", "rolling"])
def test_a_session_on_a_gpu_shows_the_same_with_graphs(tmp_path, attention):
    folder = write_random_world(tmp_path, attention=attention)
    world = World.load(folder, device="cuda", precision="float32")
    plain = walk(world).float()
    world.denoiser = Denoiser(world.denoiser.dit, world.config.sampler.shift, graphs=True)
    assert (walk(world).float() - plain).abs().max() <= 1
