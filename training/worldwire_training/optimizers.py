"""The optimiser of the base model: AdamW alone, or Muon for the hidden matrices and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from worldwire_training.base_config import OptimizerConfig
from worldwire_training.base_model import BaseModel
from worldwire_training.common import set_learning_rate
from worldwire_training.muon import Muon, is_matrix

BETA1 = 0.9
HIDDEN = "dit.blocks."
"""Where the matrices are that Muon is for: neither embeddings nor the head, nor the small text encoder."""


class BaseOptimizer:
    """One or two optimisers that step together; the first one's groups have the full learning rate."""

    def __init__(self, model: BaseModel, config: OptimizerConfig) -> None:
        named = list(model.named_parameters())
        hidden = [p for name, p in named if config.kind == "muon" and is_hidden_matrix(name, p)]
        chosen = {id(parameter) for parameter in hidden}
        rest = [parameter for _, parameter in named if id(parameter) not in chosen]
        self.parts: list[torch.optim.Optimizer] = [Muon(hidden, lr=config.peak_rate)] if hidden else []
        self.parts.append(_adamw(rest, config, config.adam_share if hidden else 1.0))

    @property
    def rate(self) -> float:
        return float(self.parts[0].param_groups[0]["lr"])

    def set_rate(self, rate: float) -> None:
        for part in self.parts:
            set_learning_rate(part, rate)

    def step(self) -> None:
        """Update all weights from their gradients, and drop these."""
        for part in self.parts:
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`'s answer. ValueError when it comes from another kind of optimiser."""
        if len(state["parts"]) != len(self.parts):
            raise ValueError("its optimizer.kind is another one")
        for part, own in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(own)


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a weight of the `BaseModel` maps hidden states to hidden states."""
    return name.startswith(HIDDEN) and is_matrix(parameter)


def _adamw(parameters: list[nn.Parameter], config: OptimizerConfig, share: float) -> torch.optim.Optimizer:
    """AdamW; only matrices decay."""
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group | {"lr_scale": share} for group in groups],
        lr=config.peak_rate,
        betas=(BETA1, config.beta2),
        fused=parameters[0].is_cuda,
    )
