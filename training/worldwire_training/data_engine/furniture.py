"""The things that stand in rooms, low-poly; each returns its footprint and its phrase in a prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from worldwire_training.data_engine.atmosphere import Atmosphere, Colour
from worldwire_training.data_engine.mesh import Material, Mesh, Place, box, ellipsoid, frustum, quad
from worldwire_training.data_engine.props import tint

COLOURS: dict[str, Colour] = {
    "red": (0.72, 0.22, 0.20),
    "blue": (0.22, 0.38, 0.66),
    "green": (0.28, 0.50, 0.34),
    "yellow": (0.92, 0.74, 0.28),
    "grey": (0.48, 0.50, 0.54),
    "orange": (0.88, 0.50, 0.22),
    "purple": (0.48, 0.32, 0.58),
    "white": (0.90, 0.88, 0.84),
}
WOODS: tuple[Colour, ...] = ((0.55, 0.36, 0.21), (0.68, 0.47, 0.28), (0.40, 0.25, 0.16), (0.86, 0.83, 0.78))
TALL = ("wardrobe", "shelf")
INDOOR_SKY_SHARE = {"day": (0.98, 0.96, 0.92), "dusk": (0.30, 0.27, 0.34)}
SUN_GAIN = 1.25
INDOOR_GROUND_SHARE = {"day": (0.72, 0.66, 0.58), "dusk": (0.20, 0.16, 0.18)}

Footprint = tuple[float, float, str]
Builder = Callable[[Mesh, Place, np.random.Generator, int], Footprint]


@dataclass(frozen=True)
class Style:
    """What a kind of room holds."""

    centre: str | None
    rug: bool
    along_walls: tuple[str, ...]


STYLES = (
    Style(None, True, ("sofa", "shelf", "plant", "lamp", "chair")),
    Style("table", False, ("shelf", "plant", "wardrobe")),
    Style(None, True, ("bed", "wardrobe", "lamp", "plant")),
    Style(None, False, ("desk", "shelf", "shelf", "chair", "plant")),
    Style("table", True, ("sofa", "plant", "lamp", "shelf")),
    Style(None, True, ("bed", "desk", "shelf", "chair")),
)


def indoors(air: Atmosphere, time_of_day: str) -> Atmosphere:
    """The atmosphere with what walls leave of the sky's light."""
    red, green, blue = air.sun_light
    return dataclasses.replace(
        air,
        sky_light=INDOOR_SKY_SHARE[time_of_day],
        ground_light=INDOOR_GROUND_SHARE[time_of_day],
        sun_light=(red * SUN_GAIN, green * SUN_GAIN, blue * SUN_GAIN),
    )


def pick_colour(rng: np.random.Generator) -> tuple[str, Colour]:
    """A named colour."""
    names = list(COLOURS)
    name = names[int(rng.integers(len(names)))]
    return name, COLOURS[name]


def _wood(rng: np.random.Generator) -> Colour:
    return WOODS[int(rng.integers(len(WOODS)))]


