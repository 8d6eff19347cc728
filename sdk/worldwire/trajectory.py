"""Camera trajectories: read from a file, put on the world's clock, followed by a session.

    path = read_trajectory(Path("walk.tum"), ROS).from_first().resample(info.frames_per_second)
    for c2w in path.c2w[1:]: ...

Files, by their suffix; poses are camera-to-world in any axes of `worldwire.axes`, t in seconds of any clock:

    .tum .txt   t tx ty tz qx qy qz qw, one pose a line, # comments (the TUM RGB-D format)
    .csv        the same columns by their names, in any order; others are not looked at
    .json       {"axes": "ros", "poses": [{"t": 0, "position": [x, y, z], "quaternion_xyzw": [x, y, z, w]}]};
                "matrix" (4x4) may stand instead of position and quaternion_xyzw, "axes" may be left out
    .jsonl      one geometry_msgs/PoseStamped a line
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldwire.axes import WIRE, Axes, SessionOrigin, by_name, matrix_to_quaternion, pose_matrix
from worldwire.errors import DataError, InputError, WorldwireError
from worldwire.pose_messages import NANOSECONDS, TimedPose, from_pose_stamped

Array = NDArray[np.float64]

COLUMNS: Final = ("t", "tx", "ty", "tz", "qx", "qy", "qz", "qw")
NEARLY_PARALLEL: Final = 0.9995
"""Cosine of half angles above which slerp divides by almost zero and a straight line is as good."""
CLOCK_SLACK_FRAMES: Final = 1e-6
"""A last pose that misses a frame's time by rounding alone still counts."""


@dataclass(frozen=True)
class Trajectory:
    """Cameras at times. times_s: [N], rising. c2w: [N, 4, 4] in wire axes. DataError otherwise."""

    times_s: Array
    c2w: Array

    def __post_init__(self) -> None:
        times_s = np.asarray(self.times_s)
        if self.c2w.shape != (len(times_s), 4, 4) or not len(times_s):
            raise DataError(
                "a trajectory has no usable shape",
                expected="times [N] and poses [N, 4, 4], N > 0",
                got=f"{times_s.shape}, {self.c2w.shape}",
            )
        late = np.flatnonzero(~(np.diff(times_s) > 0))
        if len(late):
            raise DataError(
                f"the times of a trajectory do not rise at pose {late[0] + 1}",
                expected=f"more than {times_s[late[0]]} s",
                got=f"{times_s[late[0] + 1]} s",
                remedy="sort the poses by time and drop doubles",
            )

    @property
    def duration_s(self) -> float:
        """From the first pose to the last."""
        return float(self.times_s[-1] - self.times_s[0])

    @property
    def length_m(self) -> float:
        """The way that the camera goes, pose by pose."""
        return float(np.linalg.norm(np.diff(self.c2w[:, :3, 3], axis=0), axis=1).sum())

    def from_first(self, level: bool = False) -> Trajectory:
        """The same way as a session counts it: the first camera is the identity.

        level: only the first camera's place and heading are taken away, its pitch and roll stay.
        """
        origin = SessionOrigin.level(self.c2w[0]) if level else SessionOrigin(self.c2w[0])
        return Trajectory(self.times_s, origin.to_session(self.c2w))

    def at(self, times_s: ArrayLike) -> Array:
        """The cameras [F, 4, 4] at these times: positions on straight lines, rotations by slerp.

        Before the first pose and after the last the camera stands still.
        """
        times = np.clip(np.asarray(times_s, dtype=np.float64), self.times_s[0], self.times_s[-1])
        after = np.clip(np.searchsorted(self.times_s, times, side="right"), 1, max(len(self.times_s) - 1, 1))
        before, after = after - 1, np.minimum(after, len(self.times_s) - 1)
        gap_s = np.where(after > before, self.times_s[after] - self.times_s[before], 1.0)
        return interpolate(self.c2w[before], self.c2w[after], (times - self.times_s[before]) / gap_s)

    def resample(self, frames_per_second: float) -> Trajectory:
        """A pose for each frame from the first pose on, as long as there are poses."""
        frames = int(self.duration_s * frames_per_second + CLOCK_SLACK_FRAMES) + 1
        times_s = self.times_s[0] + np.arange(frames) / frames_per_second
        return Trajectory(times_s, self.at(times_s))


def interpolate(start: Array, end: Array, share: ArrayLike) -> Array:
    """Between rigid motions [..., 4, 4]: share [...] 0 is start, 1 is end, the shorter way round."""
    t = np.asarray(share, dtype=np.float64)[..., None]
    position = (1 - t) * start[..., :3, 3] + t * end[..., :3, 3]
    turn = slerp(matrix_to_quaternion(start[..., :3, :3]), matrix_to_quaternion(end[..., :3, :3]), t)
    return pose_matrix(position, turn)


def slerp(start: Array, end: Array, share: Array) -> Array:
    """Between unit quaternions [..., 4] at an even angular speed (Shoemake 1985); share: [..., 1]."""
    cosine = (start * end).sum(-1, keepdims=True)
    end, cosine = np.where(cosine < 0, -end, end), np.minimum(np.abs(cosine), 1.0)
    angle = np.arccos(cosine)
    sine = np.where(cosine > NEARLY_PARALLEL, 1.0, np.sin(angle))
    first = np.where(cosine > NEARLY_PARALLEL, 1 - share, np.sin((1 - share) * angle) / sine)
    second = np.where(cosine > NEARLY_PARALLEL, share, np.sin(share * angle) / sine)
    blended = first * start + second * end
    return np.asarray(blended / np.linalg.norm(blended, axis=-1, keepdims=True))


