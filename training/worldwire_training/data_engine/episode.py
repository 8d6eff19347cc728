"""One episode: a player explores a scene, and every frame is rendered with its exact pose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import ConfigError
from worldwire.inputs import Inputs
from worldwire.motion import VIEWS, MotionModel
from worldwire_training.data_engine.avatar import avatar_track
from worldwire_training.data_engine.player import Player, moving_share, track_rows
from worldwire_training.data_engine.policies import MIXTURES, draw_mixture, new_hand
from worldwire_training.data_engine.prompts import third_person
from worldwire_training.data_engine.renderer import Renderer
from worldwire_training.data_engine.scene import Scene, build_scene
from worldwire_training.data_engine.solids import PLAYER_RADIUS_M

Array = NDArray[np.float64]
EPISODE_STREAM = 0xE915
THIRD_PERSON_SHARE = 0.4
ATTEMPTS, ATTEMPTS_PER_POLICY = 18, 6
MIN_MOVING_SHARE = 0.75
STARE_DISTANCE_M = 0.7
MAX_STARE_SHARE = 0.08
MAX_BUMP_SHARE = 0.25
START_CLEARANCE_M = 0.6
THIRD_START_CLEARANCE_M = 3.0
BOOM_MARGIN_M = 0.45
WALL_AHEAD = np.array([0.0, 0.33, 0.66, 1.0])


@dataclass(frozen=True)
class Episode:
    """What one player did and saw.

    frames: u8 [F, H, W, 3]. keys: bool [F, 6] in the order of `worldwire.inputs.KEYS`. look_deg: f32 [F, 2],
    the turn of each frame (yaw + right, pitch + up). Action f leads to frame f; action 0 is neutral.
    c2w: f64 [F, 4, 4] camera-to-world in scene coordinates (metres, OpenCV axes). player: f64 [F, 5] x, y, z,
    yaw, pitch, or None for real captures. intrinsics: fx, fy, cx, cy in pixels. actions_known: False for
    captures without a log of keys and mouse; their keys and look_deg are zeros.
    """

    frames: NDArray[np.uint8]
    keys: NDArray[np.bool_]
    look_deg: NDArray[np.float32]
    c2w: Array
    player: Array | None
    intrinsics: Array
    prompt: str
    view: str
    kind: str
    time_of_day: str
    frames_per_second: float
    scene_seed: int | None = None
    policy: str | None = None
    actions_known: bool = True


@dataclass(frozen=True)
class Walk:
    """A player's actions and path, before anything is rendered. Shapes as in `Episode`."""

    keys: NDArray[np.bool_]
    look_deg: NDArray[np.float32]
    player: Array
    bumps: int
    policy: str


def record_episode(
    renderer: Renderer,
    seed: int,
    frames: int,
    view: str | None = None,
    kind: str | None = None,
    time_of_day: str | None = None,
) -> Episode:
    """The episode of a seed: its scene, a walk in it, its pictures.

    view: 'first' or 'third' (third only in the village); drawn if None, as are kind and time_of_day.
    """
    rng = np.random.default_rng((EPISODE_STREAM, seed))
    third = bool(rng.random() < THIRD_PERSON_SHARE)
    if view == "third" and kind is None:
        kind = "village"
    scene = build_scene(seed, kind, time_of_day)
    if view is None:
        view = "third" if third and scene.kind == "village" else "first"
    _check_view(view, scene)
    return render_walk(renderer, scene, view, plan_walk(scene, rng, frames, view))


def render_walk(renderer: Renderer, scene: Scene, view: str, walk: Walk) -> Episode:
    """The pictures of a walk."""
    motion = MotionModel()
    c2w = cameras(walk.player, view, motion)
    pictures = renderer.render(scene, c2w, avatar_track(walk.player) if view == "third" else None)
    k = renderer.intrinsics
    return Episode(
        frames=pictures,
        keys=walk.keys,
        look_deg=walk.look_deg,
        c2w=c2w,
        player=walk.player,
        intrinsics=np.array([k.fx, k.fy, k.cx, k.cy]),
        prompt=third_person(scene.prompt, scene.coat[0]) if view == "third" else scene.prompt,
        view=view,
        kind=scene.kind,
        time_of_day=scene.time_of_day,
        frames_per_second=motion.frames_per_second,
        scene_seed=scene.seed,
        policy=walk.policy,
    )


def cameras(player: Array, view: str, motion: MotionModel) -> Array:
    """Camera poses [F, 4, 4] of player poses [F, 5]."""
    yaw, pitch = np.radians(player[:, 3]), np.radians(player[:, 4])
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    c2w = np.zeros((len(player), 4, 4))
    c2w[:, 0, 0], c2w[:, 0, 1], c2w[:, 0, 2] = cy, sy * sp, sy * cp
    c2w[:, 1, 1], c2w[:, 1, 2] = cp, -sp
    c2w[:, 2, 0], c2w[:, 2, 1], c2w[:, 2, 2] = -sy, cy * sp, cy * cp
    boom = np.array(motion.boom_m if view == "third" else (0.0, 0.0, 0.0))
    c2w[:, :3, 3] = player[:, :3] + c2w[:, :3, :3] @ boom
    c2w[:, 3, 3] = 1
    return c2w


