"""What the viewer draws over the picture: numbers, keys, memory, pose, messages. Draws; decides nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import pygame

from worldwire.viewer.images import to_surface
from worldwire.viewer.state import MemorySlot

Color = tuple[int, int, int]
PANEL: Final = (12, 14, 18, 168)
EDGE: Final = (255, 255, 255, 26)
WHITE: Final = (240, 242, 245)
GREY: Final = (158, 165, 175)
ACCENT: Final = (98, 208, 170)
AMBER: Final = (245, 190, 90)
RED: Final = (240, 90, 90)
FONT_NAMES: Final = "inter,segoeui,sfnstext,helveticaneue,dejavusans,notosans,liberationsans,arial"
DESIGN_HEIGHT: Final = 576
"""The window height that all sizes here are written for."""
MEMORY_SLOTS: Final = 5
THUMBNAIL: Final = (60, 36)
COMPASS_ARROW: Final = ((0, 1.0), (145, 0.8), (180, 0.35), (-145, 0.8))
"""Corners of the arrow: turned from ahead in degrees, and how far from the centre."""
KEY_CAPS: Final = (
    # name, label, column, row, width, in key sizes
    ("forward", "W", 1.0, 0.0, 1.0),
    ("left", "A", 0.0, 1.0, 1.0),
    ("back", "S", 1.0, 1.0, 1.0),
    ("right", "D", 2.0, 1.0, 1.0),
    ("jump", "space", 0.0, 2.0, 3.0),
    ("attack", "F", 2.0, 0.0, 1.0),
)


@dataclass(frozen=True)
class HudModel:
    """Everything that the HUD shows of one moment."""

    frames_per_second: float = 0.0
    real_time_factor: float = 0.0
    latency_ms: float | None = None
    keys: frozenset[str] = frozenset()
    trained_keys: tuple[str, ...] = ()
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    prompt: str = ""
    world_seconds: float = 0.0
    memory: tuple[MemorySlot, ...] = ()
    badges: tuple[tuple[str, Color], ...] = ()
    toast: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Card:
    """A message in the middle of the window: loading, an error, the help, the prompt line."""

    title: str
    lines: tuple[str, ...] = ()
    rows: tuple[tuple[str, str], ...] = ()
    footer: str = ""
    spin: float | None = None


@lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> pygame.font.Font:
    """A clean sans of this machine, or the one that comes with pygame."""
    pygame.font.init()
    path = pygame.font.match_font(FONT_NAMES, bold=bold)
    return pygame.font.Font(path, size)


class Hud:
    """Draws a `HudModel` and `Card`s onto a surface of any size."""

    def __init__(self, surface: pygame.Surface):
        self._target = surface
        self._unit = surface.get_height() / DESIGN_HEIGHT

    def draw(self, model: HudModel) -> None:
        """The whole HUD."""
        self._stats(model)
        self._badges(model.badges)
        self._keys(model)
        self._memory(model.memory)
        self._pose(model)
        if model.prompt:
            self._line(f"“{model.prompt}”", self._px(64), GREY, size=13)
        if model.toast:
            self._toast(model.toast, self._px(420), WHITE)
        elif model.hint:
            self._toast(model.hint, self._px(420), GREY)

    def draw_card(self, card: Card) -> None:
        """A message card in the middle over a dimmed picture."""
        self._dim()
        title, body = font(self._px(22), bold=True), font(self._px(14))
        line_height = round(body.get_linesize() * 1.25)
        footer_height = line_height * 2 if card.footer else 0
        wanted = (len(card.lines) + len(card.rows)) * line_height + footer_height
        height = wanted + title.get_linesize() + self._px(64)
        width = min(self._px(520), self._target.get_width() - self._px(24))
        box = pygame.Rect(0, 0, width, height)
        box.center = self._target.get_rect().center
        self._panel(box, alpha=225)
        x, y = box.x + self._px(28), box.y + self._px(24)
        self._text(card.title, (x, y), title, WHITE)
        if card.spin is not None:
            self._spinner((box.right - self._px(40), y + title.get_linesize() // 2), card.spin)
        y += title.get_linesize() + self._px(12)
        for line in card.lines:
            self._text(self._shorten(line, body, box.width - self._px(56)), (x, y), body, GREY)
            y += line_height
        for left, right in card.rows:
            self._text(left, (x, y), font(self._px(14), bold=True), ACCENT)
            self._text(right, (x + self._px(190), y), body, WHITE)
            y += line_height
        if card.footer:
            self._text(card.footer, (x, y + line_height // 2), body, ACCENT)

    def _stats(self, model: HudModel) -> None:
        latency = "–" if model.latency_ms is None else f"{model.latency_ms:.0f}"
        blocks = (
            (f"{model.frames_per_second:.1f}", "FPS"),
            (f"{model.real_time_factor:.2f}×", "real time"),
            (latency, "ms latency"),
            (_clock(model.world_seconds), "world time"),
        )
        width = self._px(84)
        self._panel(pygame.Rect(self._px(12), self._px(12), width * len(blocks) + self._px(8), self._px(46)))
        for number, (value, label) in enumerate(blocks):
            x = self._px(24) + number * width
            self._text(value, (x, self._px(16)), font(self._px(18), bold=True), WHITE)
            self._text(label, (x, self._px(38)), font(self._px(11)), GREY)

    def _badges(self, badges: Iterable[tuple[str, Color]]) -> None:
        right = self._target.get_width() - self._px(12)
        for text, color in badges:
            picture = font(self._px(13), bold=True).render(text, True, color)
            box = picture.get_rect().inflate(self._px(20), self._px(12))
            box.topright = (right, self._px(12))
            self._panel(box)
            self._target.blit(picture, picture.get_rect(center=box.center))
            right = box.left - self._px(8)

    def _keys(self, model: HudModel) -> None:
        size, gap = self._px(30), self._px(4)
        left, top = self._px(20), self._target.get_height() - 3 * (size + gap) - self._px(16)
        self._panel(
            pygame.Rect(
                left - self._px(8),
                top - self._px(8),
                3 * (size + gap) + self._px(12),
                3 * (size + gap) + self._px(12),
            )
        )
        for name, label, column, row, width in KEY_CAPS:
            box = pygame.Rect(
                left + round(column * (size + gap)),
                top + round(row * (size + gap)),
                round(width * (size + gap)) - gap,
                size,
            )
            dead = bool(model.trained_keys) and name not in model.trained_keys
            draw_key_cap(self._target, box, label, held=name in model.keys, faint=dead)

    def _memory(self, slots: tuple[MemorySlot, ...]) -> None:
        width, height, gap = self._px(THUMBNAIL[0]), self._px(THUMBNAIL[1]), self._px(6)
        total = MEMORY_SLOTS * (width + gap) - gap
        left = (self._target.get_width() - total) // 2
        top = self._target.get_height() - height - self._px(32)
        self._panel(
            pygame.Rect(left - self._px(10), top - self._px(22), total + self._px(20), height + self._px(46))
        )
        small = font(self._px(11))
        self._text(f"memory  {len(slots)} of {MEMORY_SLOTS}", (left, top - self._px(18)), small, GREY)
        for number in range(MEMORY_SLOTS):
            box = pygame.Rect(left + number * (width + gap), top, width, height)
            if number >= len(slots):
                pygame.draw.rect(self._target, (70, 75, 82), box, 1, border_radius=self._px(4))
                continue
            slot = slots[number]
            if slot.thumbnail is not None:
                self._target.blit(pygame.transform.smoothscale(to_surface(slot.thumbnail), box.size), box)
            pygame.draw.rect(self._target, ACCENT, box, max(self._px(1), 1), border_radius=self._px(3))
            age = small.render(f"−{slot.age_s:.1f} s", True, GREY)
            self._target.blit(age, age.get_rect(midtop=(box.centerx, box.bottom + self._px(2))))

    def _pose(self, model: HudModel) -> None:
        right, bottom = self._target.get_width() - self._px(12), self._target.get_height() - self._px(12)
        box = pygame.Rect(0, 0, self._px(196), self._px(74))
        box.bottomright = (right, bottom)
        self._panel(box)
        radius = self._px(26)
        center = pygame.Vector2(box.x + self._px(40), box.centery)
        pygame.draw.circle(self._target, (70, 75, 82), center, radius, max(self._px(1), 1))
        ahead = pygame.Vector2(0, -radius * 0.8).rotate(model.yaw_deg)
        arrow = [center + ahead.rotate(turn) * length for turn, length in COMPASS_ARROW]
        pygame.draw.polygon(self._target, ACCENT, arrow)
        x, _, z = model.position_m
        rows = (
            f"x {x:+.1f} m   z {z:+.1f} m",
            f"yaw {round(model.yaw_deg):+d}°",
            f"pitch {round(model.pitch_deg):+d}°",
        )
        for number, row in enumerate(rows):
            self._text(
                row, (box.x + self._px(78), box.y + self._px(10 + 19 * number)), font(self._px(12)), WHITE
            )

    def _toast(self, text: str, y: int, color: Color) -> None:
        picture = font(self._px(14)).render(text, True, color)
        box = picture.get_rect().inflate(self._px(28), self._px(14))
        box.midtop = (self._target.get_width() // 2, y)
        self._panel(box)
        self._target.blit(picture, picture.get_rect(center=box.center))

    def _line(self, text: str, y: int, color: Color, size: int) -> None:
        face = font(self._px(size))
        text = self._shorten(text, face, self._target.get_width() - self._px(60))
        picture = face.render(text, True, color)
        box = picture.get_rect().inflate(self._px(20), self._px(8))
        box.topleft = (self._px(12), y)
        self._panel(box)
        self._target.blit(picture, picture.get_rect(center=box.center))

    def _spinner(self, center: tuple[int, int], phase: float) -> None:
        for number in range(8):
            angle = 2 * math.pi * number / 8
            shade = round(60 + 180 * ((number / 8 - phase) % 1))
            spot = (center[0] + self._px(12) * math.cos(angle), center[1] + self._px(12) * math.sin(angle))
            pygame.draw.circle(self._target, (shade, shade, shade), spot, max(self._px(3), 1))

    def _panel(self, box: pygame.Rect, alpha: int = PANEL[3]) -> None:
        layer = pygame.Surface(box.size, pygame.SRCALPHA)
        pygame.draw.rect(layer, (*PANEL[:3], alpha), layer.get_rect(), border_radius=self._px(8))
        pygame.draw.rect(layer, EDGE, layer.get_rect(), 1, border_radius=self._px(8))
        self._target.blit(layer, box)

    def _dim(self) -> None:
        layer = pygame.Surface(self._target.get_size(), pygame.SRCALPHA)
        layer.fill((0, 0, 0, 120))
        self._target.blit(layer, (0, 0))

    def _text(self, text: str, at: tuple[int, int], face: pygame.font.Font, color: Color) -> None:
        self._target.blit(face.render(text, True, color), at)

    def _shorten(self, text: str, face: pygame.font.Font, width: int) -> str:
        if face.size(text)[0] <= width:
            return text
        while text and face.size(text + "…")[0] > width:
            text = text[:-1]
        return text + "…"

    def _px(self, size: float) -> int:
        return max(round(size * self._unit), 1)


def draw_key_cap(
    target: pygame.Surface, box: pygame.Rect, label: str, held: bool, faint: bool = False
) -> None:
    """One key: filled when held, grey when the world was not trained with it."""
    radius = max(box.height // 6, 2)
    fill, ink = (ACCENT, (10, 24, 20)) if held else ((44, 48, 55), (110, 116, 124) if faint else WHITE)
    pygame.draw.rect(target, fill, box, border_radius=radius)
    picture = font(max(round(box.height * 0.46), 8), bold=True).render(label, True, ink)
    target.blit(picture, picture.get_rect(center=box.center))


def draw_key_strip(target: pygame.Surface, keys: frozenset[str], yaw_deg: float, pitch_deg: float) -> None:
    """Small WASD caps and a dial for the look in the lower left corner: for recordings and contact sheets."""
    size = max(target.get_height() // 13, 10)
    gap = max(size // 8, 1)
    pitch_px = size + gap
    top = target.get_height() - 2 * pitch_px - gap
    for name, label, column, row, _ in KEY_CAPS[:4]:
        box = pygame.Rect(2 * gap + round(column * pitch_px), top + round(row * pitch_px), size, size)
        draw_key_cap(target, box, label, held=name in keys)
    center = pygame.Vector2(2 * gap + 4.2 * pitch_px, top + pitch_px)
    pygame.draw.circle(target, PANEL[:3], center, size)
    look = pygame.Vector2(yaw_deg, -pitch_deg)
    if look.length() > 0:
        look.scale_to_length(size * 0.85)
        corners = [center + look.rotate(turn) * length for turn, length in COMPASS_ARROW]
        pygame.draw.polygon(target, ACCENT, corners)
    else:
        pygame.draw.circle(target, GREY, center, max(size // 8, 1))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
