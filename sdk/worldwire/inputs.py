"""What a player does during one frame: held keys, relative look, or a camera pose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.camera import check_c2w
from worldwire.errors import InputError

KEYS: Final = ("forward", "back", "left", "right", "jump", "attack")
"""The keys by their index in the model's keyboard vector (official order)."""

MAX_LOOK_DEG: Final = 180.0
"""The largest turn that one frame may ask for."""


@dataclass(frozen=True)
class Inputs:
    """The inputs that lead to one frame.

    keys: names from `KEYS` that are held.
    yaw_deg, pitch_deg: relative look during this frame in degrees; yaw + turns right, pitch + looks up.
    c2w: the camera pose of the frame, 4x4 camera-to-world in the session's world (metres), or None. A pose
         wins over the motion that keys and look would give.
    Raises InputError for an unknown key, a look that is not finite or absurdly large, or a matrix that is no
    rigid motion.
    """

    keys: frozenset[str] = field(default_factory=frozenset)
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    c2w: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", check_keys(self.keys))
        object.__setattr__(self, "yaw_deg", _check_look("yaw_deg", self.yaw_deg))
        object.__setattr__(self, "pitch_deg", _check_look("pitch_deg", self.pitch_deg))
        if self.c2w is not None:
            object.__setattr__(self, "c2w", check_c2w(self.c2w))

    def key_vector(self) -> NDArray[np.float32]:
        """The held keys as six zeros and ones, in the order of `KEYS`."""
        return np.array([name in self.keys for name in KEYS], dtype=np.float32)


def _check_look(name: str, value: Any) -> float:
    """The turn of one frame in degrees, or InputError."""
    if isinstance(value, (int, float, np.number)) and abs(float(value)) <= MAX_LOOK_DEG:
        return float(value)
    raise InputError(
        f"{name} is not a sensible turn",
        expected=f"a finite number of degrees per frame within ±{MAX_LOOK_DEG:g}",
        got=repr(value),
        remedy="send the look of one frame, in degrees, not radians or pixels",
    )


def check_keys(keys: Iterable[str]) -> frozenset[str]:
    """The set of key names, or InputError naming the unknown ones."""
    if isinstance(keys, str):
        raise InputError(
            "keys is a string", expected="a set of key names", got=repr(keys), remedy=f"write {{{keys!r}}}"
        )
    held = frozenset(keys)
    unknown = sorted(str(key) for key in held - set(KEYS))
    if unknown:
        raise InputError(
            "unknown keys", expected=", ".join(KEYS), got=", ".join(unknown), remedy="map your keys to these"
        )
    return held


def per_frame(inputs: Inputs | Sequence[Inputs], frames: int) -> list[Inputs]:
    """One `Inputs` for each of `frames` frames: one is held for all, a list must have that length."""
    if isinstance(inputs, Inputs):
        return [inputs] * frames
    listed = list(inputs)
    if len(listed) != frames or not all(isinstance(item, Inputs) for item in listed):
        kinds = sorted({type(item).__name__ for item in listed})
        raise InputError(
            "a step takes one Inputs, or one for each of its frames",
            expected=f"{frames} Inputs",
            got=f"{len(listed)} of {', '.join(kinds) or 'nothing'}",
            remedy="ask `session.frames_per_step` before each step",
        )
    return listed
