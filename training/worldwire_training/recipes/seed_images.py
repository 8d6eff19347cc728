r"""Renders the start pictures that a world ships: held-out scenes that neither training nor evaluation uses.

python -m worldwire_training.recipes.seed_images --out runtime/worldwire_runtime/presets/tiny/seeds
python -m worldwire_training.recipes.seed_images --out runtime/worldwire_runtime/presets/5b-720p/seeds \
    --size 1280x704 --fov 90 --only houses
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from worldwire.camera import Intrinsics
from worldwire_runtime.seed_images import INDEX_FILE
from worldwire_training.data_engine import Renderer, record_episode

FRAMES = 17  # a walk is planned as a whole; its first frame is the picture


@dataclass(frozen=True)
class Start:
    """One start picture: the first frame of the walk that `seed` plans in a scene of this kind."""

    name: str
    seed: int
    kind: str
    time_of_day: str
    view: str = "first"


STARTS = (
    Start("fence", 1_000_102, "village", "day"),
    Start("houses", 1_000_100, "village", "day"),
    Start("autumn", 1_000_107, "village", "day"),
    Start("snow", 1_000_101, "village", "day"),
    Start("windmill", 1_000_104, "village", "day", "third"),
    Start("square", 1_000_105, "village", "day", "third"),
    Start("sunset", 1_000_103, "village", "dusk"),
    Start("market", 1_000_102, "village", "dusk"),
    Start("winter-evening", 1_000_101, "village", "dusk"),
    Start("wanderer", 1_000_102, "village", "dusk", "third"),
    Start("parlour", 1_000_104, "rooms", "day"),
    Start("dining-room", 1_000_103, "rooms", "dusk"),
)


def write(out: Path, renderer: Renderer, starts: Iterable[Start] = STARTS) -> None:
    """Writes a PNG per start, and the index with prompts and views."""
    index = {}
    out.mkdir(parents=True, exist_ok=True)
    for start in starts:
        episode = record_episode(
            renderer, start.seed, FRAMES, view=start.view, kind=start.kind, time_of_day=start.time_of_day
        )
        Image.fromarray(episode.frames[0]).save(out / f"{start.name}.png", optimize=True)
        index[start.name] = {"prompt": episode.prompt, "view": start.view}
    (out / INDEX_FILE).write_text(json.dumps(index, indent=1) + "\n")


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description="render the start pictures of a world")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", default="320x192", metavar="WIDTHxHEIGHT", help="pixels (%(default)s)")
    parser.add_argument("--fov", type=float, default=80.0, help="degrees, horizontally (%(default)s)")
    names = [start.name for start in STARTS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    args = parser.parse_args()
    width, height = (int(size) for size in args.size.split("x"))
    camera = Intrinsics.from_fov(height, width, args.fov)
    renderer = Renderer(height, width, intrinsics=camera)
    write(args.out, renderer, [start for start in STARTS if start.name in args.only])


if __name__ == "__main__":
    main()
