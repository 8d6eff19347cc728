"""How a world's networks are made fast: the choices that do not change what is computed, and 8-bit attention.

`Speed()` is what fits the device. Each choice can be taken back alone, so that `worldwire bench --ablate` can
measure what it brings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from worldwire.errors import ConfigError
from worldwire_runtime.convolutions import APART, PRODUCTS, TAPS, Form
from worldwire_runtime.graphs import WARM_CALLS
from worldwire_runtime.machine import refuse_fp8

CHOOSERS = ("device", "cpu")
SETTLING_CLIPS = WARM_CALLS + 1
"""Clips of equal shapes after which everything has been compiled and recorded."""


@dataclass(frozen=True)
class Speed:
    """None: what fits the device; of what may be on or off, True on a GPU and False on a CPU.

    compiled: torch.compile fuses the networks, once a session's shapes have settled. graphs: a whole clip is
    replayed as one CUDA graph. attention_8bit: self-attention in 8-bit products, which changes its results a
    little (`worldwire_runtime.quantize.attention`). overlap: a served session's frames are decoded while its
    next step is prepared, or runs (`worldwire_runtime.ahead`). choose_on: where the memory compares cameras,
    "device" or "cpu". decoder: the form of its layers (`worldwire_runtime.convolutions`).
    """

    compiled: bool | None = None
    graphs: bool | None = None
    attention_8bit: bool = False
    choose_on: str = "device"
    overlap: bool | None = None
    decoder: Form | None = None

    def __post_init__(self) -> None:
        if self.choose_on not in CHOOSERS:
            raise ConfigError(
                "unknown place for the memory's choice",
                expected=" or ".join(CHOOSERS),
                got=repr(self.choose_on),
            )

    def decoder_form(self, device: torch.device, dtype: torch.dtype) -> Form:
        """The form of the decoder's layers; the other choices are made."""
        if self.decoder is not None:
            return self.decoder
        if self.compiled:
            return PRODUCTS if device.type == "cuda" else TAPS
        return APART if device.type == "cpu" and dtype == torch.float32 else TAPS

    def on(self, device: torch.device) -> Speed:
        """The same with every choice made for a device.

        Raises ConfigError for CUDA graphs or overlap elsewhere, MachineError for 8-bit attention on a GPU
        without FP8.
        """
        cuda = device.type == "cuda"
        if self.graphs and not cuda:
            raise ConfigError("CUDA graphs need a CUDA device", got=str(device), remedy="leave out --graphs")
        if self.overlap and not cuda:
            raise ConfigError("overlap needs a CUDA device", got=str(device), remedy="leave out --overlap")
        if self.attention_8bit and cuda:
            refuse_fp8(torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device))
        return replace(
            self,
            compiled=cuda if self.compiled is None else self.compiled,
            graphs=cuda if self.graphs is None else self.graphs,
            overlap=cuda if self.overlap is None else self.overlap,
        )

    @property
    def chooser(self) -> torch.device | None:
        """What `Memory` takes as `choose_on`; None is its own device."""
        return torch.device("cpu") if self.choose_on == "cpu" else None

    @property
    def facts(self) -> dict[str, Any]:
        """What clients and records are told."""
        return {
            "compiled": self.compiled,
            "graphs": self.graphs,
            "attention_8bit": self.attention_8bit,
            "choose_on": self.choose_on,
            "overlap": self.overlap,
            "settling_clips": SETTLING_CLIPS if self.compiled or self.graphs else 0,
        }
