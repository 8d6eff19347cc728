"""Poses of Unity, Unreal, ROS, OpenGL, OpenXR and Blender to the wire's axes and back.

    from worldwire.axes import ROS, UNREAL

    position_m, quaternion_xyzw = UNREAL.pose_to_wire((120.0, 30.0, 165.0), (0.0, 0.0, 0.1305, 0.9914))
    session.step(Inputs(c2w=ROS.matrix_to_wire(base_to_camera)))

The wire has OpenCV axes (x right, y down, z forward), camera-to-world, metres, quaternions xyzw. An engine
has axes of its own for its world and for its cameras. A matrix M maps column vectors of the engine's camera
to the engine's world; with the signed permutations W (world) and K (camera) that turn the engine's vectors
into the wire's, the same pose on the wire is W M K⁻¹. Quaternions are their engine's own numbers: applied by
v' = q v q* to coordinates in the engine's axes, whether these are left- or right-handed.

Everything takes leading batch dimensions. `docs/axes.md` has the table and a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldwire.camera import invert, make_c2w, rotation_from_yaw_pitch, yaw_pitch_from_rotation
from worldwire.errors import ConfigError, InputError

Array = NDArray[np.float64]
Rows = tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]

MIN_QUATERNION_LENGTH: Final = 1e-6
IDENTITY: Final[Rows] = ((1, 0, 0), (0, 1, 0), (0, 0, 1))


@dataclass(frozen=True)
class Axes:
    """How one engine names directions.

    world: rows of W, a signed permutation: wire vector = W @ vector in the engine's world.
    camera: rows of K, the same for vectors in the engine's camera (where "ahead" is).
    metres_per_unit: length of the engine's unit.
    described: what x, y and z are, for people.
    W and K are both rotations or both reflections; anything else is no rigid motion and a ConfigError.
    """

    name: str
    world: Rows
    camera: Rows
    described: str
    metres_per_unit: float = 1.0

    def __post_init__(self) -> None:
        orthonormal = all(np.array_equal(m @ m.T, np.eye(3)) for m in (self._world, self._camera))
        handed = [round(float(np.linalg.det(m))) for m in (self._world, self._camera)]
        if not orthonormal or handed[0] != handed[1] or not self.metres_per_unit > 0:
            raise ConfigError(
                f"the axes {self.name!r} give no rigid motion",
                expected="rows of 0, 1, -1; a world and a camera of the same handedness; a unit above 0 m",
                got=f"{self.world}, {self.camera}, {self.metres_per_unit} m",
            )

    @cached_property
    def left_handed(self) -> bool:
        """Whether z = -(x × y), as in Unity and Unreal; the wire is right-handed."""
        return bool(np.linalg.det(self._world) < 0)

    # ------------------------------------------------------------------ to the wire

    def position_to_wire(self, position: ArrayLike) -> Array:
        """Points [..., 3] of the engine's world, in its units, to metres on the wire."""
        return _vectors(position, 3) @ self._world.T * self.metres_per_unit

    def quaternion_to_wire(self, quaternion_xyzw: ArrayLike) -> Array:
        """Orientations [..., 4] xyzw of the engine's cameras, normalised; InputError for a length of zero."""
        return _product(self._turned(_unit(quaternion_xyzw), self._world), _conjugate(self._mount))

    def matrix_to_wire(self, matrix: ArrayLike) -> Array:
        """Camera-to-world [..., 4, 4] for column vectors (transpose Unreal's FMatrix first) to the wire's."""
        return self._scaled(self._world, _matrices(matrix), self._camera.T, self.metres_per_unit)

    def pose_to_wire(self, position: ArrayLike, quaternion_xyzw: ArrayLike) -> tuple[Array, Array]:
        """Position in engine units and quaternion xyzw to metres and quaternion on the wire."""
        return self.position_to_wire(position), self.quaternion_to_wire(quaternion_xyzw)

    def pose_to_c2w(self, position: ArrayLike, quaternion_xyzw: ArrayLike) -> Array:
        """The same as matrices [..., 4, 4] on the wire, as `Inputs(c2w=...)` takes one."""
        return pose_matrix(*self.pose_to_wire(position, quaternion_xyzw))

    # ------------------------------------------------------------------ from the wire

    def position_from_wire(self, position_m: ArrayLike) -> Array:
        """Points [..., 3] in metres on the wire to the engine's world and units."""
        return _vectors(position_m, 3) @ self._world / self.metres_per_unit

    def quaternion_from_wire(self, quaternion_xyzw: ArrayLike) -> Array:
        """Orientations [..., 4] xyzw on the wire to those of the engine's cameras, normalised."""
        return self._turned(_product(_unit(quaternion_xyzw), self._mount), self._world.T)

    def matrix_from_wire(self, c2w: ArrayLike) -> Array:
        """Camera-to-world [..., 4, 4] on the wire to the engine's, for column vectors."""
        return self._scaled(self._world.T, _matrices(c2w), self._camera, 1 / self.metres_per_unit)

    def pose_from_wire(self, position_m: ArrayLike, quaternion_xyzw: ArrayLike) -> tuple[Array, Array]:
        """Metres and quaternion xyzw on the wire to position in engine units and quaternion."""
        return self.position_from_wire(position_m), self.quaternion_from_wire(quaternion_xyzw)

    def pose_from_c2w(self, c2w: ArrayLike) -> tuple[Array, Array]:
        """Cameras [..., 4, 4] on the wire, as `Frame.c2w` is one, to engine units and quaternion."""
        matrix = _matrices(c2w)
        return self.pose_from_wire(matrix[..., :3, 3], matrix_to_quaternion(matrix[..., :3, :3]))

    # ------------------------------------------------------------------ parts

    @cached_property
    def _world(self) -> Array:
        return np.array(self.world, dtype=np.float64)

    @cached_property
    def _camera(self) -> Array:
        return np.array(self.camera, dtype=np.float64)

    @cached_property
    def _mount(self) -> Array:
        """The rotation K W⁻¹ as a quaternion: how the camera's axes differ from those of the world."""
        return matrix_to_quaternion(self._camera @ self._world.T)

    def _turned(self, quaternions: Array, basis: Array) -> Array:
        """The same rotations in other axes; a reflection turns the sense of rotation around."""
        axis = quaternions[..., :3] @ basis.T
        return np.concatenate([-axis if self.left_handed else axis, quaternions[..., 3:]], axis=-1)

    @staticmethod
    def _scaled(left: Array, matrices: Array, right: Array, scale: float) -> Array:
        result = matrices.copy()
        result[..., :3, :3] = left @ matrices[..., :3, :3] @ right
        result[..., :3, 3] = matrices[..., :3, 3] @ left.T * scale
        return result


