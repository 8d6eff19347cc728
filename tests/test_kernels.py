"""The Triton kernels against their definitions: on the GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed (it is for Linux alone)")

from worldwire_runtime.kernels import attention, flash, gemm, native, prologue, short
from worldwire_runtime.kernels.linear import exact_linear, linear
from worldwire_runtime.kernels.rows import FP8, INT8, quantise_rows
from worldwire_runtime.kernels.tuning import Tiles, Tuner
from worldwire_runtime.model.attention import Counted, attend_counted

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered")  # exp in the interpreter


def named(tiles: Tiles) -> str:
    """Kernels with roles for warps can be chosen, or left out, by that word."""
    return f"{'roles ' * tiles.specialised}{tiles}"


KINDS = pytest.mark.parametrize("kind", [INT8, FP8], ids=lambda kind: kind.name)
ON_GPU = pytest.mark.skipif(DEVICE == "cpu", reason="the interpreter runs no tiles of a GPU's size")
EVERY_GEMM = tuple(dict.fromkeys((*gemm.CANDIDATES, *gemm.FEW_ROWS_CANDIDATES, *gemm.SPECIALISED)))
EVERY_GATED, EVERY_ATTENTION = gemm.GATED_CANDIDATES, flash.CANDIDATES
# On the GPU fp8 products are summed in fewer bits than float32.
SUM_ERROR = {"int8": 1e-6, "fp8": 1e-6 if DEVICE == "cpu" else 2e-3}


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _one_candidate_alone(monkeypatch):
    """Each candidate is compiled for each kind of problem: only the tests of candidates run them all."""
    for module, name in (
        (gemm, "CANDIDATES"),
        (gemm, "FEW_ROWS_CANDIDATES"),
        (gemm, "GATED_CANDIDATES"),
        (flash, "CANDIDATES"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name)[:1])


@pytest.fixture(autouse=True)
def _products_as_small_as_a_gpu_allows(monkeypatch):
    """Triton's interpreter multiplies tiles of any size; here it refuses what Hopper's compiler does."""
    if DEVICE == "cpu":
        from triton.backends.compiler import GPUTarget
        from triton.backends.nvidia.compiler import min_dot_size
        from triton.runtime.interpreter import interpreter_builder

        least = min_dot_size(GPUTarget("cuda", 90, 32))
        monkeypatch.setitem(interpreter_builder.codegen_fns, "min_dot_size", least)


def relative(got, wanted):
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


def rows(kind, *shape):
    return quantise_rows(torch.randn(*shape, device=DEVICE), kind)


@KINDS
@pytest.mark.parametrize("gelu", [False, True])
@pytest.mark.parametrize("shape", [(1, 16, 16), (33, 80, 24)])
def test_the_product_equals_its_definition(kind, gelu, shape):
    M, K, N = shape
    x, weight, bias = rows(kind, M, K), rows(kind, N, K), torch.randn(N, device=DEVICE)
    got = gemm.linear_8bit(*x, *weight, bias, torch.float32, gelu)
    assert relative(got, exact_linear(x, weight, bias, gelu=gelu)) < SUM_ERROR[kind.name]


@KINDS
@pytest.mark.parametrize("shape", [(1, 48, 32), (40, 384, 96)])
def test_whatever_a_device_runs_equals_the_definition(kind, shape):
    """The choice of `kernels.linear`: libraries on a CPU, the kernel or `_scaled_mm` on a GPU."""
    native.register()
    M, K, N = shape
    x, weight, bias = rows(kind, M, K), rows(kind, N, K), torch.randn(N, device=DEVICE)
    for gelu in (False, True):
        got = linear(x, weight, bias, torch.bfloat16, gelu=gelu)
        assert got.dtype == torch.bfloat16
        assert relative(got, exact_linear(x, weight, bias, gelu=gelu)) < 5e-3


def test_the_product_without_bias_in_half_precision():
    x, weight = rows(INT8, 20, 32), rows(INT8, 16, 32)
    got = gemm.linear_8bit(*x, *weight, None, torch.float16, False)
    assert got.dtype == torch.float16
    assert relative(got, exact_linear(x, weight, None)) < 1e-3


@pytest.mark.parametrize("latents", [1, 3])
def test_gate_and_residual_join_the_product(latents):
    M, K, N = 36, 32, 24
    x, weight, bias = rows(INT8, M, K), rows(INT8, N, K), torch.randn(N, device=DEVICE)
    residual = torch.randn(M, N, device=DEVICE)
    gate = torch.randn(latents, 6, N, device=DEVICE)[:, 2]  # one of six rows, as in the block
    got = gemm.linear_8bit_gated(*x, *weight, bias, residual, gate)
    wanted = residual + gate.repeat_interleave(M // latents, 0) * exact_linear(x, weight, bias)
    assert relative(got, wanted) < 1e-6


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize("tiles", [(16, 32, 32), (32, 16, 64)])
def test_any_tiles_give_the_same(monkeypatch, tiles, persistent):
    monkeypatch.setattr(gemm, "_processors", lambda _: 3)
    x, weight = rows(INT8, 70, 80), rows(INT8, 48, 80)
    chosen = Tiles(*tiles, warps=4, stages=2, persistent=persistent)
    got = gemm.product(*x, *weight, None, torch.float32, tiles=chosen)
    assert relative(got, exact_linear(x, weight, None)) < 1e-6


def test_the_interpreter_refuses_what_a_gpu_does():
    """8-bit products of fewer than 32 terms: no network meets them, and tests must not rely on them."""
    x, weight = rows(INT8, 16, 32), rows(INT8, 16, 32)
    too_thin = Tiles(16, 16, 16, warps=4, stages=1)
    with pytest.raises(Exception, match="K >= 32"):
        gemm.product(*x, *weight, None, torch.float32, tiles=too_thin)


def test_layers_that_the_copy_engine_cannot_take_are_refused():
    x, weight = rows(INT8, 4, 24), rows(INT8, 8, 24)
    with pytest.raises(ValueError, match="multiple of 16"):
        gemm.linear_8bit(*x, *weight, None, torch.float32, False)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("width", "smooth"), [(80, False), (80, True), (32, False), (90, True)])
def test_norm_modulation_and_quantisation_in_one_pass(kind, dtype, width, smooth):
    latents, tokens = 3, 5
    x = (3 * torch.randn(latents * tokens, width, device=DEVICE) + 1).to(dtype)
    six = torch.randn(latents, 6, width, device=DEVICE)
    gain = torch.rand(width, device=DEVICE) + 0.5 if smooth else None
    values, scale = prologue.norm_modulate_quantise(x, six[:, 0], six[:, 1], 1e-6, gain, kind.name)
    wanted = prologue.reference(x, six[:, 0], six[:, 1], 1e-6, gain, kind.name)
    torch.testing.assert_close(scale, wanted.scale, rtol=1e-5, atol=0)
    if kind is FP8 and DEVICE == "cpu":  # Triton's interpreter cuts fp8 off instead of rounding it
        assert relative(values.float(), wanted.values.float()) < 0.08
        return
    # A value on the border between two neighbours may fall to either side.
    assert (values.float() != wanted.values.float()).float().mean() < 0.01
    assert relative(values.float(), wanted.values.float()) < 0.01


def test_operators_trace_without_running():
    """torch.compile sees shapes and types alone."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x, scale = torch.empty(40, 32, dtype=torch.int8), torch.empty(40, 1)
        weight, weight_scale = torch.empty(24, 32, dtype=torch.int8), torch.empty(24, 1)
        y = torch.ops.worldwire.linear_8bit(x, scale, weight, weight_scale, None, torch.bfloat16, True)
        assert (y.shape, y.dtype) == ((40, 24), torch.bfloat16)
        values, scales = torch.ops.worldwire.norm_modulate_quantise(
            torch.empty(40, 32), torch.empty(2, 32), torch.empty(2, 32), 1e-6, None, "fp8"
        )
        assert (values.shape, values.dtype, scales.shape) == ((40, 32), torch.float8_e4m3fn, (40, 1))


