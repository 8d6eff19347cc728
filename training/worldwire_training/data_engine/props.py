"""The things that stand in a village, as low-poly meshes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from worldwire_training.data_engine.atmosphere import Colour
from worldwire_training.data_engine.mesh import Material, Mesh, Place, box, ellipsoid, frustum, gable, quad

STONE: Colour = (0.66, 0.63, 0.60)
DARK_STONE: Colour = (0.50, 0.48, 0.48)
WOOD: Colour = (0.46, 0.31, 0.20)
LIGHT_WOOD: Colour = (0.66, 0.48, 0.30)
TRIM: Colour = (0.96, 0.94, 0.88)
IRON: Colour = (0.16, 0.17, 0.20)
GLASS: Colour = (0.42, 0.56, 0.68)
LIT_GLASS: Colour = (1.0, 0.80, 0.42)
DOORS: tuple[Colour, ...] = ((0.36, 0.22, 0.15), (0.20, 0.36, 0.44), (0.50, 0.18, 0.16), (0.22, 0.38, 0.26))
FLOOR_HEIGHT_M = 2.7
ROOF_OVERHANG_M = 0.35


@dataclass(frozen=True)
class HouseLook:
    """Size (metres) and colours of a house. turned: its ridge runs along the front. lamp: its light."""

    width: float
    depth: float
    floors: int
    wall: Colour
    roof: Colour
    timbered: bool
    turned: bool
    lit: bool
    lamp: int


def tint(colour: Colour, gain: float) -> Colour:
    """The colour, lighter or darker."""
    red, green, blue = (min(1.0, c * gain) for c in colour)
    return red, green, blue


def house(mesh: Mesh, place: Place, look: HouseLook, rng: np.random.Generator) -> None:
    """A house whose door looks along the place's +z."""
    wall_height = FLOOR_HEIGHT_M * look.floors + 0.2
    mesh.add(box(look.width, wall_height, look.depth), look.wall, place=place, lamp=look.lamp)
    mesh.add(box(look.width + 0.12, 0.45, look.depth + 0.12), STONE, place=place, lamp=look.lamp)
    _roof(mesh, place, look, wall_height, rng.uniform(1.9, 2.9))
    _front(mesh, place, look, rng)
    for side in (90, 180, 270):
        _side_windows(mesh, place, look, side, rng)
    if look.timbered:
        _timbers(mesh, place, look, wall_height)


def _roof(mesh: Mesh, place: Place, look: HouseLook, wall_height: float, rise: float) -> None:
    width, depth = (look.depth, look.width) if look.turned else (look.width, look.depth)
    here = place.at(0, wall_height, 0, 90 if look.turned else 0)
    _, ends = gable(width, rise, depth)
    mesh.add(ends, look.wall, place=here, lamp=look.lamp, ao=1.0)
    slopes, _ = gable(
        width + 2 * ROOF_OVERHANG_M,
        rise * (1 + 2 * ROOF_OVERHANG_M / width) * 1.0,
        depth + 2 * ROOF_OVERHANG_M,
    )
    lower = here.at(0, -rise * 2 * ROOF_OVERHANG_M / width + 0.06, 0)
    mesh.add(slopes, look.roof, place=lower, material=Material.ROWS, ao=1.0)
    mesh.add(
        box(0.22, 0.16, depth + 2 * ROOF_OVERHANG_M),
        tint(look.roof, 0.8),
        place=here.at(0, rise + 0.02, 0),
        ao=1.0,
    )
    chimney = here.at(width * 0.24, rise * 0.3, depth * 0.22)
    mesh.add(box(0.6, rise * 0.7 + 0.7, 0.6), (0.62, 0.40, 0.34), place=chimney, ao=0.9)
    mesh.add(box(0.75, 0.16, 0.75), STONE, place=chimney.at(0, rise * 0.7 + 0.7, 0), ao=1.0)


