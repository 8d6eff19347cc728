"""Connected rooms from a seed: a grid plan, doorways, windows, furniture, daylight or lamps."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worldwire_training.data_engine import furniture
from worldwire_training.data_engine.atmosphere import Colour, atmosphere
from worldwire_training.data_engine.ground import GroundPaint, Pattern
from worldwire_training.data_engine.mesh import Material, Mesh, Place, box, quad
from worldwire_training.data_engine.navigation import FREE_MARGIN_M, roomiest_points
from worldwire_training.data_engine.prompts import COATS, HATS, rooms_prompt
from worldwire_training.data_engine.scene import MAX_LAMPS, Ground, Scene
from worldwire_training.data_engine.solids import Solids

HEIGHT_M = 2.75
WALL_M = 0.2
DOOR_WIDTH_M, DOOR_HEIGHT_M = 1.4, 2.15
DOOR_KEEP_FREE_M = 1.0
DOORWAY_MARGIN_M = 0.45
CORNER_SHADE_M = 0.55
PAINTED_M = 12.0
GARDEN: Colour = (0.45, 0.60, 0.30)
TRIM: Colour = (0.95, 0.93, 0.88)
CEILING: Colour = (0.95, 0.94, 0.91)

WALLS: dict[str, Colour] = {
    "white": (0.93, 0.90, 0.84),
    "yellow": (0.95, 0.82, 0.50),
    "green": (0.60, 0.74, 0.56),
    "blue": (0.55, 0.70, 0.84),
    "pink": (0.92, 0.70, 0.70),
    "orange": (0.93, 0.66, 0.42),
    "grey": (0.66, 0.68, 0.72),
    "red": (0.76, 0.36, 0.32),
}
FLOORS: dict[str, tuple[Pattern, tuple[tuple[Colour, Colour], ...]]] = {
    "wooden floor": (
        Pattern.PLANKS,
        (((0.70, 0.48, 0.28), (0.46, 0.30, 0.17)), ((0.52, 0.33, 0.20), (0.34, 0.21, 0.12))),
    ),
    "tiled floor": (
        Pattern.TILES,
        (((0.86, 0.82, 0.74), (0.66, 0.62, 0.56)), ((0.72, 0.44, 0.34), (0.54, 0.36, 0.28))),
    ),
    "stone floor": (Pattern.TILES, (((0.62, 0.62, 0.64), (0.48, 0.48, 0.50)),)),
}
# Sides of a room: outward normal (x, z) and the turn that makes a place look into the room.
SIDES = (((0, 1), 180.0), ((1, 0), 270.0), ((0, -1), 0.0), ((-1, 0), 90.0))


@dataclass
class Room:
    """A rectangle of floor (metres), its colours, and the openings in each of its four walls."""

    x0: float
    x1: float
    z0: float
    z1: float
    wall_name: str
    lamp: int
    openings: list[list[tuple[float, float, float, float]]] = field(default_factory=lambda: [[], [], [], []])
    doors: list[tuple[float, float]] = field(default_factory=list)

    @property
    def middle(self) -> tuple[float, float]:
        """Centre of the floor (x, z)."""
        return (self.x0 + self.x1) / 2, (self.z0 + self.z1) / 2

    @property
    def size(self) -> tuple[float, float]:
        """Extent in x and z."""
        return self.x1 - self.x0, self.z1 - self.z0

    def wall(self, side: int) -> tuple[Place, float]:
        """A place in the middle of a wall that looks into the room, and the wall's length."""
        (nx, nz), turn = SIDES[side]
        cx, cz = self.middle
        width, depth = self.size
        place = Place(cx + nx * width / 2, 0, cz + nz * depth / 2, turn)
        return place, width if nz else depth


