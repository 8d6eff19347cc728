"""Looking at a data set: a contact sheet with the held keys and a map of each path, and statistics."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from worldwire.inputs import KEYS
from worldwire_training.data_engine.episode import Episode

PICTURES_PER_ROW = 8
PICTURE_HEIGHT = 120
CAPTION_HEIGHT = 14
INK, PAPER, PATH, START, END = (30, 30, 34), (244, 242, 236), (40, 110, 200), (40, 160, 70), (210, 60, 50)
PRESSED, RELEASED = (250, 210, 60), (60, 60, 66)
KEY_SIZE = 9
KEY_GRID = {"forward": (1, 0), "left": (0, 1), "back": (1, 1), "right": (2, 1)}
LOOK_PIXELS_PER_DEG = 3.0


@dataclass
class Statistics:
    """Counts over episodes; `lines` says them."""

    episodes: int = 0
    frames: int = 0
    seconds: float = 0.0
    moving: float = 0.0
    walked_m: float = 0.0
    turned_deg: float = 0.0
    held: NDArray[np.float64] = field(default_factory=lambda: np.zeros(len(KEYS)))
    labels: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, episode: Episode) -> None:
        """Counts one more."""
        count = len(episode.frames)
        step, turn = pose_changes(episode.c2w)
        self.episodes += 1
        self.frames += count
        self.seconds += count / episode.frames_per_second
        self.moving += float(((step > 1e-4) | (turn > 1e-3)).sum())
        self.walked_m += float(step.sum())
        self.turned_deg += float(turn.sum())
        self.held += episode.keys.sum(axis=0)
        for name in ("kind", "time_of_day", "view", "policy"):
            if (label := getattr(episode, name)) is not None:  # captures have no policy
                self.labels.setdefault(name, Counter())[str(label)] += 1

    def lines(self) -> list[str]:
        """Plain text, one fact a line."""
        changes = max(1, self.frames - self.episodes)
        facts = [
            f"{self.episodes} episodes, {self.frames} frames, {self.seconds / 60:.1f} minutes of world time",
            f"moving in {100 * self.moving / changes:.1f} % of the frames",
            f"camera: {self.walked_m / max(self.seconds, 1e-9):.2f} m/s, "
            f"{self.turned_deg / max(self.seconds, 1e-9):.1f} degrees/s on average",
            "keys held: " + _shares(dict(zip(KEYS, self.held.tolist(), strict=True)), self.frames),
        ]
        return facts + [f"{name}: {_shares(counts, self.episodes)}" for name, counts in self.labels.items()]


def pose_changes(c2w: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Metres and degrees between neighbouring poses, each [F - 1]."""
    step = np.linalg.norm(np.diff(c2w[:, :3, 3], axis=0), axis=1)
    axis = np.linalg.norm(c2w[1:, :3, :3] - c2w[:-1, :3, :3], axis=(1, 2)) / math.sqrt(8)
    return step, np.degrees(2 * np.arcsin(np.clip(axis, 0, 1)))


def contact_sheet(episodes: Iterable[Episode]) -> Image.Image:
    """One row for each episode: the map of its path, then pictures with the keys that led to them."""
    rows = [_row(episode) for episode in episodes]
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width, sum(row.height for row in rows)), PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    return sheet


def _row(episode: Episode) -> Image.Image:
    count, height, width, _ = episode.frames.shape
    wide = round(width * PICTURE_HEIGHT / height)
    row = Image.new("RGB", (PICTURE_HEIGHT + PICTURES_PER_ROW * wide, PICTURE_HEIGHT + CAPTION_HEIGHT), PAPER)
    row.paste(path_map(episode), (0, CAPTION_HEIGHT))
    label = "" if episode.scene_seed is None else f"[{episode.scene_seed}] "
    ImageDraw.Draw(row).text((3, 1), f"{label}{episode.prompt} ({episode.view} person)", fill=INK)
    chosen = np.unique(np.linspace(0, count - 1, PICTURES_PER_ROW).round().astype(int))
    for slot, index in enumerate(chosen):
        picture = Image.fromarray(episode.frames[index]).resize(
            (wide, PICTURE_HEIGHT), Image.Resampling.LANCZOS
        )
        draw_action(picture, episode.keys[index], episode.look_deg[index])
        row.paste(picture, (PICTURE_HEIGHT + slot * wide, CAPTION_HEIGHT))
    return row


def draw_action(picture: Image.Image, keys: NDArray[np.bool_], look_deg: NDArray[np.float32]) -> None:
    """Draws the held keys and an arrow of the look into the lower left corner."""
    draw, top = ImageDraw.Draw(picture), picture.height - 2 * KEY_SIZE - 4
    for name, (column, line) in KEY_GRID.items():
        x, y = 3 + column * KEY_SIZE, top + line * KEY_SIZE
        colour = PRESSED if keys[KEYS.index(name)] else RELEASED
        draw.rectangle((x, y, x + KEY_SIZE - 2, y + KEY_SIZE - 2), fill=colour)
    x, y = 3 * KEY_SIZE + 22, top + KEY_SIZE
    tip = (x + LOOK_PIXELS_PER_DEG * float(look_deg[0]), y - LOOK_PIXELS_PER_DEG * float(look_deg[1]))
    draw.line((x, y, *tip), fill=PRESSED, width=2)
    draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=RELEASED)


def path_map(episode: Episode) -> Image.Image:
    """The path from above (the first view points up), start green, end red, with a bar of one metre."""
    size, margin = PICTURE_HEIGHT, 12
    image = Image.new("RGB", (size, size), PAPER)
    draw = ImageDraw.Draw(image)
    to_first = np.linalg.inv(episode.c2w[0])
    local = episode.c2w[:, :3, 3] @ to_first[:3, :3].T + to_first[:3, 3]
    flat = local[:, [0, 2]] * (1, -1)
    low, high = flat.min(axis=0), flat.max(axis=0)
    scale = (size - 2 * margin) / max(float((high - low).max()), 2.0)
    points = (flat - (low + high) / 2) * scale + size / 2
    draw.line([tuple(p) for p in points.tolist()], fill=PATH, width=2)
    for point, colour in ((points[0], START), (points[-1], END)):
        x, y = point.tolist()
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour)
    draw.line((4, size - 5, 4 + scale, size - 5), fill=INK, width=2)
    return image


def _shares(counts: Mapping[str, float], total: int) -> str:
    return ", ".join(f"{name} {100 * count / max(total, 1):.0f} %" for name, count in counts.items())