def _front(mesh: Mesh, place: Place, look: HouseLook, rng: np.random.Generator) -> None:
    door = DOORS[int(rng.integers(len(DOORS)))]
    z = look.depth / 2
    shift = rng.uniform(-0.15, 0.15) * look.width
    mesh.add(box(1.25, 2.25, 0.12), TRIM, place=place.at(shift, 0, z), lamp=look.lamp, ao=0.9)
    mesh.add(box(1.0, 2.1, 0.2), door, place=place.at(shift, 0, z), lamp=look.lamp, ao=0.9)
    mesh.add(box(1.6, 0.14, 0.7), STONE, place=place.at(shift, 0, z + 0.3), lamp=look.lamp)
    for side in (-1, 1):
        x = shift + side * (0.62 + (look.width / 2 - 0.62 - side * shift) / 2)
        window(mesh, place.at(x, 1.0, z), look.lit and rng.random() < 0.8, lamp=look.lamp)
    for floor in range(1, look.floors):
        for x in (-0.27, 0.27):
            lit = look.lit and rng.random() < 0.6
            window(mesh, place.at(x * look.width, 0.9 + FLOOR_HEIGHT_M * floor, z), lit, lamp=look.lamp)


def _side_windows(mesh: Mesh, place: Place, look: HouseLook, turn: float, rng: np.random.Generator) -> None:
    length, away = (look.width, look.depth) if turn == 180 else (look.depth, look.width)
    wall = place.at(0, 0, 0, turn)
    for floor in range(look.floors):
        for x in (-0.25, 0.25):
            if rng.random() < 0.8:
                spot = wall.at(x * length, 0.95 + FLOOR_HEIGHT_M * floor, away / 2)
                window(mesh, spot, look.lit and rng.random() < 0.6, lamp=look.lamp)


def window(
    mesh: Mesh, place: Place, lit: bool, width: float = 0.95, height: float = 1.15, lamp: int = 0
) -> None:
    """A framed window with a cross; lit ones glow."""
    mesh.add(box(width + 0.22, height + 0.22, 0.1), TRIM, place=place.at(0, -0.11, 0), lamp=lamp, ao=0.95)
    half = width / 2
    pane = quad((-half, 0, 0.07), (half, 0, 0.07), (half, height, 0.07), (-half, height, 0.07))
    if lit:
        mesh.add(pane, LIT_GLASS, place=place, glow=0.95, ao=1.0)
    else:
        mesh.add(pane, GLASS, place=place, material=Material.GLASS, ao=1.0)
    mesh.add(box(0.07, height, 0.05), TRIM, place=place.at(0, 0, 0.06), lamp=lamp, ao=0.95)
    mesh.add(box(width, 0.07, 0.05), TRIM, place=place.at(0, height * 0.5, 0.06), lamp=lamp, ao=0.95)


def _timbers(mesh: Mesh, place: Place, look: HouseLook, wall_height: float) -> None:
    beam = tint(WOOD, 0.75)
    for sx in (-1, 1):
        for sz in (-1, 1):
            corner = place.at(sx * look.width / 2, 0, sz * look.depth / 2)
            mesh.add(box(0.26, wall_height, 0.26), beam, place=corner, lamp=look.lamp)
    for up in (FLOOR_HEIGHT_M - 0.15, wall_height - 0.25):
        mesh.add(
            box(look.width + 0.1, 0.2, look.depth + 0.1),
            beam,
            place=place.at(0, up, 0),
            lamp=look.lamp,
            ao=0.9,
        )


def tree(
    mesh: Mesh, place: Place, rng: np.random.Generator, style: str, leaves: Colour, pine_colour: Colour
) -> tuple[float, float]:
    """A tree of the style, now and then of another; returns the radius that stops players and the crown's."""
    if rng.random() < 0.2:
        style = str(rng.choice(["pines", "oaks"]))
    size = rng.uniform(0.8, 1.25)
    if style == "pines":
        pine(mesh, place, pine_colour, 6.5 * size)
        return 1.35 * size, 1.7 * size
    if style == "poplars":
        poplar(mesh, place, leaves, 7.5 * size)
        return 0.65 * size, 1.0 * size
    if style == "birches":
        birch(mesh, place, rng, leaves, 5.5 * size)
        return 0.3, 1.4 * size
    broadleaf(mesh, place, rng, leaves, 5.0 * size)
    return 0.45, 2.6 * size


