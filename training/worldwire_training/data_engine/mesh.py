"""Building a scene's triangles with numpy: primitives, and one vertex buffer for all of them.

Builders work in (x, up, z) metres with up positive; `Mesh.pack` converts to the world's axes (y down).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Triangles = NDArray[np.float64]
"""[n, 3 corners, 3 coordinates] in (x, up, z), outward side by the right-hand rule."""

VERTEX = np.dtype(
    [("position", "<f4", 3), ("normal_ao", "u1", 4), ("colour_glow", "u1", 4), ("kind", "u1", 4)]
)
"""One vertex: world position; normal (128 + 127 n) and ambient visibility (/255); sRGB and glow (/255);
(material, lamp, limb, 0)."""

VERTEX_FORMAT = "3f4 4f1 4f1 4u1"
FOOT_HEIGHT_M = 0.7
FOOT_VISIBILITY = 0.55


class Material(IntEnum):
    """How the fragment shader treats a surface."""

    PLAIN = 0
    ROWS = 1
    LEAVES = 2
    GROUND = 3
    WATER = 4
    GLASS = 5


@dataclass(frozen=True)
class Place:
    """Where a primitive goes: a position (x, up, z) and a turn about the vertical (degrees, + right)."""

    x: float = 0.0
    up: float = 0.0
    z: float = 0.0
    yaw_deg: float = 0.0

    def __call__(self, points: Array) -> Array:
        """Points [..., 3] from local to scene coordinates."""
        yaw = math.radians(self.yaw_deg)
        cos, sin = math.cos(yaw), math.sin(yaw)
        out = np.empty_like(points)
        out[..., 0] = points[..., 0] * cos + points[..., 2] * sin + self.x
        out[..., 1] = points[..., 1] + self.up
        out[..., 2] = points[..., 2] * cos - points[..., 0] * sin + self.z
        return out

    def at(self, x: float, up: float, z: float, yaw_deg: float = 0.0) -> Place:
        """A place given relative to this one."""
        px, pup, pz = self(np.array([x, up, z], dtype=np.float64))
        return Place(float(px), float(pup), float(pz), self.yaw_deg + yaw_deg)


@dataclass
class Mesh:
    """Triangles gathered so far."""

    chunks: list[NDArray[Any]] = field(default_factory=list)

    def add(
        self,
        triangles: Triangles,
        colour: ArrayLike,
        *,
        place: Place | None = None,
        normals: Array | None = None,
        material: Material = Material.PLAIN,
        glow: float = 0.0,
        lamp: int = 0,
        limb: int = 0,
        ao: Array | float | None = None,
    ) -> None:
        """Adds triangles [n, 3, 3].

        colour: sRGB 0..1, [3] or per corner [n, 3, 3]. normals: per corner [n, 3, 3], flat if None.
        ao: ambient visibility 0..1 (None: darker near the foot of the thing). glow: own light, 0..1.
        """
        points = triangles if place is None else place(triangles)
        if normals is None:
            normals = flat_normals(points)
        elif place is not None:
            normals = Place(yaw_deg=place.yaw_deg)(normals)
        if ao is None:
            ao = FOOT_VISIBILITY + (1 - FOOT_VISIBILITY) * np.clip(points[..., 1] / FOOT_HEIGHT_M, 0, 1)
        vertices = np.zeros(points.shape[:2], VERTEX)
        vertices["position"] = points * (1, -1, 1)
        vertices["normal_ao"][..., :3] = np.rint(normals * (127, -127, 127) + 128)
        vertices["normal_ao"][..., 3] = np.rint(np.asarray(ao) * 255)
        vertices["colour_glow"][..., :3] = np.rint(np.clip(np.asarray(colour), 0, 1) * 255)
        vertices["colour_glow"][..., 3] = round(glow * 255)
        vertices["kind"][...] = (int(material), lamp, limb, 0)
        self.chunks.append(vertices.reshape(-1))

    def pack(self) -> NDArray[Any]:
        """All vertices as one array of `VERTEX`, ordered by material (one draw call each)."""
        vertices = np.concatenate(self.chunks) if self.chunks else np.zeros(0, VERTEX)
        return vertices[np.argsort(vertices["kind"][:, 0], kind="stable")]


def flat_normals(triangles: Triangles) -> Array:
    """One normal per triangle, repeated for its corners [n, 3, 3]."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return np.repeat(normal[:, None], 3, axis=1)


def outward(triangles: Triangles) -> Triangles:
    """The triangles of a convex body, each wound so that its normal points away from the middle."""
    middle = triangles.reshape(-1, 3).mean(axis=0)
    normal = flat_normals(triangles)[:, 0]
    inward = np.einsum("ij,ij->i", normal, triangles.mean(axis=1) - middle) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return triangles


