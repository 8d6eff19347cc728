"""What of a world is computed in 8 bits. No torch here: a world's config file holds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from worldwire.errors import ConfigError

Arithmetic = Literal["int8", "fp8"]
Layers = Literal["attention", "all"]

PRECISIONS = ("int8", "int8-attention", "fp8", "fp8-attention")
"""What `--precision` takes beside the plain number formats: an arithmetic, and the layer set unless all."""


@dataclass(frozen=True)
class Quantization:
    """Linear layers whose products are of 8-bit numbers: weights per output channel, activations per token.

    arithmetic: "int8" (integers) or "fp8" (e4m3). layers: "attention" is the paper's set, the q, k, v and o
    projections; "all" is every large linear of the blocks. smooth: the weights were stored with part of the
    activations' range moved into them, and a gain per input channel comes with each layer.
    """

    arithmetic: Arithmetic = "int8"
    layers: Layers = "all"
    smooth: bool = False

    def __post_init__(self) -> None:
        for name, kinds in (("arithmetic", get_args(Arithmetic)), ("layers", get_args(Layers))):
            if getattr(self, name) not in kinds:
                raise ConfigError(
                    f"unknown {name} of a quantisation",
                    expected=" or ".join(kinds),
                    got=repr(getattr(self, name)),
                )

    @property
    def precision(self) -> str:
        """Its name among `PRECISIONS`."""
        return self.arithmetic if self.layers == "all" else f"{self.arithmetic}-{self.layers}"


def quantization_of(precision: str, stored: Quantization | None) -> Quantization | None:
    """What `--precision` asks of a world stored with `stored`; None: no 8-bit products.

    Raises ConfigError where weights that are stored in 8 bits are asked for in another form: what rounding
    took from them cannot be given back.
    """
    wanted = _named(precision) if precision in PRECISIONS else None
    if stored is None:
        return wanted
    if precision not in ("auto", stored.precision):
        raise ConfigError(
            "these weights are stored quantised and run only so",
            expected=f"auto or {stored.precision}",
            got=precision,
            remedy="load the folder that they were made from",
        )
    return stored


def _named(precision: str) -> Quantization:
    arithmetic, _, layers = precision.partition("-")
    return Quantization(arithmetic, layers or "all")  # type: ignore[arg-type]  # both checked there
