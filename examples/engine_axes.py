"""One pose, six engines, one picture: how each of them says where a camera is.

    python examples/engine_axes.py                          # axes.png
    python examples/engine_axes.py --out docs/media/axes.png --heading -15 --pitch 3 --roll 8

Every camera is built as its engine builds it: its own axes, units, rotation order, view matrix, projection
and depth range. It draws a village that stands in the engine's coordinates. `worldwire.axes` then turns the
engine's pose into the wire's, and the wire's own camera draws the village again: the pictures must be equal.
Copy from here what your engine needs. Needs the extra "training" (the village) and EGL; two seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from worldwire import axes
from worldwire.axes import Axes, matrix_to_quaternion, pose_matrix
from worldwire_training.data_engine.renderer import Renderer
from worldwire_training.data_engine.scene import Scene, build_scene

Array = NDArray[np.float64]
Place = Callable[[float, float, float], tuple[float, float, float]]

HEIGHT, WIDTH, FOV_DEG = 192, 320, 80.0
NEAR_M, FAR_M = 0.08, 420.0
VILLAGE_SEED = 1_000_008
SENSOR_MM = 36.0
COLUMNS, CAPTION_PX, GAP_PX, COLOURS = 3, 50, 6, 96


@dataclass(frozen=True)
class Stand:
    """Where the photographer stands, in words that every engine shares; metres and degrees."""

    right_m: float
    up_m: float
    forward_m: float
    heading_deg: float  # to the right
    pitch_deg: float  # up
    roll_deg: float  # clockwise: the right ear goes down

    @property
    def radians(self) -> tuple[float, float, float]:
        """Heading, pitch and roll."""
        heading, pitch, roll = np.radians([self.heading_deg, self.pitch_deg, self.roll_deg])
        return float(heading), float(pitch), float(roll)


@dataclass(frozen=True)
class EngineCamera:
    """A camera as its engine holds it.

    axes: the convention that we claim it has. place: right, up, forward in metres to its coordinates.
    matrix: its camera-to-world for column vectors. clip: its world to OpenGL's clip space, y up, z -w..w.
    """

    axes: Axes
    place: Place
    matrix: Array
    clip: Array


def turn(axis: str, angle: float) -> Array:
    """[4, 4] for column vectors, about one axis; the same algebra in left- and right-handed axes."""
    half = angle / 2
    vector = np.sin(half) * np.eye(3)["xyz".index(axis)]
    return pose_matrix(np.zeros(3), [*vector, np.cos(half)])


def at(position: tuple[float, float, float], rotation: Array) -> Array:
    """[4, 4]: rotation, then translation."""
    matrix = rotation.copy()
    matrix[:3, 3] = position
    return matrix


def perspective(tan_right: float, tan_up: float, near: float = NEAR_M, far: float = FAR_M) -> Array:
    """OpenGL's frustum, as gluPerspective and Unity's Matrix4x4.Perspective make it: it looks along -z."""
    depth = far - near
    return np.array(
        [
            [1 / tan_right, 0, 0, 0],
            [0, 1 / tan_up, 0, 0],
            [0, 0, -(far + near) / depth, -2 * far * near / depth],
            [0, 0, -1, 0],
        ]
    )


TAN_RIGHT = float(np.tan(np.radians(FOV_DEG) / 2))
TAN_UP = TAN_RIGHT * HEIGHT / WIDTH


def unity(stand: Stand) -> EngineCamera:
    """Transform with Quaternion.Euler(-pitch, heading, -roll): about z, then x, then y, left-handed."""
    heading, pitch, roll = stand.radians

    def place(right: float, up: float, forward: float) -> tuple[float, float, float]:
        return right, up, forward

    euler = turn("y", heading) @ turn("x", -pitch) @ turn("z", -roll)
    matrix = at(place(stand.right_m, stand.up_m, stand.forward_m), euler)
    world_to_camera = np.diag([1.0, 1, -1, 1]) @ np.linalg.inv(
        matrix
    )  # Camera.worldToCameraMatrix looks along -z
    return EngineCamera(axes.UNITY, place, matrix, perspective(TAN_RIGHT, TAN_UP) @ world_to_camera)


def unreal(stand: Stand) -> EngineCamera:
    """FRotator(pitch, yaw, roll) as FRotationTranslationMatrix, reversed z; row vectors, left-handed, cm."""
    yaw, pitch, roll = stand.radians

    def place(right: float, up: float, forward: float) -> tuple[float, float, float]:
        return 100 * forward, 100 * right, 100 * up

    sp, sy, sr = np.sin([pitch, yaw, roll])
    cp, cy, cr = np.cos([pitch, yaw, roll])
    rows = np.eye(4)
    rows[0, :3] = cp * cy, cp * sy, sp
    rows[1, :3] = sr * sp * cy - cr * sy, sr * sp * sy + cr * cy, -sr * cp
    rows[2, :3] = -(cr * sp * cy + sr * sy), cy * sr - cr * sp * sy, cr * cp
    rows[3, :3] = place(stand.right_m, stand.up_m, stand.forward_m)
    to_view = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # x ahead becomes z ahead
    near, far = 100 * NEAR_M, 100 * FAR_M
    reversed_z = np.array(
        [
            [1 / TAN_RIGHT, 0, 0, 0],
            [0, WIDTH / TAN_RIGHT / HEIGHT, 0, 0],
            [0, 0, near / (near - far), 1],
            [0, 0, -far * near / (near - far), 0],
        ]
    )
    to_opengl = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -2, 0], [0, 0, 1, 1]])  # 1..0 to -1..1
    clip = np.linalg.inv(rows) @ to_view @ reversed_z @ to_opengl
    return EngineCamera(axes.UNREAL, place, rows.T, clip.T)


def ros(stand: Stand) -> EngineCamera:
    """A body frame by roll, pitch, yaw; its camera's optical frame and the K of sensor_msgs/CameraInfo."""
    heading, pitch, roll = stand.radians

    def place(right: float, up: float, forward: float) -> tuple[float, float, float]:
        return forward, -right, up

    rpy = turn("z", -heading) @ turn("y", -pitch) @ turn("x", roll)  # tf2 setRPY; pitch + is nose down
    body = at(place(stand.right_m, stand.up_m, stand.forward_m), rpy)
    optical = body @ turn("z", -np.pi / 2) @ turn("x", -np.pi / 2)  # static transform rpy -90° 0 -90°
    focal = WIDTH / 2 / TAN_RIGHT
    k = np.array([[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]])
    to_ndc = np.array([[2 / WIDTH, 0, -1], [0, -2 / HEIGHT, 1], [0, 0, 1]])  # rows of pixels go down
    pixels = to_ndc @ k @ np.linalg.inv(optical)[:3]
    depth = (FAR_M + NEAR_M) / (FAR_M - NEAR_M) * pixels[2]
    depth[3] -= 2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    return EngineCamera(axes.ROS, place, body, np.stack([pixels[0], pixels[1], depth, pixels[2]]))


