"""The released Matrix-Game 3.0 model's own camera convention; nothing else knows of it.

Its world has x forward, y right, z up (left-handed), its state is in centimetres and degrees, and its
camera-to-world matrices, in metres, have determinant -1: camera axes are ours (x right, y down, z forward). A
positive mouse pitch turns the camera *down*. Its action f leads from frame f to frame f + 1.
Sources: fact sheet of the official code, sections 2.6 (relative poses) and 4 (poses, retrieval).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from worldwire.camera import Intrinsics
from worldwire_runtime.camera.plucker import compose, relative

STEP_CM = 12.35  # per frame along one axis
DIAGONAL_STEP_CM = 8.73  # per frame along each of two axes
TURN_DEG = 15.0  # per frame and unit of mouse
MOUSE_DEAD_ZONE = 0.02
KEY_THRESHOLD = 0.5
METRES_PER_CM = 0.01
HORIZONTAL_FOV_DEG = 90.0  # and the same vertically: pixels are not square

NEAR_M, FAR_M = 0.1, 30.0  # of the frusta that retrieval compares
GRID_SIDE = 10  # sample points per side of a frustum
SINK_FRAME = 4  # last frame of latent 1, which takes the last memory slot
QUERY_STRIDE = 8  # frames between the queries of a clip

_CAMERA_AXES = [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]  # columns: the camera's x, y, z
_MOTIONLESS_M = 1e-9  # shorter translations are rounding, and have no direction


def intrinsics(height: int, width: int) -> Intrinsics:
    """The camera of the released model at a resolution: 90 degrees both ways."""
    half_tangent = math.tan(math.radians(HORIZONTAL_FOV_DEG) / 2)
    half_width, half_height = width / 2, height / 2
    return Intrinsics(
        half_width / half_tangent, half_height / half_tangent, half_width, half_height, height, width
    )


RETRIEVAL_INTRINSICS = intrinsics(720, 1280)

# ---------------------------------------------------------------------- poses


def integrate(keyboard: Tensor, mouse: Tensor, start: Sequence[float] = (0.0,) * 5) -> Tensor:
    """Poses [F, 5] of F frames (x, y, z in cm, pitch, yaw in degrees), float64, from their actions.

    keyboard: [F, 6], mouse: [F, 2] (pitch, yaw). `start` is the pose of frame 0; the last action leads
    beyond.
    """
    poses = [tuple(start)]
    for keys, turns in zip(keyboard[:-1].tolist(), mouse[:-1].tolist(), strict=True):
        poses.append(_next_pose(poses[-1], keys, turns))
    return torch.tensor(poses, dtype=torch.float64)


def _next_pose(pose: Sequence[float], keys: Sequence[float], turns: Sequence[float]) -> tuple[float, ...]:
    x, y, z, pitch, yaw = pose
    pitch_turn, yaw_turn = (TURN_DEG * turn if abs(turn) >= MOUSE_DEAD_ZONE else 0.0 for turn in turns)
    forward, right = _steps(keys)
    heading = math.radians(yaw + yaw_turn / 2)
    return (
        x + math.cos(heading) * forward - math.sin(heading) * right,
        y + math.sin(heading) * forward + math.cos(heading) * right,
        z,
        pitch + pitch_turn,
        _wrap(yaw + yaw_turn),
    )


def _steps(keys: Sequence[float]) -> tuple[float, float]:
    """Centimetres forward and to the right that the keys ask for; opposite keys cancel out."""
    ahead, back, left, right = (key > KEY_THRESHOLD for key in keys[:4])
    forward_sign, right_sign = ahead - back, right - left
    size = DIAGONAL_STEP_CM if forward_sign and right_sign else STEP_CM
    return forward_sign * size, right_sign * size


def _wrap(degrees: float) -> float:
    """The same angle within ±180; an angle that is there already is not rounded."""
    return degrees if -180.0 <= degrees <= 180.0 else (degrees + 180.0) % 360.0 - 180.0


def extrinsics(poses: Tensor) -> Tensor:
    """Camera-to-world matrices [F, 4, 4] in metres, float64, determinant -1, of poses [F, 5]."""
    poses = poses.double()
    pitch, yaw = poses[:, 3].deg2rad(), poses[:, 4].deg2rad()
    zero = torch.zeros_like(yaw)
    forward = torch.stack([yaw.cos() * pitch.cos(), yaw.sin() * pitch.cos(), -pitch.sin()], dim=-1)
    right = torch.stack([-yaw.sin(), yaw.cos(), zero], dim=-1)
    up = torch.stack([yaw.cos() * pitch.sin(), yaw.sin() * pitch.sin(), pitch.cos()], dim=-1)
    c2w = torch.eye(4, dtype=poses.dtype, device=poses.device).repeat(len(poses), 1, 1)
    c2w[:, :3, :3] = torch.stack([right, -up, forward], dim=-1)
    c2w[:, :3, 3] = poses[:, :3] * METRES_PER_CM
    return c2w


def to_world(extrinsics: Tensor) -> Tensor:
    """Released camera-to-world matrices [..., 4, 4] in our world (y down, z forward, determinant +1)."""
    return compose(_axes(extrinsics).T, extrinsics)


def from_world(c2w: Tensor) -> Tensor:
    """Our camera-to-world matrices [..., 4, 4] in the released world; the inverse of `to_world`."""
    return compose(_axes(c2w), c2w)


def _axes(like: Tensor) -> Tensor:
    """Our world axes in the released world [4, 4]: they lie there as the axes of its first camera do."""
    axes = torch.eye(4, dtype=like.dtype, device=like.device)
    axes[:3, :3] = torch.tensor(_CAMERA_AXES, dtype=like.dtype, device=like.device)
    return axes


# ---------------------------------------------------------------------- what the network is told


def window_motions(c2w: Tensor) -> Tensor:
    """Cameras [..., W, 4, 4] of a window, each relative to the one before, the first one the identity.

    Translations are divided by the longest of the window: only their ratios remain.
    """
    first = torch.eye(4, dtype=c2w.dtype, device=c2w.device).expand_as(c2w[..., :1, :, :])
    motions = torch.cat([first, relative(c2w[..., 1:, :, :], c2w[..., :-1, :, :])], dim=-3)
    longest = motions[..., :3, 3].norm(dim=-1).amax(dim=-1)[..., None]
    return _shortened(motions, longest)


def memory_motions(c2w: Tensor, query_c2w: Tensor) -> Tensor:
    """Memory cameras [..., M, 4, 4] relative to the frames that asked for them, without the distance."""
    motions = relative(c2w, query_c2w)
    return _shortened(motions, motions[..., :3, 3].norm(dim=-1))


def _shortened(motions: Tensor, length: Tensor) -> Tensor:
    """Motions with their translations divided by a length, where there is one."""
    divisor = torch.where(length > _MOTIONLESS_M, length, torch.ones_like(length))
    shortened = motions.clone()
    shortened[..., :3, 3] /= divisor[..., None]
    return shortened


# ---------------------------------------------------------------------- retrieval


def query_frames(end: int, slots: int) -> list[int]:
    """The frames of a clip that ends before frame `end` which ask the memory, one for each slot."""
    return [end - 1 - QUERY_STRIDE * slot for slot in range(slots)]


def select_frames(extrinsics: Tensor, queries: Sequence[int], before: int) -> tuple[list[int], list[float]]:
    """For each query frame the frame in 1 .. before-1 that sees most of it, and the share that it sees.

    extrinsics: [F, 4, 4]. The oldest wins ties, and several queries may choose the same frame. Before there
    is a candidate the answer is frame 0 with a share of 0.
    """
    if before <= 1:
        return [0] * len(queries), [0.0] * len(queries)
    shares = biased_overlap(extrinsics[list(queries)], extrinsics[1:before], RETRIEVAL_INTRINSICS)
    best = oldest_best(shares)
    return [index + 1 for index in best], [float(shares[row, index]) for row, index in enumerate(best)]


def with_sink(frames: Sequence[int]) -> list[int]:
    """The selected frames after the sink has taken the last slot."""
    return [*frames[:-1], SINK_FRAME]


def biased_overlap(query_c2w: Tensor, candidate_c2w: Tensor, intrinsics: Intrinsics) -> Tensor:
    """The official score [Q, K]: the share of a fixed grid in each query's frustum that candidates see.

    The grid has as many points near the camera as far away, so near space counts too much, and its first
    and last layer never count, so that the best score is 0.8. Points on the rim of an image decide by
    rounding: float32 and this order of operations are part of the definition.
    """
    points = _grid(intrinsics, query_c2w.device)
    queries, candidates = query_c2w.float(), candidate_c2w.float()
    rotation = candidates[:, :3, :3].transpose(1, 2)
    translation = -rotation @ candidates[:, :3, 3:]
    return torch.stack(
        [_seen(rotation @ (one[:3, :3] @ points + one[:3, 3:]) + translation, intrinsics) for one in queries]
    )


def oldest_best(shares: Tensor) -> list[int]:
    """Per row of [Q, K] the first of the largest entries."""
    return [int(index) for index in shares.cpu().numpy().argmax(axis=1)]


def _grid(intrinsics: Intrinsics, device: torch.device) -> Tensor:
    """Sample points [3, GRID_SIDE**3] in camera axes: evenly spaced in depth and across each layer."""
    side = torch.linspace(-1, 1, GRID_SIDE, device=device)
    depth = torch.linspace(NEAR_M, FAR_M, GRID_SIDE, device=device)
    x, y, z = (axis.flatten() for axis in torch.meshgrid(side, side, depth, indexing="ij"))
    half_width, half_height = intrinsics.width / (2 * intrinsics.fx), intrinsics.height / (2 * intrinsics.fy)
    return torch.stack([x * z * half_width, y * z * half_height, z])


def _seen(points: Tensor, intrinsics: Intrinsics) -> Tensor:
    """Share [K] of points [K, 3, N] in camera axes that are in view, rims of the image included."""
    x, y, z = points.unbind(1)
    depth = z.clamp(min=1e-6)
    column = x * intrinsics.fx / depth + intrinsics.cx
    row = y * intrinsics.fy / depth + intrinsics.cy
    in_range = (z > NEAR_M) & (z < FAR_M)
    in_columns = (column >= 0) & (column <= intrinsics.width)
    in_rows = (row >= 0) & (row <= intrinsics.height)
    return (in_range & in_columns & in_rows).float().mean(dim=-1)
