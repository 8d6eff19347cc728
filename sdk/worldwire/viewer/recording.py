"""Files that a walk leaves behind: an mp4, screenshots and a contact sheet."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import MachineError

if TYPE_CHECKING:
    import pygame

FOLDER: Final = Path("recordings")
QUALITY_CRF: Final = "18"
CLOCK_HZ: Final = 1000
SHEET_COLUMNS: Final = 6
SHEET_PICTURES: Final = 30
SHEET_GAP_PX: Final = 6
SHEET_BACKGROUND: Final = (18, 20, 24)


def new_path(suffix: str, folder: Path = FOLDER) -> Path:
    """A path that no file has yet, named after the time, in the recordings folder (made if need be)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot make the folder {folder}", got=str(error), remedy="run where you may write"
        ) from error
    stem = time.strftime("%Y-%m-%d_%H-%M-%S")
    names = (f"{stem}{suffix}" if not number else f"{stem}_{number}{suffix}" for number in range(10_000))
    return next(folder / name for name in names if not (folder / name).exists())


class Recorder:
    """Writes pictures to an H.264 mp4, enlarged by `scale`; a context manager.

    The video plays at the world's own speed, however fast the pictures came.
    """

    def __init__(self, path: Path, frames_per_second: float, scale: int = 2):
        self.path, self.frames = path, 0
        self._rate = Fraction(frames_per_second).limit_denominator(CLOCK_HZ)
        self._scale = scale
        self._container: Any = None
        self._stream: Any = None

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Appends one picture, uint8 [height, width, 3] RGB; all have the size of the first."""
        import av

        if self._container is None:
            self._open(pixels.shape[0], pixels.shape[1])
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        picture = picture.reformat(
            self._stream.width, self._stream.height, "yuv420p", interpolation="BICUBIC"
        )
        picture.pts, picture.time_base = self.frames, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self.frames += 1

    def close(self) -> None:
        """Finishes the file; closing twice is fine."""
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            self._container = None

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, height: int, width: int) -> None:
        import av

        try:
            container = av.open(str(self.path), "w", options={"movflags": "+faststart"})
            self._stream = container.add_stream("libx264", rate=self._rate, options={"crf": QUALITY_CRF})
        except (OSError, ValueError) as error:
            raise MachineError(
                f"cannot write a video as {self.path}",
                got=str(error),
                remedy="name a file that ends in .mp4",
            ) from error
        self._container = container
        # 4:2:0 needs even sizes.
        self._stream.width, self._stream.height = (
            2 * math.ceil(n * self._scale / 2) for n in (width, height)
        )
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = 1 / self._rate


@dataclass(frozen=True)
class SheetPicture:
    """One picture of a contact sheet with its caption."""

    surface: pygame.Surface
    caption: str


def pick_evenly(count: int, pictures: int = SHEET_PICTURES) -> list[int]:
    """Up to `pictures` different indices spread over 0 .. count - 1, both ends included."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(pictures, count))})


def contact_sheet(pictures: Sequence[SheetPicture], columns: int = SHEET_COLUMNS) -> pygame.Surface:
    """The pictures in rows with their captions underneath."""
    import pygame

    from worldwire.viewer.hud import font

    width, height = pictures[0].surface.get_size()
    text = font(max(height // 10, 11))
    cell_width, cell_height = width + SHEET_GAP_PX, height + text.get_linesize() + SHEET_GAP_PX
    rows = math.ceil(len(pictures) / columns)
    sheet = pygame.Surface((cell_width * columns + SHEET_GAP_PX, cell_height * rows + SHEET_GAP_PX))
    sheet.fill(SHEET_BACKGROUND)
    for number, picture in enumerate(pictures):
        x = SHEET_GAP_PX + number % columns * cell_width
        y = SHEET_GAP_PX + number // columns * cell_height
        sheet.blit(picture.surface, (x, y))
        sheet.blit(text.render(picture.caption, True, (200, 204, 210)), (x, y + height))
    return sheet
