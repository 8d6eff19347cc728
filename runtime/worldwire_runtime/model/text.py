"""Text encoders: a sentence in, embeddings [B, text_len, text_dim] out, zero after the last token.

`TinyTextEncoder` is small, word-level and trained with its world; `PromptEncoder` is the umT5 encoder of the
released model, run through `transformers` under its original tensor names.
"""

from __future__ import annotations

import html
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire.errors import CheckpointError, ConfigError, InputError
from worldwire_runtime.model.checkpoint import load_into

WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
PAD_TOKEN, UNKNOWN_TOKEN, FIRST_WORD_TOKEN = 0, 1, 2


def words(prompt: str) -> list[str]:
    """The lower-case words of a sentence, punctuation dropped."""
    return WORD.findall(prompt.lower())


def vocabulary_of(prompts: Iterable[str]) -> tuple[str, ...]:
    """All words of the prompts, sorted: the vocabulary of a new `TinyTextConfig`."""
    return tuple(sorted({word for prompt in prompts for word in words(prompt)}))


@dataclass(frozen=True)
class TinyTextConfig:
    """Sizes of the small text encoder, and the words that it knows."""

    vocabulary: tuple[str, ...]
    text_len: int = 24
    text_dim: int = 128
    layers: int = 1
    heads: int = 4
    ffn_dim: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ConfigError("the vocabulary repeats words", expected="every word once")
        if self.text_dim % self.heads:
            raise ConfigError(
                "text_dim does not split into heads",
                expected=f"a multiple of {self.heads}",
                got=str(self.text_dim),
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads a mapping; unknown and missing keys are a ConfigError."""
        return cls(**_checked(cls, values, "the text encoder's config"))


class TinyTextEncoder(nn.Module):
    """Word embeddings, learned positions and a layer or two of attention."""

    def __init__(self, config: TinyTextConfig) -> None:
        super().__init__()
        self.config = config
        self._ids = {word: index for index, word in enumerate(config.vocabulary, FIRST_WORD_TOKEN)}
        self.embedding = nn.Embedding(len(config.vocabulary) + FIRST_WORD_TOKEN, config.text_dim)
        self.positions = nn.Parameter(torch.randn(config.text_len, config.text_dim) * 0.02)
        self.layers = nn.ModuleList(_TextLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.text_dim)

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that this encoder was not trained on, in order."""
        return [word for word in words(prompt) if word not in self._ids]

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token numbers [B, text_len] of sentences, on the encoder's device.

        Raises InputError for a prompt of more than `text_len` words.
        """
        rows = []
        for prompt in prompts:
            ids = [self._ids.get(word, UNKNOWN_TOKEN) for word in words(prompt)]
            if len(ids) > self.config.text_len:
                raise InputError(
                    "the prompt is too long",
                    expected=f"at most {self.config.text_len} words",
                    got=f"{len(ids)} words",
                )
            rows.append(ids + [PAD_TOKEN] * (self.config.text_len - len(ids)))
        return torch.tensor(rows, dtype=torch.int64).to(self.positions.device)

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings [B, text_len, text_dim] of sentences; all zero for an empty one."""
        return self.embed(self.tokenize(prompts))

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of token numbers [B, text_len], zero where the padding is."""
        inside = tokens != PAD_TOKEN
        seen = inside.clone()
        seen[:, 0] = True  # attention over nothing is not a number
        x = self.embedding(tokens) + self.positions
        for layer in self.layers:
            x = layer(x, seen[:, None, None])
        return torch.where(inside[..., None], self.norm(x), 0)


class _TextLayer(nn.Module):
    """Pre-norm attention and feed-forward."""

    def __init__(self, config: TinyTextConfig) -> None:
        super().__init__()
        dim = config.text_dim
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.ffn = nn.Sequential(nn.Linear(dim, config.ffn_dim), nn.GELU(), nn.Linear(config.ffn_dim, dim))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        query, key, value = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        x = x + self.out(mixed.transpose(1, 2).flatten(-2))
        return x + self.ffn(self.norm2(x))


@dataclass(frozen=True)
class UMT5Config:
    """Sizes of a umT5 encoder by their official names; the defaults are umT5-XXL."""

    vocab: int = 256_384
    dim: int = 4096
    dim_attn: int = 4096
    dim_ffn: int = 10_240
    num_heads: int = 64
    num_layers: int = 24
    num_buckets: int = 32
    shared_pos: bool = False
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.shared_pos:
            raise ConfigError(
                "umT5 has position biases in every layer", expected="shared_pos false", got="true"
            )
        if self.dim_attn % self.num_heads:
            raise ConfigError(
                "dim_attn does not split into heads",
                expected=f"a multiple of {self.num_heads}",
                got=str(self.dim_attn),
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads a mapping; unknown keys are a ConfigError (a `note` is allowed)."""
        given = {name: value for name, value in values.items() if name != "note"}
        return cls(**_checked(cls, given, "the umT5 config"))


# Official name inside a block -> name inside a block of `transformers`.
_UMT5_BLOCK = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}