def test_measured_tiles_are_kept_and_captures_measure_nothing(tmp_path, monkeypatch):
    from worldwire_runtime.kernels import tuning

    slow, fast = Tiles(16, 16, 32, 4, 1), Tiles(32, 32, 32, 4, 1)
    monkeypatch.setattr(tuning, "_time_ms", lambda run, tiles: 2.0 if tiles is slow else 1.0)
    monkeypatch.setattr(tuning, "_may_measure", lambda: False)
    path = tmp_path / "tiles.json"
    assert Tuner(path).best("a", (slow, fast), lambda _: None) == slow
    assert not path.exists()
    monkeypatch.setattr(tuning, "_may_measure", lambda: True)
    assert Tuner(path).best("a", (slow, fast), lambda _: None) == fast
    monkeypatch.setattr(tuning, "_may_measure", lambda: False)
    assert Tuner(path).best("a", (slow, fast), lambda _: None) == fast
    path.write_text("{")
    assert Tuner(path).best("a", (slow, fast), lambda _: None) == slow


# Heads of 16 channels are narrower than the kernel's, and those of 80 are no power of two.
ATTENTION_SHAPES = [
    (1, 2, 16, 64, 16),
    (2, 1, 40, 150, 32),
    (1, 1, 7, 300, 16),
    (1, 2, 9, 70, 80),
]


