"""Late rotational reprojection: the newest frame as the newest head pose would see it.

A generated frame is some hundred milliseconds old when it is shown, and a head has turned since. A camera
that only turned sees the same rays through other pixels, so its picture follows from the old one without any
depth:

    pixel of the frame ~ K_frame R_frame⁻¹ R_head K_display⁻¹ pixel of the display

What a head *moved* since (parallax) stays wrong; what the frame never showed stays empty. Show a narrower
field of view than the frame has (`display`), and small turns stay inside it.

`reproject` is the reference, numpy alone. `Reprojector` is the same on a graphics card (extra "play");
engines port its shader, `worldwire/shaders/reproject.frag`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from worldwire.camera import Intrinsics
from worldwire.errors import ImageError, MachineError, MissingExtraError

if TYPE_CHECKING:
    import moderngl

Array = NDArray[np.float64]
Picture = NDArray[np.uint8]

SHADERS: Final = Path(__file__).parent / "shaders"
OPENGL_VERSION: Final = 330
FLIP: Final = np.array([[1, 0, 0], [0, -1, 1], [0, 0, 1]], dtype=np.float64)
"""Turns 0..1 from the upper left into 0..1 from the lower left, where OpenGL's windows begin."""


@dataclass(frozen=True)
class Reprojected:
    """pixels: uint8 [height, width, 3] of the display. seen: bool [height, width], False where empty."""

    pixels: Picture
    seen: NDArray[np.bool_]


def homography(
    frame_c2w: ArrayLike, head_c2w: ArrayLike, frame: Intrinsics, display: Intrinsics | None = None
) -> Array:
    """[3, 3]: display coordinates (u, v, 1), each 0..1 from the upper left, to the frame's, up to a factor.

    Only the rotations of the two camera-to-world matrices count. The factor is above zero where the frame's
    camera has the ray before it. display: the camera of what is shown; None is the frame's own.
    """
    shown = display or frame
    turn = np.asarray(frame_c2w)[:3, :3].T @ np.asarray(head_c2w)[:3, :3]
    return np.asarray(_unit_intrinsics(frame) @ turn @ np.linalg.inv(_unit_intrinsics(shown)))


def reproject(
    pixels: Picture,
    frame_c2w: ArrayLike,
    head_c2w: ArrayLike,
    frame: Intrinsics,
    display: Intrinsics | None = None,
    outside: tuple[int, int, int] = (0, 0, 0),
) -> Reprojected:
    """The frame uint8 [H, W, 3], taken by `frame` at frame_c2w, as `display` sees it at head_c2w.

    Bilinear. outside: the colour where the frame has nothing to show. Raises ImageError if the picture has
    not the size of `frame`.
    """
    _check_size(pixels, frame)
    shown = display or frame
    v, u = np.mgrid[: shown.height, : shown.width] + 0.5
    rays = np.stack([u / shown.width, v / shown.height, np.ones_like(u)], axis=-1)
    x, y, depth = np.moveaxis(rays @ homography(frame_c2w, head_c2w, frame, shown).T, -1, 0)
    ahead = np.where(depth > 0, depth, 1.0)
    u, v = x / ahead, y / ahead
    seen = (depth > 0) & (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1)
    picture = _bilinear(pixels, np.clip(u, 0, 1) * frame.width - 0.5, np.clip(v, 0, 1) * frame.height - 0.5)
    return Reprojected(np.where(seen[..., None], picture, np.array(outside, np.uint8)), seen)


