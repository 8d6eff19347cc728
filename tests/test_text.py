"""Prompts to embeddings: the small encoder of a trained world, and the released pipeline around umT5."""

from __future__ import annotations

import pytest
import torch

from worldwire.errors import CheckpointError, ConfigError, InputError
from worldwire_runtime.model.text import (
    PromptEncoder,
    TinyTextConfig,
    TinyTextEncoder,
    UMT5Config,
    UMT5Encoder,
    clean_prompt,
    vocabulary_of,
)

CONFIG = TinyTextConfig(
    vocabulary=vocabulary_of(["A village at dusk.", "rooms by day"]), text_len=6, text_dim=16
)


@pytest.fixture
def encoder() -> TinyTextEncoder:
    torch.manual_seed(0)
    return TinyTextEncoder(CONFIG).eval()


def test_vocabulary_is_sorted_and_without_case_or_punctuation():
    assert CONFIG.vocabulary == ("a", "at", "by", "day", "dusk", "rooms", "village")


def test_embeddings_are_zero_after_the_last_word(encoder):
    text = encoder(["a village", ""])
    assert text.shape == (2, 6, 16)
    assert text[0, :2].abs().min() > 0
    assert not text[0, 2:].any()
    assert not text[1].any()


def test_the_empty_prompt_keeps_gradients_finite(encoder):
    encoder(["", "a village"]).square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def test_padding_has_no_influence(encoder):
    longer = TinyTextEncoder(TinyTextConfig(CONFIG.vocabulary, text_len=9, text_dim=16)).eval()
    state = dict(encoder.state_dict())
    state["positions"] = torch.cat((state["positions"], torch.randn(3, 16)))
    longer.load_state_dict(state)
    assert torch.allclose(encoder(["rooms by day"])[:, :3], longer(["rooms by day"])[:, :3], atol=1e-6)


def test_word_order_and_words_matter_but_case_does_not(encoder):
    first, same, other, turned = encoder(
        ["A Village, at dusk!", "a village at dusk", "a", "dusk at village a"]
    )
    assert torch.equal(first, same)
    assert not torch.allclose(first, other)
    assert not torch.allclose(first, turned)


def test_unknown_words_are_reported_and_still_encoded(encoder):
    assert encoder.unknown_words("a castle at dawn") == ["castle", "dawn"]
    assert encoder(["a castle"])[0, 1].abs().sum() > 0


def test_a_prompt_that_is_too_long_is_refused(encoder):
    with pytest.raises(InputError, match="7 words"):
        encoder(["a a a a a a a"])


def test_unknown_config_keys_are_refused():
    with pytest.raises(ConfigError, match="colour"):
        TinyTextConfig.from_dict({"vocabulary": [], "colour": 3})
    with pytest.raises(ConfigError, match="missing: vocabulary"):
        TinyTextConfig.from_dict({})


def test_prompts_are_cleaned():
    assert clean_prompt("  A caf&amp;eacute;\n\tat   dusk ") == "A café at dusk"
    assert clean_prompt("donâ€™t") == "don't"


SMALL = UMT5Config(vocab=50, dim=16, dim_attn=16, dim_ffn=24, num_heads=2, num_layers=1, num_buckets=8)


class Letters:
    """A tokenizer that knows letters."""

    def __call__(self, text, max_length, **_):
        ids = torch.zeros(len(text), max_length, dtype=torch.int64)
        for row, sentence in enumerate(text):
            codes = torch.tensor([ord(letter) % 50 for letter in sentence[:max_length]])
            ids[row, : len(codes)] = codes
        return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def test_umt5_embeddings_are_zero_after_the_last_token():
    text = PromptEncoder(UMT5Encoder(SMALL), Letters(), text_len=9)(["abc", "b"])
    assert text.shape == (2, 9, 16)
    assert text[0, :3].abs().sum() > 0
    assert not text[0, 3:].any()
    assert not text[1, 1:].any()


def test_umt5_checkpoints_are_accounted_for():
    with pytest.raises(CheckpointError, match=r"missing: .*shared.weight"):
        UMT5Encoder(SMALL).load_official({"blocks.0.attn.q.weight": torch.zeros(16, 16)})