# A running maximum rounds fp8 probabilities at another place, and the interpreter cuts them off.
FP8_ROUNDING = 0.09 if DEVICE == "cpu" else 0.03
CLIP = 16_720  # tokens


def inputs_of_attention(B, H, Q, T, D):
    query, key, value = (
        torch.randn(B, H, length, D, device=DEVICE, dtype=torch.float16) for length in (Q, T, T)
    )
    return query, key + 3, value


@pytest.mark.parametrize("fp8_values", [False, True])
@pytest.mark.parametrize("shape", ATTENTION_SHAPES)
def test_8_bit_attention_equals_its_definition(shape, fp8_values):
    tokens = shape[3]
    operands = attention.prepare(*inputs_of_attention(*shape), fp8_values=fp8_values)
    got = flash.attention_8bit(*operands, tokens, torch.float32)
    assert got.transpose(1, 2).is_contiguous()
    wanted = attention.reference(operands, tokens, torch.float32)
    assert relative(got, wanted) < (FP8_ROUNDING if fp8_values else 1e-3)


@pytest.mark.parametrize("scores", ["fp8", "16-bit"])
def test_scores_may_be_of_other_formats(scores):
    inputs = inputs_of_attention(2, 1, 40, 150, 32)
    operands = attention.prepare(*inputs, scores=scores)
    got = flash.attention_8bit(*operands, 150, torch.float32)
    assert relative(got, attention.reference(operands, 150, torch.float32)) < FP8_ROUNDING
    wanted = torch.nn.functional.scaled_dot_product_attention(*(part.double() for part in inputs))
    assert relative(got, wanted) < 0.12


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("columns", [32, 128])
def test_attention_in_any_tiles_is_the_same(apart, columns):
    operands = attention.prepare(*inputs_of_attention(1, 2, 40, 300, 32))
    tiles = Tiles(64, columns, 0, warps=4, stages=2, apart=apart)
    got = flash.attend(*operands, 300, torch.float32, tiles=tiles)
    assert relative(got, attention.reference(operands, 300, torch.float32)) < FP8_ROUNDING