@dataclass
class Plan:
    """A floor plan while it grows."""

    rng: np.random.Generator
    time_of_day: str
    paint: GroundPaint
    rooms: list[Room] = field(default_factory=list)
    mesh: Mesh = field(default_factory=Mesh)
    circles: list[tuple[float, float, float]] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    lamps: list[tuple[float, ...]] = field(default_factory=list)
    home: int = 0
    said: list[str] = field(default_factory=list)

    @property
    def lit(self) -> bool:
        """Whether lamps glow."""
        return self.time_of_day == "dusk"

    def say(self, room: Room, phrase: str) -> None:
        """Notes a thing of the room that the prompt tells about."""
        if room is self.rooms[self.home] and phrase not in self.said:
            self.said.append(phrase)

    def solid(self, place: Place, width: float, depth: float, shade: float = 0.5) -> None:
        """A footprint players walk round, with soft shade about it."""
        half = (width / 2, depth / 2)
        self.boxes.append((place.x, place.z, *half, math.radians(place.yaw_deg)))
        self.paint.shade(place.x, place.z, half, yaw_deg=place.yaw_deg, strength=shade, soft=0.45)


def build_rooms(seed: int, rng: np.random.Generator, time_of_day: str) -> Scene:
    """The rooms of a random stream."""
    plan = Plan(rng, time_of_day, GroundPaint(PAINTED_M, GARDEN, (0.52, 0.64, 0.34)))
    floor_name = str(rng.choice(list(FLOORS), p=[0.55, 0.27, 0.18]))
    cells = _grid(plan)
    _doors(plan, cells)
    _windows(plan, cells)
    plan.home = int(rng.integers(len(plan.rooms)))
    for index, room in enumerate(plan.rooms):
        _floor(plan, room, index, floor_name)
        _shell(plan, room)
        _furnish(plan, room, index)
    _garden(plan)
    return _finish(seed, plan, floor_name)


def _grid(plan: Plan) -> dict[tuple[int, int], Room]:
    """Rooms on a grid of uneven columns and rows, one or two cells left out."""
    rng = plan.rng
    columns, rows = ((3, 2), (2, 3), (2, 2), (3, 3))[int(rng.choice(4, p=[0.35, 0.3, 0.15, 0.2]))]
    xs = np.cumsum([0, *rng.uniform(4.2, 6.2, columns)])
    zs = np.cumsum([0, *rng.uniform(4.2, 6.2, rows)])
    xs, zs = xs - xs[-1] / 2, zs - zs[-1] / 2
    names = [str(name) for name in rng.permutation(list(WALLS))]
    every = [(i, j) for i in range(columns) for j in range(rows)]
    dropped = _droppable(
        rng, every, len(every) - 8 if len(every) > 8 else int(len(every) > 4 and rng.random() < 0.5)
    )
    cells = {}
    for cell in every:
        if cell in dropped:
            continue
        i, j = cell
        half = WALL_M / 2
        number = len(plan.rooms)
        room = Room(
            xs[i] + half,
            xs[i + 1] - half,
            zs[j] + half,
            zs[j + 1] - half,
            names[number % len(names)],
            number + 1,
        )
        plan.rooms.append(room)
        cells[cell] = room
    return cells


def _droppable(rng: np.random.Generator, cells: list[tuple[int, int]], count: int) -> set[tuple[int, int]]:
    """Corner cells to leave out: the others stay connected."""
    far = (max(i for i, _ in cells), max(j for _, j in cells))
    corners = [cell for cell in cells if cell[0] in (0, far[0]) and cell[1] in (0, far[1])]
    return {corners[int(k)] for k in rng.choice(len(corners), count, replace=False)}


def _doors(plan: Plan, cells: dict[tuple[int, int], Room]) -> None:
    """A doorway in every wall of a spanning tree, and in some others."""
    rng = plan.rng
    pairs = [(c, (c[0] + 1, c[1])) for c in cells if (c[0] + 1, c[1]) in cells]
    pairs += [(c, (c[0], c[1] + 1)) for c in cells if (c[0], c[1] + 1) in cells]
    group = {cell: index for index, cell in enumerate(cells)}
    for k in rng.permutation(len(pairs)):
        a, b = pairs[int(k)]
        if group[a] == group[b] and rng.random() > 0.5:
            continue
        old, new = group[b], group[a]
        group = {cell: new if g == old else g for cell, g in group.items()}
        _door(plan, cells[a], cells[b], sideways=a[1] == b[1])