class UMT5Encoder(nn.Module):
    """umT5 encoder: token ids and mask [B, T] to hidden states [B, T, dim]."""

    def __init__(self, config: UMT5Config) -> None:
        super().__init__()
        from transformers import UMT5Config as TransformersConfig
        from transformers import UMT5EncoderModel

        self.config = config
        self.model = UMT5EncoderModel(
            TransformersConfig(
                vocab_size=config.vocab,
                d_model=config.dim,
                d_kv=config.dim_attn // config.num_heads,
                d_ff=config.dim_ffn,
                num_heads=config.num_heads,
                num_layers=config.num_layers,
                relative_attention_num_buckets=config.num_buckets,
                layer_norm_epsilon=config.eps,
                feed_forward_proj="gated-gelu",
            )
        ).eval()

    def load_official(self, state: Mapping[str, Tensor]) -> None:
        """Loads tensors under their official names; CheckpointError names what is missing or extra."""
        names = self.official_names()
        renamed = {names.get(name, name): tensor for name, tensor in state.items()}
        for alias, name in self.aliases().items():
            if name in renamed:
                renamed.setdefault(alias, renamed[name])
        load_into(self.model, renamed, where="the umT5 checkpoint")

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    def aliases(self) -> dict[str, str]:
        """Further names that `transformers` has for the token embedding, and its first name there."""
        names = self.official_names()
        others = self.model.state_dict().keys() - set(names.values())
        return dict.fromkeys(sorted(others), names["token_embedding.weight"])

    def official_names(self) -> dict[str, str]:
        """Official tensor name -> name in `transformers`."""
        names = {"token_embedding.weight": "shared.weight", "norm.weight": "encoder.final_layer_norm.weight"}
        for block in range(self.config.num_layers):
            names |= {
                f"blocks.{block}.{official}": f"encoder.block.{block}.{ours}"
                for official, ours in _UMT5_BLOCK.items()
            }
        return names


class Tokenizer(Protocol):
    """What `PromptEncoder` asks of a tokenizer of `transformers`."""

    def __call__(self, text: list[str], **options: Any) -> Mapping[str, Tensor]: ...


class TextEncoder(Protocol):
    """What a world asks of its text encoder."""

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings [B, text_len, text_dim], zero after each sentence's last token."""
        ...

    def unknown_words(self, prompt: str) -> list[str]:
        """The words of a prompt that the encoder was not trained on."""
        ...


class RandomPromptEncoder:
    """Stands in for a text encoder whose weights are not there: fixed random vectors by prompt."""

    def __init__(self, text_len: int, text_dim: int) -> None:
        self._shape = (text_len, text_dim)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        embeddings = torch.zeros(len(prompts), *self._shape)
        for row, prompt in zip(embeddings, prompts, strict=True):
            generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
            count = min(len(words(prompt)), len(row))
            row[:count] = torch.randn(count, row.shape[1], generator=generator)
        return embeddings

    def unknown_words(self, prompt: str) -> list[str]:  # noqa: ARG002 - it knows none, and all are alike
        return []


class PromptEncoder:
    """Sentences to umT5 embeddings [B, text_len, dim] as the released pipeline makes them."""

    def __init__(self, encoder: UMT5Encoder, tokenizer: Tokenizer, text_len: int = 512) -> None:
        self.encoder, self.tokenizer, self.text_len = encoder, tokenizer, text_len

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings, cut after `text_len` tokens and zero behind each prompt's last token.

        Only as many positions run as the longest prompt has: no token sees the padding, and a sentence of 20
        tokens then takes a twenty-fifth of the time, which matters where the encoder lives on a CPU.
        """
        tokens = self.tokenizer(
            [clean_prompt(prompt) for prompt in prompts],
            padding="longest",
            truncation=True,
            max_length=self.text_len,
            add_special_tokens=True,
            return_tensors="pt",
        )
        device = next(self.encoder.parameters()).device
        ids, mask = tokens["input_ids"].to(device), tokens["attention_mask"].to(device)
        with torch.inference_mode():
            hidden = self.encoder(ids, mask)
        hidden = torch.where(mask.bool()[..., None], hidden, 0)
        return F.pad(hidden, (0, 0, 0, self.text_len - hidden.shape[1]))

    def unknown_words(self, prompt: str) -> list[str]:  # noqa: ARG002 - pieces of words know every word
        return []


def read_tokenizer(folder: str | os.PathLike[str]) -> Tokenizer:
    """The tokenizer in a folder; CheckpointError for a folder that holds none. Uses no network."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, LookupError, ValueError, TypeError, AttributeError, ImportError) as error:
        raise CheckpointError(
            f"{folder} cannot be read as a tokenizer ({str(error).splitlines()[0]})",
            expected="its tokenizer.json and tokenizer_config.json",
        ) from error
    return tokenizer


def clean_prompt(prompt: str) -> str:
    """Repairs broken unicode, undoes HTML escapes (twice) and collapses white space."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def _checked(kind: type, values: Mapping[str, Any], what: str) -> dict[str, Any]:
    known = {item.name: item for item in fields(kind)}
    unknown = sorted(values.keys() - known.keys())
    missing = sorted(name for name, item in known.items() if item.default is MISSING and name not in values)
    if unknown or missing:
        raise ConfigError(
            f"{what} has wrong keys",
            expected=", ".join(known),
            got=f"unknown: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}",
        )
    return dict(values)
