"""Pictures that metrics set aside while they play, for the strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from worldwire import Inputs
from worldwire_training.evaluation.pixels import Picture


@dataclass(frozen=True)
class Shot:
    """One moment of one scene: the truth and what was generated, and the inputs that led there."""

    seconds: float
    truth: Picture
    generated: Picture
    inputs: Inputs


@dataclass
class Album:
    """Strips of shots by title; `short` (5 s) and `long` (60 s)."""

    short: dict[str, Sequence[Shot]] = field(default_factory=dict)
    long: dict[str, Sequence[Shot]] = field(default_factory=dict)


def shots(
    seconds: Sequence[float],
    frames: Sequence[int],
    truth: Mapping[int, Picture],
    generated: Mapping[int, Picture],
    inputs: Sequence[Inputs],
) -> list[Shot]:
    """Pairs up truth and generated pictures of the same frames."""
    return [
        Shot(second, truth[frame], generated[frame], inputs[frame])
        for second, frame in zip(seconds, frames, strict=True)
    ]