def _door(plan: Plan, first: Room, second: Room, sideways: bool) -> None:
    rng, reach = plan.rng, DOOR_WIDTH_M / 2 + 0.45
    if sideways:
        z = rng.uniform(first.z0 + reach, first.z1 - reach)
        spot, sides = (first.x1 + WALL_M / 2, z), (1, 3)
    else:
        x = rng.uniform(first.x0 + reach, first.x1 - reach)
        spot, sides = (x, first.z1 + WALL_M / 2), (0, 2)
    for room, side in zip((first, second), sides, strict=True):
        at = _along(room, side, spot)
        room.openings[side].append((at - DOOR_WIDTH_M / 2, at + DOOR_WIDTH_M / 2, 0.0, DOOR_HEIGHT_M))
        room.doors.append(spot)
    frame = Place(*(spot[0], 0.0, spot[1]), 90.0 if sideways else 0.0)
    _door_frame(plan, frame)


def _along(room: Room, side: int, spot: tuple[float, float]) -> float:
    """Where a spot lies along a wall, from its middle, to the right when looking into the room from it."""
    place, _ = room.wall(side)
    yaw = math.radians(place.yaw_deg)
    return (spot[0] - place.x) * math.cos(yaw) - (spot[1] - place.z) * math.sin(yaw)


def _door_frame(plan: Plan, place: Place) -> None:
    depth = WALL_M + 0.1
    for x in (-1, 1):
        jamb = place.at(x * (DOOR_WIDTH_M / 2 + 0.02), 0, 0)
        plan.mesh.add(box(0.1, DOOR_HEIGHT_M, depth), TRIM, place=jamb, ao=0.85)
    plan.mesh.add(box(DOOR_WIDTH_M + 0.14, 0.1, depth), TRIM, place=place.at(0, DOOR_HEIGHT_M, 0), ao=0.85)


def _windows(plan: Plan, cells: dict[tuple[int, int], Room]) -> None:
    """One or two windows in most outer walls."""
    rng = plan.rng
    for (i, j), room in cells.items():
        for side, ((nx, nz), _) in enumerate(SIDES):
            if (i + nx, j + nz) in cells or rng.random() < 0.2:
                continue
            place, length = room.wall(side)
            width = rng.uniform(1.2, 1.9)
            spots = (0.0,) if length < 4.8 or rng.random() < 0.4 else (-length * 0.24, length * 0.24)
            for at in spots:
                room.openings[side].append((at - width / 2, at + width / 2, 0.95, 2.2))
                _window_frame(plan, place.at(at, 0.95, -WALL_M / 2), width, 1.25)


def _window_frame(plan: Plan, place: Place, width: float, height: float) -> None:
    mesh = plan.mesh
    for x in (-1, 1):
        mesh.add(box(0.09, height, WALL_M + 0.08), TRIM, place=place.at(x * width / 2, 0, 0), ao=0.9)
    for up in (-0.05, height - 0.04):
        mesh.add(box(width + 0.2, 0.09, WALL_M + 0.12), TRIM, place=place.at(0, up, 0), ao=0.9)
    mesh.add(box(0.06, height, 0.06), TRIM, place=place, ao=0.9)
    mesh.add(box(width, 0.06, 0.06), TRIM, place=place.at(0, height * 0.55, 0), ao=0.9)


def _floor(plan: Plan, room: Room, index: int, floor_name: str) -> None:
    rng = plan.rng
    name = floor_name if index == plan.home or rng.random() < 0.7 else str(rng.choice(list(FLOORS)))
    pattern, looks = FLOORS[name]
    base, accent = looks[int(rng.integers(len(looks)))]
    (x, z), (width, depth) = room.middle, room.size
    half = (width / 2 + WALL_M / 2 + 0.02, depth / 2 + WALL_M / 2 + 0.02)
    turn = 0.0
    if pattern == Pattern.PLANKS and rng.random() < 0.5:
        half, turn = half[::-1], 90.0
    plan.paint.patch(x, z, half, base, yaw_deg=turn, pattern=pattern, accent=accent, soft=0.02)
    for side in range(4):
        place, length = room.wall(side)
        plan.paint.shade(place.x, place.z, (length / 2, 0.02), yaw_deg=place.yaw_deg, strength=0.35, soft=0.7)