def opengl(stand: Stand) -> EngineCamera:
    """gluLookAt(eye, centre, up) and gluPerspective."""
    heading, pitch, roll = stand.radians

    def place(right: float, up: float, forward: float) -> tuple[float, float, float]:
        return right, up, -forward

    eye = np.array(place(stand.right_m, stand.up_m, stand.forward_m))
    ahead = np.array(place(np.sin(heading) * np.cos(pitch), np.sin(pitch), np.cos(heading) * np.cos(pitch)))
    aside = np.array(place(np.cos(heading), 0.0, -np.sin(heading)))
    side = np.cos(roll) * aside - np.sin(roll) * np.cross(aside, ahead)
    view = np.eye(4)
    view[:3, :3] = side, np.cross(side, ahead), -ahead
    view[:3, 3] = -view[:3, :3] @ eye
    return EngineCamera(axes.OPENGL, place, np.linalg.inv(view), perspective(TAN_RIGHT, TAN_UP) @ view)


def openxr(stand: Stand) -> EngineCamera:
    """XrPosef of a view and the tangents of its XrFovf."""
    heading, pitch, roll = stand.radians

    def place(right: float, up: float, forward: float) -> tuple[float, float, float]:
        return right, up, -forward

    orientation = matrix_to_quaternion((turn("y", -heading) @ turn("x", pitch) @ turn("z", -roll))[:3, :3])
    pose = pose_matrix(place(stand.right_m, stand.up_m, stand.forward_m), orientation)
    return EngineCamera(axes.OPENXR, place, pose, perspective(TAN_RIGHT, TAN_UP) @ np.linalg.inv(pose))