WIRE: Final = Axes("wire", IDENTITY, IDENTITY, "x right, y down, z forward; metres")
"""OpenCV's axes, those of this project."""
UNITY_ROWS: Final[Rows] = ((1, 0, 0), (0, -1, 0), (0, 0, 1))
UNREAL_ROWS: Final[Rows] = ((0, 1, 0), (0, 0, -1), (1, 0, 0))
FLU_ROWS: Final[Rows] = ((0, -1, 0), (0, 0, -1), (1, 0, 0))
OPENGL_ROWS: Final[Rows] = ((1, 0, 0), (0, -1, 0), (0, 0, -1))
Z_UP_ROWS: Final[Rows] = ((1, 0, 0), (0, 0, -1), (0, 1, 0))

UNITY: Final = Axes("unity", UNITY_ROWS, UNITY_ROWS, "x right, y up, z forward, left-handed; metres")
UNREAL: Final = Axes(
    "unreal", UNREAL_ROWS, UNREAL_ROWS, "x forward, y right, z up, left-handed; centimetres", 0.01
)
ROS: Final = Axes("ros", FLU_ROWS, FLU_ROWS, "x forward, y left, z up (REP 103), for body frames; metres")
ROS_OPTICAL: Final = Axes(
    "ros-optical",
    FLU_ROWS,
    IDENTITY,
    "world as ros; camera x right, y down, z forward (REP 103, _optical); metres",
)
OPENGL: Final = Axes("opengl", OPENGL_ROWS, OPENGL_ROWS, "x right, y up, z backward; metres")
OPENXR: Final = Axes("openxr", OPENGL_ROWS, OPENGL_ROWS, "x right, y up, z backward; metres")
BLENDER: Final = Axes("blender", Z_UP_ROWS, OPENGL_ROWS, "x right, y forward, z up; camera as opengl; metres")

BY_NAME: Final = {
    axes.name: axes for axes in (WIRE, UNITY, UNREAL, ROS, ROS_OPTICAL, OPENGL, OPENXR, BLENDER)
}
"""Every convention by its name, as `--axes` options take it."""


def by_name(name: str) -> Axes:
    """A convention by its name; ConfigError lists them."""
    if name in BY_NAME:
        return BY_NAME[name]
    raise ConfigError("unknown axes", expected=", ".join(BY_NAME), got=repr(name))


