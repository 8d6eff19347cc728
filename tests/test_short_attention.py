"""Short attention put into a network: the same results, the kernel only where it fits."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_dit import CONTEXT, build, conditions, difference, inputs

from worldwire_runtime import short_attention
from worldwire_runtime.denoiser import Prompts
from worldwire_runtime.kernels import native
from worldwire_runtime.model.attention import Context, Counted, KeyValue, attend, attend_counted
from worldwire_runtime.short_attention import (
    attend_prompt,
    attend_short,
    counts_prompts,
    is_short,
    shortened,
    use_short_attention,
)


def sequences(queries: int, tokens: int, width: int = 16, dtype=torch.bfloat16):
    """[S, H, Q, D] and keys and values [S, H, T, D]."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, length, width).to(dtype) for length in (queries, tokens, tokens))
    return query, KeyValue(key, value)


@pytest.mark.parametrize(
    ("case", "short"),
    [
        ({"queries": 10, "tokens": 19}, True),
        ({"queries": 1, "tokens": 19}, False),  # few enough to be compiled
        ({"queries": 10, "tokens": 65}, False),
        ({"queries": 10, "tokens": 19, "width": 24}, False),
        ({"queries": 10, "tokens": 19, "dtype": torch.float32}, False),
    ],
)
def test_only_what_fits_goes_to_the_kernel(case, short):
    assert is_short(*sequences(**case)) is short


def test_nothing_changes_where_kernels_do_not_run(monkeypatch):
    monkeypatch.setattr(native, "AVAILABLE", False)
    model = build()
    use_short_attention(model)
    assert model.blocks[0].action_model.attend is attend
    assert model.blocks[0].cross_attn.attend_counted is attend_counted
    assert not counts_prompts(torch.device("cuda"), torch.bfloat16)


def test_where_they_run_both_forms_are_put_in(monkeypatch):
    monkeypatch.setattr(native, "AVAILABLE", True)
    monkeypatch.setattr(native, "register", lambda: None)
    model = build()
    use_short_attention(model)
    assert model.blocks[0].action_model.attend is attend_short
    assert all(block.cross_attn.attend_counted is attend_prompt for block in model.blocks)
    assert counts_prompts(torch.device("cuda"), torch.bfloat16)
    assert not counts_prompts(torch.device("cuda"), torch.float32)
    assert not counts_prompts(torch.device("cpu"), torch.bfloat16)


def test_on_a_cpu_a_counted_prompt_is_attended_to_by_its_definition():
    query, keys = sequences(30, 7)
    counted = Counted(*keys, torch.zeros(7))
    assert torch.equal(attend_prompt(query, counted), attend_counted(query, counted))


def test_the_context_is_a_call_of_its_own(monkeypatch):
    """The leading queries see the leading keys alone."""
    calls = []

    def kernel(query, key, value):
        calls.append((query.shape[2], key.shape[2]))
        return attend(query, KeyValue(key, value))

    monkeypatch.setattr(torch.ops.worldwire, "short_attention", kernel, raising=False)
    query, keys = sequences(19, 19)
    got = attend_short(query, keys, Context(9, 9))
    assert calls == [(9, 9), (10, 19)]
    assert torch.allclose(got, attend(query, keys, Context(9, 9)))


def test_a_network_with_short_attention_is_the_same(monkeypatch):
    monkeypatch.setattr(short_attention, "DTYPES", (torch.float32,))
    monkeypatch.setattr(short_attention, "WIDTHS", (12,))
    monkeypatch.setattr(short_attention, "MAX_FEW_SCORES", 0)
    monkeypatch.setattr(
        torch.ops.worldwire,
        "short_attention",
        lambda *parts: attend(parts[0], KeyValue(*parts[1:])),
        raising=False,
    )
    model, (latents, timestep) = build(), inputs()
    with torch.no_grad():
        prepared = model.prepare(conditions())
        wanted = model(latents, timestep, prepared, context=CONTEXT)
        for block in model.blocks[:2]:
            block.action_model.attend = attend_short
        got = model(latents, timestep, prepared, context=CONTEXT)
    assert difference(got, wanted) < 1e-6


@pytest.mark.parametrize("words", [0, 1, 5, 6])
def test_a_shortened_prompt_says_the_same(monkeypatch, words):
    monkeypatch.setattr(short_attention, "PROMPT_TOKENS", 7)
    told = conditions(batch=1)
    text = torch.zeros(1, 20, told.text.shape[-1])
    text[:, :words] = torch.randn(1, words, text.shape[-1])
    told = dataclasses.replace(told, text=text)
    model, (latents, timestep) = build(), inputs(batch=1)
    with torch.no_grad():
        wanted = model(latents, timestep, model.prepare(told), context=CONTEXT)
        keys = Prompts(model, shortened)(text)
        assert all(isinstance(block, Counted) and block.key.shape[2] == 7 for block in keys.blocks)
        brief = dataclasses.replace(told, text=keys)
        got = model(latents, timestep, model.prepare(brief), context=CONTEXT)
    assert difference(got, wanted) < 1e-6


def test_long_prompts_and_several_at_once_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(short_attention, "PROMPT_TOKENS", 7)
    model = build()
    with torch.no_grad():
        for text in (torch.randn(1, 20, 7), torch.zeros(2, 20, 7), torch.zeros(1, 7, 7)):
            keys = model.encode_text(text)
            assert shortened(text, keys) is keys