def pine(mesh: Mesh, place: Place, colour: Colour, height: float) -> None:
    """Three cones on a trunk."""
    trunk, normals = frustum(0.16 + height * 0.015, height * 0.3, 6, 0.8)
    mesh.add(trunk, WOOD, place=place, normals=normals)
    for layer, (start, size, radius) in enumerate(
        ((0.16, 0.42, 0.26), (0.38, 0.38, 0.20), (0.60, 0.40, 0.14))
    ):
        cone, normals = frustum(radius * height, size * height, 9)
        shade = tint(colour, 0.86 + 0.14 * layer)
        mesh.add(
            cone, shade, place=place.at(0, start * height, 0, 20 * layer), normals=normals, ao=_cone_ao(cone)
        )


def _cone_ao(cone: np.ndarray) -> np.ndarray:
    """Darker under the skirts of a cone."""
    return np.asarray(0.62 + 0.38 * cone[..., 1] / cone[..., 1].max())


def broadleaf(mesh: Mesh, place: Place, rng: np.random.Generator, colour: Colour, height: float) -> None:
    """A trunk under a few leafy blobs."""
    trunk, normals = frustum(0.05 * height, height * 0.5, 7, 0.6)
    mesh.add(trunk, WOOD, place=place, normals=normals)
    size = height * 0.34
    _blob(mesh, place.at(0, height * 0.66, 0), colour, (size, size * 0.85, size), 2)
    for i in range(3):
        turn = math.radians(120 * i + rng.uniform(-30, 30))
        x, z = size * 0.62 * math.sin(turn), size * 0.62 * math.cos(turn)
        s = size * rng.uniform(0.55, 0.75)
        up = height * 0.66 + rng.uniform(-0.25, 0.35) * size
        _blob(mesh, place.at(x, up, z), tint(colour, rng.uniform(0.9, 1.12)), (s, s * 0.85, s), 1)


def poplar(mesh: Mesh, place: Place, colour: Colour, height: float) -> None:
    """A slim upright tree."""
    trunk, normals = frustum(0.15, height * 0.25, 6, 0.8)
    mesh.add(trunk, WOOD, place=place, normals=normals)
    _blob(mesh, place.at(0, height * 0.56, 0), colour, (height * 0.115, height * 0.44, height * 0.115), 2)


def birch(mesh: Mesh, place: Place, rng: np.random.Generator, colour: Colour, height: float) -> None:
    """A white trunk and a light crown."""
    trunk, normals = frustum(0.14, height * 0.7, 6, 0.6)
    mesh.add(trunk, (0.90, 0.89, 0.84), place=place, normals=normals)
    light = tint(colour, 1.18)
    _blob(mesh, place.at(0, height * 0.72, 0), light, (height * 0.22, height * 0.27, height * 0.22), 2)
    _blob(mesh, place.at(0.3, height * rng.uniform(0.5, 0.6), 0.2), light, (0.9, 0.8, 0.9), 1)


def _blob(mesh: Mesh, place: Place, colour: Colour, half: tuple[float, float, float], level: int) -> None:
    """Leaves: smooth, darker below."""
    triangles, normals = ellipsoid(*half, level=level)
    ao = 0.8 + 0.2 * triangles[..., 1] / half[1]
    mesh.add(triangles, colour, place=place, normals=normals, material=Material.LEAVES, ao=ao)


def bush(mesh: Mesh, place: Place, rng: np.random.Generator, colour: Colour) -> None:
    """A low leafy blob or two."""
    size = rng.uniform(0.4, 0.65)
    _blob(mesh, place.at(0, size * 0.6, 0), tint(colour, 0.95), (size, size * 0.8, size), 1)
    _blob(mesh, place.at(size * 0.8, size * 0.4, 0), colour, (size * 0.6, size * 0.55, size * 0.6), 1)


