"""How much 8 bits cost, layer by layer and for the whole network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from worldwire_runtime.kernels.rows import FORMATS
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.quantize.calibration import Samples
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.linear import QuantLinear
from worldwire_runtime.quantize.smoothing import output_error


@dataclass(frozen=True)
class LayerError:
    """relative_error: of the layer's outputs on recorded inputs, as it will run. unsmoothed: without gain."""

    name: str
    inputs: int
    outputs: int
    smoothed: bool
    relative_error: float
    unsmoothed: float


def layer_errors(
    dit: DiT,
    names: list[str],
    samples: Mapping[str, Samples],
    quantization: Quantization,
    gains: Mapping[str, Tensor],
) -> list[LayerError]:
    """One line per layer of the plain network `dit`."""
    kind, lines = FORMATS[quantization.arithmetic], []
    for name in names:
        layer, rows, gain = cast(nn.Linear, dit.get_submodule(name)), samples[name].rows, gains.get(name)
        unsmoothed = output_error(layer, QuantLinear.of(layer, kind), rows)
        error = unsmoothed if gain is None else output_error(layer, QuantLinear.of(layer, kind, gain), rows)
        lines.append(
            LayerError(name, layer.in_features, layer.out_features, gain is not None, error, unsmoothed)
        )
    return lines


@dataclass(frozen=True)
class Outcome:
    """What quantising a world gave.

    frames_db: how near a first step's frames stay. attention: relative error of self-attention, were it in 8
    bits too, by block and kind of values (`attention.compared`).
    """

    quantization: Quantization
    layers: list[LayerError]
    attention: dict[str, float]
    frames_db: float


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The report as data."""
    return {
        "quantization": dataclasses.asdict(outcome.quantization),
        "first_step_psnr_db": round(outcome.frames_db, 2),
        "attention_8bit": {name: round(error, 6) for name, error in outcome.attention.items()},
        "layers": [
            {
                key: round(value, 6) if isinstance(value, float) else value
                for key, value in dataclasses.asdict(line).items()
            }
            for line in outcome.layers
        ],
    }


def table(outcome: Outcome) -> str:
    """The same for people."""
    lines = outcome.layers
    width = max(len(line.name) for line in lines)
    rows = [f"{'layer':<{width}}  {'inputs':>6} {'outputs':>7}  error %  unsmoothed %"]
    rows += [
        f"{line.name:<{width}}  {line.inputs:>6} {line.outputs:>7}  {100 * line.relative_error:7.3f}"
        f"  {100 * line.unsmoothed:12.3f}"
        for line in lines
    ]
    rows += [
        f"{f'attention of block {name} values':<{width + 16}}  {100 * error:7.3f}"
        for name, error in outcome.attention.items()
    ]
    mean = sum(line.relative_error for line in lines) / len(lines)
    rows.append(
        f"{len(lines)} layers, mean {100 * mean:.3f} %; frames of a first step {outcome.frames_db:.1f} dB"
    )
    return "\n".join(rows) + "\n"
