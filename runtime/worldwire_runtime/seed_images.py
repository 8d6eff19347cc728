"""The pictures that a world ships to start from, each with the sentence that describes it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from worldwire.errors import ConfigError, ImageError

INDEX_FILE = "seeds.json"
FACTS = ("prompt", "view")


@dataclass(frozen=True)
class SeedImage:
    """One start picture, uint8 [height, width, 3] RGB."""

    name: str
    pixels: NDArray[np.uint8]
    prompt: str
    view: str


class SeedImages:
    """The folder of start pictures: PNG files and `seeds.json`, name -> {"prompt", "view"}."""

    def __init__(self, folder: Path, height: int, width: int):
        self._folder, self._height, self._width = folder, height, width
        self._index = _read_index(folder / INDEX_FILE)

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the index; the first one is the default."""
        return tuple(self._index)

    @property
    def facts(self) -> dict[str, dict[str, str]]:
        """Name -> {"prompt", "view"}, for clients."""
        return {name: dict(facts) for name, facts in self._index.items()}

    def first(self, view: str | None = None) -> SeedImage:
        """The first picture, of that view if there is one. ConfigError if the world ships none."""
        fitting = [name for name, facts in self._index.items() if facts["view"] == view]
        return self.get((*fitting, *self.names, "")[0])

    def get(self, name: str) -> SeedImage:
        """The picture of that name; ConfigError if there is none."""
        if name not in self._index:
            raise ConfigError(
                "unknown seed image",
                expected=", ".join(self.names) or "an image: this world ships none",
                got=repr(name),
                remedy="pass one of these names, or pixels as a uint8 array",
            )
        pixels = read_picture(self._folder / f"{name}.png", self._height, self._width)
        return SeedImage(name, pixels, **self._index[name])


def _read_index(path: Path) -> dict[str, dict[str, str]]:
    """The index, empty where there is no such file; ConfigError if it is none."""
    if not path.is_file():
        return {}
    try:
        index = json.loads(path.read_text())
        return {name: {fact: str(facts[fact]) for fact in FACTS} for name, facts in index.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path} is no index of seed images ({error!r})", expected='name -> {"prompt", "view"}'
        ) from error


@lru_cache(maxsize=32)
def read_picture(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """A picture file as uint8 [height, width, 3]; ImageError if it is corrupt or has another size."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise ImageError(
            f"{path} cannot be read as a picture: {error}", remedy="use a PNG or JPEG file"
        ) from error
    return check_picture(pixels, height, width)


def check_picture(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The pixels, if they are uint8 [height, width, 3]; else ImageError."""
    if pixels.dtype != np.uint8 or pixels.shape != (height, width, 3):
        raise ImageError(
            "a seed image has the wrong size or type",
            expected=f"uint8 [{height}, {width}, 3], RGB",
            got=f"{pixels.dtype} {list(pixels.shape)}",
            remedy="crop and resize it first; `worldwire play --image FILE` does",
        )
    return pixels
