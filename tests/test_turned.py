"""What stands between 8-bit products by kernels, against the plain functions.

On the GPU if there is one, else in Triton's interpreter.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed (it is for Linux alone)")

from worlds import random_config

from worldwire_runtime.kernels import linear, native, prologue, turned  # noqa: F401
from worldwire_runtime.model import blocks
from worldwire_runtime.model.attention import RMSNorm
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.rope import timed_pairs, trunk_rotary
from worldwire_runtime.quantize import passes
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.layers import join_projections, quantise
from worldwire_runtime.quantize.linear import Modulated, QuantLinear, modulate_later

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLOSE = {torch.float32: {"rtol": 1e-5, "atol": 1e-5}, torch.bfloat16: {"rtol": 1e-2, "atol": 1e-5}}


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


def case(batches, latents, grid, heads, head, sigma=0.8, clips=1, dtype=torch.float32):
    """Queries and keys that are parts of wider rows, norms and tables."""
    tokens, width = grid[0] * grid[1], heads * head
    joined = 3 * torch.randn(batches, latents, tokens, 3 * width, device=DEVICE).to(dtype)
    times = torch.randint(0, 40, (clips, latents), device=DEVICE)
    norms = RMSNorm(width, 1e-6).to(DEVICE), RMSNorm(width, 1e-6).to(DEVICE)
    for norm in norms:
        norm.weight.data.uniform_(0.5, 2)
        norm.requires_grad_(False)
    return *joined.chunk(3, dim=-1)[:2], norms, trunk_rotary(times, grid, heads, head, sigma), dtype


def turn_by_kernel(query, key, norms, rotary, dtype):
    tables, timed = (*rotary.time, *rotary.space), 2 * timed_pairs(rotary.space.cos.shape[-1])
    weights = (norm.weight for norm in norms)
    return turned.turned_rows(query, key, *weights, *tables, timed, norms[0].eps, dtype)


CASES = {
    "one latent": partial(case, 1, 1, (1, 3), 2, 16),
    "more latents than a program takes": partial(case, 1, 6, (3, 3), 3, 16),
    "the 5B world's heads": partial(case, 1, 2, (1, 3), 24, 128, dtype=torch.bfloat16),
    "heads that fill no tile": partial(case, 1, 2, (1, 5), 14, 8),
    "one table for all heads": partial(case, 1, 3, (2, 3), 6, 32, sigma=0.0),
    "one head": partial(case, 1, 3, (1, 2), 1, 8),
    "clips with times of their own": partial(case, 2, 5, (1, 3), 2, 16, clips=2, dtype=torch.bfloat16),
    "clips with the same times": partial(case, 2, 3, (1, 3), 2, 16),
}


@pytest.mark.parametrize("made", CASES.values(), ids=CASES.keys())
def test_the_kernel_and_its_definition_equal_the_plain_functions(made):
    query, key, norms, rotary, dtype = made()
    wanted = blocks.turn(query, key, norms, rotary, dtype)
    weights = norms[0].weight, norms[1].weight
    defined = turned.reference(query, key, weights, rotary.time, rotary.space, norms[0].eps, dtype)
    for got in (turn_by_kernel(query, key, norms, rotary, dtype), defined):
        for ours, plain in zip(got, wanted, strict=True):
            assert ours.dtype == dtype
            assert ours.is_contiguous()
            torch.testing.assert_close(ours, plain, **CLOSE[dtype])


def test_rows_that_are_no_parts_of_one_tensor():
    query, key, *others = case(1, 3, (1, 3), 2, 16)
    wanted = blocks.turn(query, key, *others)
    for apart in (query.contiguous(), query.transpose(1, 2).contiguous().transpose(1, 2)):
        for ours, plain in zip(turn_by_kernel(apart, key, *others), wanted, strict=True):
            torch.testing.assert_close(ours, plain, **CLOSE[torch.float32])


def test_the_operator_traces_without_running():
    query, key, norms, rotary, _ = case(2, 5, (1, 3), 2, 16)

    def both(query, key):
        return turn_by_kernel(query, key, norms, rotary, torch.bfloat16)

    compiled = torch.compile(both, backend="aot_eager", fullgraph=True)
    for ours, plain in zip(compiled(query, key), both(query, key), strict=True):
        assert torch.equal(ours, plain)
        assert (ours.shape, ours.dtype) == ((2, 5, 3, 2, 16), torch.bfloat16)


def joined_network():
    dit = DiT(random_config().dit).eval().requires_grad_(False).to(DEVICE)
    quantise(dit, Quantization("int8", "attention"))
    return dit


def test_only_joined_projections_are_turned_at_once():
    dit = joined_network()
    passes.use_row_kernels(dit)
    assert all(block.self_attn.turn is blocks.turn for block in dit.blocks)
    join_projections(dit)
    passes.use_row_kernels(dit)
    assert all(block.self_attn.turn is passes.turn_at_once for block in dit.blocks)


def test_attention_with_the_kernel_gives_the_same(monkeypatch):
    dit = joined_network()
    join_projections(dit)
    attention = dit.blocks[0].self_attn
    heads, width = attention.heads, len(attention.norm_q.weight)
    y = torch.randn(1, 2, 6, width, device=DEVICE)
    rotary = trunk_rotary(torch.arange(2, device=DEVICE)[None], (2, 3), heads, width // heads, 0.8)
    wanted = attention(y, rotary, 1, None)
    native.register()
    for turn in (passes.turn_at_once, turn_by_kernel):  # on a CPU the first of them is the plain function
        monkeypatch.setattr(attention, "turn", turn)
        got = attention(y, rotary, 1, None)
        for ours, plain in zip((got[0], *got[1]), (wanted[0], *wanted[1]), strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("joined", [False, True])
def test_a_network_whose_layers_modulate_for_themselves_gives_the_same(joined, monkeypatch):
    """Blocks give 8-bit layers what they would be modulated with; on a CPU those do as the blocks did."""
    dit = DiT(random_config().dit).eval().requires_grad_(False).to(DEVICE)
    quantise(dit, Quantization("int8", "all"))
    if joined:
        join_projections(dit)
    block, width = dit.blocks[1], dit.config.dim
    x, head = torch.randn(2, 3, 6, width, device=DEVICE), width // dit.config.num_heads
    time = torch.randn(1, 3, 1, 6, width, device=DEVICE)  # the same for both clips
    text = blocks.KeyValue(*torch.randn(2, 2, dit.config.num_heads, 5, head, device=DEVICE))
    scale, shift = torch.randn(2, 2, 3, 6, width, device=DEVICE)
    times = torch.arange(3, device=DEVICE)[None]
    rotary = trunk_rotary(times, (2, 3), dit.config.num_heads, head, 0.8)
    args = x, time, blocks.BlockClip(scale, shift, text, None), rotary
    wanted = block(*args)[0]
    passes.use_row_kernels(dit)
    assert block.modulate is modulate_later
    assert relative(block(*args)[0], wanted) < (1e-6 if DEVICE == "cpu" else 0.01)
    plain = QuantLinear._rounded

    def by_kernel(layer, y):
        return y.rounded(layer.input_gain, layer.kind) if isinstance(y, Modulated) else plain(layer, y)

    monkeypatch.setattr(QuantLinear, "_rounded", by_kernel)
    if joined:
        monkeypatch.setattr(block.self_attn, "turn", turn_by_kernel)
    # What a CPU multiplies integers by cannot be traced at once.
    monkeypatch.setattr(linear, "_integer_products", linear._float_products)
    traced = torch.compile(block, backend="aot_eager", fullgraph=True)
    for form in (block, traced):
        assert relative(form(*args)[0], wanted) < 0.01


def relative(got, wanted):
    return ((got - wanted).norm() / wanted.norm()).item()
