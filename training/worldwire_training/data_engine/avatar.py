"""The walker of the third-person view: a small figure in a coat and a hat whose limbs swing."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire_training.data_engine.atmosphere import Colour
from worldwire_training.data_engine.mesh import Mesh, Place, box, ellipsoid, frustum

Array = NDArray[np.float64]
STRIDE_RAD_PER_M = 4.2
SWING_RAD = 0.55
SWING_GROWS_BY = 0.25
LEFT_LEG, RIGHT_LEG, LEFT_ARM, RIGHT_ARM = 1, 2, 3, 4
SKIN: Colour = (0.88, 0.68, 0.54)
TROUSERS: Colour = (0.20, 0.22, 0.30)
BOOTS: Colour = (0.22, 0.14, 0.10)


@lru_cache(maxsize=32)
def avatar_vertices(coat: Colour, hat: Colour) -> NDArray[Any]:
    """The figure on the origin looking along +z, as `mesh.VERTEX`; its limbs carry their number."""
    mesh = Mesh()
    for limb, x in ((LEFT_LEG, -0.12), (RIGHT_LEG, 0.12)):
        mesh.add(box(0.17, 0.78, 0.19), TROUSERS, place=Place(x, 0.1, 0), limb=limb, ao=0.8)
        mesh.add(box(0.18, 0.14, 0.30), BOOTS, place=Place(x, 0.0, 0.04), limb=limb, ao=0.7)
    body, normals = frustum(0.34, 0.80, 10, 0.62)
    mesh.add(body, coat, place=Place(0, 0.62, 0), normals=normals, ao=0.75 + 0.25 * body[..., 1] / 0.8)
    belt, normals = frustum(0.305, 0.07, 10, 0.98)
    mesh.add(belt, BOOTS, place=Place(0, 0.86, 0), normals=normals, ao=0.9)
    sleeve = tuple(0.88 * c for c in coat)
    for limb, x in ((LEFT_ARM, -0.31), (RIGHT_ARM, 0.31)):
        mesh.add(box(0.14, 0.50, 0.16), sleeve, place=Place(x, 0.86, 0), limb=limb, ao=0.9)
        mesh.add(box(0.12, 0.12, 0.13), SKIN, place=Place(x, 0.76, 0), limb=limb, ao=0.9)
    head, normals = ellipsoid(0.16, 0.19, 0.17, 1)
    mesh.add(head, SKIN, place=Place(0, 1.58, 0), normals=normals, ao=1.0)
    brim, normals = frustum(0.30, 0.05, 12, 0.9)
    mesh.add(brim, hat, place=Place(0, 1.66, 0), normals=normals, ao=0.9)
    crown, normals = frustum(0.19, 0.20, 10, 0.75)
    mesh.add(crown, hat, place=Place(0, 1.69, 0), normals=normals, ao=1.0)
    return mesh.pack()


def avatar_track(player: Array) -> Array:
    """How the figure stands in each frame, [F, 4]: x, z (m), yaw (radians), swing of the limbs (radians).

    player: [F, 5] x, y, z (m), yaw, pitch (degrees). The limbs swing with the way walked and come to rest
    when the player stands.
    """
    steps = np.hypot(*np.diff(player[:, [0, 2]], axis=0, prepend=player[:1, [0, 2]]).T)
    phase, share = np.cumsum(steps) * STRIDE_RAD_PER_M, 0.0
    swing = np.zeros(len(player))
    for frame, step in enumerate(steps):
        share += ((step > 1e-3) - share) * SWING_GROWS_BY
        swing[frame] = SWING_RAD * share * math.sin(phase[frame])
    return np.stack([player[:, 0], player[:, 2], np.radians(player[:, 3]), swing], axis=-1)
