"""How much of one camera's view another camera sees: the share of its frustum's volume that both have.

`overlap` estimates the share with points that are uniform in the query's volume, so that its expected value
is the exact ratio; `exact_overlap` is that ratio, by clipping one frustum with the planes of the other.
"""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from worldwire.camera import Intrinsics
from worldwire.camera import invert as invert_array
from worldwire_runtime.camera.plucker import compose, invert, relative

NEAR_M = 0.1
# Volume grows with the cube of the range, so the range says what counts. At 12 m one of the 20 latent columns
# of an 80 degree camera is 1 m wide: what is farther leaves little in a latent that is worth remembering. It
# is 6 s of walking at 2 m/s, in scenes of about 30 m: a view from 3 m behind shares 0.42 of its volume, from
# 9 m behind 0.02, so near views win over those from across the scene, which walls would hide anyway.
FAR_M = 12.0

# Steps of the additive recurrence of Roberts' R3 sequence: powers of the root of g**4 = g + 1.
_RECURRENCE = [1.2207440846057596**-power for power in (1, 2, 3)]
_CHUNK_TESTS = 2**20  # point tests at a time: bounds the memory and stays in a processor's cache
# Faces of two frusta often lie in one plane (a step aside, a turn about the vertical), where rounding would
# decide what is cut. Frusta that are wider by this much are clear of it, and no ratio changes by 1e-6.
_CLEARANCE_M = 1e-7

Array = NDArray[np.float64]


def sample_frustum(
    intrinsics: Intrinsics, near_m: float, far_m: float, points: int, generator: torch.Generator
) -> Tensor:
    """Points [N, 3] in camera axes, each uniform in the frustum's volume, on the generator's device.

    A randomly shifted lattice: every point alone is exactly uniform, which makes shares unbiased, and
    together they are more even than independent points, which makes the error smaller (see `overlap`).
    """
    device = generator.device
    shift = torch.rand(3, generator=generator, device=device, dtype=torch.float64)
    step = torch.tensor(_RECURRENCE, device=device, dtype=torch.float64)
    count = torch.arange(points, device=device, dtype=torch.float64)
    column, row, depth = (shift + count[:, None] * step).remainder(1).unbind(-1)
    z = (near_m**3 + (far_m**3 - near_m**3) * depth) ** (1 / 3)
    x = (column * intrinsics.width - intrinsics.cx) / intrinsics.fx * z
    y = (row * intrinsics.height - intrinsics.cy) / intrinsics.fy * z
    return torch.stack([x, y, z], dim=-1).float()


