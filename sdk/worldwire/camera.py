"""Camera geometry of worldwire: OpenCV axes (x right, y down, z forward), camera-to-world, metres.

The world has y down; `yaw_deg` + turns right and `pitch_deg` + looks up. Quaternions are xyzw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyquaternion import Quaternion

from worldwire.errors import InputError

RIGID_TOLERANCE = 1e-3
MAX_POSITION_M = 1e6
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera: focal lengths and principal point in pixels of a height x width image."""

    fx: float
    fy: float
    cx: float
    cy: float
    height: int
    width: int

    @classmethod
    def from_fov(cls, height: int, width: int, horizontal_fov_deg: float) -> Intrinsics:
        """Square pixels, centred, with the given horizontal field of view in degrees."""
        focal = width / 2 / math.tan(math.radians(horizontal_fov_deg) / 2)
        return cls(focal, focal, width / 2, height / 2, height, width)

    def scaled(self, height: int, width: int) -> Intrinsics:
        """The same view at another resolution."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy, height, width)


def rotation_from_yaw_pitch(yaw_deg: float, pitch_deg: float) -> Array:
    """3x3 camera-to-world rotation; forward is (sin yaw cos pitch, -sin pitch, cos yaw cos pitch)."""
    yaw, pitch = math.radians(yaw_deg), math.radians(pitch_deg)
    cos_yaw, sin_yaw, cos_pitch, sin_pitch = math.cos(yaw), math.sin(yaw), math.cos(pitch), math.sin(pitch)
    about_y = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    about_x = np.array([[1, 0, 0], [0, cos_pitch, -sin_pitch], [0, sin_pitch, cos_pitch]])
    return np.asarray(about_y @ about_x)


def yaw_pitch_from_rotation(rotation: ArrayLike) -> tuple[float, float]:
    """Yaw and pitch in degrees of a camera's forward axis; roll is not looked at."""
    x, y, z = np.asarray(rotation, dtype=np.float64)[:3, 2]
    return math.degrees(math.atan2(x, z)), math.degrees(math.atan2(-y, math.hypot(x, z)))


def make_c2w(rotation: ArrayLike, position_m: ArrayLike) -> Array:
    """4x4 camera-to-world from a 3x3 rotation and a position in metres."""
    c2w = np.eye(4)
    c2w[:3, :3] = rotation
    c2w[:3, 3] = position_m
    return c2w


def invert(c2w: ArrayLike) -> Array:
    """Inverse of rigid 4x4 motions [..., 4, 4]."""
    matrix = np.asarray(c2w, dtype=np.float64)
    inverse = np.zeros_like(matrix)
    inverse[..., :3, :3] = matrix[..., :3, :3].swapaxes(-1, -2)
    inverse[..., :3, 3] = -np.einsum("...ij,...j->...i", inverse[..., :3, :3], matrix[..., :3, 3])
    inverse[..., 3, 3] = 1
    return inverse


def check_c2w(c2w: ArrayLike) -> Array:
    """The matrix as float64 [4, 4], or InputError if it is no finite, sensible rigid motion."""
    matrix = _as_matrix(c2w)
    rotation, position = matrix[:3, :3], matrix[:3, 3]
    if not np.isfinite(matrix).all():
        problem = "it holds NaN or infinity"
    elif (
        not np.allclose(rotation @ rotation.T, np.eye(3), atol=RIGID_TOLERANCE) or np.linalg.det(rotation) < 0
    ):
        problem = "its rotation is not orthonormal and right-handed"
    elif not np.allclose(matrix[3], [0, 0, 0, 1], atol=RIGID_TOLERANCE):
        problem = f"its last row is {matrix[3].tolist()}"
    elif np.abs(position).max() > MAX_POSITION_M:
        problem = f"its position is {position.tolist()} m"
    else:
        return matrix
    raise InputError(
        f"a camera pose is not usable: {problem}",
        expected="a rigid 4x4 camera-to-world matrix, OpenCV axes, metres",
        got=f"{matrix.round(4).tolist()}",
        remedy="convert from your engine's axes first; from_quaternion() builds one from position and xyzw",
    )


def _as_matrix(c2w: ArrayLike) -> Array:
    try:
        matrix = np.array(c2w, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.empty(0)
    if matrix.shape != (4, 4):
        raise InputError("a camera pose has the wrong shape", expected="4x4 numbers", got=str(matrix.shape))
    return matrix


def from_quaternion(position_m: Sequence[float], quaternion_xyzw: Sequence[float]) -> Array:
    """Camera-to-world [4, 4] from a position in metres and a quaternion xyzw (normalised here).

    Raises InputError for a wrong length, NaN, or a quaternion of (nearly) zero length.
    """
    position, quaternion = np.asarray(position_m, np.float64), np.asarray(quaternion_xyzw, np.float64)
    length = float(np.linalg.norm(quaternion)) if quaternion.shape == (4,) else 0.0
    if position.shape != (3,) or not (math.isfinite(length) and length > 1e-6):
        raise InputError(
            "a pose is not usable",
            expected="3 metres and a quaternion xyzw of non-zero length",
            got=f"{position.tolist()}, {quaternion.tolist()}",
            remedy="send [0, 0, 0, 1] for no rotation",
        )
    x, y, z, w = quaternion / length
    return check_c2w(make_c2w(Quaternion(w, x, y, z).rotation_matrix, position))


def to_quaternion(c2w: ArrayLike) -> tuple[list[float], list[float]]:
    """Position in metres and quaternion xyzw (w >= 0) of a camera-to-world matrix."""
    matrix = check_c2w(c2w)
    quaternion = Quaternion(matrix=matrix, rtol=RIGID_TOLERANCE, atol=RIGID_TOLERANCE).normalised
    w, x, y, z = quaternion.elements if quaternion.w >= 0 else -quaternion.elements
    return matrix[:3, 3].tolist(), [float(x), float(y), float(z), float(w)]