def far_tree(
    mesh: Mesh, place: Place, rng: np.random.Generator, style: str, leaves: Colour, pine_colour: Colour
) -> None:
    """A tree in few triangles, for the hills."""
    height = rng.uniform(4.5, 8.5)
    if style == "pines" or rng.random() < 0.35:
        cone, normals = frustum(0.24 * height, height, 7)
        mesh.add(cone, pine_colour, place=place, normals=normals, ao=_cone_ao(cone))
    else:
        width = height * (0.14 if style == "poplars" else 0.34)
        triangles, normals = ellipsoid(width, height * 0.5, width, level=1)
        ao = 0.8 + 0.2 * triangles[..., 1] / (height * 0.5)
        mesh.add(triangles, leaves, place=place.at(0, height * 0.5, 0), normals=normals, ao=ao)


def rock(mesh: Mesh, place: Place, rng: np.random.Generator) -> None:
    """A boulder."""
    size = rng.uniform(0.18, 0.42)
    triangles, _ = ellipsoid(size, size * 0.7, size * 0.8, level=1)
    mesh.add(triangles, tint(STONE, rng.uniform(0.85, 1.1)), place=place.at(0, size * 0.2, 0))


def pond(mesh: Mesh, place: Place, radius: float, rng: np.random.Generator) -> None:
    """A water surface with a wavy shore, just above the painted ground."""
    sides = 28
    angle = np.arange(sides + 1) * (2 * math.pi / sides)
    wave = 1 + 0.07 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.04 * np.sin(5 * angle + rng.uniform(0, 6))
    rim = np.stack(
        [np.cos(angle) * radius * wave, np.full_like(angle, 0.03), np.sin(angle) * radius * wave], -1
    )
    middle = np.broadcast_to(np.array([0.0, 0.03, 0.0]), rim[:-1].shape)
    fan = np.stack([middle, rim[1:], rim[:-1]], axis=1)
    mesh.add(fan, (0.16, 0.36, 0.44), place=place, material=Material.WATER, ao=1.0)


def lamp_post(mesh: Mesh, place: Place, lit: bool) -> float:
    """A street lamp; returns the height of its light."""
    pole, normals = frustum(0.07, 2.9, 6, 0.8)
    mesh.add(pole, IRON, place=place, normals=normals)
    foot, normals = frustum(0.16, 0.35, 6, 0.6)
    mesh.add(foot, IRON, place=place, normals=normals)
    light = box(0.3, 0.42, 0.3)
    mesh.add(
        light,
        LIT_GLASS if lit else (0.86, 0.86, 0.80),
        place=place.at(0, 2.85, 0),
        glow=1.0 if lit else 0.0,
        ao=1.0,
    )
    cap, normals = frustum(0.3, 0.25, 6)
    mesh.add(cap, IRON, place=place.at(0, 3.27, 0), normals=normals, ao=1.0)
    return 3.0


def well(mesh: Mesh, place: Place, roof: Colour) -> None:
    """A round stone well under a small roof."""
    wall, normals = frustum(1.1, 0.85, 14, 1.0)
    mesh.add(wall, STONE, place=place, normals=normals)
    water, _ = frustum(0.85, 0.02, 14, 1.0)
    mesh.add(water, (0.10, 0.16, 0.22), place=place.at(0, 0.85, 0), ao=1.0)
    for x in (-0.95, 0.95):
        mesh.add(box(0.14, 2.3, 0.14), WOOD, place=place.at(x, 0, 0))
    slopes, ends = gable(1.7, 0.8, 2.5)
    mesh.add(slopes, roof, place=place.at(0, 2.2, 0, 90), material=Material.ROWS, ao=1.0)
    mesh.add(ends, WOOD, place=place.at(0, 2.2, 0, 90), ao=1.0)


