"""Pictures in and out of numpy arrays, with pygame's readers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from worldwire.api import WorldInfo
from worldwire.errors import ImageError

if TYPE_CHECKING:
    import pygame

log = logging.getLogger(__name__)


def seed_image(name_or_file: str | None, info: WorldInfo) -> NDArray[np.uint8] | str | None:
    """What `reset` takes as an image: the name of a shipped one, or the pixels of a file fitted to the world.

    A picture of another size is scaled to cover the world's frame and cut at the edges; a log line says so.
    Raises ImageError if there is neither such a name nor such a file, or the file is no picture.
    """
    if name_or_file is None or name_or_file in info.seed_images:
        return name_or_file
    if not Path(name_or_file).is_file():
        raise ImageError(
            "unknown seed image",
            expected=f"a picture file, or one of {', '.join(info.seed_images) or '(this world ships none)'}",
            got=repr(name_or_file),
        )
    return cover(load(Path(name_or_file)), info.height, info.width)


def load(path: Path) -> pygame.Surface:
    """A picture file; ImageError if it cannot be read."""
    import pygame

    try:
        return pygame.image.load(path)
    except (pygame.error, OSError) as error:
        raise ImageError(
            f"{path} cannot be read as a picture: {error}", expected="a PNG, JPEG or WebP file"
        ) from error


def cover(picture: pygame.Surface, height: int, width: int) -> NDArray[np.uint8]:
    """The picture scaled to cover height x width, its middle cut out; uint8 [height, width, 3]."""
    import pygame

    if picture.get_size() != (width, height):
        log.info("the seed image of %d x %d is scaled and cut to %d x %d", *picture.get_size(), width, height)
    factor = max(height / picture.get_height(), width / picture.get_width())
    size = (
        max(round(picture.get_width() * factor), width),
        max(round(picture.get_height() * factor), height),
    )
    scaled = pygame.transform.smoothscale(as_rgb(picture), size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return to_pixels(scaled.subsurface((left, top, width, height)))


def as_rgb(picture: pygame.Surface) -> pygame.Surface:
    """A copy with three bytes per pixel, which every scaler takes."""
    import pygame

    plain = pygame.Surface(picture.get_size(), depth=24)
    plain.blit(picture, (0, 0))
    return plain


def to_surface(pixels: NDArray[np.uint8]) -> pygame.Surface:
    """uint8 [height, width, 3] as a surface."""
    import pygame

    height, width, _ = pixels.shape
    return pygame.image.frombuffer(np.ascontiguousarray(pixels).tobytes(), (width, height), "RGB")


def to_pixels(surface: pygame.Surface) -> NDArray[np.uint8]:
    """A surface as uint8 [height, width, 3]."""
    import pygame

    width, height = surface.get_size()
    return np.frombuffer(pygame.image.tobytes(surface, "RGB"), np.uint8).reshape(height, width, 3)