@dataclass(frozen=True)
class SessionOrigin:
    """Where a session began in somebody's world: its first camera is the identity of the session.

    c2w: [4, 4], wire axes, that first camera in the other world.
    """

    c2w: Array

    @classmethod
    def level(cls, c2w: ArrayLike) -> SessionOrigin:
        """The place and heading of a camera without its pitch and roll: the session's down stays down.

        For heads and drones that happen to look at the floor when they begin.
        """
        matrix = _matrices(c2w)
        yaw_deg, _ = yaw_pitch_from_rotation(matrix)
        return cls(make_c2w(rotation_from_yaw_pitch(yaw_deg, 0.0), matrix[:3, 3]))

    def to_session(self, c2w: ArrayLike) -> Array:
        """Cameras [..., 4, 4] of that world as the session counts them."""
        return np.asarray(invert(self.c2w) @ _matrices(c2w))

    def from_session(self, c2w: ArrayLike) -> Array:
        """The poses of frames [..., 4, 4] in that world."""
        return np.asarray(self.c2w @ _matrices(c2w))


def quaternion_to_matrix(quaternion_xyzw: ArrayLike) -> Array:
    """Rotations [..., 3, 3] of quaternions [..., 4] xyzw (normalised here; InputError for a zero length)."""
    x, y, z, w = np.moveaxis(_unit(quaternion_xyzw), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(rotation: ArrayLike) -> Array:
    """Quaternions [..., 4] xyzw, w >= 0, of rotations [..., 3, 3].

    The eigenvector of the largest eigenvalue of Bar-Itzhack's symmetric matrix (J. Guidance 23(6), 2000): no
    case distinctions, and the nearest rotation where rounding left the matrix not quite orthonormal.
    """
    r = np.asarray(rotation, dtype=np.float64)
    k = np.zeros((*r.shape[:-2], 4, 4))
    k[..., :3, :3] = r + r.swapaxes(-1, -2)
    trace = np.trace(r, axis1=-2, axis2=-1)
    k[..., range(3), range(3)] -= trace[..., None]
    k[..., 3, 3] = trace
    for row, (i, j) in enumerate(((2, 1), (0, 2), (1, 0))):
        k[..., row, 3] = k[..., 3, row] = r[..., i, j] - r[..., j, i]
    largest = np.linalg.eigh(k)[1][..., -1]
    return np.asarray(np.where(largest[..., 3:] < 0, -largest, largest))


def pose_matrix(position: ArrayLike, quaternion_xyzw: ArrayLike) -> Array:
    """Rigid motions [..., 4, 4] of positions [..., 3] and quaternions [..., 4] xyzw, in the same axes."""
    rotation = quaternion_to_matrix(quaternion_xyzw)
    matrix = np.zeros((*rotation.shape[:-2], 4, 4))
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = _vectors(position, 3)
    matrix[..., 3, 3] = 1
    return matrix


def _product(left: Array, right: Array) -> Array:
    """Hamilton products of quaternions [..., 4] xyzw."""
    a, b = left[..., :3], right[..., :3]
    vector = left[..., 3:] * b + right[..., 3:] * a + np.cross(a, b)
    return np.concatenate([vector, left[..., 3:] * right[..., 3:] - (a * b).sum(-1, keepdims=True)], axis=-1)


def _conjugate(quaternion: Array) -> Array:
    return quaternion * (-1, -1, -1, 1)


def _unit(quaternion_xyzw: ArrayLike) -> Array:
    quaternion = _vectors(quaternion_xyzw, 4)
    length = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if (length < MIN_QUATERNION_LENGTH).any():
        raise InputError(
            "a quaternion has no length",
            expected="xyzw of length 1",
            got=str(quaternion[(length < MIN_QUATERNION_LENGTH)[..., 0]][0].tolist()),
            remedy="send [0, 0, 0, 1] for no rotation; an unset message is all zeros",
        )
    return np.asarray(quaternion / length)


def _vectors(values: ArrayLike, size: int) -> Array:
    return _finite(values, (size,))


def _matrices(values: ArrayLike) -> Array:
    return _finite(values, (4, 4))


def _finite(values: ArrayLike, shape: tuple[int, ...]) -> Array:
    """The values as float64 [..., *shape], or InputError."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape[-len(shape) :] == shape and np.isfinite(array).all():
        return array
    raise InputError(
        "part of a pose is not usable",
        expected=f"finite numbers [..., {', '.join(map(str, shape))}]",
        got=str(array.shape) if array.shape[-len(shape) :] != shape else "NaN or infinity",
    )
