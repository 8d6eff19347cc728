"""Renders a scene from any camera poses, headless, many frames between two read-backs.

Every frame is drawn into the same multisampled target (so its pixels do not depend on its neighbours),
resolved, and copied to a buffer on the card, which is read once for a batch. Row 0 of the picture comes first
in memory, so nothing is flipped. What no camera changes (sky, ground, sun shadows) is painted once per scene.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import moderngl
import numpy as np
from numpy.typing import NDArray

from worldwire.camera import Intrinsics
from worldwire.errors import ConfigError, InputError, MachineError
from worldwire_training.data_engine.avatar import avatar_vertices
from worldwire_training.data_engine.ground import DECAL_FORMAT
from worldwire_training.data_engine.mesh import VERTEX_FORMAT, Material
from worldwire_training.data_engine.scene import Scene

Array = NDArray[np.float64]
Images = NDArray[np.uint8]
Program = Any  # a moderngl.Program: its stubs give every member the type of all kinds of members

DEFAULT_FOV_DEG = 80.0
NEAR_M, FAR_M = 0.08, 420.0
GROUND_TEXELS, SHADOW_TEXELS, SKY_TEXELS = 1024, 1536, (1024, 256)
SUN_SOFTNESS_M = 0.05
SOFTWARE_BATCH, HARDWARE_BATCH = 8, 32
VERTEX_NAMES = ("position", "normal_ao", "colour_glow", "kind")
PADDING = {"3f4": "12x", "4f1": "4x", "4u1": "4x"}
EGL: dict[str, Any] = {"require": 330, "backend": "egl"}
MESA_PACKAGES = "libegl1 libgl1-mesa-dri"
TEXTURE_UNITS = {"ground": 0, "sky": 1, "shadow": 2, "paint": 3, "lights": 4}
SHADERS = Path(__file__).parent / "shaders"


@dataclass
class _SceneOnCard:
    """What the card keeps of the scene shown last."""

    scene: Scene
    surfaces: list[tuple[Program, moderngl.VertexArray, int, int]]  # and first vertex, number of vertices
    avatar: moderngl.VertexArray
    kept: list[Any]

    def release(self) -> None:
        for thing in (*(surface[1] for surface in self.surfaces), self.avatar, *self.kept):
            thing.release()


class Renderer:
    """Pictures of scenes; one OpenGL context, for use by one thread.

    height, width: pixels. samples: 4 for smooth edges, 1 for none. intrinsics: another camera than the
    default (80 degrees across, square pixels); its size must be height x width.
    Raises MachineError when the machine has no EGL, with the packages that bring it.
    """

    def __init__(
        self, height: int = 192, width: int = 320, samples: int = 4, intrinsics: Intrinsics | None = None
    ):
        self.intrinsics = intrinsics or Intrinsics.from_fov(height, width, DEFAULT_FOV_DEG)
        if (self.intrinsics.height, self.intrinsics.width) != (height, width):
            raise ConfigError(
                "the intrinsics are for another picture size",
                expected=f"{height}x{width}",
                got=f"{self.intrinsics.height}x{self.intrinsics.width}",
                remedy="use Intrinsics.scaled()",
            )
        self.height, self.width = height, width
        self._context = create_context()
        software = "llvmpipe" in self.device
        self.batch = SOFTWARE_BATCH if software else HARDWARE_BATCH
        self._open_targets(min(samples, self._context.max_samples))
        self._open_programs()
        self._on_card: _SceneOnCard | None = None

    @property
    def device(self) -> str:
        """The name of the card, or of the software renderer."""
        return str(self._context.info["GL_RENDERER"])

    def render(self, scene: Scene, c2w: NDArray[Any], avatar: NDArray[Any] | None = None) -> Images:
        """Pictures [n, H, W, 3] from camera-to-world poses [n, 4, 4] in scene coordinates.

        avatar: [n, 4] from `avatar_track`, to draw the walker; None for the first person.
        """
        poses = _checked_poses(c2w, avatar)
        pictures = np.empty((len(poses), self.height, self.width, 3), np.uint8)
        with self._context:  # another renderer of this process may have been the current one
            card = self._load(scene)
            for start in range(0, len(poses), self.batch):
                stop = min(start + self.batch, len(poses))
                self._draw_batch(card, poses[start:stop], None if avatar is None else avatar[start:stop])
                pictures[start:stop] = self._read(stop - start)
        return pictures

    def depths_m(self, scene: Scene, c2w: NDArray[Any]) -> NDArray[np.float32]:
        """Metres along the view to what is seen through each pixel's middle [n, H, W], without the walker.

        `FAR_M` for the sky.
        """
        poses = _checked_poses(c2w, None)
        matrices, eyes, _ = (_rows(part) for part in self.camera_uniforms(poses))
        depths = np.empty((len(poses), self.height, self.width), np.float32)
        with self._context as context:
            card, size = self._load(scene), (self.width, self.height)
            texture = context.depth_texture(size)
            target = context.framebuffer([context.renderbuffer(size, 4)], texture)
            for depth, matrix, eye in zip(depths, matrices, eyes, strict=True):
                target.use()
                target.clear(depth=1.0)
                self._draw_surfaces(card, matrix, eye)
                depth[:] = np.frombuffer(texture.read(), np.float32).reshape(depth.shape)
            for thing in (target, texture):
                thing.release()
        return 2 * FAR_M * NEAR_M / (FAR_M + NEAR_M - (2 * depths - 1) * (FAR_M - NEAR_M))

    def camera_uniforms(self, poses: Array) -> tuple[Array, Array, Array]:
        """Clip matrices [n, 4, 4], eyes [n, 3] and ray matrices [n, 3, 3] of the sky, in scene coordinates.

        A subclass may have another camera's mathematics (`examples/engine_axes.py` has those of six engines).
        """
        return _camera_uniforms(self.intrinsics, poses)

    def close(self) -> None:
        """Gives the context back; the renderer is of no use after that."""
        with self._context:
            if self._on_card is not None:
                self._on_card.release()
                self._on_card = None
        self._context.release()

    def _open_targets(self, samples: int) -> None:
        size, context = (self.width, self.height), self._context
        self._target = context.framebuffer(
            [context.renderbuffer(size, 4, samples=samples)],
            context.depth_renderbuffer(size, samples=samples),
        )
        self._resolved = context.framebuffer([context.renderbuffer(size, 4)])
        self._pixels = np.empty((self.batch, self.height, self.width, 4), np.uint8)
        self._copies = context.buffer(reserve=self._pixels.nbytes)

    def _open_programs(self) -> None:
        link = self._program
        self._surfaces = {m: link("surface", defines=f"#define {m.name}\n") for m in Material}
        self._walker = link("surface", defines="#define PLAIN\n#define AVATAR\n")
        self._blob = link("blob")
        self._sky = link("screen", "sky")
        self._shadow = link("shadow")
        self._decal = link("decal")
        self._painters = {name: link("screen", name) for name in ("paint_sky", "paint_base", "paint_ground")}
        self._light = self._context.buffer(reserve=4 * 4 * (10 + 32))
        self._light.bind_to_uniform_block(0)
        self._sky_quad = self._context.vertex_array(self._sky, [])
        self._blob_quad = self._context.vertex_array(self._blob, [])

    def _program(self, vertex: str, fragment: str | None = None, defines: str = "") -> Program:
        program = self._context.program(
            vertex_shader=_source(f"{vertex}.vert", defines),
            fragment_shader=_source(f"{fragment or vertex}.frag", defines),
        )
        for name in program:
            member = program[name]
            if name in TEXTURE_UNITS and isinstance(member, moderngl.Uniform):
                member.value = TEXTURE_UNITS[name]
            elif isinstance(member, moderngl.UniformBlock):
                member.binding = 0
        return program

    # --- once per scene -------------------------------------------------------------------------------------

    def _load(self, scene: Scene) -> _SceneOnCard:
        """The scene on the card, painted; kept until another scene comes."""
        if self._on_card is not None and self._on_card.scene is scene:
            return self._on_card
        if self._on_card is not None:
            self._on_card.release()
        context = self._context
        self._light.write(_light_block(scene))
        vertices = context.buffer(scene.vertices.tobytes())
        figure = context.buffer(avatar_vertices(scene.coat[1], scene.hat).tobytes())
        sky = self._paint_sky()
        shadow, matrix = self._cast_shadows(scene, vertices)
        for program in (*self._surfaces.values(), self._walker):
            if "shadow_matrix" in program:
                program["shadow_matrix"].write(_bytes(matrix))
        self._surfaces[Material.GROUND]["ground_scale"].value = 0.5 / scene.ground.half_extent_m
        ground = self._paint_ground(scene, matrix)
        surfaces = self._surface_arrays(scene, vertices)
        walker = context.vertex_array(self._walker, [(figure, *_attributes(self._walker))])
        ground.use(TEXTURE_UNITS["ground"])
        self._on_card = _SceneOnCard(scene, surfaces, walker, [vertices, figure, sky, shadow, ground])
        return self._on_card

    def _surface_arrays(
        self, scene: Scene, vertices: moderngl.Buffer
    ) -> list[tuple[Program, moderngl.VertexArray, int, int]]:
        """For each material of the scene its program, and where its vertices lie."""
        edges = np.searchsorted(scene.vertices["kind"][:, 0], range(len(Material) + 1)).tolist()
        surfaces = []
        for material, program in self._surfaces.items():
            first, count = edges[material], edges[material + 1] - edges[material]
            if count:
                content = [(vertices, *_attributes(program))]
                surfaces.append((program, self._context.vertex_array(program, content), first, count))
        return surfaces

    def _paint_sky(self) -> moderngl.Texture:
        sky = self._context.texture(SKY_TEXELS, 4)
        sky.repeat_y = False
        self._paint(sky, "paint_sky")
        sky.use(TEXTURE_UNITS["sky"])
        return sky

    def _paint(self, texture: moderngl.Texture, painter: str) -> None:
        """Runs a fragment program over all of a texture."""
        target = self._context.framebuffer([texture])
        target.use()
        self._context.disable(moderngl.DEPTH_TEST | moderngl.CULL_FACE | moderngl.BLEND)
        quad = self._context.vertex_array(self._painters[painter], [])
        quad.render(vertices=3)
        for thing in (quad, target):
            thing.release()

    def _cast_shadows(self, scene: Scene, vertices: moderngl.Buffer) -> tuple[moderngl.Texture, Array]:
        """The sun's depth map, and the matrix from the scene to its texture coordinates."""
        context = self._context
        depth = context.depth_texture((SHADOW_TEXELS, SHADOW_TEXELS))
        depth.compare_func = "<="
        depth.repeat_x = depth.repeat_y = False
        matrix = sun_matrix(scene)
        target = context.framebuffer(depth_attachment=depth)
        target.use()
        target.clear(depth=1.0)
        context.enable_only(moderngl.DEPTH_TEST)
        context.polygon_offset = (1.5, 2.0)
        self._shadow["view_proj"].write(_bytes(matrix))
        caster = context.vertex_array(self._shadow, [(vertices, "3f4 12x", "position")])
        caster.render(moderngl.TRIANGLES)
        context.polygon_offset = (0.0, 0.0)
        for thing in (caster, target):
            thing.release()
        depth.use(TEXTURE_UNITS["shadow"])
        to_texture = np.array([[0.5, 0, 0, 0.5], [0, 0.5, 0, 0.5], [0, 0, 0.5, 0.5], [0, 0, 0, 1]])
        return depth, to_texture @ matrix

    def _paint_ground(self, scene: Scene, shadow_matrix: Array) -> moderngl.Texture:
        size, ground = (GROUND_TEXELS, GROUND_TEXELS), scene.ground
        paint, lights = self._context.texture(size, 4), self._context.texture(size, 4, dtype="f2")
        base, finish = self._painters["paint_base"], self._painters["paint_ground"]
        base["half_extent"].value = ground.half_extent_m
        base["base"].value, base["second"].value = ground.base, ground.second
        self._paint(paint, "paint_base")
        self._draw_decals(paint, ground.decals, ground.half_extent_m, lighting=False)
        self._draw_decals(lights, ground.lights, ground.half_extent_m, lighting=True)
        paint.use(TEXTURE_UNITS["paint"])
        lights.use(TEXTURE_UNITS["lights"])
        finish["half_extent"].value = ground.half_extent_m
        finish["shadow_matrix"].write(_bytes(shadow_matrix))
        finish["sun_softness"].value = SUN_SOFTNESS_M
        result = self._context.texture(size, 4)
        self._paint(result, "paint_ground")
        result.repeat_x = result.repeat_y = False
        result.build_mipmaps()
        for thing in (paint, lights):
            thing.release()
        return result

    def _draw_decals(
        self, texture: moderngl.Texture, decals: NDArray[Any], half_extent_m: float, lighting: bool
    ) -> None:
        """Paint: one over the other. Lighting: lamp light adds up, shades multiply in the alpha channel."""
        context = self._context
        target = context.framebuffer([texture])
        target.use()
        if lighting:
            target.clear(0.0, 0.0, 0.0, 1.0)
        if len(decals):
            program = self._decal
            program["half_extent"].value, program["lighting"].value = half_extent_m, lighting
            context.enable_only(moderngl.BLEND)
            one, zero = moderngl.ONE, moderngl.ZERO
            over = (moderngl.SRC_ALPHA, moderngl.ONE_MINUS_SRC_ALPHA, zero, one)
            blend: Any = (one, one, zero, moderngl.SRC_ALPHA) if lighting else over
            context.blend_func = blend
            buffer = context.buffer(decals.tobytes())
            quads = context.vertex_array(
                program, [(buffer, DECAL_FORMAT, "place", "shape", "colour", "accent")]
            )
            quads.render(moderngl.TRIANGLE_STRIP, vertices=4, instances=len(decals))
            for thing in (quads, buffer):
                thing.release()
        target.release()

    # --- once per frame -------------------------------------------------------------------------------------

    def _draw_batch(self, card: _SceneOnCard, poses: Array, avatar: NDArray[Any] | None) -> None:
        context = self._context
        matrices, eyes, rays = (_rows(part) for part in self.camera_uniforms(poses))
        stands = None if avatar is None else _rows(np.asarray(avatar))
        for i, (matrix, eye, ray) in enumerate(zip(matrices, eyes, rays, strict=True)):
            self._target.use()
            self._target.clear(depth=1.0)
            self._draw_surfaces(card, matrix, eye)
            if stands is not None:
                self._draw_walker(card, matrix, eye, next(stands))
            self._sky["rays"].write(ray)
            self._sky_quad.render(vertices=3)
            context.copy_framebuffer(self._resolved, self._target)
            self._resolved.read_into(self._copies, components=4, write_offset=i * self._pixels[0].nbytes)

    def _draw_surfaces(self, card: _SceneOnCard, matrix: bytes, eye: bytes) -> None:
        self._context.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
        self._context.depth_func = "<="
        self._context.front_face = "ccw"
        for program, surface, first, count in card.surfaces:
            program["view_proj"].write(matrix)
            program["eye"].write(eye)
            surface.render(moderngl.TRIANGLES, count, first=first)

    def _draw_walker(self, card: _SceneOnCard, matrix: bytes, eye: bytes, stand: bytes) -> None:
        self._walker["view_proj"].write(matrix)
        self._walker["eye"].write(eye)
        self._walker["stand"].write(stand)
        card.avatar.render(moderngl.TRIANGLES)
        context = self._context
        context.enable(moderngl.BLEND)
        context.blend_func = (moderngl.ZERO, moderngl.SRC_COLOR)
        self._blob["view_proj"].write(matrix)
        self._blob["stand"].write(stand)
        self._blob_quad.render(moderngl.TRIANGLE_STRIP, vertices=4)
        context.disable(moderngl.BLEND)

    def _read(self, count: int) -> Images:
        """The drawn pictures [count, H, W, 3] (a view of memory that the next read overwrites)."""
        pixels = self._pixels[:count]
        self._copies.read_into(pixels, size=pixels.nbytes)
        return pixels[..., :3]