def fountain(mesh: Mesh, place: Place) -> None:
    """A basin of water with a column."""
    basin, normals = frustum(1.8, 0.55, 16, 1.0)
    mesh.add(basin, STONE, place=place, normals=normals)
    water, normals = frustum(1.55, 0.02, 16, 1.0)
    mesh.add(
        water,
        (0.24, 0.50, 0.60),
        place=place.at(0, 0.55, 0),
        normals=normals,
        material=Material.WATER,
        ao=1.0,
    )
    column, normals = frustum(0.28, 1.5, 8, 0.7)
    mesh.add(column, tint(STONE, 1.1), place=place, normals=normals)
    bowl, normals = frustum(0.35, 0.3, 10, 2.0)
    mesh.add(bowl, tint(STONE, 1.1), place=place.at(0, 1.4, 0), normals=normals, ao=0.9)
    ball, normals = ellipsoid(0.22, 0.26, 0.22, 1)
    mesh.add(ball, tint(STONE, 1.2), place=place.at(0, 1.85, 0), normals=normals, ao=1.0)


def statue(mesh: Mesh, place: Place) -> None:
    """A figure on a plinth."""
    mesh.add(box(1.5, 0.4, 1.5), DARK_STONE, place=place)
    mesh.add(box(1.0, 1.3, 1.0), STONE, place=place.at(0, 0.4, 0), ao=0.95)
    bronze: Colour = (0.36, 0.52, 0.44)
    body, normals = frustum(0.4, 1.5, 8, 0.55)
    mesh.add(body, bronze, place=place.at(0, 1.7, 0), normals=normals, ao=1.0)
    head, normals = ellipsoid(0.2, 0.24, 0.2, 1)
    mesh.add(head, bronze, place=place.at(0, 3.35, 0), normals=normals, ao=1.0)
    mesh.add(box(0.9, 0.16, 0.18), bronze, place=place.at(0.3, 2.9, 0, 20), ao=1.0)


def church(mesh: Mesh, place: Place, wall: Colour, roof: Colour, lit: bool) -> tuple[float, float]:
    """A nave and a steeple; returns its footprint (width, depth) in metres."""
    width, depth, height = 5.2, 7.6, 4.6
    mesh.add(box(width, height, depth), wall, place=place)
    slopes, ends = gable(width + 0.5, 3.0, depth + 0.3)
    mesh.add(slopes, roof, place=place.at(0, height, 0), material=Material.ROWS, ao=1.0)
    mesh.add(ends * (0.98, 0.98, 0.97), wall, place=place.at(0, height, 0), ao=1.0)
    steeple = place.at(0, 0, depth / 2 - 1.2)
    mesh.add(box(2.5, 9.0, 2.5), tint(wall, 1.03), place=steeple)
    spire, _ = frustum(2.1, 4.8, 4)
    mesh.add(spire, roof, place=steeple.at(0, 9.0, 0, 45), ao=1.0)
    mesh.add(box(1.3, 2.4, 0.2), DOORS[0], place=steeple.at(0, 0, 1.25), ao=0.9)
    for side in (90, -90):
        for z in (-2.2, 0.0):
            window(mesh, place.at(0, 0, z).at(0, 1.4, 0, side).at(0, 0, width / 2), lit, 0.8, 2.0)
    window(mesh, steeple.at(0, 5.6, 1.25), lit, 0.7, 1.3)
    return width, depth


def windmill(mesh: Mesh, place: Place, wall: Colour, roof: Colour, lit: bool, turn_deg: float) -> None:
    """A tapered tower with four sails."""
    body, normals = frustum(2.3, 6.5, 10, 0.62)
    mesh.add(body, wall, place=place, normals=normals)
    cap, normals = frustum(1.65, 1.7, 10)
    mesh.add(cap, roof, place=place.at(0, 6.5, 0), normals=normals, ao=1.0)
    mesh.add(box(1.1, 2.0, 0.3), DOORS[2], place=place.at(0, 0, 2.15), ao=0.9)
    window(mesh, place.at(0, 3.3, 1.9), lit, 0.7, 0.9)
    for i in range(4):
        angle = math.radians(turn_deg + 90 * i)
        cos, sin = math.cos(angle), math.sin(angle)
        for sail, colour in (
            (box(0.16, 4.2, 0.1), WOOD),
            (box(0.9, 3.1, 0.05) + np.array([0.5, 0.9, 0]), TRIM),
        ):
            turned = sail.copy()
            turned[..., 0] = sail[..., 0] * cos - sail[..., 1] * sin
            turned[..., 1] = sail[..., 0] * sin + sail[..., 1] * cos
            mesh.add(turned, colour, place=place.at(0, 6.3, 2.0), ao=1.0)


