"""A head that turns faster than frames come: the newest frame as it is, and turned to the newest head pose.

    python examples/late_reprojection.py                               # numpy
    python examples/late_reprojection.py --shader --latency-ms 400     # the graphics card (or Mesa)

Simulates a headset: the display refreshes 64 times a second and knows the head's pose of that moment; the
world gives 16 frames a second, each --latency-ms old when it arrives. The video has both side by side: left
the newest frame as it is, right `worldwire.reprojection` of the same frame. On the left the world swings
along with the head and jumps back; on the right it stands still. Moves of the head, unlike turns, stay late.
"""

from __future__ import annotations

import argparse

import numpy as np
from shared import Film, add_world_arguments, follow, open_world

from worldwire import Intrinsics
from worldwire.camera import make_c2w, rotation_from_yaw_pitch
from worldwire.reprojection import Reprojector, reproject
from worldwire.viewer.progress import ProgressLine

DISPLAY_HZ = 64
DISPLAY_FOV_DEG = 56.0
"""Narrower than a frame, so that turns within the latency stay inside it."""
SWING_DEG, NOD_DEG, SWING_S = 30.0, 6.0, 3.0


def head_c2w(seconds: float) -> np.ndarray:
    """A head that looks left and right and nods; it starts straight ahead."""
    phase = 2 * np.pi * seconds / SWING_S
    yaw_deg, pitch_deg = SWING_DEG * np.sin(phase), NOD_DEG * np.sin(2 * phase)
    return make_c2w(rotation_from_yaw_pitch(yaw_deg, pitch_deg), np.zeros(3))


def main() -> None:
    """Films both."""
    args = parse()
    with open_world(args.world) as (info, session):
        rate = info.frames_per_second
        poses = [head_c2w(number / rate) for number in range(1, round(args.seconds * rate) + 1)]
        frames = [session.reset(args.prompt, args.image, args.seed), *follow(session, poses)]
    frame_camera = Intrinsics.from_fov(info.height, info.width, info.horizontal_fov_deg)
    display = Intrinsics.from_fov(info.height, info.width, DISPLAY_FOV_DEG)
    shader = Reprojector(frame_camera, display) if args.shader else None
    lag_deg, covered = [], []
    refreshes, progress = round(args.seconds * DISPLAY_HZ), ProgressLine("showing")
    with Film(args.out, DISPLAY_HZ) as film:
        for refresh in range(refreshes):
            now_s = refresh / DISPLAY_HZ
            newest = frames[max(0, int((now_s - args.latency_ms / 1000) * rate))]
            head = head_c2w(now_s)
            as_it_is = reproject(newest.pixels, head, head, frame_camera, display)
            if shader is None:
                late = reproject(newest.pixels, newest.c2w, head, frame_camera, display)
            else:
                late = shader(newest.pixels, newest.c2w, head)
            film.add(np.hstack([as_it_is.pixels, late.pixels]), f"{now_s:.1f} s  frame {newest.index}")
            lag_deg.append(np.degrees(np.arccos(np.clip(newest.c2w[:3, 2] @ head[:3, 2], -1, 1))))
            covered.append(late.seen.mean())
            progress.update(refresh + 1, refreshes)
    if shader is not None:
        shader.close()
    print(
        f"{film.path}  {film.sheet}\nthe newest frame is {np.mean(lag_deg):.1f}° behind the head on average, "
        f"{np.max(lag_deg):.1f}° at most; turned, it fills {np.mean(covered):.1%} of the display, "
        f"{np.min(covered):.1%} at least"
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument(
        "--latency-ms", type=float, default=300.0, help="age of a frame when it arrives (300)"
    )
    parser.add_argument("--shader", action="store_true", help="with the graphics card instead of numpy")
    add_world_arguments(parser, "reprojection.mp4")
    return parser.parse_args()


if __name__ == "__main__":
    main()
