"""Follows a camera trajectory from a file and films what the world shows: an mp4 and a contact sheet.

    python examples/camera_trajectory.py examples/trajectories/street_ros.tum --axes ros
    python examples/camera_trajectory.py examples/trajectories/look_around_opengl.csv --axes opengl
    python examples/camera_trajectory.py poses.json --image snow --world tcp://127.0.0.1:5555

Files: TUM (t tx ty tz qx qy qz qw), CSV with the same columns, JSON, or one ROS PoseStamped a line; see
`worldwire.trajectory`. Poses are camera-to-world in the axes that --axes names; the first becomes the
session's origin, the rest is put on the world's clock (straight lines, slerp). `tiny` learned people who walk
at 2 m/s and turn by up to 90° a second: what goes much faster, flies, or rolls is beyond what it knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from shared import Film, add_world_arguments, follow, open_world

from worldwire.axes import BY_NAME
from worldwire.trajectory import Trajectory, read_trajectory
from worldwire.viewer.progress import ProgressLine


def main() -> None:
    """Films the trajectory."""
    args = parse()
    path = read_trajectory(args.trajectory, BY_NAME.get(args.axes)).from_first(args.level)
    with open_world(args.world) as (info, session):
        way = path.resample(info.frames_per_second)
        print(facts(way))
        total, progress = len(way.times_s), ProgressLine("filming")
        with Film(args.out, info.frames_per_second) as film:
            film.add(session.reset(args.prompt, args.image, args.seed).pixels, "0.0 s")
            for done, frame in enumerate(follow(session, way.c2w[1:]), 2):
                film.add(frame.pixels, f"{frame.index / info.frames_per_second:.1f} s")
                progress.update(done, total)
    print(f"{film.path}  {film.sheet}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trajectory", type=Path, help="a .tum, .txt, .csv, .json or .jsonl file")
    parser.add_argument(
        "--axes", choices=BY_NAME, help="what its poses are in (default: what a .json says, else wire)"
    )
    parser.add_argument(
        "--level", action="store_true", help="keep the first camera's pitch and roll as they are"
    )
    add_world_arguments(parser, "trajectory.mp4")
    return parser.parse_args()


def facts(way: Trajectory) -> str:
    """How far and how fast it goes."""
    seconds = np.diff(way.times_s)
    metres = np.linalg.norm(np.diff(way.c2w[:, :3, 3], axis=0), axis=1)
    ahead = way.c2w[:, :3, 2]
    turns = np.degrees(np.arccos(np.clip((ahead[1:] * ahead[:-1]).sum(-1), -1, 1)))
    fastest = (metres / seconds).max(initial=0), (turns / seconds).max(initial=0)
    return (
        f"{way.length_m:.1f} m in {way.duration_s:.1f} s, up to {fastest[0]:.1f} m/s and {fastest[1]:.0f}°/s"
    )


if __name__ == "__main__":
    main()
