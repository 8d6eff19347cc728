"""8-bit self-attention in a network: an option of its own, whatever the linear layers run in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypedDict, cast

from torch import Tensor

from worldwire_runtime.kernels import native
from worldwire_runtime.kernels.attention import DEFAULT_SCORES, attention
from worldwire_runtime.model.attention import EVERYTHING, Context, KeyValue, attend, in_two_calls
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT


class Form(TypedDict, total=False):
    """Formats of `kernels.attention.attention`."""

    scores: str
    fp8_values: bool


VALUE_FORMS: Mapping[str, Form] = {"fp8": {}, "16-bit": {"fp8_values": False}}
"""By what the values are."""


def use_8bit_attention(dit: DiT) -> None:
    """Self-attention of every block by `kernels.attention`; text and actions keep theirs, which is short."""
    native.register()
    for block in cast(Sequence[Block], dit.blocks):
        block.self_attn.attend = attend_8bit


def use_plain_attention(dit: DiT) -> None:
    """Undoes `use_8bit_attention`."""
    for block in cast(Sequence[Block], dit.blocks):
        block.self_attn.attend = attend


@contextmanager
def compared(dit: DiT, forms: Mapping[str, Form] = VALUE_FORMS) -> Iterator[dict[str, list[float]]]:
    """Fills the mapping with relative errors, call by call, while the network runs with plain attention.

    By block and name of the form: "0 fp8", "0 16-bit", "1 fp8", ...
    """
    errors: dict[str, list[float]] = {}
    for number, block in enumerate(cast(Sequence[Block], dit.blocks)):
        block.self_attn.attend = partial(_compare, errors, number, forms)
    try:
        yield errors
    finally:
        use_plain_attention(dit)


def _compare(
    errors: dict[str, list[float]],
    block: int,
    forms: Mapping[str, Form],
    query: Tensor,
    keys: KeyValue,
    context: Context = EVERYTHING,
) -> Tensor:
    wanted = attend(query, keys, context)
    for name, form in forms.items():
        got = attend_8bit(query, keys, context, **form)
        error = (got.float() - wanted.float()).norm() / wanted.float().norm()
        errors.setdefault(f"{block} {name}", []).append(float(error))
    return wanted


def attend_8bit(
    query: Tensor,
    keys: KeyValue,
    context: Context = EVERYTHING,
    *,
    scores: str = DEFAULT_SCORES,
    fp8_values: bool = True,
) -> Tensor:
    """`model.attention.attend` in 8-bit products, with its meaning of `context`.

    scores: what queries and keys are rounded to, of `kernels.attention.SCORE_FORMATS`. fp8_values: False
    keeps the values and the probabilities in 16 bits.
    """
    form: Form = {"scores": scores, "fp8_values": fp8_values}
    if not context.queries:
        return attention(query, keys.key, keys.value, **form)
    return in_two_calls(partial(attend_8bit, **form), query, keys, context)