def _shell(plan: Plan, room: Room) -> None:
    """Walls with openings, skirting, ceiling and what stops a player."""
    colour = WALLS[room.wall_name]
    for side in range(4):
        place, length = room.wall(side)
        openings = sorted(room.openings[side])
        _wall_panel(plan, room, place, length, openings, colour)
        doors = [hole for hole in openings if hole[2] == 0.0]
        edge = -length / 2
        for left, right in [*((hole[0], hole[1]) for hole in doors), (length / 2, 0.0)]:
            run = left - edge
            if run > 0.05:
                strip = place.at((edge + left) / 2, 0, 0.02)
                plan.mesh.add(box(run, 0.13, 0.05), TRIM, place=strip, lamp=room.lamp, ao=0.75)
                wall = place.at((edge + left) / 2, 0, -WALL_M / 4)
                grown = run + (WALL_M if left == length / 2 or edge == -length / 2 else 0)
                plan.boxes.append((wall.x, wall.z, grown / 2, WALL_M / 4, math.radians(wall.yaw_deg)))
            edge = right
    _ceiling(plan, room)


def _wall_panel(
    plan: Plan,
    room: Room,
    place: Place,
    length: float,
    openings: list[tuple[float, float, float, float]],
    colour: Colour,
) -> None:
    """A wall as a grid of rectangles, shaded towards its edges, with holes."""
    half, shade = length / 2, CORNER_SHADE_M
    cuts_x = sorted({-half, -half + shade, half - shade, half, *(x for hole in openings for x in hole[:2])})
    cuts_y = sorted({0.0, shade, HEIGHT_M - shade, HEIGHT_M, *(y for hole in openings for y in hole[2:])})
    pieces = []
    for x0, x1 in itertools.pairwise(cuts_x):
        for y0, y1 in itertools.pairwise(cuts_y):
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if not any(a < x < b and c < y < d for a, b, c, d in openings):
                pieces.append(quad((x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)))
    triangles = np.concatenate(pieces)
    to_side = np.clip((half - np.abs(triangles[..., 0])) / shade, 0, 1)
    to_floor = np.clip(np.minimum(triangles[..., 1], HEIGHT_M - triangles[..., 1]) / shade, 0, 1)
    ao = (0.72 + 0.28 * to_side) * (0.74 + 0.26 * to_floor)
    plan.mesh.add(triangles, colour, place=place, ao=ao, lamp=room.lamp)
    outside = triangles[:, ::-1] - (0, 0, WALL_M / 2)  # back to back with the next room's
    plan.mesh.add(outside, TRIM, place=place, ao=1.0)


def _ceiling(plan: Plan, room: Room) -> None:
    width, depth = room.size
    xs = np.array([-width / 2, -width / 2 + 0.7, width / 2 - 0.7, width / 2])
    zs = np.array([-depth / 2, -depth / 2 + 0.7, depth / 2 - 0.7, depth / 2])
    pieces = [
        quad((x0, HEIGHT_M, z0), (x1, HEIGHT_M, z0), (x1, HEIGHT_M, z1), (x0, HEIGHT_M, z1))
        for x0, x1 in itertools.pairwise(xs)
        for z0, z1 in itertools.pairwise(zs)
    ]
    triangles = np.concatenate(pieces)
    inner = np.minimum(width / 2 - np.abs(triangles[..., 0]), depth / 2 - np.abs(triangles[..., 2])) / 0.7
    x, z = room.middle
    plan.mesh.add(
        triangles, CEILING, place=Place(x, 0, z), ao=0.78 + 0.22 * np.clip(inner, 0, 1), lamp=room.lamp
    )
    roof = box(width + 2 * WALL_M, 0.2, depth + 2 * WALL_M)
    plan.mesh.add(roof, TRIM, place=Place(x, HEIGHT_M + 0.02, z), ao=1.0)


