"""The bytes of a saved session: read, and checked before anything of them is used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from worldwire.errors import ConfigError, StateError
from worldwire.motion import PlayerPose

FARTHEST = 1e9
MAX_FRAMES = 2**48
"""Far beyond any session, and far below what a number on the wire can hold."""
MOST_NAMED = 3  # tensors in a message

Shape = tuple[int | None, ...]
"""None: any number from 1 on."""


@contextmanager
def unreadable_is_a_state_error() -> Iterator[None]:
    """Whatever bytes that save() never wrote lead to while they are read is one StateError."""
    try:
        yield
    except (
        SafetensorError,
        ConfigError,
        ValueError,
        KeyError,
        TypeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        raise StateError(
            f"a saved state cannot be read: {error}", expected="bytes that save() returned"
        ) from error


def check_player(facts: dict[str, Any]) -> PlayerPose:
    """Where a saved session's player stands; ValueError or TypeError for what is no place."""
    player = PlayerPose(**facts)
    if not all(abs(value) <= FARTHEST for value in asdict(player).values()):
        raise ValueError(f"player: {str(facts)[:200]}")
    return player


def check_frames(frames: Any) -> int:
    """How many frames a saved session has shown; ValueError for what none can have."""
    if type(frames) is not int or not 1 <= frames <= MAX_FRAMES:
        raise ValueError(f"frames: {str(frames)[:20]}")
    return frames


def read_state(state: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a saved state."""
    tensors = load_tensors(state)
    header = json.loads(state[8 : 8 + int.from_bytes(state[:8], "little")])
    return tensors, dict(json.loads(header["__metadata__"]["session"]))


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, Shape]) -> None:
    """StateError unless there are exactly the expected tensors; names the first ones that differ."""
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    names = sorted(given.keys() | expected.keys())
    wrong = [name for name in names if not _fits(given.get(name), expected.get(name))]
    if wrong:
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise StateError(
            "a saved state does not fit this world",
            expected=", ".join(_told(name, expected.get(name)) for name in wrong[:MOST_NAMED]) + more,
            got=", ".join(_told(name, given.get(name)) for name in wrong[:MOST_NAMED]),
            remedy="restore it in a world of the same weights, loaded alike: a GPU's random numbers and its "
            "compiled decoder are stored in another form than a CPU's",
        )


def _fits(given: Shape | None, expected: Shape | None) -> bool:
    if given is None or expected is None or len(given) != len(expected):
        return False
    pairs = zip(given, expected, strict=True)
    return all(theirs == ours or (theirs and ours is None) for theirs, ours in pairs)


def _told(name: str, shape: Shape | None) -> str:
    if shape is None:
        return f"no {name}"
    return f"{name} [{', '.join('n' if count is None else str(count) for count in shape)}]"
