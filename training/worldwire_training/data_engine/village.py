"""A village from a seed: houses round a plaza, streets, trees, a pond, a landmark, hills and sky."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worldwire_training.data_engine import props
from worldwire_training.data_engine.atmosphere import Colour, atmosphere
from worldwire_training.data_engine.ground import GroundPaint, Pattern
from worldwire_training.data_engine.mesh import Material, Mesh, Place, quad
from worldwire_training.data_engine.navigation import free_points
from worldwire_training.data_engine.prompts import COATS, HATS, village_prompt
from worldwire_training.data_engine.scene import MAX_LAMPS, Ground, Scene
from worldwire_training.data_engine.solids import Solids

BOUNDARY_M = 33.0
WALK_WITHIN_M, MEETING_POINTS = 27.0, 70
PAINTED_M = 42.0
HILLS_FROM_M, HILLS_TO_M = 36.0, 150.0
STREET_REACH_M = 31.0
STREET_WIDTH_M = 3.2
STREET_KEEP_FREE_M = 3.3

WALLS: tuple[Colour, ...] = (
    (0.96, 0.90, 0.78),
    (0.95, 0.80, 0.52),
    (0.86, 0.56, 0.44),
    (0.62, 0.76, 0.80),
    (0.70, 0.80, 0.62),
    (0.92, 0.72, 0.70),
    (0.90, 0.90, 0.90),
    (0.74, 0.66, 0.82),
    (0.55, 0.64, 0.78),
    (0.84, 0.42, 0.36),
)
ROOFS: dict[str, tuple[Colour, ...]] = {
    "red": ((0.74, 0.24, 0.18), (0.82, 0.32, 0.20), (0.66, 0.20, 0.22)),
    "brown": ((0.46, 0.30, 0.20), (0.54, 0.36, 0.24), (0.40, 0.25, 0.19)),
    "blue": ((0.26, 0.36, 0.54), (0.32, 0.42, 0.60), (0.24, 0.30, 0.46)),
    "green": ((0.26, 0.44, 0.34), (0.32, 0.50, 0.38), (0.22, 0.38, 0.32)),
    "orange": ((0.86, 0.48, 0.20), (0.90, 0.56, 0.26), (0.80, 0.42, 0.18)),
}


@dataclass(frozen=True)
class Season:
    """Colours of the land in a season."""

    name: str
    grass: Colour
    grass_second: Colour
    leaves: tuple[Colour, ...]
    pine: Colour
    path: Colour


SEASONS = (
    Season(
        "summer",
        (0.42, 0.60, 0.26),
        (0.54, 0.68, 0.30),
        ((0.30, 0.52, 0.22), (0.40, 0.60, 0.26), (0.24, 0.46, 0.26)),
        (0.16, 0.38, 0.27),
        (0.80, 0.70, 0.52),
    ),
    Season(
        "autumn",
        (0.60, 0.58, 0.28),
        (0.70, 0.60, 0.32),
        ((0.86, 0.46, 0.16), (0.90, 0.62, 0.20), (0.74, 0.30, 0.16)),
        (0.22, 0.38, 0.24),
        (0.72, 0.60, 0.46),
    ),
    Season(
        "winter",
        (0.90, 0.93, 0.97),
        (0.82, 0.88, 0.95),
        ((0.84, 0.89, 0.94), (0.74, 0.82, 0.88)),
        (0.34, 0.50, 0.48),
        (0.70, 0.66, 0.62),
    ),
)
SEASON_ODDS = (0.55, 0.28, 0.17)


@dataclass
class Plan:
    """Ground plan while a village grows: what is taken, and what goes where."""

    rng: np.random.Generator
    time_of_day: str
    season: Season
    paint: GroundPaint
    mesh: Mesh = field(default_factory=Mesh)
    circles: list[tuple[float, float, float]] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float, float]] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    streets: list[float] = field(default_factory=list)
    lamps: list[tuple[float, ...]] = field(default_factory=list)
    crowns: list[tuple[float, float, float]] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)

    @property
    def lit(self) -> bool:
        """Whether lamps and windows glow."""
        return self.time_of_day == "dusk"

    def claim(self, x: float, z: float, radius: float, street_margin: float = STREET_KEEP_FREE_M) -> bool:
        """Takes a disc of ground unless something or a street is there."""
        if any(math.hypot(x - a, z - b) < radius + r for a, b, r in self.taken):
            return False
        if self.street_distance(x, z) < street_margin + radius:
            return False
        self.taken.append((x, z, radius))
        return True

    def street_distance(self, x: float, z: float) -> float:
        """Metres to the middle line of the nearest street."""
        nearest = math.inf
        for azimuth in self.streets:
            along = max(0.0, x * math.sin(azimuth) + z * math.cos(azimuth))
            along = min(along, STREET_REACH_M)
            nearest = min(nearest, math.hypot(x - along * math.sin(azimuth), z - along * math.cos(azimuth)))
        return nearest

    def solid_box(self, place: Place, width: float, depth: float, shade: float = 0.6) -> None:
        """A footprint players walk round, with soft shade about it."""
        half = (width / 2, depth / 2)
        self.boxes.append((place.x, place.z, *half, math.radians(place.yaw_deg)))
        self.paint.shade(place.x, place.z, half, yaw_deg=place.yaw_deg, strength=shade)

    def solid_circle(self, x: float, z: float, radius: float, shade_radius: float | None = None) -> None:
        """A round footprint with soft shade about it."""
        self.circles.append((x, z, radius))
        reach = shade_radius or radius
        self.paint.shade(x, z, (reach, reach), round_=True, soft=max(0.35, reach * 0.6), strength=0.5)

    def nearest_lamp(self, x: float, z: float, reach: float = 9.0) -> int:
        """Index of the lamp that lights a thing, 0 if none is near."""
        best, index = reach, 0
        for i, lamp in enumerate(self.lamps):
            distance = math.hypot(lamp[0] - x, lamp[2] - z)
            if distance < best:
                best, index = distance, i + 1
        return index


def build_village(seed: int, rng: np.random.Generator, time_of_day: str) -> Scene:
    """The village of a random stream."""
    season = SEASONS[int(rng.choice(len(SEASONS), p=SEASON_ODDS))]
    plan = Plan(rng, time_of_day, season, GroundPaint(PAINTED_M, season.grass, season.grass_second))
    plaza_radius = rng.uniform(7.0, 9.0)
    _streets_and_plaza(plan, plaza_radius)
    _lamps(plan, plaza_radius)
    _pond(plan)
    _landmark(plan)
    _houses(plan, plaza_radius)
    _trees_and_bushes(plan)
    _small_things(plan, plaza_radius)
    _meadow(plan)
    _hills(plan)
    return _finish(seed, plan)


def _streets_and_plaza(plan: Plan, plaza_radius: float) -> None:
    rng, paint, path = plan.rng, plan.paint, plan.season.path
    count = int(rng.integers(3, 5))
    start = rng.uniform(0, 2 * math.pi)
    plan.streets = [start + 2 * math.pi * (i + rng.uniform(-0.17, 0.17)) / count for i in range(count)]
    for azimuth in plan.streets:
        end = (STREET_REACH_M * math.sin(azimuth), STREET_REACH_M * math.cos(azimuth))
        paint.path((0, 0), end, STREET_WIDTH_M, path, soft=0.12, wobble=0.35)
    stone: Colour = (0.78, 0.72, 0.64) if rng.random() < 0.6 else path
    accent: Colour = (0.62, 0.56, 0.50)
    paint.disc(0, 0, plaza_radius, stone, soft=0.15, wobble=0.2, pattern=Pattern.COBBLES, accent=accent)
    _centre_piece(plan)
    plan.taken.append((0.0, 0.0, plaza_radius + 0.5))


def _centre_piece(plan: Plan) -> None:
    rng, mesh = plan.rng, plan.mesh
    kind = str(rng.choice(["well", "fountain", "oak", "statue", "none"], p=[0.25, 0.25, 0.2, 0.15, 0.15]))
    here = Place(yaw_deg=rng.uniform(0, 360))
    if kind == "well":
        props.well(mesh, here, ROOFS["brown"][0])
        plan.solid_circle(0, 0, 1.15, 1.2)
    elif kind == "fountain":
        props.fountain(mesh, here)
        plan.solid_circle(0, 0, 1.85, 1.9)
    elif kind == "oak":
        props.broadleaf(mesh, here, rng, plan.season.leaves[0], 6.5)
        plan.solid_circle(0, 0, 0.55, 1.4)
        plan.crowns.append((0.0, 0.0, 3.4))
    elif kind == "statue":
        props.statue(mesh, here)
        plan.solid_circle(0, 0, 1.0, 1.1)
    if kind != "none":
        plan.said["centre"] = kind


def _lamps(plan: Plan, plaza_radius: float) -> None:
    rng = plan.rng
    spots = [
        (azimuth + side * math.radians(10), distance)
        for azimuth in plan.streets
        for side, distance in ((1, plaza_radius + 1.6), (-0.55, plaza_radius + 10.5))
    ]
    for azimuth, distance in spots[: MAX_LAMPS - 1]:
        if rng.random() < 0.2:
            continue
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        plan.taken.append((x, z, 0.4))
        top = props.lamp_post(plan.mesh, Place(x, 0, z, math.degrees(azimuth)), plan.lit)
        plan.solid_circle(x, z, 0.14, 0.25)
        if plan.lit:
            plan.lamps.append((x, -top, z, 7.0, 1.5, 0.95, 0.42, 0.0))
            plan.paint.pool(x, z, 6.5, (1.3, 0.80, 0.34))


def _pond(plan: Plan) -> None:
    rng = plan.rng
    if rng.random() < 0.25:
        return
    for _ in range(40):
        azimuth, distance, radius = rng.uniform(0, 2 * math.pi), rng.uniform(17, 24), rng.uniform(3.6, 6.0)
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        if not plan.claim(x, z, radius + 0.8, street_margin=2.4):
            continue
        sand = (0.78, 0.70, 0.52) if plan.season.name != "winter" else (0.72, 0.74, 0.78)
        plan.paint.disc(x, z, radius + 0.7, sand, soft=0.5, wobble=0.5)
        props.pond(plan.mesh, Place(x, 0, z), radius, rng)
        plan.circles.append((x, z, radius + 0.1))
        for _ in range(int(rng.integers(4, 9))):
            turn = rng.uniform(0, 2 * math.pi)
            edge = radius + rng.uniform(0.1, 0.4)
            spot = Place(x + edge * math.sin(turn), 0, z + edge * math.cos(turn), rng.uniform(0, 360))
            props.rock(plan.mesh, spot, rng)
        plan.said["pond"] = "pond"
        return


def _landmark(plan: Plan) -> None:
    rng = plan.rng
    kind = str(rng.choice(["church", "windmill", "tower", "none"], p=[0.28, 0.28, 0.22, 0.22]))
    if kind == "none":
        return
    for _ in range(60):
        azimuth, distance = rng.uniform(0, 2 * math.pi), rng.uniform(19, 26)
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        if not plan.claim(x, z, 4.4, street_margin=1.6):
            continue
        place = Place(x, 0, z, math.degrees(azimuth) + 180)
        wall, roof = WALLS[int(rng.choice([0, 6]))], ROOFS[str(rng.choice(list(ROOFS)))][0]
        if kind == "church":
            width, depth = props.church(plan.mesh, place, wall, roof, plan.lit)
            plan.solid_box(place, width, depth)
        elif kind == "windmill":
            props.windmill(plan.mesh, place, wall, roof, plan.lit, rng.uniform(0, 90))
            plan.solid_circle(x, z, 2.3, 2.5)
        else:
            props.tower(plan.mesh, place, roof, plan.lit)
            plan.solid_circle(x, z, 2.2, 2.4)
        plan.said["landmark"] = kind
        return


def _houses(plan: Plan, plaza_radius: float) -> None:
    rng = plan.rng
    roof_name = str(rng.choice(list(ROOFS)))
    plan.said["roofs"] = roof_name
    walls = rng.permutation(len(WALLS))
    wanted, built = int(rng.integers(9, 16)), 0
    for attempt in range(260):
        if built >= wanted:
            break
        inner = attempt < 90
        width, depth = rng.uniform(4.2, 6.2), rng.uniform(4.2, 5.6)
        radius = 0.5 * math.hypot(width, depth)
        azimuth = rng.uniform(0, 2 * math.pi)
        distance = plaza_radius + radius + 0.6 + rng.uniform(0, 2.0) if inner else rng.uniform(16, 29)
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        if not plan.claim(x, z, radius, street_margin=0.9):
            continue
        place = Place(x, 0, z, math.degrees(azimuth) + 180 + rng.uniform(-12, 12))
        _house(plan, place, width, depth, WALLS[int(walls[built % len(walls)])], roof_name)
        built += 1


def _house(plan: Plan, place: Place, width: float, depth: float, wall: Colour, roof_name: str) -> None:
    rng = plan.rng
    shades = ROOFS[roof_name]
    roof = shades[int(rng.integers(len(shades)))]
    look = props.HouseLook(
        width=width,
        depth=depth,
        floors=2 if rng.random() < 0.4 else 1,
        wall=wall,
        roof=roof,
        timbered=rng.random() < 0.3,
        turned=rng.random() < 0.4,
        lit=plan.lit,
        lamp=plan.nearest_lamp(place.x, place.z) if plan.lit else 0,
    )
    props.house(plan.mesh, place, look, rng)
    plan.solid_box(place, width, depth)
    front = place.at(0, 0, depth / 2 + 0.7)
    plan.paint.patch(
        front.x,
        front.z,
        (0.7, 0.8),
        plan.season.path,
        yaw_deg=front.yaw_deg,
        corner=0.3,
        soft=0.1,
        wobble=0.1,
    )


def _trees_and_bushes(plan: Plan) -> None:
    rng, season = plan.rng, plan.season
    style = str(rng.choice(["pines", "oaks", "birches", "poplars"]))
    plan.said["trees"] = style
    planted, wanted = 0, int(rng.integers(16, 30))
    for _ in range(220):
        if planted >= wanted:
            break
        azimuth, distance = rng.uniform(0, 2 * math.pi), 33.5 * math.sqrt(rng.uniform(0.14, 1.0))
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        if not plan.claim(x, z, 1.1, street_margin=2.2):
            continue
        leaves = season.leaves[int(rng.integers(len(season.leaves)))]
        place = Place(x, 0, z, rng.uniform(0, 360))
        trunk, crown = props.tree(plan.mesh, place, rng, style, leaves, season.pine)
        plan.solid_circle(x, z, trunk, max(1.0, 0.8 * trunk))
        plan.crowns.append((x, z, crown))
        planted += 1
    for _ in range(60):
        azimuth, distance = rng.uniform(0, 2 * math.pi), rng.uniform(10, 32)
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        if plan.claim(x, z, 0.55, street_margin=1.9):
            leaves = season.leaves[int(rng.integers(len(season.leaves)))]
            props.bush(plan.mesh, Place(x, 0, z, rng.uniform(0, 360)), rng, leaves)
            plan.solid_circle(x, z, 0.5, 0.6)


def _small_things(plan: Plan, plaza_radius: float) -> None:
    rng = plan.rng
    for _ in range(4):
        azimuth = rng.uniform(0, 2 * math.pi)
        x, z = (plaza_radius - 0.9) * math.sin(azimuth), (plaza_radius - 0.9) * math.cos(azimuth)
        if plan.street_distance(x, z) < 2.6:
            continue
        place = Place(x, 0, z, math.degrees(azimuth) + 180)
        if rng.random() < 0.5:
            props.bench(plan.mesh, place)
            plan.solid_box(place, 1.5, 0.5, 0.4)
        else:
            colour = [(0.80, 0.24, 0.20), (0.20, 0.44, 0.66), (0.92, 0.70, 0.24)][int(rng.integers(3))]
            props.stall(plan.mesh, place, colour)
            plan.solid_box(place, 2.2, 1.3, 0.5)
            plan.said["small"] = "a market stall"
    for _ in range(8):
        azimuth, distance = rng.uniform(0, 2 * math.pi), rng.uniform(18, 31)
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        if not plan.claim(x, z, 1.8, street_margin=1.0):
            continue
        place = Place(x, 0, z, rng.uniform(0, 360))
        if rng.random() < 0.6:
            length = rng.uniform(2.6, 3.5)
            props.fence(plan.mesh, place, length)
            plan.solid_box(place, length, 0.16, 0.3)
            plan.said.setdefault("small", "a fence")
        else:
            props.hay(plan.mesh, place)
            plan.solid_circle(x, z, 0.95, 1.0)
            plan.said.setdefault("small", "hay")


def _meadow(plan: Plan) -> None:
    """Flower beds and large soft drifts of another green."""
    rng, season = plan.rng, plan.season
    drifts = []
    for _ in range(14):
        azimuth, distance = rng.uniform(0, 2 * math.pi), rng.uniform(10, 40)
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        shade = tuple(c * f for c, f in zip(season.grass, (0.84, 0.88, 0.86), strict=True))
        drifts.append((x, z, rng.uniform(2, 5), shade))
    kept = plan.paint.decals
    plan.paint.decals = []
    for x, z, radius, shade in drifts:
        plan.paint.disc(x, z, radius, shade, soft=2.0, wobble=1.5, opacity=0.7)  # type: ignore[arg-type]
    if season.name == "summer":
        palette = [(0.95, 0.85, 0.35), (0.92, 0.45, 0.50), (0.97, 0.97, 0.95), (0.66, 0.50, 0.85)]
        for _ in range(8):
            azimuth, distance = rng.uniform(0, 2 * math.pi), rng.uniform(11, 32)
            x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
            plan.paint.disc(
                x,
                z,
                rng.uniform(1.0, 2.2),
                season.grass,
                soft=0.8,
                wobble=0.6,
                pattern=Pattern.FLOWERS,
                accent=palette[int(rng.integers(len(palette)))],
            )
    plan.paint.decals += kept


def _hills(plan: Plan) -> None:
    """Flat ground as one quad, then rolling hills with a forest."""
    reach = PAINTED_M
    flat = quad((-reach, 0, -reach), (-reach, 0, reach), (reach, 0, reach), (reach, 0, -reach))
    plan.mesh.add(flat, plan.season.grass, material=Material.GROUND, ao=1.0)
    heights = _HillShape(plan.rng)
    _hill_mesh(plan, heights)
    _forest(plan, heights)


class _HillShape:
    """Height of the land round the village: zero inside, rolling outside."""

    def __init__(self, rng: np.random.Generator):
        self.phases, self.amplitude = rng.uniform(0, 2 * math.pi, 3), rng.uniform(12, 24)

    def __call__(self, x: NDArray[np.float64], z: NDArray[np.float64]) -> NDArray[np.float64]:
        distance, azimuth = np.hypot(x, z), np.arctan2(x, z)
        p0, p1, p2 = self.phases
        wave = (
            0.55
            + 0.3 * np.sin(2 * azimuth + p0)
            + 0.2 * np.sin(3 * azimuth + p1)
            + 0.1 * np.sin(7 * azimuth + p2)
        )
        rise = np.clip((distance - HILLS_FROM_M) / (HILLS_TO_M - HILLS_FROM_M), 0, 1)
        return np.asarray(self.amplitude * np.maximum(wave, 0.12) * rise**1.35 * (1.55 - rise))


def _hill_mesh(plan: Plan, heights: _HillShape) -> None:
    rings = HILLS_FROM_M + (HILLS_TO_M - HILLS_FROM_M) * np.linspace(0, 1, 9) ** 1.6
    azimuth = np.linspace(0, 2 * math.pi, 65)
    x, z = rings[:, None] * np.sin(azimuth), rings[:, None] * np.cos(azimuth)
    up = heights(x, z) - 0.02
    points = np.stack([x, up, z], axis=-1)
    gx = (heights(x + 0.5, z) - heights(x - 0.5, z)) / 1.0
    gz = (heights(x, z + 0.5) - heights(x, z - 0.5)) / 1.0
    normals = np.stack([-gx, np.ones_like(gx), -gz], axis=-1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    mix = 0.5 + 0.5 * np.sin(3 * azimuth + heights.phases[0])[None] * np.cos(rings / 17)[:, None]
    base, second = np.array(plan.season.grass), np.array(plan.season.grass_second)
    colours = base + (second - base) * mix[..., None] * 0.8

    def soup(grid: NDArray[np.float64]) -> NDArray[np.float64]:
        a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
        return np.concatenate(
            [np.stack([a, b, c], -2).reshape(-1, 3, 3), np.stack([a, c, d], -2).reshape(-1, 3, 3)]
        )

    plan.mesh.add(soup(points), soup(colours), normals=soup(normals), ao=1.0)


def _forest(plan: Plan, heights: _HillShape) -> None:
    rng = plan.rng
    count = int(rng.integers(90, 150))
    centre = rng.uniform(0, 2 * math.pi, 5)
    for _ in range(count):
        azimuth = centre[int(rng.integers(5))] + rng.normal(0, 0.35)
        distance = 37 + abs(rng.normal(0, 14))
        x, z = distance * math.sin(azimuth), distance * math.cos(azimuth)
        up = float(heights(np.array(x), np.array(z))) - 0.1
        leaves = plan.season.leaves[int(rng.integers(len(plan.season.leaves)))]
        props.far_tree(plan.mesh, Place(x, up, z), rng, plan.said["trees"], leaves, plan.season.pine)


def _finish(seed: int, plan: Plan) -> Scene:
    rng = plan.rng
    solids = Solids(
        np.array(plan.circles, np.float64).reshape(-1, 3),
        np.array(plan.boxes, np.float64).reshape(-1, 5),
        BOUNDARY_M,
    )
    lamps = np.zeros((MAX_LAMPS, 8), np.float32)
    if plan.lamps:
        lamps[1 : len(plan.lamps) + 1] = plan.lamps
    decals, lights = plan.paint.packed()
    base = plan.season.grass
    coat, hat = COATS[int(rng.integers(len(COATS)))], HATS[int(rng.integers(len(HATS)))]
    points = free_points(solids, rng, MEETING_POINTS, WALK_WITHIN_M)
    return Scene(
        seed=seed,
        kind="village",
        time_of_day=plan.time_of_day,
        prompt=village_prompt(plan.time_of_day, plan.season.name, plan.said, rng),
        vertices=plan.mesh.pack(),
        atmosphere=atmosphere(rng, plan.time_of_day, base),
        ground=Ground(PAINTED_M, base, plan.season.grass_second, decals, lights, 40.0),
        lamps=lamps,
        solids=solids,
        coat=coat,
        hat=hat,
        meeting_points=points,
        starts=np.arange(len(points)),
        crowns=np.array(plan.crowns, np.float64).reshape(-1, 3),
    )
