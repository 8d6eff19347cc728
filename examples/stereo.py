"""Two eyes in one world: a side-by-side video and a red-cyan still.

    python examples/stereo.py                                              # looks around, 6 seconds
    python examples/stereo.py examples/trajectories/street_ros.tum --axes ros --seconds 3

One session serves both eyes, so that they share one memory and one past: a step shows the left eye's poses,
the next one the right eye's for the same moments, 64 mm beside them. What that costs, honestly:

* every picture of a pair is generated, so each eye gets half of the frames that the world makes in a second;
* the right eye's pictures come one step after the left eye's, and between the eyes the camera jumps back by
  the way of one step. In a world where things move by themselves the right eye would see them later;
* nothing makes the eyes agree but memory, past and camera rays; depth is as good as the weights are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shared import Film, Pixels, add_world_arguments, follow, open_world

from worldwire import Frame, SessionLike
from worldwire.axes import BY_NAME, WIRE
from worldwire.trajectory import read_trajectory
from worldwire.viewer.progress import ProgressLine

LOOK_AROUND = Path(__file__).parent / "trajectories" / "look_around_opengl.csv"
IPD_MM = 64.0
"""The distance between the pupils of an average adult."""


def main() -> None:
    """Films both eyes."""
    args = parse()
    path = read_trajectory(args.trajectory, BY_NAME[args.axes]).from_first()
    with open_world(args.world) as (info, session):
        head = path.resample(info.frames_per_second).c2w[1:]
        head = head[: round(args.seconds * info.frames_per_second)]
        progress = ProgressLine("filming two eyes")
        with Film(args.out, info.frames_per_second) as film:
            session.reset(args.prompt, args.image, args.seed)  # what stands between the eyes
            pairs = stereo(session, head, args.ipd_mm / 1000)
            for done, (left, right) in enumerate(pairs, 1):
                film.add(np.hstack([left.pixels, right.pixels]), f"{done / info.frames_per_second:.1f} s")
                progress.update(done, len(head))
                if done == max(1, round(args.still_s * info.frames_per_second)):
                    still = args.out.with_name(f"{args.out.stem}_anaglyph.png")
                    Image.fromarray(anaglyph(left.pixels, right.pixels)).save(still)
    print(f"{film.path}  {film.sheet}  {still}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trajectory", type=Path, nargs="?", help="poses of the head (default: looks around)")
    parser.add_argument("--axes", choices=BY_NAME, default=WIRE.name, help="what its poses are in")
    parser.add_argument("--seconds", type=float, default=6.0, help="how much of it")
    parser.add_argument("--ipd-mm", type=float, default=IPD_MM, help=f"between the eyes ({IPD_MM:g})")
    parser.add_argument("--still-s", type=float, default=0.5, help="when the red-cyan still is taken (0.5)")
    add_world_arguments(parser, "stereo.mp4")
    args = parser.parse_args()
    if args.trajectory is None:
        args.trajectory, args.axes = LOOK_AROUND, "opengl"
    args.still_s = min(args.still_s, args.seconds)
    return args


def stereo(
    session: SessionLike, head_c2w: NDArray[np.float64], ipd_m: float
) -> Iterator[tuple[Frame, Frame]]:
    """Left and right frames for the poses of a head [F, 4, 4]: a step for one eye, then for the other."""
    start = 0
    while start < len(head_c2w):
        count = session.frames_per_step
        now = head_c2w[start : start + count]
        yield from zip(*(list(follow(session, eye(now, side * ipd_m / 2))) for side in (-1, 1)), strict=True)
        start += count


def eye(head_c2w: NDArray[np.float64], right_m: float) -> NDArray[np.float64]:
    """The camera beside the middle of the head, in the head's own axes (x right)."""
    beside = np.eye(4)
    beside[0, 3] = right_m
    return head_c2w @ beside


def anaglyph(left: Pixels, right: Pixels) -> Pixels:
    """Red of the left eye, green and blue of the right one, for glasses of red and cyan."""
    return np.dstack([left[..., 0], right[..., 1:]])


if __name__ == "__main__":
    main()