@pytest.mark.parametrize(
    ("queries", "tokens", "width"), [(10, 19, 64), (1, 33, 16), (19, 9, 32), (64, 64, 64)]
)
def test_short_sequences_attend(queries, tokens, width):
    """Views of latents [F, N, H, D], as the action modules have them: one sequence for each of N places."""
    query, key, value = (
        torch.randn(length, 3, 2, 2 * width, device=DEVICE, dtype=torch.float16)[..., :width]
        for length in (queries, tokens, tokens)
    )
    split = [part.permute(1, 2, 0, 3) for part in (query, key, value)]
    got = short.short_attention(*split)
    wanted = torch.nn.functional.scaled_dot_product_attention(*(part.double() for part in split))
    assert relative(got, wanted) < 2e-3


@pytest.mark.parametrize(("queries", "tokens", "words"), [(300, 256, 200), (77, 256, 3), (40, 128, 0)])
def test_keys_that_stand_for_many_are_counted(queries, tokens, words):
    query, key, value = (
        torch.randn(1, length, 2, 64, device=DEVICE, dtype=torch.float16).transpose(1, 2)
        for length in (queries, tokens, tokens)
    )
    times = torch.full((tokens,), -torch.inf, device=DEVICE)
    times[:words], times[words] = 0, 6.0
    got = short.counted_attention(query, key, value, times)
    wanted = attend_counted(query.double(), Counted(key.double(), value.double(), times.double()))
    assert relative(got, wanted) < 2e-3
    assert got.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("rows", [100, 5000])
def test_chips_with_less_memory_than_hopper_have_tiles_that_fit(rows):
    """A consumer's Blackwell has 99 KB; those that do not fit are never kept as the best."""
    choice = gemm.candidates(rows, torch.bfloat16, False, has_roles=False)
    assert (choice[0].rows + choice[0].columns) * choice[0].depth * choice[0].stages <= 99 * 1024
    assert not any(tiles.specialised for tiles in choice)


def test_turned_tokens_come_back():
    values = torch.arange(3 * 48).reshape(3, 48)
    assert attention.turned(attention.turned(values), back=True).equal(values)
    assert attention.turned(values)[0, :8].tolist() == [0, 1, 8, 9, 2, 3, 10, 11]


@ON_GPU
@pytest.mark.parametrize("tiles", EVERY_GEMM, ids=named)
def test_every_candidate_multiplies(tiles):
    x, weight, bias = rows(INT8, 300, 640), rows(INT8, 528, 640), torch.randn(528, device=DEVICE)
    got = gemm.product(*x, *weight, bias, torch.bfloat16, gelu=True, tiles=tiles)
    assert relative(got, exact_linear(x, weight, bias, gelu=True)) < 5e-3


@ON_GPU
@pytest.mark.parametrize("tiles", EVERY_GATED, ids=named)
def test_every_candidate_adds_to_the_residual(tiles):
    x, weight = rows(INT8, 300, 640), rows(INT8, 528, 640)
    residual, gate = torch.randn(300, 528, device=DEVICE), torch.randn(3, 528, device=DEVICE)
    got = gemm.product(*x, *weight, None, torch.float32, residual=residual, gate=gate, tiles=tiles)
    wanted = residual + gate.repeat_interleave(100, 0) * exact_linear(x, weight, None)
    assert relative(got, wanted) < 1e-6


def halves(inputs):
    """Queries attend nearly uniformly to one half of the tokens: these values are 1, the others -1.

    The mean of the values is 0, so that subtracting it leaves long sums that do not cancel.
    """
    query, key, value = inputs
    side = torch.where(torch.rand_like(value[..., :1]) < 0.5, -1, 1)
    return query + 4, 0.2 * key + side, 0.1 * value + side


