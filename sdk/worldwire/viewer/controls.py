"""From key presses and mouse motion to held keys, look and commands; knows no window system.

Keys are named as `pygame.key.name` names them ("w", "left", "f1", ...).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from worldwire.inputs import KEYS

HOLD_BINDINGS: Final = {
    "w": "forward",
    "s": "back",
    "a": "left",
    "d": "right",
    "space": "jump",
    "f": "attack",
    "mouse left": "attack",
}
LOOK_BINDINGS: Final = {"left": (-1, 0), "right": (1, 0), "up": (0, 1), "down": (0, -1)}
"""Arrow keys by their (yaw, pitch) direction."""

ARROW_DEG_PER_FRAME: Final = 3.0
"""Turn of a held arrow key in one frame of the world."""
MOUSE_DEG_PER_PIXEL: Final = 0.15
MAX_PROMPT_CHARACTERS: Final = 200


class Command(Enum):
    """What a single key press asks of the viewer."""

    PAUSE = auto()
    RESET = auto()
    NEXT_IMAGE = auto()
    EDIT_PROMPT = auto()
    SUBMIT_PROMPT = auto()
    SWITCH_VIEW = auto()
    SCREENSHOT = auto()
    RECORD = auto()
    HELP = auto()
    HUD = auto()
    RELEASE_MOUSE = auto()


COMMAND_BINDINGS: Final = {
    "p": Command.PAUSE,
    "r": Command.RESET,
    "n": Command.NEXT_IMAGE,
    "t": Command.EDIT_PROMPT,
    "v": Command.SWITCH_VIEW,
    "f12": Command.SCREENSHOT,
    "print screen": Command.SCREENSHOT,
    "f9": Command.RECORD,
    "f1": Command.HELP,
    "h": Command.HUD,
    "escape": Command.RELEASE_MOUSE,
}

HELP_LINES: Final = (
    ("W A S D", "walk"),
    ("Mouse, arrows", "look"),
    ("Space, F", "jump, attack"),
    ("Click / Esc", "capture / release the mouse"),
    ("P", "pause"),
    ("R", "start again"),
    ("N", "next seed image"),
    ("T", "type a prompt"),
    ("V", "first / third person"),
    ("F9", "record an mp4"),
    ("F12", "screenshot"),
    ("H", "show or hide the HUD"),
    ("F1", "this help"),
)


@dataclass
class Controls:
    """The state of a player's hands.

    mouse_captured: whether mouse motion turns the camera.
    draft: the prompt being typed, or None; while typing, keys write and do not walk.
    """

    mouse_captured: bool = False
    draft: str | None = None
    _down: set[str] = field(default_factory=set)
    _pixels: tuple[int, int] = (0, 0)

    def press(self, name: str) -> Command | None:
        """A key or button went down; returns the command that it asks for, if any."""
        if self.draft is not None:
            return self._press_while_typing(name)
        self._down.add(name)
        command = COMMAND_BINDINGS.get(name)
        if command is Command.EDIT_PROMPT:
            self.release_all()
            self.draft = ""
        elif command is Command.RELEASE_MOUSE:
            self.mouse_captured = False
        return command

    def release(self, name: str) -> None:
        """A key or button went up; one that is not held is ignored."""
        self._down.discard(name)

    def type_text(self, text: str) -> None:
        """Characters typed into the prompt."""
        if self.draft is not None:
            printable = "".join(character for character in text if character.isprintable())
            self.draft = (self.draft + printable)[:MAX_PROMPT_CHARACTERS]

    def take_draft(self) -> str:
        """The typed prompt; typing is over."""
        draft, self.draft = (self.draft or "").strip(), None
        return draft

    def move_mouse(self, dx: int, dy: int) -> None:
        """Mouse motion in pixels, right and down positive; counts only while the mouse is captured."""
        if self.mouse_captured:
            self._pixels = (self._pixels[0] + dx, self._pixels[1] + dy)

    def release_all(self) -> None:
        """The window lost its focus: nothing is held any more, and pending motion is forgotten."""
        self._down.clear()
        self._pixels = (0, 0)
        self.mouse_captured = False

    @property
    def keys(self) -> frozenset[str]:
        """The model's keys that are held."""
        held = {HOLD_BINDINGS[name] for name in self._down if name in HOLD_BINDINGS}
        return frozenset(key for key in KEYS if key in held)

    def take_look(self, world_frames: float) -> tuple[float, float]:
        """(yaw_deg, pitch_deg) since the last call: the mouse, and arrow keys over `world_frames` frames."""
        dx, dy = self._pixels
        self._pixels = (0, 0)
        yaw_deg, pitch_deg = dx * MOUSE_DEG_PER_PIXEL, -dy * MOUSE_DEG_PER_PIXEL
        for name in self._down & LOOK_BINDINGS.keys():
            yaw, pitch = LOOK_BINDINGS[name]
            yaw_deg += yaw * ARROW_DEG_PER_FRAME * world_frames
            pitch_deg += pitch * ARROW_DEG_PER_FRAME * world_frames
        return yaw_deg, pitch_deg

    def _press_while_typing(self, name: str) -> Command | None:
        assert self.draft is not None
        if name in ("return", "enter", "keypad enter"):
            return Command.SUBMIT_PROMPT
        if name == "escape":
            self.draft = None
        elif name == "backspace":
            self.draft = self.draft[:-1]
        return None
