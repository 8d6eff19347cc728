"""8-bit linears: the arithmetic against its exact definition, and networks that hold them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from worlds import random_config

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.kernels.linear import exact_linear, linear, sliced_products
from worldwire_runtime.kernels.rows import FORMATS, INT8, Rows, quantise_rows
from worldwire_runtime.model.blocks import BlockCache
from worldwire_runtime.model.checkpoint import save_compact, save_state
from worldwire_runtime.model.dit import ClipConditions, DiT
from worldwire_runtime.model.rope import trunk_rotary
from worldwire_runtime.quantize.attention import use_8bit_attention, use_plain_attention
from worldwire_runtime.quantize.config import Quantization, quantization_of
from worldwire_runtime.quantize.files import load_quantised, save_quantised
from worldwire_runtime.quantize.layers import groups, join_projections, layer_names, quantise
from worldwire_runtime.quantize.linear import QuantLinear

KINDS = list(FORMATS.values())


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


def relative(got, wanted):
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


def network(seed: int = 0) -> DiT:
    torch.manual_seed(seed)
    dit = DiT(random_config().dit)
    for parameter in dit.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return dit.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_rows_keep_their_largest_value_and_are_rounded_to_the_nearest(kind):
    x = torch.randn(50, 33) * torch.logspace(-4, 4, 50)[:, None]
    rows = quantise_rows(x, kind)
    assert rows.values.dtype == kind.dtype
    assert torch.equal(rows.values.float().abs().amax(1), torch.full((50,), kind.largest))
    if kind is INT8:
        exact = x.double() / rows.scale.double()
        assert ((rows.values - exact).abs() <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_row_of_zeros_stays_zero(kind):
    rows = quantise_rows(torch.zeros(2, 8), kind)
    assert not rows.values.float().any()
    assert rows.scale.isfinite().all()


@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("shape", [(1, 16, 8), (19, 40, 24), (64, 384, 96)])
def test_products_equal_the_exact_definition(kind, shape, gelu):
    M, K, N = shape
    x, weight = quantise_rows(torch.randn(M, K), kind), quantise_rows(torch.randn(N, K), kind)
    bias = torch.randn(N)
    got = linear(x, weight, bias, torch.float32, gelu=gelu)
    assert relative(got, exact_linear(x, weight, bias, gelu=gelu)) < 1e-6


def test_slices_of_float_products_are_exact_for_the_largest_integers():
    x, weight = torch.full((3, 2500), -128, dtype=torch.int8), torch.full((2, 2500), -128, dtype=torch.int8)
    x[1], x[2, 1023], weight[1, ::3] = 127, 127, 127
    assert torch.equal(sliced_products(x, weight).long(), x.long() @ weight.long().t())


def test_integers_are_really_multiplied():
    """The largest possible sums, which float32 could not hold exactly: 14336 products of 127 and 127."""
    K = 14336
    x = Rows(torch.full((2, K), 127, dtype=torch.int8), torch.ones(2, 1))
    weight = Rows(torch.full((3, K), -127, dtype=torch.int8), torch.ones(3, 1))
    weight.values[1, 0] = -126
    sums = torch._int_mm(x.values, weight.values.t())
    assert sums.tolist() == [[-127 * 127 * K, -127 * 127 * K + 127, -127 * 127 * K]] * 2
    assert torch.equal(linear(x, weight, None, torch.float32), sums.float())


@pytest.mark.parametrize(("arithmetic", "limit"), [("int8", 0.015), ("fp8", 0.05)])
def test_a_layer_is_near_the_one_it_replaces(arithmetic, limit):
    layer, x = nn.Linear(256, 96), torch.randn(3, 5, 256)
    with torch.no_grad():
        got, wanted = QuantLinear.of(layer, FORMATS[arithmetic])(x), layer(x)
    assert got.shape == wanted.shape
    assert got.dtype == x.dtype
    assert relative(got, wanted) < limit


def test_a_gain_changes_only_the_rounding():
    """Inputs with one huge channel: moving its range into the weights makes the error far smaller."""
    layer, x = nn.Linear(64, 32), torch.randn(40, 64)
    x[:, 7] *= 100
    gain = torch.ones(64)
    gain[7] = 1 / 10
    with torch.no_grad():
        wanted = layer(x)
        plain = relative(QuantLinear.of(layer, INT8)(x), wanted)
        smooth = relative(QuantLinear.of(layer, INT8, gain)(x), wanted)
    assert smooth < plain / 2


def test_casting_a_network_rounds_no_scale_and_no_8_bit_value():
    for kind in KINDS:
        layer = QuantLinear.of(nn.Linear(32, 8), kind, torch.rand(32) + 0.5)
        cast = copy.deepcopy(layer).to(torch.bfloat16)
        assert cast.bias is not None
        assert cast.bias.dtype == torch.bfloat16
        for name in ("weight", "weight_scale", "input_gain"):
            before, after = getattr(layer, name), getattr(cast, name)
            assert after.dtype == before.dtype
            assert torch.equal(after.float(), before.float())


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_joined_layers_give_what_each_of_them_gives(kind, smooth):
    gain = torch.rand(32) + 0.5 if smooth else None
    layers = [QuantLinear.of(nn.Linear(32, outputs), kind, gain) for outputs in (8, 16, 24)]
    x = torch.randn(2, 5, 32)
    apart = [layer(x) for layer in layers]
    whole = QuantLinear.joined(layers)
    for form in (whole, copy.deepcopy(whole).to(torch.float32)):
        assert all(map(torch.equal, form(x).split([8, 16, 24], dim=-1), apart))
    assert all(map(torch.equal, (layer(x) for layer in layers), apart))
    assert layers[1].weight.untyped_storage().data_ptr() == whole.weight.data_ptr()
    assert not whole.state_dict()


def test_a_network_with_joined_projections_gives_the_same():
    dit = network()
    quantise(dit, Quantization("int8", "attention"))
    saved, attention = set(dit.state_dict()), dit.blocks[0].self_attn
    y, rotary = torch.randn(1, 2, 6, 32), trunk_rotary(torch.arange(2)[None], (2, 3), 2, 16, 0.8)
    wanted = attention(y, rotary, 0, None)
    join_projections(dit)
    got = attention(y, rotary, 0, None)
    assert torch.equal(got[0], wanted[0])
    assert all(map(torch.equal, got[1], wanted[1]))
    assert set(dit.state_dict()) == saved
    kept = BlockCache(got[1], None).apart().attention
    assert torch.equal(kept.value, wanted[1].value)
    assert kept.value.untyped_storage().nbytes() == kept.value.nbytes


def test_layer_sets_are_the_papers_and_all_large_ones():
    dit = network()
    attention, everything = layer_names(dit, "attention"), layer_names(dit, "all")
    assert len(attention) == 8 * len(dit.blocks)
    assert all(name.split(".")[-1] in "qkvo" for name in attention)
    assert set(attention) < set(everything)
    # Per block: 8 projections, 2 of the feed-forward, 4 of the camera; 5 of the one action module.
    assert len(everything) == 14 * len(dit.blocks) + 5
    for name in everything:
        assert isinstance(dit.get_submodule(name), nn.Linear)
    assert ["blocks.0.self_attn.q", "blocks.0.self_attn.k", "blocks.0.self_attn.v"] in groups(attention)


@pytest.mark.parametrize("layers", ["attention", "all"])
@pytest.mark.parametrize("arithmetic", ["int8", "fp8"])
@pytest.mark.parametrize("compact", [True, False])
def test_files_load_as_the_network_that_was_quantised(tmp_path, arithmetic, layers, compact):
    """A plain file, a compact one, and a quantised one that was saved all give the same 8-bit network."""
    quantization = Quantization(arithmetic, layers)
    plain = network()
    (save_compact if compact else save_state)(plain.state_dict(), tmp_path / "plain.safetensors")
    first, second = (on_meta() for _ in range(2))
    load_quantised(first, tmp_path / "plain.safetensors", quantization, torch.float32)
    save_quantised(first, tmp_path / "quantised.safetensors")
    load_quantised(second, tmp_path / "quantised.safetensors", quantization, torch.float32)
    quantise(plain, quantization)
    for name in layer_names(on_meta(), layers):
        expected, got, again = (dit.get_submodule(name) for dit in (plain, first, second))
        assert torch.equal(got.weight, again.weight)
        assert torch.equal(got.weight_scale, again.weight_scale)
        if arithmetic == "int8" or not compact:
            assert torch.equal(got.weight, expected.weight)
            torch.testing.assert_close(got.weight_scale, expected.weight_scale, rtol=1e-6, atol=0)


def on_meta() -> DiT:
    with torch.device("meta"):
        return DiT(random_config().dit)


def test_gains_are_stored_and_loaded(tmp_path):
    plain, loaded, smooth = network(), on_meta(), Quantization("int8", "all", smooth=True)
    name = "blocks.1.ffn.0"
    gain = torch.rand(plain.get_submodule(name).in_features) + 0.5
    quantise(plain, smooth, {name: gain})
    save_quantised(plain, tmp_path / "q.safetensors")
    load_quantised(loaded, tmp_path / "q.safetensors", smooth, torch.float32)
    assert torch.equal(loaded.get_submodule(name).input_gain, gain)
    assert loaded.get_submodule("blocks.0.ffn.0").input_gain is None


def test_a_file_with_a_missing_layer_is_refused(tmp_path):
    state = network().state_dict()
    del state["blocks.0.self_attn.q.weight"]
    save_state(state, tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match=r"blocks\.0\.self_attn\.q\.weight"):
        load_quantised(on_meta(), tmp_path / "cut.safetensors", Quantization(), torch.float32)


def test_precision_names():
    assert quantization_of("int8", None) == Quantization("int8", "all")
    assert quantization_of("fp8-attention", None) == Quantization("fp8", "attention")
    assert quantization_of("bfloat16", None) is None
    stored = Quantization("int8", "attention", smooth=True)
    assert quantization_of("auto", stored) is stored
    assert quantization_of("int8-attention", stored) is stored
    with pytest.raises(ConfigError, match="stored quantised"):
        quantization_of("fp8", stored)
    with pytest.raises(ConfigError, match="unknown layers"):
        Quantization("int8", "most")


@pytest.mark.parametrize("mode", ["joint", "cached"])
def test_8_bit_attention_in_a_network_keeps_its_velocities(mode):
    torch.manual_seed(0)
    dit = DiT(replace(random_config().dit, attention=mode)).eval().requires_grad_(False)
    for parameter in dit.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    M, W, h, w = 2, 3, 2, 4
    conditions = ClipConditions(
        text=torch.randn(1, 8, 16),
        plucker=torch.randn(1, M + W, 6, h, w),
        keyboard=torch.randn(1, 4 * (W + 2), 6),
        mouse=torch.randn(1, 4 * (W + 2), 2),
        memory_times=torch.arange(M),
        window_times=torch.arange(W) + 8,
    )
    latents, timestep = torch.randn(1, 4, M + W, h, w), torch.tensor([[0.0, 0.0, 0.0, 700.0, 700.0]])
    prepared = dit.prepare(conditions)
    wanted = dit(latents, timestep, prepared, context=3)
    use_8bit_attention(dit)
    got = dit(latents, timestep, prepared, context=3)
    assert 0 < relative(got, wanted) < 0.05
    use_plain_attention(dit)
    assert torch.equal(dit(latents, timestep, prepared, context=3), wanted)
