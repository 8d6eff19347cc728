"""Strips (truth above, generated below) and the moving picture of the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldwire import Inputs
from worldwire.errors import DataError
from worldwire_training.evaluation.album import Shot
from worldwire_training.evaluation.pixels import Picture

Draw = ImageDraw.ImageDraw
Colour = tuple[int, int, int]

PAPER: Final[Colour] = (255, 255, 255)
INK: Final[Colour] = (36, 41, 47)
FAINT_INK: Final[Colour] = (110, 118, 129)

TILE_WIDTH = 240
GAP = 4
ROW_GAP = 14
LEFT_MARGIN = 118
HEADER = 30
TITLE_SIZE, LABEL_SIZE = 16, 13


# ------------------------------------------------------------------------------------------------ strips


def draw_strip(strips: Mapping[str, Sequence[Shot]], path: Path) -> None:
    """One pair of rows for each title: truth with the held keys above, generated below; columns are times.

    Raises DataError when there is nothing to draw (the metric that plays the strip was left out).
    """
    if not strips:
        raise DataError("no pictures for a strip", remedy="let the metrics 'quality' and 'endurance' run")
    columns = max(len(shots) for shots in strips.values())
    height = _tile_height(next(iter(strips.values()))[0].truth)
    pair = 2 * height + GAP
    size = (LEFT_MARGIN + columns * (TILE_WIDTH + GAP), HEADER + len(strips) * (pair + ROW_GAP))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (title, shots) in enumerate(strips.items()):
        top = HEADER + row * (pair + ROW_GAP)
        _label_rows(draw, title, top, height)
        for column, shot in enumerate(shots):
            left = LEFT_MARGIN + column * (TILE_WIDTH + GAP)
            if row == 0:
                middle = left + TILE_WIDTH / 2
                draw.text((middle, HEADER / 2), f"{shot.seconds:g} s", INK, _font(TITLE_SIZE), anchor="mm")
            sheet.paste(with_keys(_tile(shot.truth, height), shot.inputs), (left, top))
            sheet.paste(_tile(shot.generated, height), (left, top + height + GAP))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def _label_rows(draw: Draw, title: str, top: int, height: int) -> None:
    lines = title.replace(", ", ",\n").replace("third person", "third\nperson")
    draw.multiline_text((8, top + 6), lines, INK, _font(TITLE_SIZE))
    for name, middle in (("truth", top + height * 0.7), ("generated", top + height * 1.7 + GAP)):
        draw.text((LEFT_MARGIN - 10, middle), name, FAINT_INK, _font(LABEL_SIZE), anchor="rm")


def _tile_height(picture: Picture) -> int:
    return int(TILE_WIDTH * picture.shape[0] / picture.shape[1])


def _tile(picture: Picture, height: int) -> Image.Image:
    return Image.fromarray(picture).resize((TILE_WIDTH, height), Image.Resampling.LANCZOS)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


# ------------------------------------------------------------------------------------------- held keys

KEY_SIZE, KEY_GAP, PAD = 14, 2, 6
KEY_CELLS: Final = {"forward": ("W", 1, 0), "left": ("A", 0, 1), "back": ("S", 1, 1), "right": ("D", 2, 1)}
KEY_UP: Final = (0, 0, 0, 120)
KEY_DOWN: Final = (255, 255, 255, 230)
LOOK_RADIUS = 14
FULL_LOOK_DEG = 4.0
"""A look of this many degrees in a frame moves the dot to the rim."""


def with_keys(picture: Image.Image, inputs: Inputs) -> Image.Image:
    """The picture with the held keys in its lower left corner and the look, a dot in a ring, in the right."""
    overlay = Image.new("RGBA", picture.size)
    draw = ImageDraw.Draw(overlay)
    _draw_keys(draw, PAD, picture.height - PAD - 2 * KEY_SIZE - KEY_GAP, inputs)
    _draw_look(draw, picture.width - PAD - LOOK_RADIUS, picture.height - PAD - LOOK_RADIUS, inputs)
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def _draw_keys(draw: Draw, left: int, top: int, inputs: Inputs) -> None:
    for key, (letter, column, row) in KEY_CELLS.items():
        x, y = left + column * (KEY_SIZE + KEY_GAP), top + row * (KEY_SIZE + KEY_GAP)
        held = key in inputs.keys
        draw.rounded_rectangle((x, y, x + KEY_SIZE, y + KEY_SIZE), 3, KEY_DOWN if held else KEY_UP)
        ink = (*INK, 255) if held else (255, 255, 255, 170)
        draw.text((x + KEY_SIZE / 2, y + KEY_SIZE / 2), letter, ink, _font(10), anchor="mm")


def _draw_look(draw: Draw, x: float, y: float, inputs: Inputs) -> None:
    draw.circle((x, y), LOOK_RADIUS, KEY_UP, (255, 255, 255, 140))
    right, up = (
        np.clip(angle / FULL_LOOK_DEG, -1, 1) * LOOK_RADIUS * 0.7
        for angle in (inputs.yaw_deg, inputs.pitch_deg)
    )
    draw.circle((x + right, y - up), 4, KEY_DOWN)


# ------------------------------------------------------------------------------------------ moving picture

GIF_FRAMES_PER_SECOND = 16
GIF_COLOURS = (256, 128, 96, 64, 48, 32)
GIF_MAX_BYTES = 3 * 10**6
PALETTE_FRAMES = 6


def write_gif(
    pictures: Sequence[Picture], inputs: Sequence[Inputs], frames_per_second: float, path: Path
) -> None:
    """A looping GIF with the held keys drawn in; fewer colours are tried until it fits `GIF_MAX_BYTES`."""
    stride = max(1, round(frames_per_second / GIF_FRAMES_PER_SECOND))
    pairs = list(zip(pictures, inputs, strict=True))[::stride]
    frames = [with_keys(Image.fromarray(picture), told) for picture, told in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in GIF_COLOURS:
        first, *rest = _one_palette(frames, colours)
        duration_ms = round(1000 * stride / frames_per_second)
        first.save(path, save_all=True, append_images=rest, duration=duration_ms, loop=0, optimize=False)
        if path.stat().st_size <= GIF_MAX_BYTES:
            return


def _one_palette(frames: Sequence[Image.Image], colours: int) -> list[Image.Image]:
    """All frames in the colours of a few of them: palettes that change from frame to frame flicker."""
    chosen = frames[:: max(1, len(frames) // PALETTE_FRAMES)]
    sheet = Image.fromarray(np.concatenate([np.asarray(frame) for frame in chosen]))
    palette = sheet.quantize(colours, Image.Quantize.MEDIANCUT)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