def _attributes(program: Program) -> tuple[str, ...]:
    """The vertex format and the names of what a program reads; what its compiler dropped becomes padding."""
    names = [name if name in program else None for name in VERTEX_NAMES]
    parts = [part if name else PADDING[part] for part, name in zip(VERTEX_FORMAT.split(), names, strict=True)]
    return (" ".join(parts), *(name for name in names if name))


def create_context() -> moderngl.Context:
    """A headless OpenGL context. Raises MachineError with the remedy when EGL is missing."""
    try:
        return moderngl.create_standalone_context(**EGL)
    except Exception as error:  # glcontext raises bare Exceptions of many texts
        vendors = os.environ.get("__EGL_VENDOR_LIBRARY_FILENAMES", "unset")
        raise MachineError(
            "no headless OpenGL context could be made",
            expected="EGL with OpenGL 3.3 (a graphics card's driver, or Mesa's llvmpipe)",
            got=f"{error} (__EGL_VENDOR_LIBRARY_FILENAMES is {vendors})",
            remedy=f"without a card: apt-get install {MESA_PACKAGES}; with an NVIDIA card: libegl1, and "
            "__EGL_VENDOR_LIBRARY_FILENAMES=the driver's 10_nvidia.json",
        ) from error


def sun_matrix(scene: Scene) -> Array:
    """Orthographic clip matrix [4, 4] along the sun over what casts shadows on the painted ground."""
    x, up, z = scene.atmosphere.to_sun
    back = np.array([x, -up, z])
    right = np.cross(back, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(back, right), -back])
    points = scene.vertices["position"].astype(np.float64)
    near = points[np.hypot(points[:, 0], points[:, 2]) < scene.ground.sun_reach_m]
    seen = near @ axes.T
    low, high = seen.min(axis=0) - 0.2, seen.max(axis=0) + 0.2
    matrix = np.eye(4)
    matrix[:3, :3] = axes * (2 / (high - low))[:, None]
    matrix[:3, 3] = -(high + low) / (high - low)
    return matrix


