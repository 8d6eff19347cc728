"""Poses of a robot in, pictures out, without ROS: PoseStamped messages as JSON lines, or a recorded file.

    python examples/ros_pose_stream.py examples/trajectories/street_ros.tum > frames.jsonl
    python examples/ros_pose_stream.py - < frames.jsonl                      # its output is such a stream
    ros2 topic echo --json /camera_pose | python examples/ros_pose_stream.py - --optical

Writes a video, and to the standard output the pose of every frame, again as PoseStamped in the robot's world
and on the robot's clock. Lines are played as they come; each step of the world waits for the poses of its
frames. With rclpy the same is twenty lines: docs/axes.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from shared import Film, add_world_arguments, follow, open_world

from worldwire.axes import ROS, ROS_OPTICAL, Axes, SessionOrigin
from worldwire.pose_messages import NANOSECONDS, TimedPose, to_pose_stamped
from worldwire.trajectory import read_pose_lines, read_trajectory, resample_live


def main() -> None:
    """Plays the stream."""
    args = parse()
    axes = ROS_OPTICAL if args.optical else ROS
    with open_world(args.world) as (info, session):
        stream = resample_live(robot_poses(args.poses, axes), info.frames_per_second)
        first = next(stream, None)
        if first is None:
            sys.exit("there are no poses")
        origin = SessionOrigin.level(first.c2w)
        with Film(args.out, info.frames_per_second) as film:
            shown = session.reset(args.prompt, args.image, args.seed)
            cameras = (origin.to_session(pose.c2w) for pose in stream)
            for frame in chain([shown], follow(session, cameras)):
                seconds = frame.index / info.frames_per_second
                film.add(frame.pixels, f"{seconds:.1f} s")
                seen = TimedPose(first.t_ns + round(seconds * NANOSECONDS), origin.from_session(frame.c2w))
                print(json.dumps(to_pose_stamped(seen, axes)), flush=True)
    print(f"{film.path}  {film.sheet}", file=sys.stderr)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "poses", help="a .jsonl, .csv or .tum file, or - for JSON lines from the standard input"
    )
    parser.add_argument(
        "--optical",
        action="store_true",
        help="the poses are of an _optical frame (z ahead), not of a body (x ahead)",
    )
    add_world_arguments(parser, "ros.mp4")
    return parser.parse_args()


def robot_poses(source: str, axes: Axes) -> Iterator[TimedPose]:
    """The robot's camera, as it comes or as it was recorded."""
    if source == "-":
        yield from read_pose_lines(sys.stdin, axes)
    else:
        recorded = read_trajectory(Path(source), axes)
        for t_s, c2w in zip(recorded.times_s, recorded.c2w, strict=True):
            yield TimedPose(round(t_s * NANOSECONDS), c2w)


if __name__ == "__main__":
    main()
