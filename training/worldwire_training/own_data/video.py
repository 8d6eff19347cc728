"""A video with camera poses as an episode of the data format: at the world's rate and size.

Poses come from a file of `worldwire.trajectory`, whose clock starts with the video's. Actions come from a
table; without one, look and keys are inferred from the poses, as the paper's recordings were.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worldwire.camera import Intrinsics
from worldwire.errors import DataError
from worldwire.inputs import KEYS
from worldwire.motion import MotionModel
from worldwire.trajectory import Trajectory
from worldwire_training.data_engine.episode import Episode
from worldwire_training.own_data.capture import KIND, look_between

MOVING_SHARE = 0.35
"""Of the walking speed: what is slower along an axis holds no key."""
ACTION_COLUMNS = ("frame", "keys", "yaw_deg", "pitch_deg")

Array = NDArray[np.float64]
Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Target:
    """What the world wants. frames: 1 + 4n at most, 0 for all."""

    height: int
    width: int
    horizontal_fov_deg: float
    frames_per_second: float

    @property
    def intrinsics(self) -> Intrinsics:
        return Intrinsics.from_fov(self.height, self.width, self.horizontal_fov_deg)


@dataclass(frozen=True)
class Footage:
    """A video as it came. pictures: u8 [N, H, W, 3]; times_s: [N], the first one 0."""

    pictures: Pictures
    times_s: Array
    camera: Intrinsics


def read_footage(path: Path, horizontal_fov_deg: float) -> Footage:
    """Every picture of a video file, with its time. Raises DataError when it cannot be read."""
    import av

    pictures, times = [], []
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                pictures.append(frame.to_ndarray(format="rgb24"))
                times.append(float(frame.time or 0.0))
    except (av.FFmpegError, IndexError, OSError) as error:
        raise DataError(f"{path}: the video cannot be read", got=str(error)) from error
    if not pictures:
        raise DataError(f"{path}: the video is empty", expected="at least one picture", got="none")
    height, width = pictures[0].shape[:2]
    camera = Intrinsics.from_fov(height, width, horizontal_fov_deg)
    return Footage(np.stack(pictures), np.array(times) - times[0], camera)


def to_episode(
    footage: Footage, poses: Trajectory, target: Target, prompt: str, view: str, actions: Path | None = None
) -> Episode:
    """The episode that a world of `target` can be trained on.

    The picture at each world time is the one nearest to it, cropped to the world's field of view. Raises
    DataError when the video sees less than the world does, is shorter than two latents, or has no poses.
    """
    duration = min(float(footage.times_s[-1]), poses.duration_s)
    frames = int(duration * target.frames_per_second + 1e-6) // 4 * 4 + 1
    if frames < 9:
        raise DataError(
            "video and poses have too little in common",
            expected=f"{8 / target.frames_per_second:.2f} s that both cover",
            got=f"{footage.times_s[-1]:.2f} s of video, {poses.duration_s:.2f} s of poses",
        )
    times_s = np.arange(frames) / target.frames_per_second
    nearest = np.abs(footage.times_s[None] - times_s[:, None]).argmin(axis=1)
    c2w = poses.at(poses.times_s[0] + times_s)
    keys, look = read_actions(actions, frames) if actions else (infer_keys(c2w, target), look_between(c2w))
    camera = target.intrinsics
    return Episode(
        frames=fit_pictures(footage.pictures[nearest], footage.camera, camera),
        keys=keys,
        look_deg=look,
        c2w=c2w,
        player=None,
        intrinsics=np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
        prompt=prompt,
        view=view,
        kind=KIND,
        time_of_day="unknown",
        frames_per_second=target.frames_per_second,
        policy="given" if actions else "inferred",
    )


def fit_pictures(pictures: Pictures, camera: Intrinsics, wanted: Intrinsics) -> Pictures:
    """Pictures [N, H, W, 3] as another camera at the same place sees them: a crop, then averaged to its size.

    Raises DataError when it sees more than there is.
    """
    from PIL import Image

    half_w, half_h = wanted.width / 2 * camera.fx / wanted.fx, wanted.height / 2 * camera.fy / wanted.fy
    box = (camera.cx - half_w, camera.cy - half_h, camera.cx + half_w, camera.cy + half_h)
    slack = 0.5  # half a pixel of rounding
    if min(box[:2]) < -slack or box[2] > camera.width + slack or box[3] > camera.height + slack:
        raise DataError(
            "the video sees less than the world shows",
            expected=f"{_seen(wanted)} degrees",
            got=f"{_seen(camera)} degrees",
            remedy="use a wider lens, or check --fov",
        )
    inside = (max(0.0, box[0]), max(0.0, box[1]), min(camera.width, box[2]), min(camera.height, box[3]))
    size = (wanted.width, wanted.height)
    shrink = [Image.fromarray(one).resize(size, Image.Resampling.BOX, box=inside) for one in pictures]
    return np.stack([np.asarray(one) for one in shrink])


def infer_keys(c2w: Array, target: Target) -> NDArray[np.bool_]:
    """The keys [F, 6] that explain how each camera [F, 4, 4] was reached from the one before."""
    motion = replace(MotionModel(), frames_per_second=target.frames_per_second)
    least = MOVING_SHARE * motion.walking_speed_m_per_s / motion.frames_per_second
    keys = np.zeros((len(c2w), len(KEYS)), np.bool_)
    step = np.einsum(
        "fji,fj->fi", c2w[:-1, :3, :3], np.diff(c2w[:, :3, 3], axis=0)
    )  # in the old camera's axes
    for name, along in (("forward", step[:, 2]), ("right", step[:, 0])):
        opposite = {"forward": "back", "right": "left"}[name]
        keys[1:, KEYS.index(name)] = along > least
        keys[1:, KEYS.index(opposite)] = along < -least
    return keys


def read_actions(path: Path, frames: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Keys [F, 6] and look [F, 2] from a CSV of `frame,keys,yaw_deg,pitch_deg` (keys separated by spaces).

    Frames that the table leaves out have no action. Raises DataError with the line for anything else.
    """
    keys, look = np.zeros((frames, len(KEYS)), np.bool_), np.zeros((frames, 2), np.float32)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the actions {path} cannot be read: {error}") from error
    for line, row in enumerate(rows, start=2):
        try:
            frame, held = int(row["frame"]), row["keys"].split()
            turn = (float(row["yaw_deg"]), float(row["pitch_deg"]))
            marked = [KEYS.index(name) for name in held]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path}, line {line}: no action",
                expected=f"columns {','.join(ACTION_COLUMNS)}; keys among {' '.join(KEYS)}",
                got=str(dict(row)),
            ) from error
        if 0 < frame < frames:
            keys[frame, marked], look[frame] = True, turn
    return keys, look


def _seen(camera: Intrinsics) -> str:
    """Horizontal and vertical field of view."""
    sides = ((camera.width, camera.fx), (camera.height, camera.fy))
    return " x ".join(f"{math.degrees(2 * math.atan(size / 2 / focal)):.0f}" for size, focal in sides)
