"""What an episode must fulfil before it is written, and again when it is read."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from worldwire.camera import RIGID_TOLERANCE
from worldwire.errors import DataError
from worldwire.inputs import KEYS, MAX_LOOK_DEG
from worldwire.motion import VIEWS
from worldwire_training.data_engine.episode import Episode

MAX_STEP_M = 2.0
MAX_TURN_DEG = 60.0


def check_episode(place: str, episode: Episode) -> None:
    """Raises DataError, beginning with `place`, for what no episode may hold.

    That is: wrong shapes or types, a first action that is not neutral, poses that are not finite, not rigid,
    or that jump.
    """
    _check_shapes(place, episode)
    _check_text(place, episode)
    _check_actions(place, episode)
    _check_poses(place, episode.c2w)


def _fail(place: str, problem: str, expected: str, got: str, remedy: str | None = None) -> DataError:
    return DataError(f"{place}: {problem}", expected=expected, got=got, remedy=remedy)


def _check_shapes(place: str, episode: Episode) -> None:
    frames = episode.frames
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise _fail(place, "wrong pictures", "uint8 [F, H, W, 3], F >= 1", f"{frames.dtype} {frames.shape}")
    count = len(frames)
    wanted = {
        "keys": (np.bool_, (count, len(KEYS))),
        "look_deg": (np.float32, (count, 2)),
        "c2w": (np.float64, (count, 4, 4)),
        "player": (np.float64, (count, 5)),
        "intrinsics": (np.float64, (4,)),
    }
    for name, (dtype, shape) in wanted.items():
        array = getattr(episode, name)
        if array is None and name == "player":
            continue
        if array.shape != shape or array.dtype != dtype:
            raise _fail(
                place,
                f"{name} does not fit {count} frames",
                f"{np.dtype(dtype)} {shape}",
                f"{array.dtype} {array.shape}",
                "one entry for each frame; convert the type",
            )


def _check_text(place: str, episode: Episode) -> None:
    if episode.view not in VIEWS:
        raise _fail(place, "unknown view", " or ".join(VIEWS), repr(episode.view))
    if not isinstance(episode.prompt, str) or not episode.prompt.strip():
        raise _fail(place, "no prompt", "a sentence that says what is there", repr(episode.prompt))
    rate = episode.frames_per_second
    if not (isinstance(rate, int | float) and math.isfinite(rate) and rate > 0):
        raise _fail(place, "wrong frames_per_second", "a positive number", repr(rate))
    k = episode.intrinsics
    if not np.isfinite(k).all() or (k[:2] <= 0).any():
        raise _fail(
            place, "wrong intrinsics", "fx, fy, cx, cy in pixels, fx and fy positive", f"{k.tolist()}"
        )


def _check_actions(place: str, episode: Episode) -> None:
    look = episode.look_deg
    bad = np.flatnonzero(~(np.abs(look) <= MAX_LOOK_DEG).all(axis=1))
    if len(bad):
        raise _fail(
            place,
            f"look_deg of frame {bad[0]} is no sensible turn",
            f"finite degrees within ±{MAX_LOOK_DEG:g} a frame",
            f"{look[bad[0]].tolist()}",
        )
    if episode.keys[0].any() or look[0].any():
        raise _fail(
            place,
            "the first action is not neutral",
            "zeros for frame 0: action f leads from frame f-1 to frame f",
            f"keys {episode.keys[0].astype(int).tolist()}, look {look[0].tolist()}",
            "shift the actions so that entry f is what led to frame f",
        )


def _check_poses(place: str, c2w: NDArray[np.float64]) -> None:
    rotation = c2w[:, :3, :3]
    finite = np.asarray(np.isfinite(c2w).all(axis=(1, 2)))
    with np.errstate(all="ignore"):
        spread = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2))
        rigid = (spread < RIGID_TOLERANCE) & (np.linalg.det(np.where(finite[:, None, None], rotation, 0)) > 0)
        rigid &= np.abs(c2w[:, 3] - np.array([0.0, 0, 0, 1])).max(axis=1) < RIGID_TOLERANCE
    for good, problem in ((finite, "holds NaN or infinity"), (rigid, "is no rigid motion")):
        if not good.all():
            frame = int(np.flatnonzero(~good)[0])
            raise _fail(
                place,
                f"the pose of frame {frame} {problem}",
                "rigid 4x4 camera-to-world matrices, OpenCV axes, metres",
                f"{c2w[frame].round(4).tolist()}",
                "cut the episode before it, or repair the tracking",
            )
    _check_jumps(place, c2w)


def _check_jumps(place: str, c2w: NDArray[np.float64]) -> None:
    step = np.linalg.norm(np.diff(c2w[:, :3, 3], axis=0), axis=1)
    trace = np.einsum("nij,nij->n", c2w[1:, :3, :3], c2w[:-1, :3, :3])
    turn = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    jumps = np.flatnonzero((step > MAX_STEP_M) | (turn > MAX_TURN_DEG))
    if len(jumps):
        frame = int(jumps[0]) + 1
        raise _fail(
            place,
            f"the pose jumps at frame {frame}",
            f"at most {MAX_STEP_M:g} m and {MAX_TURN_DEG:g} degrees a frame",
            f"{step[frame - 1]:.2f} m and {turn[frame - 1]:.1f} degrees",
            "split the episode there; check that the poses are in metres",
        )
