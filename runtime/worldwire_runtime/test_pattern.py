"""A world without weights, for engine developers and benchmarks: `worldwire serve --preset test-pattern`.

A horizon, a sky and stripes on the ground that move with the camera; and in the top rows of every picture,
in black and white blocks, what it shows: frame index, held keys, prompt and pose. `read_pattern` reads them
back, also from a JPEG or a decoded H.264 picture. A picture of 1280 x 704 costs well under a millisecond: all
of it is copied from pictures that are drawn once.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, WorldInfo
from worldwire.camera import MAX_POSITION_M
from worldwire.errors import ConfigError, DataError, ImageError, StateError
from worldwire.inputs import KEYS, Inputs, per_frame
from worldwire.motion import VIEWS, MotionModel, PlayerPose

PRESET: Final = "test-pattern"
PLAN: Final = "test-pattern"
BLOCK_PX: Final = 8
"""Side of a block; large enough to survive JPEG and 4:2:0."""
HORIZONTAL_FOV_DEG: Final = 80.0
MAX_FRAMES_PER_STEP: Final = 40
DEFAULT_HEIGHT, DEFAULT_WIDTH, DEFAULT_RATE = 704, 1280, 40.0

Picture = NDArray[np.uint8]


# ---------------------------------------------------------------------------------------- what a picture says


class Reading(NamedTuple):
    """What the blocks of a picture say. Metres to 1 mm, degrees to 0.01."""

    frame: int
    keys: frozenset[str]
    prompt_crc: int
    position_m: tuple[float, float, float]
    yaw_deg: float
    pitch_deg: float


_LAYOUT: Final = struct.Struct(">IBHiiihh")
_BITS: Final = 8 * (_LAYOUT.size + 2)
_MM, _CENTIDEGREE = 1e-3, 1e-2
MAX_FRAME: Final = 2**32 - 1


def prompt_crc(prompt: str) -> int:
    """The 16 bits that stand for a prompt in the blocks."""
    return zlib.crc32(prompt.encode()) & 0xFFFF


def _block_rows(width: int) -> int:
    """Rows of blocks in a picture that wide."""
    return -(-_BITS // (width // BLOCK_PX))


def _write(picture: Picture, index: int, keys: frozenset[str], prompt: int, player: PlayerPose) -> None:
    """Draws the blocks into the top rows of a picture."""
    held = sum(1 << bit for bit, key in enumerate(KEYS) if key in keys)
    position = (round(value / _MM) for value in (player.x_m, player.y_m, player.z_m))
    turned = (round(value / _CENTIDEGREE) for value in (player.yaw_deg, player.pitch_deg))
    told = _LAYOUT.pack(index & MAX_FRAME, held, prompt, *position, *turned)
    told += (zlib.crc32(told) & 0xFFFF).to_bytes(2, "big")
    columns, rows = picture.shape[1] // BLOCK_PX, _block_rows(picture.shape[1])
    bits = np.zeros(rows * columns, np.uint8)
    bits[:_BITS] = np.unpackbits(np.frombuffer(told, np.uint8)) * 255
    lines = bits.reshape(rows, columns).repeat(3 * BLOCK_PX, axis=1)
    picture[: rows * BLOCK_PX, : columns * BLOCK_PX] = lines.repeat(BLOCK_PX, axis=0).reshape(
        rows * BLOCK_PX, columns * BLOCK_PX, 3
    )


def read_pattern(picture: Picture) -> Reading:
    """What the blocks of a picture uint8 [height, width, 3 or 4] say; DataError if it is no test pattern."""
    columns, rows = picture.shape[1] // BLOCK_PX, _block_rows(picture.shape[1])
    middle = BLOCK_PX // 2
    blocks = picture[middle : rows * BLOCK_PX : BLOCK_PX, middle : columns * BLOCK_PX : BLOCK_PX, 1]
    told = np.packbits(blocks.ravel()[:_BITS] > 127).tobytes()
    if zlib.crc32(told[:-2]) & 0xFFFF != int.from_bytes(told[-2:], "big"):
        raise DataError("a picture is no test pattern", expected="blocks with a right checksum")
    frame, held, prompt, x, y, z, yaw, pitch = _LAYOUT.unpack(told[:-2])
    keys = frozenset(key for bit, key in enumerate(KEYS) if held >> bit & 1)
    position = (x * _MM, y * _MM, z * _MM)
    return Reading(frame, keys, prompt, position, yaw * _CENTIDEGREE, pitch * _CENTIDEGREE)


# ---------------------------------------------------------------------------------------- what it looks like


class Palette(NamedTuple):
    """Colours, RGB 0..255: top of the sky, sky at the horizon, hills, light and dark ground."""

    zenith: tuple[int, int, int]
    horizon: tuple[int, int, int]
    hills: tuple[int, int, int]
    light: tuple[int, int, int]
    dark: tuple[int, int, int]


PALETTES: Final = {
    "day": Palette((64, 120, 200), (205, 225, 240), (110, 140, 150), (142, 172, 104), (112, 146, 84)),
    "dusk": Palette((38, 34, 84), (250, 160, 110), (74, 56, 92), (120, 92, 104), (96, 72, 90)),
}
EYE_HEIGHT_M: Final = 1.6
STRIPE_M: Final = 1.0
FARTHEST_M: Final = 25.0
GROUND_PERIOD_DEG: Final = 30.0
SIDEWAYS_DEG_PER_M: Final = 12.0
TEXT_ABOVE_PX: Final = 480
"""Pictures narrower than this carry no text."""
MARGIN_PX: Final = 12


class Scenery:
    """The drawn-once pictures of one size and palette, and how a view is put together from them.

    Turning shifts a panorama sideways, looking up shifts it down, walking moves the stripes of the ground.
    """

    def __init__(self, height: int, width: int, palette: Palette):
        self._height, self._width = height, width
        self._px_per_deg = width / HORIZONTAL_FOV_DEG
        reach = math.ceil(MotionModel().pitch_limit_deg * self._px_per_deg)
        self._rows = height // 2 + reach
        """Rows of sky above the horizon, and of ground below it."""
        self._sky = _sky(self._rows, round(360 * self._px_per_deg), width, palette)
        period = round(GROUND_PERIOD_DEG * self._px_per_deg)
        focal = width / 2 / math.tan(math.radians(HORIZONTAL_FOV_DEG / 2))
        self._distance_m = EYE_HEIGHT_M * focal / (np.arange(self._rows, dtype=np.float64) + 0.5)
        self._ground = [
            _ground(self._distance_m, period, width, colour, palette.horizon)
            for colour in (palette.light, palette.dark)
        ]

    def view(self, yaw_deg: float, pitch_deg: float, ahead_m: float, aside_m: float) -> Picture:
        """A new picture [height, width, 3]. ahead_m, aside_m: how far the player has come along its view."""
        picture = np.empty((self._height, self._width, 3), np.uint8)
        horizon = round(self._height / 2 + pitch_deg * self._px_per_deg)
        horizon = min(max(horizon, 0), self._height)
        self._copy(self._sky, yaw_deg, picture[:horizon], self._rows - horizon)
        for first, last, shade in self._stripes(self._height - horizon, ahead_m):
            spokes_deg = yaw_deg + aside_m * SIDEWAYS_DEG_PER_M
            self._copy(self._ground[shade], spokes_deg, picture[horizon + first : horizon + last], first)
        return picture

    def _copy(self, panorama: Picture, yaw_deg: float, into: Picture, row: int) -> None:
        period = panorama.shape[1] - self._width
        left = round(yaw_deg * self._px_per_deg) % period
        into[:] = panorama[row : row + len(into), left : left + self._width]

    def _stripes(self, rows: int, ahead_m: float) -> Iterator[tuple[int, int, int]]:
        """First row, row after the last, and shade of each stripe of the ground, from the horizon down."""
        number = np.floor((self._distance_m[:rows] + ahead_m) / STRIPE_M).astype(np.int64)
        number[self._distance_m[:rows] > FARTHEST_M] = 0  # too fine to be drawn
        edges = np.flatnonzero(np.diff(number)) + 1
        bounds = [0, *edges.tolist(), rows]
        for first, last in pairwise(bounds):
            if first < last:
                yield first, last, int(number[first]) & 1


def _blend(part: NDArray[np.float64], start: Sequence[int], end: Sequence[int]) -> NDArray[np.float64]:
    """Colours [..., 3] that go from `start` (part 0) to `end` (part 1)."""
    return np.array(start) + part[..., None] * (np.array(end, np.float64) - start)


def _sky(rows: int, period: int, overhang: int, palette: Palette) -> Picture:
    """Sky and hills [rows, period + overhang, 3]; the right edge repeats the left one."""
    height = 1 - np.arange(rows) / rows
    picture = np.empty((rows, period, 3), np.uint8)
    picture[:] = _blend(np.sqrt(height), palette.horizon, palette.zenith)[:, None]
    turn = 2 * np.pi * np.arange(period) / period
    outline = 0.035 + 0.018 * np.sin(5 * turn) + 0.012 * np.sin(11 * turn + 1) + 0.006 * np.sin(31 * turn)
    picture[height[:, None] < outline] = palette.hills
    return np.concatenate([picture, picture[:, :overhang]], axis=1)


def _ground(
    distance_m: NDArray[np.float64], period: int, overhang: int, colour: Sequence[int], haze: Sequence[int]
) -> Picture:
    """One shade of the ground with two radial lines in a period, paler where it is far."""
    far = 1 - np.exp(-distance_m / 25)
    picture = np.empty((len(far), period, 3), np.uint8)
    picture[:] = _blend(far, colour, haze)[:, None]
    spoke = np.abs((2 * np.arange(period) / period) % 1 - 0.5) > 0.47
    picture[:, spoke] = _blend(far * 0.85, colour, (255, 255, 255))[:, None] * 0.25 + picture[:, spoke] * 0.75
    return np.tile(picture, (1, 2 + overhang // period, 1))[:, : period + overhang]


@lru_cache(maxsize=4)
def _scenery(height: int, width: int, name: str) -> Scenery:
    return Scenery(height, width, PALETTES[name])


@lru_cache(maxsize=256)
def _glyph(character: str, size_px: int) -> Picture:
    """A white character on a dark ground [size_px, advance, 3]."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size_px * 3 / 4)
    image = Image.new("RGB", (max(1, round(font.getlength(character))), size_px), (24, 26, 32))
    ImageDraw.Draw(image).text((image.width / 2, size_px * 0.45), character, (255, 255, 255), font, "mm")
    return np.asarray(image)


