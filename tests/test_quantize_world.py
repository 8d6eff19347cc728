"""`worldwire quantize` on a small random world, and playing what it wrote."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from worlds import write_random_world

from worldwire.cli import main
from worldwire.errors import ConfigError
from worldwire_runtime.kernels.rows import INT8
from worldwire_runtime.quantize.calibration import Samples, recorded
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.linear import QuantLinear
from worldwire_runtime.quantize.report import Outcome
from worldwire_runtime.quantize.run import first_step, write
from worldwire_runtime.quantize.smoothing import best_gain, output_error
from worldwire_runtime.world import World


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_world(tmp_path_factory.mktemp("world"))


def quantise(folder, *options):
    return main(["quantize", "--preset", str(folder), "--device", "cpu", "--images", "1", *options])


@pytest.mark.parametrize("options", [(), ("--smooth",), ("--arithmetic", "fp8", "--set", "attention")])
def test_a_quantised_folder_plays_nearly_the_same(folder, tmp_path, capsys, options):
    report, out = tmp_path / "report.json", tmp_path / "out"
    assert quantise(folder, "--report", str(report), "--out", str(out), *options) == 0
    found = json.loads(report.read_text())
    assert all(0 < layer["relative_error"] < 0.1 for layer in found["layers"])
    assert len(found["layers"]) == (16 if "attention" in options else 33)
    assert set(found["attention_8bit"]) == {"0 fp8", "0 16-bit", "1 fp8", "1 16-bit"}
    assert "blocks.0.self_attn.q" in capsys.readouterr().out
    plain, loaded = (
        World.load(where, "cpu", precision) for where, precision in ((folder, "float32"), (out, "auto"))
    )
    assert isinstance(loaded.denoiser.dit.get_submodule("blocks.0.self_attn.q"), QuantLinear)
    difference = first_step(plain, 1).astype(float) - first_step(loaded, 1)
    assert np.abs(difference).mean() < 8


def test_weights_that_are_stored_quantised_are_not_run_otherwise(folder, tmp_path):
    assert quantise(folder, "--out", str(tmp_path / "out")) == 0
    with pytest.raises(ConfigError, match="stored quantised"):
        World.load(tmp_path / "out", "cpu", "bfloat16")


def test_a_folder_in_use_is_not_overwritten(folder):
    world, outcome = World.load(folder, "cpu"), Outcome(Quantization(), [], {}, 0.0)
    with pytest.raises(ConfigError, match="in use"):
        write(world, outcome, folder, folder)


def test_recording_keeps_rows_and_the_largest_of_every_channel():
    layer = nn.Linear(4, 2)
    inputs = [torch.randn(2, 30, 4), torch.randn(3, 4)]
    with recorded({"layer": layer}) as samples:
        for x in inputs:
            layer(x)
    layer(100 * inputs[0])  # not recorded any more
    rows = torch.cat([x.flatten(0, -2) for x in inputs])
    assert torch.equal(samples["layer"].largest, rows.abs().amax(0))
    assert samples["layer"].rows.shape == (16 + 3, 4)
    assert all((rows == kept).all(1).any() for kept in samples["layer"].rows)


def test_a_gain_is_found_where_channels_differ_and_none_where_they_do_not():
    torch.manual_seed(0)
    layer, even = nn.Linear(64, 32), torch.randn(200, 64)
    uneven = even * torch.logspace(-1.5, 1.5, 64)
    layer.weight.data /= torch.logspace(-1.5, 1.5, 64)
    gain = best_gain([layer], Samples([uneven], uneven.abs().amax(0)), INT8)
    assert gain is not None
    plain, smooth = (output_error(layer, QuantLinear.of(layer, INT8, g), uneven) for g in (None, gain))
    assert smooth < plain / 2
    other = nn.Linear(64, 32)
    assert best_gain([other], Samples([even], even.abs().amax(0)), INT8) is None