def plan_walk(scene: Scene, rng: np.random.Generator, frames: int, view: str) -> Walk:
    """A walk that keeps moving, seldom faces a wall, and leaves a third-person camera room."""
    best, best_fault = None, np.inf
    for attempt in range(ATTEMPTS if view == "first" else 2 * ATTEMPTS):
        if attempt % ATTEMPTS_PER_POLICY == 0:
            policy = draw_mixture(rng)
        walk = _try_walk(scene, rng, frames, view, policy, attempt)
        fault = _fault(scene, walk, view)
        if fault < best_fault:
            best, best_fault = walk, fault
        if fault <= 0:
            break
    assert best is not None
    return best


def _try_walk(
    scene: Scene, rng: np.random.Generator, frames: int, view: str, policy: str, attempt: int
) -> Walk:
    hand = new_hand(rng, view)
    x, z = _start(scene, rng, view, attempt)
    player = Player(scene, x, z, float(rng.uniform(-180, 180)))
    _face_open(player, rng)
    poses, keys = [player.pose], np.zeros((frames, 6), np.bool_)
    look = np.zeros((frames, 2), np.float32)
    acting = MIXTURES[policy][0](player, hand)
    for frame in range(1, frames):
        # the look is kept as float32, so that the recorded actions give the recorded poses exactly
        asked = next(acting)
        look[frame] = asked.yaw_deg, asked.pitch_deg
        done = Inputs(asked.keys, yaw_deg=float(look[frame, 0]), pitch_deg=float(look[frame, 1]))
        keys[frame] = done.key_vector() > 0
        poses.append(player.step(done))
    return Walk(keys, look, track_rows(poses), player.bumps, policy)


def _start(scene: Scene, rng: np.random.Generator, view: str, attempt: int) -> Array:
    """A place to begin; third person begins where the boom can swing."""
    points = scene.meeting_points[scene.starts]
    room = scene.solids.clearance_m(points)
    wide = room > (START_CLEARANCE_M if view == "first" else THIRD_START_CLEARANCE_M)
    if not wide.any():
        wide = room >= np.sort(room)[-min(5, len(room))]
    candidates = points[wide]
    if view == "third" and attempt >= ATTEMPTS:  # be less choosy about variety, more about room
        candidates = points[np.argsort(-room)[:6]]
    return np.asarray(candidates[int(rng.integers(len(candidates)))])


def _face_open(player: Player, rng: np.random.Generator) -> None:
    """Turns a new player towards the most open of a few directions."""
    turns = rng.uniform(-180, 180, 5)
    reach = np.linspace(0.8, 6.0, 8)
    points = [[player.ahead(float(d), float(turn)) for d in reach] for turn in turns]
    free = (player.scene.solids.clearance_m(np.array(points)) > 0.3).cumprod(axis=1).sum(axis=1)
    yaw = (player.pose.yaw_deg + float(turns[int(free.argmax())]) + 180) % 360 - 180
    player.pose = replace(player.pose, yaw_deg=yaw)


def _fault(scene: Scene, walk: Walk, view: str) -> float:
    """How far a walk is from what is wanted; 0 or less is good."""
    frames = len(walk.player)
    still = MIN_MOVING_SHARE - moving_share(walk.player) if frames > 1 else 0.0
    stare = stare_share(scene, walk.player) - MAX_STARE_SHARE
    bump = walk.bumps / frames - MAX_BUMP_SHARE
    fault = max(still, stare, bump, 0.0)
    return fault + (10.0 * boom_blocked_share(scene, walk.player) if view == "third" else 0.0)


def stare_share(scene: Scene, player: Array) -> float:
    """Share of the frames that look straight at a solid closer than 0.7 m."""
    yaw = np.radians(player[:, 3])
    ahead = np.stack([np.sin(yaw), np.cos(yaw)], axis=-1)[:, None] * (WALL_AHEAD * STARE_DISTANCE_M)[:, None]
    return float((scene.solids.clearance_m(player[:, None, [0, 2]] + ahead) < 0.0).any(axis=1).mean())


def boom_blocked_share(scene: Scene, player: Array) -> float:
    """Share of the frames in which a third-person camera, or the way to it, is inside something."""
    camera = cameras(player, "third", MotionModel())[:, [0, 2], 3]
    here = player[:, [0, 2]]
    boom = here[:, None] + (camera - here)[:, None] * np.linspace(0.25, 1.0, 5)[:, None]
    blocked = (scene.solids.clearance_m(boom) < BOOM_MARGIN_M).any(axis=1)
    if len(scene.crowns):
        reach = np.hypot(*np.moveaxis(camera[:, None] - scene.crowns[:, :2], -1, 0)) - scene.crowns[:, 2]
        blocked |= (reach < PLAYER_RADIUS_M).any(axis=1)
    return float(blocked.mean())


def _check_view(view: str, scene: Scene) -> None:
    if view not in VIEWS:
        raise ConfigError("unknown view", expected=" or ".join(VIEWS), got=repr(view))
    if view == "third" and scene.kind != "village":
        raise ConfigError(
            "rooms are too small for the third person's boom",
            expected="view 'first', or kind 'village'",
            got=f"view 'third' in {scene.kind}",
        )
