"""Parity of the UniPC flow scheduler: timesteps, levels, and every sample of a run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from worldwire_runtime.model.sampler import RELEASED_SHIFT, UniPC, released_schedule
from worldwire_runtime.parity.common import relative_error

RUN = re.compile(r"(?P<run>.+)\.model_outputs")


def recognises(_: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a case is one of the scheduler."""
    return any(name.endswith(".sigmas") for name in tensors) and any(RUN.fullmatch(name) for name in tensors)


def run(spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, float]:
    """Steps through the recorded model outputs of each run; compares levels, timesteps and samples."""
    shift = _shift(spec)
    errors: dict[str, float] = {}
    for name in (match["run"] for match in map(RUN.fullmatch, sorted(tensors)) if match):
        outputs = tensors[f"{name}.model_outputs"]
        schedule = released_schedule(len(outputs), shift)
        samples = _samples(UniPC(schedule), outputs, tensors[f"{name}.x0"])
        ours = {
            "timesteps": torch.tensor(schedule.timesteps),
            "sigmas": torch.tensor(schedule.sigmas),
            "samples": samples,
        }
        errors |= {
            f"{name}.{what}": relative_error(tensor, tensors[f"{name}.{what}"])
            for what, tensor in ours.items()
        }
    return errors


def _samples(solver: UniPC, outputs: Tensor, start: Tensor) -> Tensor:
    samples, x = [], start
    for output in outputs:
        x = solver.step(output, x)
        samples.append(x)
    return torch.stack(samples)


def _shift(spec: Mapping[str, Any]) -> float:
    """The shift, stated as a number or in the note of the case ("shift 5.0")."""
    stated = re.search(r"shift\s*=?\s*(\d+(?:\.\d+)?)", str(spec.get("note", "")))
    return float(spec.get("shift", stated[1] if stated else RELEASED_SHIFT))
