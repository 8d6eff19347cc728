"""Every tensor of a checkpoint is accounted for; the compact format stays close."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from worldwire.errors import CheckpointError
from worldwire_runtime.model.checkpoint import (
    load_into,
    load_module,
    quantise_rows,
    read_state,
    save_compact,
    save_state,
)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 8), nn.Conv2d(4, 6, 3), nn.LayerNorm(8))


def test_every_wrong_tensor_is_named_and_nothing_is_loaded():
    module, other = network(), network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = dict(other.state_dict())
    state["surplus"] = state.pop("0.bias")
    state["1.weight"] = torch.zeros(6, 4, 3, 1)
    with pytest.raises(CheckpointError) as caught:
        load_into(module, state)
    for fault in ("missing: 0.bias", "extra: surplus", "1.weight [6, 4, 3, 1] instead of [6, 4, 3, 3]"):
        assert fault in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_saved_weights_come_back_bit_by_bit(tmp_path):
    module, other = network(), network()
    save_state(module.state_dict(), tmp_path / "weights.safetensors")
    load_module(other, tmp_path / "weights.safetensors")
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_compact_weights_are_smaller_and_close(tmp_path):
    module = network()
    module[0].weight.data[3] = 0.0
    save_compact(module.state_dict(), tmp_path / "weights.safetensors")
    state = read_state(tmp_path / "weights.safetensors")
    for name, tensor in module.state_dict().items():
        assert state[name].shape == tensor.shape
        assert (state[name] - tensor).abs().max() <= tensor.abs().max() / 127
    assert torch.equal(state["2.weight"], module[2].weight)
    assert torch.equal(state["0.weight"][3], torch.zeros(32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_meta_modules_are_filled_with_the_wanted_type(tmp_path, dtype):
    save_compact(network().state_dict(), tmp_path / "weights.safetensors")
    with torch.device("meta"):
        module = network()
    load_module(module, tmp_path / "weights.safetensors", dtype=dtype)
    assert {parameter.dtype for parameter in module.parameters()} == {dtype}
    assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}


def test_rows_use_the_whole_int8_range():
    matrix = torch.randn(5, 40) * torch.logspace(-4, 4, 5)[:, None]
    rows, scale = quantise_rows(matrix)
    assert rows.abs().amax(dim=1).tolist() == [127] * 5
    assert scale.shape == (5,)


@pytest.mark.parametrize("keep", [0, 7, 200, -3])
def test_a_file_cut_short_is_a_typed_error(tmp_path, keep):
    path = tmp_path / "weights.safetensors"
    save_state(network().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_module(network(), path)


def test_an_absent_file_is_a_typed_error(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(tmp_path / "nothing.safetensors")


def test_int8_rows_need_their_scales(tmp_path):
    save_file({"0.weight": torch.zeros(8, 32, dtype=torch.int8)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"0\.weight has no fitting scale"):
        read_state(tmp_path / "weights.safetensors")