def sofa(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A sofa with cushions; its back is towards -z."""
    name, colour = pick_colour(rng)
    width = rng.uniform(1.7, 2.2)
    mesh.add(box(width, 0.42, 0.85), colour, place=place, lamp=lamp)
    mesh.add(box(width, 0.46, 0.22), tint(colour, 0.92), place=place.at(0, 0.42, -0.32), lamp=lamp, ao=0.95)
    for side in (-1, 1):
        arm = place.at(side * (width / 2 - 0.1), 0.42, 0)
        mesh.add(box(0.2, 0.2, 0.85), tint(colour, 0.92), place=arm, lamp=lamp, ao=0.95)
        seat = place.at(side * (width / 4 - 0.06), 0.42, 0.08)
        mesh.add(box(width / 2 - 0.16, 0.12, 0.66), tint(colour, 1.12), place=seat, lamp=lamp, ao=0.95)
        pillow = place.at(side * width * 0.33, 0.54, -0.12, side * 12)
        mesh.add(box(0.4, 0.34, 0.14), pick_colour(rng)[1], place=pillow, lamp=lamp, ao=0.95)
    return width, 0.85, f"a {name} sofa"


def bed(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A bed; its head is towards -z."""
    name, colour = pick_colour(rng)
    wood, width, length = _wood(rng), rng.uniform(1.3, 1.7), 2.05
    mesh.add(box(width, 0.32, length), wood, place=place, lamp=lamp)
    mesh.add(
        box(width - 0.08, 0.22, length - 0.1),
        (0.94, 0.93, 0.90),
        place=place.at(0, 0.32, 0),
        lamp=lamp,
        ao=0.95,
    )
    blanket = place.at(0, 0.34, 0.3)
    mesh.add(box(width + 0.04, 0.26, length - 0.62), colour, place=blanket, lamp=lamp, ao=0.95)
    mesh.add(box(width, 1.0, 0.1), wood, place=place.at(0, 0, -length / 2 + 0.05), lamp=lamp)
    for side in (-1, 1):
        pillow = place.at(side * width * 0.24, 0.54, -length / 2 + 0.35)
        mesh.add(box(width * 0.38, 0.14, 0.36), (0.98, 0.97, 0.95), place=pillow, lamp=lamp, ao=0.95)
    return width, length, f"a {name} bed"


def table(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A dining table with four chairs under it and a bowl of fruit."""
    wood = _wood(rng)
    width, depth = rng.uniform(1.2, 1.6), 0.85
    mesh.add(box(width, 0.07, depth), wood, place=place.at(0, 0.70, 0), lamp=lamp, ao=1.0)
    for x in (-1, 1):
        for z in (-1, 1):
            leg = place.at(x * (width / 2 - 0.08), 0, z * (depth / 2 - 0.08))
            mesh.add(box(0.08, 0.70, 0.08), tint(wood, 0.85), place=leg, lamp=lamp)
    _, colour = pick_colour(rng)
    for share in (-0.25, 0.25):
        for turn in (0, 180):
            _seat(mesh, place.at(0, 0, 0, turn).at(share * width, 0, -depth / 2 - 0.05), colour, lamp)
    bowl, normals = frustum(0.13, 0.1, 10, 1.5)
    mesh.add(bowl, (0.92, 0.90, 0.86), place=place.at(0, 0.77, 0), normals=normals, lamp=lamp, ao=1.0)
    fruit, normals = ellipsoid(0.16, 0.09, 0.16, 1)
    mesh.add(fruit, (0.90, 0.48, 0.16), place=place.at(0, 0.87, 0), normals=normals, lamp=lamp, ao=1.0)
    return width, depth + 0.7, "a table"


def _seat(mesh: Mesh, place: Place, colour: Colour, lamp: int) -> None:
    """A chair that looks along +z."""
    mesh.add(box(0.42, 0.06, 0.42), colour, place=place.at(0, 0.42, 0), lamp=lamp, ao=0.95)
    mesh.add(box(0.42, 0.5, 0.06), colour, place=place.at(0, 0.46, -0.19), lamp=lamp, ao=0.95)
    for x in (-0.17, 0.17):
        for z in (-0.17, 0.17):
            mesh.add(box(0.05, 0.42, 0.05), (0.30, 0.20, 0.14), place=place.at(x, 0, z), lamp=lamp)


def chair(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """An arm chair."""
    name, colour = pick_colour(rng)
    mesh.add(box(0.8, 0.42, 0.75), colour, place=place, lamp=lamp)
    mesh.add(box(0.8, 0.5, 0.18), tint(colour, 0.9), place=place.at(0, 0.42, -0.28), lamp=lamp, ao=0.95)
    for side in (-1, 1):
        mesh.add(
            box(0.16, 0.2, 0.75), tint(colour, 0.9), place=place.at(side * 0.32, 0.42, 0), lamp=lamp, ao=0.95
        )
    return 0.8, 0.75, f"a {name} chair"


def shelf(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A bookshelf; books are blocks of a colour each."""
    wood, width, height, depth = _wood(rng), rng.uniform(1.0, 1.5), rng.uniform(1.5, 2.1), 0.34
    back = place.at(0, 0, -depth / 2 + 0.03)
    mesh.add(box(width, height, 0.05), tint(wood, 0.7), place=back, lamp=lamp)
    for side in (-1, 1):
        mesh.add(box(0.06, height, depth), wood, place=place.at(side * (width / 2 - 0.03), 0, 0), lamp=lamp)
    boards = 4 if height < 1.8 else 5
    for i in range(boards + 1):
        up = i * (height - 0.05) / boards
        mesh.add(box(width, 0.05, depth), wood, place=place.at(0, up, 0), lamp=lamp, ao=0.9)
        if i < boards:
            _books(mesh, place.at(0, up + 0.05, 0), rng, width - 0.14, (height / boards) * 0.72, lamp)
    return width, depth, "a shelf"


def _books(
    mesh: Mesh, place: Place, rng: np.random.Generator, width: float, height: float, lamp: int
) -> None:
    edge = -width / 2
    while edge < width / 2 - 0.12:
        run = min(rng.uniform(0.14, 0.3), width / 2 - edge)
        if rng.random() < 0.85:
            block = place.at(edge + run / 2, 0, 0.01)
            size = box(run - 0.01, height * rng.uniform(0.75, 1.0), 0.22)
            mesh.add(size, pick_colour(rng)[1], place=block, lamp=lamp, ao=0.85)
        edge += run


def wardrobe(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A wardrobe with two doors."""
    wood, width, height, depth = _wood(rng), rng.uniform(1.1, 1.5), rng.uniform(1.9, 2.2), 0.55
    mesh.add(box(width, height, depth), wood, place=place, lamp=lamp)
    for side in (-1, 1):
        front = place.at(side * width / 4, 0.12, depth / 2)
        mesh.add(box(width / 2 - 0.06, height - 0.22, 0.03), tint(wood, 1.12), place=front, lamp=lamp, ao=0.9)
        knob = place.at(side * 0.07, height * 0.5, depth / 2 + 0.02)
        mesh.add(box(0.04, 0.14, 0.05), (0.90, 0.80, 0.50), place=knob, lamp=lamp, ao=1.0)
    return width, depth, "a wardrobe"


def desk(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A desk with drawers, a screen and a chair in front of it."""
    wood, width, depth = _wood(rng), rng.uniform(1.2, 1.5), 0.65
    mesh.add(box(width, 0.06, depth), wood, place=place.at(0, 0.70, -0.2), lamp=lamp, ao=1.0)
    for side in (-1, 1):
        mesh.add(
            box(0.32, 0.70, depth - 0.05),
            tint(wood, 0.9),
            place=place.at(side * (width / 2 - 0.17), 0, -0.2),
            lamp=lamp,
        )
    mesh.add(box(0.6, 0.38, 0.04), (0.16, 0.17, 0.20), place=place.at(0, 0.86, -0.35), lamp=lamp, ao=1.0)
    mesh.add(box(0.54, 0.32, 0.02), (0.45, 0.62, 0.78), place=place.at(0, 0.89, -0.325), glow=0.55, ao=1.0)
    mesh.add(box(0.1, 0.12, 0.1), (0.16, 0.17, 0.20), place=place.at(0, 0.76, -0.37), lamp=lamp, ao=1.0)
    _, colour = pick_colour(rng)
    _seat(mesh, place.at(0, 0, 0.32, 180), colour, lamp)
    return width, depth + 0.42, "a desk"


def plant(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A plant in a pot."""
    pot, normals = frustum(0.18, 0.36, 10, 1.3)
    mesh.add(pot, pick_colour(rng)[1], place=place, normals=normals, lamp=lamp)
    green = tint((0.22, 0.46, 0.24), rng.uniform(0.85, 1.2))
    tall = rng.uniform(0.35, 0.6)
    for turn in range(3):
        leaf, normals = ellipsoid(0.17, tall, 0.17, 1)
        here = place.at(0, 0.36 + tall * 0.8, 0, 120 * turn).at(0.12, 0.08 * turn, 0)
        ao = 0.8 + 0.2 * leaf[..., 1] / tall
        mesh.add(leaf, green, place=here, normals=normals, material=Material.LEAVES, lamp=lamp, ao=ao)
    return 0.5, 0.5, "a plant"


def floor_lamp(mesh: Mesh, place: Place, rng: np.random.Generator, lamp: int) -> Footprint:
    """A standing lamp with a cloth shade."""
    name, colour = pick_colour(rng)
    foot, normals = frustum(0.18, 0.04, 10, 0.9)
    mesh.add(foot, (0.20, 0.19, 0.20), place=place, normals=normals, lamp=lamp)
    mesh.add(box(0.05, 1.35, 0.05), (0.20, 0.19, 0.20), place=place, lamp=lamp)
    shade, normals = frustum(0.26, 0.36, 12, 0.65)
    mesh.add(
        shade, tint(colour, 1.1), place=place.at(0, 1.3, 0), normals=normals, lamp=lamp, glow=0.25, ao=1.0
    )
    return 0.5, 0.5, f"a {name} lamp"


def ceiling_lamp(mesh: Mesh, place: Place, height: float, lit: bool) -> None:
    """A lamp on a cord; it is what lights the room at night."""
    mesh.add(box(0.03, 0.45, 0.03), (0.2, 0.2, 0.2), place=place.at(0, height - 0.45, 0), ao=1.0)
    shade, normals = frustum(0.24, 0.2, 12, 0.4)
    colour: Colour = (1.0, 0.86, 0.56) if lit else (0.92, 0.90, 0.86)
    mesh.add(
        shade, colour, place=place.at(0, height - 0.62, 0), normals=normals, glow=0.9 if lit else 0.1, ao=1.0
    )


def painting(
    mesh: Mesh, place: Place, width: float, height: float, lamp: int, rng: np.random.Generator
) -> None:
    """A framed picture of a landscape or of blocks of colour, on a wall that the place looks away from."""
    mesh.add(
        box(width + 0.12, height + 0.12, 0.05), _wood(rng), place=place.at(0, -0.06, 0), lamp=lamp, ao=0.95
    )
    _, sky = pick_colour(rng)
    _, land = pick_colour(rng)
    half, split = width / 2, height * rng.uniform(0.35, 0.6)

    def sheet(x0: float, x1: float, y0: float, y1: float, depth: float, colour: Colour) -> None:
        corners = quad((x0, y0, depth), (x1, y0, depth), (x1, y1, depth), (x0, y1, depth))
        mesh.add(corners, colour, place=place, lamp=lamp, ao=0.95)

    sheet(-half, half, 0, height, 0.03, tint(sky, 1.15))
    sheet(-half, half, 0, split, 0.033, land)
    at = rng.uniform(-0.3, 0.3) * width
    disc, _ = frustum(height * 0.15, 0.001, 10, 1.0)
    round_ = disc[..., [0, 2, 1]][:, ::-1].copy()
    mesh.add(
        round_, pick_colour(rng)[1], place=place.at(at, split + height * 0.16, 0.035), lamp=lamp, ao=0.95
    )


BUILDERS: dict[str, Builder] = {
    "sofa": sofa,
    "bed": bed,
    "table": table,
    "chair": chair,
    "shelf": shelf,
    "wardrobe": wardrobe,
    "desk": desk,
    "plant": plant,
    "lamp": floor_lamp,
}
