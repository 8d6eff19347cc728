"""The data engine's geometry without a renderer: solids, players, policies, prompts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the extra 'training' is not installed")

from worldwire.errors import ConfigError
from worldwire.inputs import KEYS, Inputs
from worldwire.motion import MotionModel, PlayerPose
from worldwire_training.data_engine.episode import (
    MIN_MOVING_SHARE,
    boom_blocked_share,
    cameras,
    plan_walk,
    stare_share,
)
from worldwire_training.data_engine.navigation import FREE_MARGIN_M, roomiest_points
from worldwire_training.data_engine.player import Player, moving_share, track_rows
from worldwire_training.data_engine.policies import Hand, out_and_back, pan, strafe, turn_by
from worldwire_training.data_engine.prompts import prompt_vocabulary, third_person
from worldwire_training.data_engine.scene import EYE_HEIGHT_M, KINDS, TIMES_OF_DAY, Scene, build_scene
from worldwire_training.data_engine.solids import PLAYER_RADIUS_M, Solids

FORWARD = frozenset({"forward"})
FRAMES = 97


def room_for_one(**solids: list[tuple[float, ...]]) -> Solids:
    """Solids in an otherwise empty world."""
    circles = np.array(solids.get("circles", []), dtype=float).reshape(-1, 3)
    boxes = np.array(solids.get("boxes", []), dtype=float).reshape(-1, 5)
    return Solids(circles, boxes, 100.0)


def scene_with(solids: Solids) -> Scene:
    """A village whose footprints are others."""
    from dataclasses import replace

    return replace(build_scene(0, "village", "day"), solids=solids)


def hand(seed: int = 0, smooth: bool = False) -> Hand:
    return Hand(np.random.default_rng(seed), smooth, 3.75, 0.0, 0.4)


def follow(player: Player, behaviour) -> np.ndarray:
    return track_rows([player.pose, *(player.step(inputs) for inputs in behaviour)])


# --- scenes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_made_by_its_seed_alone(kind):
    first, again, other = (build_scene(seed, kind, "day") for seed in (7, 7, 8))
    assert first.prompt == again.prompt
    assert np.array_equal(first.vertices, again.vertices)
    assert np.array_equal(first.ground.decals, again.ground.decals)
    assert len(first.vertices) != len(other.vertices) or not np.array_equal(first.vertices, other.vertices)


def test_seeds_give_all_kinds_and_times():
    drawn = {(scene.kind, scene.time_of_day) for scene in map(build_scene, range(16))}
    assert drawn == {(kind, time) for kind in KINDS for time in TIMES_OF_DAY}


def test_unknown_kinds_and_times_are_refused():
    with pytest.raises(ConfigError, match="village or rooms"):
        build_scene(0, "forest")
    with pytest.raises(ConfigError, match="day or dusk"):
        build_scene(0, "rooms", "noon")


@pytest.mark.parametrize("seed", [12045, 10038])
def test_a_room_full_of_furniture_has_a_place_to_begin(seed):
    """None and one of the random places in the home room are free."""
    scene = build_scene(seed)
    starts = scene.meeting_points[scene.starts]
    assert len(starts)
    assert (scene.solids.clearance_m(starts) > PLAYER_RADIUS_M).all()
    walk = plan_walk(scene, np.random.default_rng(0), FRAMES, "first")
    assert moving_share(walk.player) >= MIN_MOVING_SHARE


def test_the_roomiest_places_are_one_at_least():
    """Where nothing keeps the margin, the best there is."""
    tight = room_for_one(boxes=[(-0.5, 1.0, 0.2, 2.0, 0.0), (1.5, 1.0, 0.2, 2.0, 0.0)])
    best = roomiest_points(tight, (0.0, 1.0), (0.0, 1.0))
    assert len(best)
    assert np.allclose(best[:, 0], 0.5)
    assert (tight.clearance_m(roomiest_points(tight, (3.0, 4.0), (0.0, 1.0))) >= FREE_MARGIN_M).all()


def test_prompts_use_the_vocabulary_and_name_kind_and_time():
    words = set(prompt_vocabulary())
    assert len(words) <= 200
    for seed in range(20):
        scene = build_scene(seed)
        said = third_person(scene.prompt, scene.coat[0]).replace(",", "").split()
        assert set(said) <= words
        assert (scene.kind in said, scene.time_of_day in said) == (True, True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ground_is_flat_where_one_can_walk(kind):
    scene = build_scene(3, kind, "day")
    assert (scene.solids.clearance_m(scene.meeting_points) > PLAYER_RADIUS_M).all()
    ground = scene.vertices[scene.vertices["kind"][:, 0] == 3]["position"]
    assert np.all(ground[:, 1] == 0)


# --- solids -------------------------------------------------------------------------------------------------


def test_clearance_is_the_distance_to_the_nearest_footprint():
    solids = room_for_one(circles=[(5, 0, 1)], boxes=[(0, 0, 1, 0.5, np.pi / 2)])
    points = np.array([[0.0, 2.0], [0.0, 0.0], [3.0, 0.0], [0.9, 0.0]])
    assert np.allclose(solids.clearance_m(points), [1.0, -0.5, 1.0, 0.4])


def test_a_player_never_enters_a_solid():
    rng = np.random.default_rng(0)
    boxes = [(x, z, 0.6, 0.3, rng.uniform(0, 3)) for x, z in rng.uniform(-6, 6, (12, 2))]
    solids = room_for_one(circles=[(2, 1, 0.8), (-3, 4, 0.5)], boxes=boxes)
    player = Player(scene_with(solids), *_free_place(solids, rng), 0.0)
    for _ in range(600):
        keys = FORWARD | {str(rng.choice(KEYS[:4]))}
        player.step(Inputs(keys, yaw_deg=float(rng.normal(2, 6))))
        assert solids.clearance_m(player.place()) > PLAYER_RADIUS_M - 1e-3
    assert player.bumps > 5


def _free_place(solids: Solids, rng: np.random.Generator) -> tuple[float, float]:
    points = rng.uniform(-6, 6, (200, 2))
    return tuple(points[np.argmax(solids.clearance_m(points))].tolist())


def test_a_player_slides_along_a_wall():
    wall = room_for_one(boxes=[(0, 3, 20, 0.5, 0)])
    player = Player(scene_with(wall), 0.0, 0.0, 30.0)
    for _ in range(60):
        player.step(Inputs(FORWARD))
    assert player.pose.z_m == pytest.approx(2.5 - PLAYER_RADIUS_M, abs=1e-3)
    assert player.pose.x_m == pytest.approx(60 * 0.125 * np.sin(np.radians(30)), abs=0.05)


def test_a_player_stops_before_a_wall():
    wall = room_for_one(boxes=[(0, 2, 5, 0.5, 0)])
    player = Player(scene_with(wall), 0.0, 0.0, 0.0)
    track = follow(player, [Inputs(FORWARD)] * 40)
    assert track[-1, 2] == pytest.approx(1.5 - PLAYER_RADIUS_M, abs=1e-3)
    assert np.ptp(track[-10:, 2]) < 1e-9


# --- motion and policies ------------------------------------------------------------------------------------


def test_walking_speed_turn_rate_and_eye_height():
    player = Player(scene_with(room_for_one()), 0.0, 0.0, 0.0)
    assert player.pose.y_m == -EYE_HEIGHT_M
    track = follow(player, [Inputs(FORWARD)] * 16)
    assert np.hypot(*(track[-1, [0, 2]] - track[0, [0, 2]])) == pytest.approx(2.0)
    arrow = follow(player, [Inputs(yaw_deg=turn.yaw_deg) for turn in turn_by(hand(), 60.0)])
    assert len(arrow) - 1 == 16
    assert arrow[-1, 3] == pytest.approx(60.0)


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("behaviour", [out_and_back, pan, strafe])
def test_what_comes_back_comes_back(behaviour, smooth):
    for seed in range(5):
        player = Player(scene_with(room_for_one()), 1.0, -2.0, 40.0)
        track = follow(player, behaviour(hand(seed, smooth)))
        assert np.allclose(track[-1, :3], track[0, :3], atol=1e-6)
        turned = (track[-1, 3] - track[0, 3] + 90) % 180 - 90
        assert turned == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("angle", [360.0, -75.0, 3.0])
def test_turns_add_up_exactly(angle):
    for smooth in (False, True):
        turns = [inputs.yaw_deg for inputs in turn_by(hand(smooth=smooth), angle)]
        assert sum(turns) == pytest.approx(angle)
        assert max(map(abs, turns)) <= 3.75 + 1e-9


@pytest.mark.parametrize(("kind", "view"), [("village", "first"), ("village", "third"), ("rooms", "first")])
def test_walks_keep_moving_and_are_what_their_actions_say(kind, view):
    motion = MotionModel()
    for seed in range(4):
        scene = build_scene(seed, kind, "day")
        walk = plan_walk(scene, np.random.default_rng(seed), FRAMES, view)
        assert not walk.keys[0].any()
        assert not walk.look_deg[0].any()
        assert (scene.solids.clearance_m(walk.player[:, [0, 2]]) > PLAYER_RADIUS_M - 1e-3).all()
        assert moving_share(walk.player) >= MIN_MOVING_SHARE
        assert stare_share(scene, walk.player) < 0.2
        if view == "third":
            assert boom_blocked_share(scene, walk.player) == 0
        if walk.bumps == 0:
            assert np.allclose(dead_reckoned(motion, walk), walk.player, atol=1e-9)


def dead_reckoned(motion: MotionModel, walk) -> np.ndarray:
    """The path that the recorded actions give without a world."""
    poses = [PlayerPose(*walk.player[0].tolist())]
    for keys, (yaw, pitch) in zip(walk.keys[1:], walk.look_deg[1:].tolist(), strict=True):
        held = frozenset(name for name, down in zip(KEYS, keys, strict=True) if down)
        poses.append(motion.advance(poses[-1], Inputs(held, yaw, pitch)))
    return track_rows(poses)


@pytest.mark.parametrize("view", ["first", "third"])
def test_cameras_are_the_motion_models(view):
    motion = MotionModel()
    poses = [PlayerPose(1, -1.6, 2, 30, -20), PlayerPose(-4, -1.6, 0.5, -170, 12)]
    wanted = [motion.camera(pose, view) for pose in poses]
    assert np.allclose(cameras(track_rows(poses), view, motion), wanted)