class Reprojector:
    """`reproject` on a graphics card: upload each frame once, draw it for every picture of the display.

    frame, display, outside: as above. context: the moderngl context of the window that shows it; without one
    it makes an off-screen one. For the thread of that context. A context manager, or close() it.
    Raises MissingExtraError without moderngl, MachineError without OpenGL 3.3.
    """

    def __init__(
        self,
        frame: Intrinsics,
        display: Intrinsics | None = None,
        outside: tuple[int, int, int] = (0, 0, 0),
        context: moderngl.Context | None = None,
    ):
        self.frame, self.display = frame, display or frame
        self._own_context = context is None
        self._context = context or _off_screen_context()
        self._program = self._context.program(
            vertex_shader=(SHADERS / "reproject.vert").read_text(),
            fragment_shader=(SHADERS / "reproject.frag").read_text(),
        )
        self._uniform("outside", np.array([*(value / 255 for value in outside), 0.0]))
        self._triangle = self._context.vertex_array(self._program, [])
        self._texture = self._context.texture((frame.width, frame.height), 3, alignment=1)
        self._texture.repeat_x = self._texture.repeat_y = False
        size = (self.display.width, self.display.height)
        self._target = self._context.framebuffer([self._context.renderbuffer(size, 4)])

    def upload(self, pixels: Picture) -> None:
        """Takes a new frame, uint8 [height, width, 3]; the context has to be the current one."""
        _check_size(pixels, self.frame)
        self._texture.write(np.ascontiguousarray(pixels))

    def draw(self, frame_c2w: ArrayLike, head_c2w: ArrayLike, upright: bool = True) -> None:
        """Fills the framebuffer that is in use with the uploaded frame, taken at frame_c2w.

        upright: for a window, whose first row is the lowest; False puts the upper row first in memory.
        """
        matrix = homography(frame_c2w, head_c2w, self.frame, self.display)
        self._uniform("to_frame", (matrix @ FLIP if upright else matrix).T)  # OpenGL counts by columns
        self._texture.use(0)
        self._context.disable(self._context.DEPTH_TEST | self._context.BLEND | self._context.CULL_FACE)
        self._triangle.render(vertices=3)

    def __call__(self, pixels: Picture, frame_c2w: ArrayLike, head_c2w: ArrayLike) -> Reprojected:
        """Uploads, draws off-screen and reads back: the same as `reproject`."""
        with self._current:
            before = self._context.fbo
            self.upload(pixels)
            self._target.use()
            self.draw(frame_c2w, head_c2w, upright=False)
            read = np.frombuffer(self._target.read(components=4), np.uint8)
            if before is not None:
                before.use()
        shown = read.reshape(self.display.height, self.display.width, 4)
        return Reprojected(shown[..., :3], shown[..., 3] > 0)

    def close(self) -> None:
        """Frees what lies on the card."""
        with self._current:
            for thing in (self._target, self._triangle, self._texture, self._program):
                thing.release()
        if self._own_context:
            self._context.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _current(self) -> AbstractContextManager[Any]:
        """Within it our own context is the current one; that of a window is its owner's matter."""
        return self._context if self._own_context else nullcontext()

    def _uniform(self, name: str, values: Array) -> None:
        member: Any = self._program[name]
        member.write(values.astype(np.float32).tobytes())


def _unit_intrinsics(camera: Intrinsics) -> Array:
    """[3, 3]: a ray in camera axes to (u, v, 1), each 0..1 from the upper left."""
    return np.array(
        [
            [camera.fx / camera.width, 0, camera.cx / camera.width],
            [0, camera.fy / camera.height, camera.cy / camera.height],
            [0, 0, 1],
        ]
    )


def _bilinear(pixels: Picture, x: Array, y: Array) -> Picture:
    """Colours at (x, y), which count from the centres of the first pixels; edges are continued."""
    height, width, _ = pixels.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    across, along = (x - left)[..., None], (y - top)[..., None]
    upper = pixels[top, left] * (1 - across) + pixels[top, right] * across
    lower = pixels[bottom, left] * (1 - across) + pixels[bottom, right] * across
    return np.asarray(np.rint(upper * (1 - along) + lower * along).astype(np.uint8))


def _check_size(pixels: Picture, camera: Intrinsics) -> None:
    wanted = (camera.height, camera.width, 3)
    if pixels.shape != wanted or pixels.dtype != np.uint8:
        raise ImageError(
            "a frame does not fit its camera",
            expected=f"uint8 {wanted}",
            got=f"{pixels.dtype} {pixels.shape}",
            remedy="Intrinsics.from_fov() takes height, width and horizontal_fov_deg of a WorldInfo",
        )


def _off_screen_context() -> moderngl.Context:
    try:
        import moderngl
    except ModuleNotFoundError as error:
        raise MissingExtraError("reprojection on a graphics card", "play") from error
    options: dict[str, Any] = {"backend": "egl"} if sys.platform == "linux" else {}
    try:
        return moderngl.create_standalone_context(require=OPENGL_VERSION, **options)
    except Exception as error:  # glcontext raises bare Exceptions
        raise MachineError(
            "no OpenGL for the reprojection",
            expected="OpenGL 3.3, off-screen",
            got=str(error),
            remedy="use worldwire.reprojection.reproject, which needs numpy alone",
        ) from error
