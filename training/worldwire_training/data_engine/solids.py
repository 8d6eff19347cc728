"""What players cannot walk through: footprints seen from above, and how a player slides along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PLAYER_RADIUS_M = 0.3
SLIDE_PASSES = 4
TOUCH_TOLERANCE_M = 1e-6


@dataclass(frozen=True)
class Solids:
    """Footprints on the ground, metres.

    circles: [n, 3] x, z, radius. boxes: [n, 5] x, z, half width, half depth, yaw (radians, + right).
    boundary_m: players stay within this distance of the origin.
    """

    circles: Array
    boxes: Array
    boundary_m: float

    def clearance_m(self, points: Array) -> Array:
        """Distance [...] from points [..., 2] (x, z) to the nearest footprint; negative inside one."""
        flat = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        nearest = self.boundary_m - np.hypot(flat[:, 0], flat[:, 1])
        if len(self.circles):
            reach = np.hypot(flat[:, None, 0] - self.circles[:, 0], flat[:, None, 1] - self.circles[:, 1])
            nearest = np.minimum(nearest, (reach - self.circles[:, 2]).min(axis=1))
        if len(self.boxes):
            local, _, _ = self._to_boxes(flat)
            beyond = np.abs(local) - self.boxes[:, 2:4]
            outside = np.hypot(*np.moveaxis(np.maximum(beyond, 0), -1, 0))
            nearest = np.minimum(nearest, (outside + np.minimum(beyond.max(axis=-1), 0)).min(axis=1))
        return np.asarray(nearest.reshape(np.shape(points)[:-1]))

    def free_line(self, start: Array, end: Array, margin_m: float, step_m: float = 0.25) -> bool:
        """Whether all of a straight walk keeps the margin to every footprint."""
        count = max(2, int(np.hypot(*(end - start)) / step_m) + 1)
        points = start + (end - start) * np.linspace(0, 1, count)[:, None]
        return bool((self.clearance_m(points) >= margin_m).all())

    def slide(self, x: float, z: float, radius_m: float = PLAYER_RADIUS_M) -> tuple[float, float]:
        """The nearest place to (x, z) where a circle of this radius touches no footprint (x, z if free)."""
        point = np.array([x, z])
        for _ in range(SLIDE_PASSES):
            push, depth = self._deepest_push(point, radius_m)
            if depth <= TOUCH_TOLERANCE_M:
                break
            point = point + push * depth
        return float(point[0]), float(point[1])

    def _deepest_push(self, point: Array, radius_m: float) -> tuple[Array, float]:
        """Direction out of the footprint that overlaps most, and how far."""
        from_middle = float(np.hypot(*point))
        best, direction = from_middle + radius_m - self.boundary_m, -point / max(from_middle, 1e-9)
        if len(self.circles):
            away = point - self.circles[:, :2]
            reach = np.hypot(away[:, 0], away[:, 1])
            depth = self.circles[:, 2] + radius_m - reach
            worst = int(depth.argmax())
            if depth[worst] > best:
                best, direction = float(depth[worst]), away[worst] / max(float(reach[worst]), 1e-9)
        if len(self.boxes):
            depth, push = self._box_pushes(point, radius_m)
            worst = int(depth.argmax())
            if depth[worst] > best:
                best, direction = float(depth[worst]), push[worst]
        return direction, best

    def _to_boxes(self, points: Array) -> tuple[Array, Array, Array]:
        """Points [n, 2] in every box's own axes [n, boxes, 2], and the boxes' cosines and sines."""
        delta = points[:, None] - self.boxes[:, :2]
        cos, sin = np.cos(self.boxes[:, 4]), np.sin(self.boxes[:, 4])
        local = np.stack(
            [delta[..., 0] * cos - delta[..., 1] * sin, delta[..., 0] * sin + delta[..., 1] * cos], axis=-1
        )
        return local, cos, sin

    def _box_pushes(self, point: Array, radius_m: float) -> tuple[Array, Array]:
        """How deep a circle is in each box, and the unit direction out of it [boxes, 2]."""
        local, cos, sin = self._to_boxes(point[None])
        local = local[0]
        half = self.boxes[:, 2:4]
        gap = local - np.clip(local, -half, half)
        distance = np.hypot(gap[:, 0], gap[:, 1])
        inside = distance < 1e-9
        beyond = np.abs(local) - half
        along_x = beyond[:, 0] > beyond[:, 1]
        sign = np.where(local >= 0, 1.0, -1.0)
        exit_axis = np.stack([sign[:, 0] * along_x, sign[:, 1] * ~along_x], axis=-1)
        direction = np.where(inside[:, None], exit_axis, gap / np.maximum(distance, 1e-9)[:, None])
        depth = radius_m - np.where(inside, beyond.max(axis=-1), distance)
        world = np.stack(
            [direction[:, 0] * cos + direction[:, 1] * sin, direction[:, 1] * cos - direction[:, 0] * sin], -1
        )
        return depth, world
