"""What the robotics and XR examples share: a world by name or address, following poses, a film of it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

import worldwire
from worldwire import Frame, Inputs, SessionLike, WorldInfo
from worldwire.viewer.images import to_surface
from worldwire.viewer.recording import Recorder, SheetPicture, contact_sheet, pick_evenly

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # the standard output is for results

Pixels = NDArray[np.uint8]
Poses = Iterable[NDArray[np.float64]]


def add_world_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """The options of every example here."""
    parser.add_argument(
        "--world", default="tiny", help="a preset, its folder, or tcp://… of `worldwire serve`"
    )
    parser.add_argument("--image", help="name of a start picture of the world")
    parser.add_argument("--prompt", help="a sentence; without --image it makes the first picture")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, default=Path(out), help=f"the video; a contact sheet beside it ({out})"
    )


@contextmanager
def open_world(where: str) -> Iterator[tuple[WorldInfo, SessionLike]]:
    """A session in process, or on a server if `where` is an address."""
    if "://" in where:
        with worldwire.connect(where) as client, client.session() as session:
            yield client.info, session
    else:
        from worldwire_runtime.world import World

        with World.load(where) as world, world.session() as session:
            yield world.info, session


def follow(session: SessionLike, poses: Poses) -> Iterator[Frame]:
    """The frames of a camera that goes through these poses [4, 4], one a frame, step by step.

    Poses are taken as they are needed, so they may come from a live source. The last step is filled up by
    standing still; the frames of that are left out.
    """
    source = iter(poses)
    while step := list(islice(source, session.frames_per_step)):
        spare = session.frames_per_step - len(step)
        frames = session.step([Inputs(c2w=c2w) for c2w in step + [step[-1]] * spare])
        yield from frames[: len(step)]


class Film:
    """An mp4 that plays at `frames_per_second`, and a contact sheet beside it; a context manager."""

    def __init__(self, path: Path, frames_per_second: float, scale: int = 2):
        self.path, self.sheet = path, path.with_suffix(".png")
        self._recorder = Recorder(path, frames_per_second, scale)
        self._shown: list[tuple[Pixels, str]] = []

    def add(self, pixels: Pixels, caption: str) -> None:
        """One picture, uint8 [height, width, 3]; the caption is for the sheet."""
        self._recorder.add(pixels)
        self._shown.append((pixels, caption))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._recorder.close()
        if self._shown:
            import pygame

            chosen = [self._shown[index] for index in pick_evenly(len(self._shown), 18)]
            pictures = [SheetPicture(to_surface(pixels), caption) for pixels, caption in chosen]
            columns = 3 if pictures[0].surface.get_width() > 2 * pictures[0].surface.get_height() else 6
            pygame.image.save(contact_sheet(pictures, columns), self.sheet)