def _write_text(picture: Picture, text: str, row: int) -> None:
    """One line of text at a row of the picture, cut where the picture ends."""
    size_px = max(16, picture.shape[0] // 28)
    part = picture[row : row + size_px, MARGIN_PX:-MARGIN_PX]
    glyphs: list[Picture] = []
    room = part.shape[1]
    for character in text or " ":
        glyphs.append(_glyph(character, size_px))
        room -= glyphs[-1].shape[1]
        if room <= 0:
            break  # a long prompt costs no more than what shows of it
    line = np.concatenate(glyphs, axis=1)
    part[:, : line.shape[1]] = line[: len(part), : part.shape[1]]


# ---------------------------------------------------------------------------------------- the world


@dataclass(frozen=True)
class PatternWorld:
    """Implements what a server asks of a world.

    height, width: pixels, multiples of 2, large enough for the blocks. frames_per_second: of the world's own
    time; it does not slow anything down. frames_per_step: 1 .. MAX_FRAMES_PER_STEP.
    Raises ConfigError for a size or number out of range.
    """

    height: int = DEFAULT_HEIGHT
    width: int = DEFAULT_WIDTH
    frames_per_second: float = DEFAULT_RATE
    frames_per_step: int = 1

    def __post_init__(self) -> None:
        _check_size(self.height, self.width)
        if not 1 <= self.frames_per_step <= MAX_FRAMES_PER_STEP:
            raise ConfigError(
                "a step has the wrong length",
                expected=f"1 to {MAX_FRAMES_PER_STEP} frames",
                got=str(self.frames_per_step),
            )
        for name in PALETTES:
            _scenery(self.height, self.width, name)

    @property
    def info(self) -> WorldInfo:
        """What clients are told."""
        return WorldInfo(
            name=PRESET,
            height=self.height,
            width=self.width,
            frames_per_second=self.frames_per_second,
            frames_per_step=self.frames_per_step,
            horizontal_fov_deg=HORIZONTAL_FOV_DEG,
            trained_keys=KEYS,
            views=VIEWS,
            seed_images=tuple(PALETTES),
            extra={"device": "cpu", "seeds": {name: {"prompt": name, "view": VIEWS[0]} for name in PALETTES}},
        )

    def session(self, plan: str | None = None) -> PatternSession:
        """A new session; ConfigError for an unknown plan."""
        check_plan(plan)
        return PatternSession(self)


def check_plan(plan: str | None) -> None:
    """ConfigError for a clip plan that the pattern does not have."""
    if plan not in (None, PLAN):
        raise ConfigError("unknown clip plan", expected=PLAN, got=repr(plan))


@dataclass
class _State:
    """All that a session holds. ahead_m, aside_m: the way walked along and across the view."""

    image: str
    prompt: str
    view: str
    index: int = 0
    ahead_m: float = 0.0
    aside_m: float = 0.0
    player: PlayerPose = field(default_factory=PlayerPose)

    @classmethod
    def from_bytes(cls, data: bytes) -> _State:
        """The inverse of `to_bytes`; StateError for anything else."""
        try:
            facts: dict[str, Any] = json.loads(data)
            state = cls(**facts | {"player": PlayerPose(**facts["player"])})
            if state._is_sane():
                return state
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StateError(f"a saved state cannot be read: {error}") from error
        raise StateError("a saved state is of another world", expected=f"a state of {PRESET}")

    def _is_sane(self) -> bool:
        """Whether every field is of its kind and can be drawn."""
        numbers = [self.ahead_m, self.aside_m, *asdict(self.player).values()]
        return (
            self.image in PALETTES
            and self.view in VIEWS
            and isinstance(self.prompt, str)
            and 0 <= self.index <= MAX_FRAME
            and all(isinstance(number, (int, float)) for number in (self.index, *numbers))
            and all(abs(number) <= MAX_POSITION_M for number in numbers)
            and max(abs(self.player.yaw_deg), abs(self.player.pitch_deg)) <= 180
        )

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()


class PatternSession:
    """`SessionLike` with `stream`, `branch` and `set_prompt`; the same inputs give the same pictures."""

    def __init__(self, world: PatternWorld):
        self._world = world
        self._motion = MotionModel()
        self._state: _State | None = None

    @property
    def frames_per_step(self) -> int:
        """Frames of every step."""
        return self._world.frames_per_step

    def reset(
        self,
        prompt: str | None = None,
        image: Picture | str | None = None,
        seed: int = 0,
        view: str | None = None,
    ) -> Frame:
        """Frame 0. A picture as `image` is shown in that frame, under the blocks; `seed` picks a palette."""
        if view not in (None, *VIEWS):
            raise ConfigError("unknown view", expected=" or ".join(VIEWS), got=repr(view))
        if isinstance(image, str) and image not in PALETTES:
            raise ConfigError("unknown seed image", expected=" or ".join(PALETTES), got=repr(image))
        name = image if isinstance(image, str) else list(PALETTES)[seed % len(PALETTES)]
        state = _State(name, prompt if prompt is not None else name, view or VIEWS[0])
        shown = self._check_image(image).copy() if isinstance(image, np.ndarray) else None
        self._state = state
        return self._frame(state, Inputs(), shown)

    def step(self, inputs: Inputs | Sequence[Inputs]) -> list[Frame]:
        """The next frames."""
        return list(self.stream(inputs))

    def stream(self, inputs: Inputs | Sequence[Inputs]) -> Iterator[Frame]:
        """A step whose frames come as they are drawn."""
        state = self._started()
        for item in per_frame(inputs, self.frames_per_step):
            self._advance(state, item)
            yield self._frame(state, item)

    def set_prompt(self, prompt: str) -> None:
        """The prompt that the next frames show."""
        self._started().prompt = prompt

    def save(self) -> bytes:
        """The whole state, as JSON."""
        return self._started().to_bytes()

    def restore(self, state: bytes) -> None:
        """Continues from a saved state, or StateError."""
        self._state = _State.from_bytes(state)

    def branch(self) -> PatternSession:
        """An independent session that goes on from here."""
        other = PatternSession(self._world)
        other.restore(self.save())
        return other

    def close(self) -> None:
        """Forgets the state."""
        self._state = None

    def _started(self) -> _State:
        if self._state is None:
            raise StateError("the session has not started", remedy="call reset() or restore() first")
        return self._state

    def _check_image(self, image: Picture) -> Picture:
        expected = (self._world.height, self._world.width, 3)
        if image.shape != expected or image.dtype != np.uint8:
            raise ImageError(
                "a seed image has the wrong size",
                expected=f"uint8 {expected}",
                got=f"{image.dtype} {image.shape}",
                remedy="resize it",
            )
        return image

    def _advance(self, state: _State, inputs: Inputs) -> None:
        before = state.player
        state.index += 1
        if inputs.c2w is None:
            state.player = self._motion.advance(before, inputs)
        else:
            state.player = self._motion.player(inputs.c2w, VIEWS[0])
        dx, dz = state.player.x_m - before.x_m, state.player.z_m - before.z_m
        yaw = math.radians(state.player.yaw_deg)
        state.ahead_m += dx * math.sin(yaw) + dz * math.cos(yaw)
        state.aside_m += dx * math.cos(yaw) - dz * math.sin(yaw)

    def _frame(self, state: _State, inputs: Inputs, shown: Picture | None = None) -> Frame:
        world, player = self._world, state.player
        picture = shown
        if picture is None:
            scenery = _scenery(world.height, world.width, state.image)
            picture = scenery.view(player.yaw_deg, player.pitch_deg, state.ahead_m, state.aside_m)
        _write(picture, state.index, inputs.keys, prompt_crc(state.prompt), player)
        if world.width >= TEXT_ABOVE_PX:
            top = _block_rows(world.width) * BLOCK_PX + MARGIN_PX
            _write_text(picture, _caption(state, inputs), top)
            _write_text(picture, state.prompt, world.height - MARGIN_PX - max(16, world.height // 28))
        return Frame(state.index, picture, player.c2w)


def _caption(state: _State, inputs: Inputs) -> str:
    """Frame number, pose and held keys for people."""
    player = state.player
    return (
        f"frame {state.index}  x {player.x_m:+.2f}  y {player.y_m:+.2f}  z {player.z_m:+.2f} m"
        f"  yaw {player.yaw_deg:+.1f}  pitch {player.pitch_deg:+.1f}  {' '.join(sorted(inputs.keys))}"
    )


def _check_size(height: int, width: int) -> None:
    fits = min(height, width) >= 2 * BLOCK_PX and max(height, width) <= 8192 and not (height % 2 or width % 2)
    if not fits or _block_rows(width) * BLOCK_PX > height:
        raise ConfigError(
            "the test pattern cannot have this size",
            expected="an even width and height up to 8192, at least 160 x 96",
            got=f"{width} x {height}",
        )