def overlap(
    query_c2w: Tensor,
    candidate_c2w: Tensor,
    points_camera: Tensor,
    intrinsics: Intrinsics,
    near_m: float,
    far_m: float,
) -> Tensor:
    """Share [Q, K] in [0, 1] of each query's frustum that each candidate sees, float32.

    query_c2w: [Q, 4, 4], candidate_c2w: [K, 4, 4]; points_camera: [N, 3] of `sample_frustum`. The standard
    error stays below 0.5 / sqrt(N) for any pair, the bound of independent points; the lattice brings it from
    0.031 down to 0.02 at worst and 0.008 on average at 256 points. Candidates are taken in chunks, so 20,000
    of them need little more memory than a few hundred; a GPU counts all at once, in a kernel of its own.
    """
    if has_kernel(candidate_c2w):
        from worldwire_runtime.kernels.frustum import shares

        return shares(query_c2w, candidate_c2w, points_camera, image_scales(intrinsics), near_m, far_m)
    origin = query_c2w[0, :3, 3].double()
    queries = _centred(query_c2w, origin).permute(1, 0, 2).reshape(4, -1)
    cameras = _image_rows(_centred(candidate_c2w, origin), intrinsics)
    points = torch.nn.functional.pad(points_camera.float(), (0, 1), value=1.0).T.contiguous()
    chunk = max(1, _CHUNK_TESTS // (len(query_c2w) * points.shape[1]))
    with torch.autocast(points.device.type, enabled=False):
        parts = [
            _share_inside((rows.flatten(0, 1) @ queries).view(3, -1, 4), points, near_m, far_m)
            for rows in _chunks(cameras, chunk)
        ]
    return torch.cat(parts).view(len(candidate_c2w), len(query_c2w)).T


def paired_overlap(
    query_c2w: Tensor,
    candidate_c2w: Tensor,
    points_camera: Tensor,
    intrinsics: Intrinsics,
    near_m: float,
    far_m: float,
) -> Tensor:
    """As `overlap`, for pairs [P, 4, 4] and [P, 4, 4] instead of all combinations: [P]."""
    motion = relative(query_c2w.double(), candidate_c2w.double()).float()
    rows = compose(_to_image(intrinsics, motion.device), motion[:, :3]).transpose(0, 1)
    points = torch.nn.functional.pad(points_camera.float(), (0, 1), value=1.0).T.contiguous()
    chunk = max(1, _CHUNK_TESTS // points.shape[1])
    with torch.autocast(points.device.type, enabled=False):
        return torch.cat([_share_inside(part, points, near_m, far_m) for part in _chunks(rows, chunk)])


def _chunks(rows: Tensor, size: int) -> list[Tensor]:
    """Rows [3, K, 4] as parts of at most `size` along K; one empty part if K is 0."""
    return [rows[:, start : start + size] for start in range(0, max(1, rows.shape[1]), size)]


def _centred(c2w: Tensor, origin: Tensor) -> Tensor:
    """Cameras as float32 around `origin`: exact enough there, however far the session has walked."""
    centred = c2w.double().clone()
    centred[:, :3, 3] -= origin
    return centred.float()


def image_scales(intrinsics: Intrinsics) -> tuple[float, float, float, float]:
    """What x and z are multiplied with, then y and z, for a point to be in the image if |x|, |y| <= z."""
    half_width, half_height = intrinsics.width / 2, intrinsics.height / 2
    return (
        intrinsics.fx / half_width,
        intrinsics.cx / half_width - 1,
        intrinsics.fy / half_height,
        intrinsics.cy / half_height - 1,
    )


def _to_image(intrinsics: Intrinsics, device: torch.device) -> Tensor:
    """The matrix [3, 3] after which a point of the camera is in the image if |x| <= z and |y| <= z."""
    x_scale, x_shift, y_scale, y_shift = image_scales(intrinsics)
    return torch.tensor([[x_scale, 0.0, x_shift], [0.0, y_scale, y_shift], [0.0, 0.0, 1.0]], device=device)


def _image_rows(c2w: Tensor, intrinsics: Intrinsics) -> Tensor:
    """World to image coordinates of cameras [K, 4, 4], as rows [3, K, 4]."""
    return compose(_to_image(intrinsics, c2w.device), invert(c2w)[:, :3]).transpose(0, 1)


def has_kernel(tensor: Tensor) -> bool:
    """Whether `kernels.frustum` can take it: a GPU and Triton."""
    return tensor.is_cuda and find_spec("triton") is not None


def _share_inside(rows: Tensor, points: Tensor, near_m: float, far_m: float) -> Tensor:
    """Share [P] of homogeneous `points` [4, N] inside the image after `rows` [3, P, 4]."""
    if has_kernel(rows):
        from worldwire_runtime.kernels.frustum import share_inside

        return share_inside(rows, points, near_m, far_m)
    x, y, z = (rows.reshape(-1, 4) @ points).view(3, rows.shape[1], points.shape[1]).unbind(0)
    nearest = torch.maximum(x.abs_(), y.abs_()).clamp_(min=near_m)
    inside = (nearest <= z).logical_and_(z <= far_m)
    return inside.sum(-1, dtype=torch.int32) / points.shape[1]


def exact_overlap(
    query_c2w: ArrayLike, candidate_c2w: ArrayLike, intrinsics: Intrinsics, near_m: float, far_m: float
) -> float:
    """The exact ratio of volumes that `overlap` estimates, for one pair of 4x4 cameras; near_m may be 0.

    The query's frustum, as polygons, is clipped by the six planes of the candidate's. A reference: about a
    millisecond per pair.
    """
    candidate_in_query = invert_array(query_c2w) @ np.asarray(candidate_c2w, dtype=np.float64)
    corners = _corners(intrinsics, near_m, far_m)
    query = [corners[face] for face in _FACES]
    shared = query
    for plane in _moved(_planes(intrinsics, near_m, far_m), candidate_in_query):
        shared = _clip(shared, plane)
    return _volume(shared) / _volume(query)


# Corners of a frustum are numbered 0 to 3 around the near end and 4 to 7 around the far end.
_FACES = [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]


def _corners(intrinsics: Intrinsics, near_m: float, far_m: float) -> Array:
    """The corners [8, 3] of a frustum in camera axes."""
    columns = np.array([0, intrinsics.width, intrinsics.width, 0])
    rows = np.array([0, 0, intrinsics.height, intrinsics.height])
    x, y = (columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy
    rays = np.stack([x, y, np.ones(4)], axis=-1)
    return np.concatenate([rays * near_m, rays * far_m])


def _planes(intrinsics: Intrinsics, near_m: float, far_m: float) -> Array:
    """The planes [6, 4] of a slightly wider frustum: unit normals n, offsets d, n . p + d >= 0 inside."""
    left, right = (
        [intrinsics.fx, 0, intrinsics.cx, 0],
        [-intrinsics.fx, 0, intrinsics.width - intrinsics.cx, 0],
    )
    top, bottom = (
        [0, intrinsics.fy, intrinsics.cy, 0],
        [0, -intrinsics.fy, intrinsics.height - intrinsics.cy, 0],
    )
    planes = np.array([left, right, top, bottom, [0, 0, 1, -near_m], [0, 0, -1, far_m]], dtype=np.float64)
    planes /= np.linalg.norm(planes[:, :3], axis=1, keepdims=True)
    planes[:, 3] += _CLEARANCE_M
    return planes


def _moved(planes: Array, motion: Array) -> Array:
    """Planes [P, 4] after a rigid motion [4, 4]."""
    normals = planes[:, :3] @ motion[:3, :3].T
    return np.concatenate([normals, planes[:, 3:] - normals @ motion[:3, 3:]], axis=1)


def _clip(faces: list[Array], plane: Array) -> list[Array]:
    """The faces of a convex body (polygons [n, 3]) after what lies outside a plane has been cut off.

    Corners that faces share stay equal to the last bit, so that all faces agree on what is outside.
    """
    kept, rim = [], []
    for face in faces:
        corners, cuts = _clip_polygon(face, plane)
        rim += cuts
        if len(corners) >= 3:
            kept.append(np.array(corners))
    return [*kept, _around(np.array(rim), plane[:3])] if len(rim) >= 3 else kept


def _clip_polygon(corners: Array, plane: Array) -> tuple[list[Array], list[Array]]:
    """The corners of a convex polygon [n, 3] inside a plane, and those among them where it was cut."""
    heights = corners[:, 0] * plane[0] + corners[:, 1] * plane[1] + corners[:, 2] * plane[2] + plane[3]
    inside, cuts = [], []
    for here, height in enumerate(heights):
        if (heights[here - 1] >= 0) != (height >= 0):
            first, second = (here, here - 1) if height >= 0 else (here - 1, here)
            share = heights[first] / (heights[first] - heights[second])
            cuts.append(corners[first] + (corners[second] - corners[first]) * share)
            inside.append(cuts[-1])
        if height >= 0:
            inside.append(corners[here])
    return inside, cuts


def _around(corners: Array, normal: Array) -> Array:
    """Corners [n, 3] of a convex polygon in the plane of a normal, put in order around it."""
    aside = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    spokes = corners - corners.mean(axis=0)
    return corners[np.argsort(np.arctan2(spokes @ np.cross(normal, aside), spokes @ aside))]


def _volume(faces: list[Array]) -> float:
    """Volume of a convex body: the pyramids from a point inside to its faces."""
    if not faces:
        return 0.0
    inside = np.concatenate(faces).mean(axis=0)
    total = 0.0
    for face in faces:
        spokes = face - inside
        fans = np.cross(spokes[1:-1], spokes[2:]) @ spokes[0]
        total += float(np.abs(fans).sum()) / 6
    return total