def _furnish(plan: Plan, room: Room, index: int) -> None:
    """A lamp for the night, things along the walls, something in the middle, paintings."""
    rng, (x, z) = plan.rng, room.middle
    if plan.lit:
        warmth: Colour = (1.55, 1.05, 0.55) if rng.random() < 0.7 else (1.35, 1.10, 0.80)
        plan.lamps.append((x, -(HEIGHT_M - 0.75), z, 5.4, *warmth, 0.0))
        plan.paint.pool(x, z, 3.6, tuple(0.75 * c for c in warmth))  # type: ignore[arg-type]
    else:
        plan.lamps.append((0.0,) * 8)
    furniture.ceiling_lamp(plan.mesh, Place(x, 0, z), HEIGHT_M, plan.lit)
    style = furniture.STYLES[(index + int(rng.integers(2))) % len(furniture.STYLES)]
    _middle(plan, room, style)
    for name in style.along_walls:
        _against_wall(plan, room, name)
    for side in range(4):
        _painting(plan, room, side)


def _middle(plan: Plan, room: Room, style: furniture.Style) -> None:
    rng, (x, z), (width, depth) = plan.rng, room.middle, room.size
    if style.rug:
        colour_name, colour = furniture.pick_colour(rng)
        half = (width * rng.uniform(0.24, 0.32), depth * rng.uniform(0.24, 0.32))
        corner = min(half) if rng.random() < 0.3 else 0.08
        accent = furniture.pick_colour(rng)[1]
        plan.paint.patch(x, z, half, colour, corner=corner, soft=0.03, pattern=Pattern.RUG, accent=accent)
        plan.say(room, f"a {colour_name} rug")
    if style.centre is not None and min(room.size) > 4.0:
        place = Place(x, 0, z, float(rng.choice([0, 90])))
        wide, deep, phrase = furniture.BUILDERS[style.centre](plan.mesh, place, rng, room.lamp)
        plan.solid(place, wide, deep)
        plan.say(room, phrase)


def _against_wall(plan: Plan, room: Room, name: str) -> None:
    """Puts a piece of furniture where it blocks no door, window-high pieces away from windows."""
    rng = plan.rng
    scratch = Mesh()
    state = rng.bit_generator.state
    wide, deep, phrase = furniture.BUILDERS[name](scratch, Place(), rng, room.lamp)
    for _ in range(12):
        side = int(rng.integers(4))
        wall, length = room.wall(side)
        slack = length / 2 - wide / 2 - 0.08
        if slack <= 0:
            continue
        at = rng.uniform(-slack, slack)
        blocked = name in furniture.TALL and any(
            hole[0] - 0.1 < at + wide / 2 and hole[1] + 0.1 > at - wide / 2 for hole in room.openings[side]
        )
        place = wall.at(at, 0, deep / 2 + 0.06)
        if blocked or not _fits(plan, room, place, wide, deep):
            continue
        after = rng.bit_generator.state
        rng.bit_generator.state = state
        furniture.BUILDERS[name](plan.mesh, place, rng, room.lamp)
        rng.bit_generator.state = after
        plan.solid(place, wide, deep)
        plan.say(room, phrase)
        return


def _fits(plan: Plan, room: Room, place: Place, wide: float, deep: float) -> bool:
    """Whether a piece leaves doors and other pieces alone."""
    reach = 0.5 * math.hypot(wide, deep)
    corners = place(np.array([[sx * wide / 2, 0, sz * deep / 2] for sx in (-1, 0, 1) for sz in (-1, 1)]))
    for x, z in room.doors:
        nearest = np.hypot(corners[:, 0] - x, corners[:, 2] - z).min()
        if nearest < DOOR_KEEP_FREE_M + 0.3:
            return False
    for other in plan.boxes:
        if math.hypot(place.x - other[0], place.z - other[1]) < reach + math.hypot(other[2], other[3]):
            test = Solids(np.zeros((0, 3)), np.array([other]), 1e3)
            edge = place(_outline(wide, deep))[:, [0, 2]]
            if test.clearance_m(edge).min() < 0.03:
                return False
    return True


