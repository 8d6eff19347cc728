"""Attention with the keys in parts is attention; and the number of parts."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from worlds import random_config

from worldwire_runtime import split_keys
from worldwire_runtime.model.attention import (
    ALL_TOKENS,
    Context,
    Held,
    KeyValue,
    Rows,
    attend,
    attend_in_turn,
)
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.quantize.attention import attend_8bit, use_8bit_attention
from worldwire_runtime.split_keys import attend_in_parts, attend_to_parts, parts_for, use_split_keys

H200_PROCESSORS = 132
LATENT = 880  # tokens at 720p
WIDTH = 64


def random_parts(queries: int, tokens: int) -> tuple[torch.Tensor, KeyValue]:
    """Query [1, 3, Q, 64] and keys [1, 3, T, 64] of a spread that makes parts of unequal weight."""
    generator = torch.Generator().manual_seed(0)

    def random(count: int) -> torch.Tensor:
        numbers = 3 * torch.randn(1, count, 3, WIDTH, generator=generator)
        return numbers.to(torch.bfloat16).transpose(1, 2)

    return random(queries), KeyValue(random(tokens), random(tokens))


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize("parts", [1, 2, 5, 20])
def test_attention_to_parts_is_attention_to_all(parts: int) -> None:
    query, keys = random_parts(7, 40)
    exact = attend(query.float(), KeyValue(keys.key.float(), keys.value.float()))
    got = attend_to_parts(query, keys, parts)
    assert got.shape == query.shape
    assert got.dtype == query.dtype
    assert relative(got, exact) < 6e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("parts", [2, 5])
def test_the_library_tells_the_sums(parts: int) -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    query, key, value = (
        torch.randn(1, rows, 4, 128, generator=generator, device="cuda", dtype=torch.bfloat16).transpose(1, 2)
        for rows in (LATENT, 10 * LATENT, 10 * LATENT)
    )
    exact = attend(query.float(), KeyValue(key.float(), value.float()))
    assert relative(attend_to_parts(query, KeyValue(key, value), parts), exact) < 6e-3


@pytest.mark.parametrize(
    ("queries", "tokens", "parts"),
    [
        (LATENT, 10 * LATENT, 2),  # one new latent under rolling attention
        (10 * LATENT, 19 * LATENT, 1),  # the paper's plan, `cached` ...
        (19 * LATENT, 19 * LATENT, 1),  # ... and `joint`
        (LATENT, LATENT, 1),  # a latent of its own
        (LATENT, 10 * LATENT + 1, 1),  # 13 · 677 keys
    ],
)
def test_keys_go_apart_where_rounds_are_saved(queries: int, tokens: int, parts: int) -> None:
    assert parts_for(queries, 24, tokens, H200_PROCESSORS) == parts


def test_no_part_is_small_and_none_is_left_over() -> None:
    for queries in range(128, 2048, 128):
        for tokens in range(1024, 12288, 1024):
            parts = parts_for(queries, 24, tokens, H200_PROCESSORS)
            assert tokens % parts == 0
            assert parts == 1 or tokens // parts >= 1024


def test_a_rolling_turn_and_a_context_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a network calls it: over what is held, and in two calls for a context."""
    taken = []

    def in_parts(query: torch.Tensor, keys: KeyValue, parts: int) -> torch.Tensor:
        taken.append(parts)
        return attend_to_parts(query, keys, parts)

    monkeypatch.setattr(split_keys, "parts_for", lambda *_: 4)
    monkeypatch.setattr(split_keys, "attend_to_parts", in_parts)
    split = partial(attend_in_parts, processors=H200_PROCESSORS)
    query, keys = random_parts(8, 8)
    each = [part.transpose(1, 2).unflatten(1, (2, 4)) for part in (query, *keys)]
    held = Held(*(torch.zeros(1, 6, 4, 3, WIDTH, dtype=torch.bfloat16) for _ in range(2)))
    rows = (Rows((0, 2), torch.tensor([1, 2]), 0, 6),)
    plain = attend_in_turn(each[0], KeyValue(*each[1:]), held, rows, ALL_TOKENS)
    assert relative(attend_in_turn(each[0], KeyValue(*each[1:]), held, rows, ALL_TOKENS, split), plain) < 1e-2
    assert taken == [4]
    seen = Context(4, 4)
    assert relative(split(query, keys, seen), attend(query, keys, seen)) < 1e-2
    assert taken == [4] * 3


def test_it_can_be_compiled_whole() -> None:
    query, keys = random_parts(256, 4096)
    assert parts_for(256, 3, 4096, processors=4) > 1
    split = torch.compile(partial(attend_in_parts, processors=4), backend="eager", fullgraph=True)
    exact = attend(query.float(), KeyValue(keys.key.float(), keys.value.float()))
    assert relative(split(query, keys), exact) < 6e-3


@pytest.mark.parametrize(
    ("capability", "is_library", "taken"),
    [((9, 0), True, True), ((9, 0), False, False), ((8, 9), True, False)],
)
def test_a_network_takes_it_where_the_library_is_the_one_that_was_measured(
    capability: tuple[int, int], is_library: bool, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.backends.cuda, "cudnn_sdp_enabled", lambda: is_library)
    facts = SimpleNamespace(multi_processor_count=H200_PROCESSORS)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: facts)
    dit = DiT(random_config().dit)
    use_split_keys(dit, torch.device("cuda"))
    forms = {block.self_attn.attend for block in dit.blocks}
    assert (forms == {attend}) is not taken
    use_8bit_attention(dit)
    assert {block.self_attn.attend for block in dit.blocks} == {attend_8bit}