def resample_live(poses: Iterable[TimedPose], frames_per_second: float) -> Iterator[TimedPose]:
    """Poses as they come to poses at the world's frame times, each as soon as the pose after it is known.

    The first frame is at the first pose. DataError when time does not rise.
    """
    source = iter(poses)
    last = next(source, None)
    if last is None:
        return
    yield last
    start_ns, frames = last.t_ns, 1
    for pose in source:
        piece = Trajectory(
            np.array([last.t_ns - start_ns, pose.t_ns - start_ns]) / NANOSECONDS,
            np.stack([last.c2w, pose.c2w]),
        )
        while (due_s := frames / frames_per_second) <= piece.times_s[
            1
        ] + CLOCK_SLACK_FRAMES / frames_per_second:
            yield TimedPose(start_ns + round(due_s * NANOSECONDS), piece.at([due_s])[0])
            frames += 1
        last = pose


# ---------------------------------------------------------------------- files


def read_trajectory(path: Path, axes: Axes | None = None) -> Trajectory:
    """A trajectory from a file (the formats stand at the top of this module).

    axes: what the file's poses are in; None is what a .json file says itself, else the wire's.
    Raises DataError with the file and line for anything that cannot be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: unknown kind of trajectory", expected=" ".join(READERS), got=path.suffix)
    try:
        return reader(path, axes)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the trajectory {path} cannot be read: {error}") from error
    except WorldwireError as error:
        raise DataError(
            f"{path}: {error.problem}", expected=error.expected, got=error.got, remedy=error.remedy
        ) from error


def write_tum(path: Path, trajectory: Trajectory, axes: Axes = WIRE) -> None:
    """Writes a trajectory in the TUM format, its poses in `axes`."""
    positions, quaternions = axes.pose_from_c2w(trajectory.c2w)
    rows = np.concatenate([trajectory.times_s[:, None], positions, quaternions], axis=1)
    header = f"{' '.join(COLUMNS)}   axes: {axes.name} ({axes.described})"
    np.savetxt(path, rows, fmt="%.6f", header=header)


def _read_tum(path: Path, axes: Axes | None) -> Trajectory:
    lines = ((n, line.split("#")[0].split()) for n, line in enumerate(path.read_text().splitlines(), 1))
    return _of_rows(((n, fields) for n, fields in lines if fields), axes)


def _read_csv(path: Path, axes: Axes | None) -> Trajectory:
    with path.open(newline="") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        missing = set(COLUMNS) - set(table.fieldnames or ())
        if missing:
            raise DataError(
                "columns are missing", expected=",".join(COLUMNS), got=f"no {', '.join(sorted(missing))}"
            )
        return _of_rows(((table.line_num, [row[name] for name in COLUMNS]) for row in table), axes)


def _of_rows(rows: Iterable[tuple[int, Sequence[Any]]], axes: Axes | None) -> Trajectory:
    """Numbered rows of eight numbers."""
    numbers = [_row(line, fields) for line, fields in rows]
    table = np.array(numbers, dtype=np.float64).reshape(-1, len(COLUMNS))
    return Trajectory(table[:, 0], (axes or WIRE).pose_to_c2w(table[:, 1:4], table[:, 4:]))


def _row(line: int, fields: Sequence[Any]) -> list[float]:
    try:
        numbers = [float(field) for field in fields]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != len(COLUMNS):
        raise DataError(f"line {line} is no pose", expected=" ".join(COLUMNS), got=repr(fields))
    return numbers


def _read_json(path: Path, axes: Axes | None) -> Trajectory:
    try:
        document = json.loads(path.read_text())
        poses, named = list(document["poses"]), document.get("axes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"no trajectory in it ({error})", expected='{"axes": "ros", "poses": [...]}', got="other JSON"
        ) from error
    return _of_rows(((n, _json_row(pose)) for n, pose in enumerate(poses, 1)), _agreed(axes, named))


def _json_row(pose: Any) -> Sequence[Any]:
    """The eight numbers of one pose; what is none becomes an error of `_row`."""
    try:
        if "matrix" not in pose:
            return [pose["t"], *pose["position"], *pose["quaternion_xyzw"]]
        matrix = np.asarray(pose["matrix"], dtype=np.float64).reshape(4, 4)
        return [pose["t"], *matrix[:3, 3], *matrix_to_quaternion(matrix[:3, :3])]
    except (KeyError, TypeError, ValueError):
        return [pose]


def _agreed(axes: Axes | None, named: str | None) -> Axes | None:
    """The axes of the caller and of the file, which must not differ."""
    stated = None if named is None else by_name(named)
    if axes is not None and stated is not None and axes != stated:
        raise DataError("the file names its axes itself", expected=stated.name, got=axes.name)
    return axes or stated


def _read_jsonl(path: Path, axes: Axes | None) -> Trajectory:
    with path.open() as file:
        poses = list(read_pose_lines(file, axes or WIRE))
    start_ns = poses[0].t_ns if poses else 0
    times_s = np.array([(pose.t_ns - start_ns) / NANOSECONDS for pose in poses])
    return Trajectory(times_s, np.array([pose.c2w for pose in poses]).reshape(-1, 4, 4))


def read_pose_lines(lines: Iterable[str], axes: Axes) -> Iterator[TimedPose]:
    """One geometry_msgs/PoseStamped as JSON in each line, as they come; DataError names the line."""
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield from_pose_stamped(json.loads(line), axes)
            except (ValueError, InputError) as error:
                raise DataError(f"line {number} is no PoseStamped: {error}") from error


READERS: Final[dict[str, Callable[[Path, Axes | None], Trajectory]]] = {
    ".tum": _read_tum,
    ".txt": _read_tum,
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
}