def _outline(wide: float, deep: float) -> NDArray[np.float64]:
    steps = np.linspace(-0.5, 0.5, 7)
    return np.array([[x * wide, 0, z * deep] for x in steps for z in steps])


def _painting(plan: Plan, room: Room, side: int) -> None:
    rng = plan.rng
    wall, length = room.wall(side)
    if rng.random() < 0.35:
        return
    width, height = rng.uniform(0.7, 1.3), rng.uniform(0.55, 0.85)
    for _ in range(5):
        at = rng.uniform(-1, 1) * (length / 2 - width / 2 - 0.4)
        if all(
            hole[1] + 0.25 < at - width / 2 or hole[0] - 0.25 > at + width / 2 for hole in room.openings[side]
        ):
            furniture.painting(plan.mesh, wall.at(at, 1.35, 0), width, height, room.lamp, rng)
            return


def _garden(plan: Plan) -> None:
    """The painted floor, and lawn round the house."""
    reach, far = PAINTED_M, 80.0
    flat = quad((-reach, 0, -reach), (-reach, 0, reach), (reach, 0, reach), (reach, 0, -reach))
    plan.mesh.add(flat, GARDEN, material=Material.GROUND, ao=1.0)
    for turn in range(0, 360, 90):
        rim = quad((-reach, -0.01, reach), (-far, -0.5, far), (far, -0.5, far), (reach, -0.01, reach))
        plan.mesh.add(rim, GARDEN, place=Place(yaw_deg=turn), ao=1.0)


def _finish(seed: int, plan: Plan, floor_name: str) -> Scene:
    rng = plan.rng
    reach = max(max(abs(v) for v in (room.x0, room.x1, room.z0, room.z1)) for room in plan.rooms)
    solids = Solids(
        np.array(plan.circles, np.float64).reshape(-1, 3),
        np.array(plan.boxes, np.float64).reshape(-1, 5),
        60.0,
    )
    lamps = np.zeros((MAX_LAMPS, 8), np.float32)
    lamps[1 : len(plan.lamps) + 1] = plan.lamps
    decals, lights = plan.paint.packed()
    air = atmosphere(rng, plan.time_of_day, GARDEN)
    walls = plan.rooms[plan.home].wall_name
    points, starts = _meeting_points(plan, solids)
    return Scene(
        seed=seed,
        kind="rooms",
        time_of_day=plan.time_of_day,
        prompt=rooms_prompt(plan.time_of_day, walls, plan.said, floor_name, rng),
        vertices=plan.mesh.pack(),
        atmosphere=furniture.indoors(air, plan.time_of_day),
        ground=Ground(PAINTED_M, GARDEN, (0.52, 0.64, 0.34), decals, lights, reach * 1.5),
        lamps=lamps,
        solids=solids,
        coat=COATS[int(rng.integers(len(COATS)))],
        hat=HATS[int(rng.integers(len(HATS)))],
        meeting_points=points,
        starts=starts,
        crowns=np.zeros((0, 3)),
    )


def _meeting_points(plan: Plan, solids: Solids) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Doorways and free places [n, 2], and which of them (one or more) lie in the room of the prompt."""
    points = sorted({spot for room in plan.rooms for spot in room.doors})
    for room in plan.rooms:
        x, z = plan.rng.uniform((room.x0, room.z0), (room.x1, room.z1), (40, 2)).T
        free = np.stack([x, z], axis=-1)
        points += [(float(p[0]), float(p[1])) for p in free[solids.clearance_m(free) > FREE_MARGIN_M][:7]]
    every = np.array(points)
    every = every[solids.clearance_m(every) > DOORWAY_MARGIN_M]
    home = plan.rooms[plan.home]
    inside = (
        (every[:, 0] > home.x0) & (every[:, 0] < home.x1) & (every[:, 1] > home.z0) & (every[:, 1] < home.z1)
    )
    if not inside.any():  # so much furniture that no random place was free
        added = roomiest_points(solids, (home.x0, home.x1), (home.z0, home.z1))
        every, inside = np.concatenate([every, added]), np.repeat((False, True), (len(every), len(added)))
    return every, np.flatnonzero(inside)