@ON_GPU
@pytest.mark.parametrize(
    "hard", [lambda inputs: (*inputs[:2], inputs[2] + 1), halves], ids=["offset", "halves"]
)
@pytest.mark.parametrize("tiles", EVERY_ATTENTION, ids=named)
def test_every_candidate_attends(tiles, hard):
    """Over as many tokens as it may be chosen for, with values that do not cancel: long sums."""
    tokens = CLIP if tiles.apart else flash.LONGEST_SUM
    operands = attention.prepare(*hard(inputs_of_attention(1, 1, 300, tokens, 128)))
    got = flash.attend(*operands, tokens, torch.float32, tiles=tiles)
    wanted = attention.reference(operands, tokens, torch.float32)
    assert relative(got, wanted) < FP8_ROUNDING


def test_long_fp8_sums_do_not_stay_in_the_tensor_cores(monkeypatch):
    joined, apart = (Tiles(64, 64, 0, warps=4, stages=3, apart=apart) for apart in (False, True))
    monkeypatch.setattr(flash, "CANDIDATES", (apart, joined))
    fp8 = torch.float8_e4m3fn
    assert flash.candidates(flash.LONGEST_SUM, fp8) == (apart, joined)
    assert flash.candidates(flash.LONGEST_SUM + 1, fp8) == (apart,)
    assert flash.candidates(CLIP, torch.bfloat16) == (apart, joined)


def test_an_offset_of_the_values_costs_no_precision():
    """Exact apart from rounding what is left: without subtracting it, an offset of 20 would be all of it."""
    query, key, value = (torch.randn(1, 2, length, 64, device=DEVICE) for length in (50, 333, 333))
    offset = 20 * torch.randn(1, 2, 1, 64, device=DEVICE)
    got = attention.attention(query, key, value + offset) - offset
    assert relative(got, attention.attention(query, key, value)) < 0.01


def test_8_bit_attention_is_near_attention_even_with_offset_keys():
    """Without subtracting the mean of the keys, an offset of 20 would leave them a tenth of the range."""
    query, key, value = (torch.randn(1, 2, length, 64, device=DEVICE) for length in (50, 333, 333))
    key += 20 * torch.randn(1, 2, 1, 64, device=DEVICE)
    wanted = torch.nn.functional.scaled_dot_product_attention(query.double(), key.double(), value.double())
    assert relative(attention.attention(query, key, value, fp8_values=False), wanted) < 0.02
    assert relative(attention.attention(query, key, value), wanted) < 0.04


def test_the_benchmark_times_and_checks_what_it_can_run(monkeypatch):
    """On a CPU its small sizes run in the interpreter: the script that a GPU session depends on is sound."""
    benchmarks = Path(__file__).parents[1] / "benchmarks"
    monkeypatch.syspath_prepend(str(benchmarks))
    import kernels

    cases = [
        *list(kernels.gemm_cases(kernels.SMALL, DEVICE))[-3:],
        *list(kernels.attention_cases(kernels.SMALL, DEVICE))[-4:],
        *list(kernels.short_cases(kernels.SMALL, DEVICE))[1:8:6],
    ]
    results = [kernels.measure(case, DEVICE) for case in cases]
    assert not [result.failure for result in results if result.failure]
    assert all(result.relative_error < 0.1 for result in results)
    broken = kernels.Case("gemm", "broken", "", 1.0, lambda: kernels.Ready(lambda: 1 / 0))
    assert "ZeroDivisionError" in kernels.measure(broken, DEVICE).failure
    assert "failed: ZeroDivisionError" in kernels.line_of(kernels.measure(broken, DEVICE))


def test_kernels_compile_for_hopper_without_a_gpu(tmp_path):
    """With warp-group products and the bulk copy engine, within shared memory, without spilling."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / "hopper_compile.py"],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, kernel in found.items():
        assert kernel["shared"] <= 227 * 1024, name
        assert kernel["spilled"] == 0, name
        assert name.startswith(("norm", "short")) or (kernel["wgmma"] and kernel["copies"]), name
        assert not kernel["serialised"], name