def _camera_uniforms(intrinsics: Intrinsics, poses: Array) -> tuple[Array, Array, Array]:
    """Clip matrices [n, 4, 4], eyes [n, 3] and the sky's ray matrices [n, 3, 3]."""
    rotation, eye = poses[:, :3, :3], poses[:, :3, 3]
    world_to_camera = np.zeros_like(poses)
    world_to_camera[:, :3, :3] = rotation.swapaxes(1, 2)
    world_to_camera[:, :3, 3] = -np.einsum("nji,nj->ni", rotation, eye)
    world_to_camera[:, 3, 3] = 1
    k = intrinsics
    project = np.zeros((4, 4))
    project[0, 0], project[0, 2] = 2 * k.fx / k.width, 2 * k.cx / k.width - 1
    project[1, 1], project[1, 2] = 2 * k.fy / k.height, 2 * k.cy / k.height - 1
    project[2, 2], project[2, 3] = (FAR_M + NEAR_M) / (FAR_M - NEAR_M), -2 * FAR_M * NEAR_M / (FAR_M - NEAR_M)
    project[3, 2] = 1
    to_ray = np.array([[k.width / k.fx, 0, -k.cx / k.fx], [0, k.height / k.fy, -k.cy / k.fy], [0, 0, 1]])
    return project @ world_to_camera, eye, rotation @ to_ray