def quad(a: ArrayLike, b: ArrayLike, c: ArrayLike, d: ArrayLike) -> Triangles:
    """Two triangles of the corners in order; the normal is (b - a) x (c - a)."""
    return np.array([[a, b, c], [a, c, d]], dtype=np.float64)


@cache
def _unit_box() -> Triangles:
    corner = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (0.0, 1.0) for z in (-0.5, 0.5)])
    faces = [(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)]
    return outward(np.concatenate([quad(*corner[list(face)]) for face in faces]))


def box(width: float, height: float, depth: float) -> Triangles:
    """A box that stands on the origin."""
    return _unit_box() * (width, height, depth)


@cache
def _unit_gable() -> tuple[Triangles, Triangles]:
    """Roof slopes and gable ends of a ridge along z over a unit square."""
    a, b, c, d = (np.array(p) for p in ([-0.5, 0, -0.5], [0.5, 0, -0.5], [0.5, 0, 0.5], [-0.5, 0, 0.5]))
    ridge0, ridge1 = np.array([0, 1, -0.5]), np.array([0, 1, 0.5])
    slopes = np.concatenate([quad(a, d, ridge1, ridge0), quad(b, c, ridge1, ridge0)])
    ends = np.array([[a, b, ridge0], [d, c, ridge1]])
    under = quad(a, b, c, d)
    everything = outward(np.concatenate([slopes, ends, under]))
    return everything[[0, 1, 2, 3, 6, 7]], everything[4:6]


def gable(width: float, height: float, depth: float) -> tuple[Triangles, Triangles]:
    """(slopes with soffit, end triangles) of a pitched roof whose ridge runs along z."""
    slopes, ends = _unit_gable()
    return slopes * (width, height, depth), ends * (width, height, depth)


@cache
def _unit_frustum(sides: int, top: float) -> tuple[Triangles, Array]:
    angle = np.arange(sides + 1) * (2 * math.pi / sides)
    ring = np.stack([np.cos(angle), np.zeros(sides + 1), np.sin(angle)], axis=-1)
    upper = ring * (top, 0, top) + (0, 1, 0)
    low0, low1, up0, up1 = ring[:-1], ring[1:], upper[:-1], upper[1:]
    slope = np.array([1.0, 1 - top, 1.0])
    smooth = ring + (0, 1, 0) * (slope[1] * np.ones(1))
    smooth /= np.linalg.norm(smooth, axis=-1, keepdims=True)
    n0, n1 = smooth[:-1], smooth[1:]
    parts, normals = [np.stack([low0, up0, up1], 1)], [np.stack([n0, n0, n1], 1)]
    if top > 0:
        up = np.broadcast_to(np.array([0.0, 1.0, 0.0]), (sides, 3, 3))
        parts += [
            np.stack([low0, up1, low1], 1),
            np.stack([up0, np.broadcast_to([0.0, 1.0, 0.0], up0.shape), up1], 1),
        ]
        normals += [np.stack([n0, n1, n1], 1), up]
    else:
        parts, normals = [np.stack([low0, up0, low1], 1)], [np.stack([n0, (n0 + n1) / 2, n1], 1)]
    return np.concatenate(parts), np.concatenate(normals)


def frustum(radius: float, height: float, sides: int = 8, top: float = 0.0) -> tuple[Triangles, Array]:
    """A cone (top 0), a tapered or a straight (top 1) cylinder on the origin, and its smooth normals."""
    triangles, normals = _unit_frustum(sides, top)
    scale = np.array([radius, height, radius])
    bent = normals / scale
    return triangles * scale, bent / np.linalg.norm(bent, axis=-1, keepdims=True)


@cache
def _unit_sphere(level: int) -> Triangles:
    axis = np.eye(3)
    faces = [(sx * axis[0], sy * axis[1], sz * axis[2]) for sx in (-1, 1) for sy in (-1, 1) for sz in (-1, 1)]
    triangles = np.array(faces)
    for _ in range(level):
        a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
        ab, bc, ca = a + b, b + c, c + a
        pieces = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        triangles = np.concatenate([np.stack(piece, 1) for piece in pieces])
        triangles /= np.linalg.norm(triangles, axis=-1, keepdims=True)
    return outward(triangles)


def ellipsoid(width: float, height: float, depth: float, level: int = 1) -> tuple[Triangles, Array]:
    """A smooth blob about the origin with these half sizes, and its normals; 8 * 4**level triangles."""
    unit, half = _unit_sphere(level), np.array([width, height, depth])
    normals = unit / half
    return unit * half, normals / np.linalg.norm(normals, axis=-1, keepdims=True)