def tower(mesh: Mesh, place: Place, roof: Colour, lit: bool) -> None:
    """A round stone tower with a pointed roof."""
    body, normals = frustum(2.2, 8.5, 12, 0.9)
    mesh.add(body, STONE, place=place, normals=normals, material=Material.ROWS)
    rim, normals = frustum(2.35, 0.8, 12, 1.0)
    mesh.add(rim, DARK_STONE, place=place.at(0, 8.3, 0), normals=normals, ao=0.85)
    cap, normals = frustum(2.6, 3.4, 12)
    mesh.add(cap, roof, place=place.at(0, 9.1, 0), normals=normals, ao=1.0)
    mesh.add(box(1.1, 2.1, 0.4), DOORS[0], place=place.at(0, 0, 2.05), ao=0.9)
    for turn, up in ((0, 4.6), (120, 6.0), (240, 3.0)):
        window(mesh, place.at(0, up, 0, turn).at(0, 0, 2.0), lit, 0.6, 1.1)


def bench(mesh: Mesh, place: Place) -> None:
    """A bench that looks along +z."""
    mesh.add(box(1.5, 0.08, 0.45), LIGHT_WOOD, place=place.at(0, 0.42, 0), ao=1.0)
    mesh.add(box(1.5, 0.42, 0.07), LIGHT_WOOD, place=place.at(0, 0.52, -0.22), ao=1.0)
    for x in (-0.6, 0.6):
        mesh.add(box(0.1, 0.42, 0.4), IRON, place=place.at(x, 0, 0))


def stall(mesh: Mesh, place: Place, colour: Colour) -> None:
    """A market stall with a striped awning."""
    mesh.add(box(2.2, 0.85, 0.9), LIGHT_WOOD, place=place)
    for x in (-1.05, 1.05):
        for z in (-0.55, 0.55):
            mesh.add(box(0.1, 2.2 if z > 0 else 2.5, 0.1), WOOD, place=place.at(x, 0, z))
    for i in range(6):
        x0, x1 = -1.2 + 0.4 * i, -0.8 + 0.4 * i
        top = quad((x0, 2.5, -0.75), (x0, 2.05, 0.95), (x1, 2.05, 0.95), (x1, 2.5, -0.75))
        shade = colour if i % 2 == 0 else TRIM
        mesh.add(top, shade, place=place, ao=1.0)
        mesh.add(top[:, ::-1], tint(shade, 0.8), place=place, ao=0.7)
    fruit = ((0.90, 0.40, 0.15), (0.80, 0.16, 0.16), (0.60, 0.72, 0.20))
    for i, shade in enumerate(fruit):
        ball, normals = ellipsoid(0.3, 0.16, 0.32, 1)
        mesh.add(ball, shade, place=place.at(-0.7 + 0.7 * i, 0.88, 0), normals=normals, ao=0.9)


def fence(mesh: Mesh, place: Place, length: float) -> None:
    """Posts and two rails along x."""
    posts = 4
    for i in range(posts):
        x = -length / 2 + length * i / (posts - 1)
        mesh.add(box(0.13, 1.0, 0.13), LIGHT_WOOD, place=place.at(x, 0, 0))
    for up in (0.4, 0.75):
        mesh.add(box(length, 0.11, 0.07), LIGHT_WOOD, place=place.at(0, up, 0), ao=0.95)


def hay(mesh: Mesh, place: Place) -> None:
    """A hay stack."""
    body, normals = frustum(0.95, 0.9, 10, 0.9)
    mesh.add(body, (0.86, 0.70, 0.32), place=place, normals=normals)
    top, normals = frustum(0.9, 0.75, 10)
    mesh.add(top, (0.90, 0.75, 0.38), place=place.at(0, 0.9, 0), normals=normals, ao=1.0)