def _rows(values: Array) -> Iterator[bytes]:
    """Each item as float32 bytes; matrices column by column, as OpenGL wants them."""
    packed = np.ascontiguousarray(values.swapaxes(-1, -2) if values.ndim == 3 else values, dtype=np.float32)
    return (item.tobytes() for item in packed)


def _bytes(matrix: Array) -> bytes:
    return matrix.T.astype(np.float32).tobytes()


def _light_block(scene: Scene) -> bytes:
    """The uniform block `Light` of common.glsl."""
    air = scene.atmosphere
    x, up, z = air.to_sun
    rows = [
        (x, -up, z, 1 / air.fog_distance_m),
        (*air.sun_light, air.phase),
        (*air.sky_light, air.cloud_cover),
        (*air.ground_light, 0),
    ]
    rows += [(*colour, 0) for colour in (air.zenith, air.horizon, air.glow, air.cloud, *air.hills)]
    return np.concatenate([np.array(rows, np.float32).reshape(-1), scene.lamps.reshape(-1)]).tobytes()


@cache
def _source(name: str, defines: str = "") -> str:
    """A shader with the common part before it."""
    return (SHADERS / "common.glsl").read_text() + defines + (SHADERS / name).read_text()


def _checked_poses(c2w: NDArray[Any], avatar: NDArray[Any] | None) -> Array:
    poses = np.asarray(c2w, dtype=np.float64)
    good = poses.ndim == 3 and poses.shape[1:] == (4, 4) and bool(np.isfinite(poses).all())
    if not good or (avatar is not None and np.shape(avatar) != (len(poses), 4)):
        raise InputError(
            "the renderer got unusable poses",
            expected="finite camera-to-world [n, 4, 4] (and a walker [n, 4] from avatar_track)",
            got=f"{poses.shape}" + ("" if avatar is None else f" and {np.shape(avatar)}"),
        )
    return poses
