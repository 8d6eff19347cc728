"""Comparing our networks, scheduler and camera with recorded outputs of the official implementation.

A folder holds `cases.json` (name -> specification) and one `NAME.safetensors` per case. What a case checks is
recognised by what it holds, never by its name. Each kind is a module with `recognises(spec, tensors)` and
`run(spec, tensors) -> {output: error}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from worldwire.errors import DataError
from worldwire_runtime.parity import camera, dit, scheduler, text, vae
from worldwire_runtime.parity.camera import CHOICES

CASES_FILE = "cases.json"
NETWORKS = ("dit", "vae", "text")
KINDS = {"dit": dit, "vae": vae, "text": text, "scheduler": scheduler, "camera": camera}

# Largest relative error that still counts as the same (the golden folder's README).
NETWORK_TOLERANCE = 1e-4
EXACT_TOLERANCE = 1e-5
OVERLAP_TOLERANCE = 1e-3
SAME_CHOICE = 0.0


@dataclass(frozen=True)
class Result:
    """One compared output of a case."""

    case: str
    output: str
    error: float
    tolerance: float

    @property
    def name(self) -> str:
        return f"{self.case}/{self.output}"

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def run_folder(
    folder: Path, device: str = "cpu", report: Callable[[list[Result]], None] = lambda _: None
) -> list[Result]:
    """Runs every case that the folder names, networks on a device; see `run_case`. report: told of each case.

    Raises DataError for a folder or case that cannot be read, and for a kind of case that is not known.
    """
    results: list[Result] = []
    for name, spec in read_cases(folder).items():
        of_case = run_case(folder, name, spec, device)
        report(of_case)
        results += of_case
    return results


def run_case(folder: Path, name: str, spec: Mapping[str, Any], device: str = "cpu") -> list[Result]:
    """All outputs of one case. A network on a GPU runs compiled, as it is played there, in true float32."""
    tensors = _read_tensors(folder / f"{name}.safetensors")
    kind = kind_of(name, spec, tensors)
    place = torch.device(device if kind in NETWORKS else "cpu")
    tensors = {key: tensor.to(place) for key, tensor in tensors.items()}
    try:
        with place, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            errors = KINDS[kind].run(spec, tensors)
    except KeyError as error:
        raise DataError(f"the {kind} case {name} lacks a field", expected=str(error)) from error
    return [Result(name, output, error, tolerance(kind, output)) for output, error in errors.items()]


def read_cases(folder: Path) -> dict[str, dict[str, Any]]:
    """The specification of every case in a folder."""
    try:
        cases = json.loads((folder / CASES_FILE).read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / CASES_FILE} cannot be read ({error})", expected="a folder with golden cases"
        ) from error
    if not isinstance(cases, dict) or not all(isinstance(spec, dict) for spec in cases.values()):
        raise DataError(f"{folder / CASES_FILE} holds no cases", expected="an object of objects by case name")
    return cases


def kind_of(name: str, spec: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Which kind of case this is, by its specification and tensors."""
    for kind, module in KINDS.items():
        if module.recognises(spec, tensors):
            return kind
    raise DataError(
        f"the case {name} is of no known kind",
        expected=" or ".join(KINDS),
        got=f"keys: {', '.join(sorted(spec))}; tensors: {', '.join(sorted(tensors)[:5])} ...",
    )


def tolerance(kind: str, output: str) -> float:
    """The largest error that an output may have."""
    if kind in NETWORKS:
        return NETWORK_TOLERANCE
    if kind == "camera" and output.startswith("overlap"):
        return OVERLAP_TOLERANCE
    if kind == "camera" and output in CHOICES:
        return SAME_CHOICE
    return EXACT_TOLERANCE


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})", expected="a complete safetensors file") from error