def blender(stand: Stand) -> EngineCamera:
    """An object whose camera looks along its -z; z up, a lens in millimetres."""
    heading, pitch, roll = stand.radians

    def place(right: float, up: float, forward: float) -> tuple[float, float, float]:
        return right, forward, up

    rotation = turn("z", -heading) @ turn("x", np.pi / 2 + pitch) @ turn("z", -roll)
    matrix_world = at(place(stand.right_m, stand.up_m, stand.forward_m), rotation)
    lens_mm = SENSOR_MM / 2 / TAN_RIGHT
    half_width = SENSOR_MM / 2 / lens_mm
    clip = perspective(half_width, half_width * HEIGHT / WIDTH) @ np.linalg.inv(matrix_world)
    return EngineCamera(axes.BLENDER, place, matrix_world, clip)


ENGINES = {
    "Unity": unity,
    "Unreal": unreal,
    "ROS": ros,
    "OpenGL": opengl,
    "OpenXR": openxr,
    "Blender": blender,
}


class EngineRenderer(Renderer):
    """Draws the village with the matrices of an engine's camera instead of the wire's."""

    def __init__(self) -> None:
        super().__init__(HEIGHT, WIDTH)
        self.camera: EngineCamera | None = None

    def camera_uniforms(self, poses: Array) -> tuple[Array, Array, Array]:
        """The engine's matrices, if there is an engine; its world is the scene under its names of axes."""
        if self.camera is None:
            return super().camera_uniforms(poses)
        place, to_engine = self.camera.place, np.eye(4)
        # The scene is x right, y down, z forward.
        to_engine[:3, :3] = np.stack([place(1, 0, 0), place(0, -1, 0), place(0, 0, 1)], axis=1)
        matrix = self.camera.clip @ to_engine
        eye = np.linalg.inv(to_engine) @ self.camera.matrix[:, 3]
        to_ndc = np.array([[2.0, 0, -1], [0, -2, 1], [0, 0, 1]])
        rays = np.linalg.inv(matrix[[0, 1, 3], :3]) @ to_ndc
        upper_row_first = np.diag([1.0, -1, 1, 1]) @ matrix
        return upper_row_first[None], eye[None, :3], rays[None]

    def native(self, scene: Scene, camera: EngineCamera) -> NDArray[np.uint8]:
        """The engine's picture, uint8 [HEIGHT, WIDTH, 3]."""
        self.camera = camera
        picture = self.render(scene, np.eye(4)[None])[0]
        self.camera = None
        return picture

    def converted(self, scene: Scene, camera: EngineCamera) -> NDArray[np.uint8]:
        """The wire's picture from the converted pose."""
        return self.render(scene, camera.axes.matrix_to_wire(camera.matrix)[None])[0]


def contact_sheet(stand: Stand) -> Image.Image:
    """The engines' own pictures, with their poses in their numbers and how far the wire's picture is off."""
    renderer, scene = EngineRenderer(), build_scene(VILLAGE_SEED, kind="village")
    rows = -(-len(ENGINES) // COLUMNS)
    cell = WIDTH + GAP_PX, HEIGHT + CAPTION_PX
    sheet = Image.new("RGB", (COLUMNS * cell[0] + GAP_PX, rows * cell[1] + GAP_PX), (18, 20, 24))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (name, build) in enumerate(ENGINES.items()):
        camera = build(stand)
        picture = renderer.native(scene, camera)
        off = np.abs(picture.astype(int) - renderer.converted(scene, camera)).mean()
        left, top = GAP_PX + number % COLUMNS * cell[0], GAP_PX + number // COLUMNS * cell[1]
        sheet.paste(Image.fromarray(picture), (left, top))
        lines = (
            f"{name}: {camera.axes.described}",
            numbers(camera),
            f"wire's picture differs by {off:.3f} of 255",
        )
        draw.multiline_text(
            (left, top + HEIGHT + 2), "\n".join(lines), fill=(204, 208, 214), font=font, spacing=1
        )
    renderer.close()
    return sheet.quantize(COLOURS, dither=Image.Dither.NONE)


def numbers(camera: EngineCamera) -> str:
    """The pose as the engine's user reads it."""
    position = ", ".join(f"{value:.2f}" for value in camera.matrix[:3, 3])
    quaternion = ", ".join(f"{value:+.3f}" for value in matrix_to_quaternion(camera.matrix[:3, :3]))
    return f"({position})  xyzw ({quaternion})"


def main() -> None:
    """Writes the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("axes.png"))
    parser.add_argument("--heading", type=float, default=-15.0, help="degrees to the right")
    parser.add_argument("--pitch", type=float, default=3.0, help="degrees up")
    parser.add_argument("--roll", type=float, default=8.0, help="degrees clockwise")
    args = parser.parse_args()
    contact_sheet(Stand(3.0, 1.6, -9.0, args.heading, args.pitch, args.roll)).save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
