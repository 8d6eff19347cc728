"""Pictures: where points appear, what turning does, determinism, episodes. Needs EGL (Mesa will do)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="the extra 'training' is not installed")

from worldwire.camera import Intrinsics, invert
from worldwire.errors import ConfigError, InputError, MachineError
from worldwire.motion import MotionModel, PlayerPose
from worldwire_training.data_engine import renderer as renderer_module
from worldwire_training.data_engine.avatar import avatar_track
from worldwire_training.data_engine.episode import record_episode
from worldwire_training.data_engine.mesh import Mesh, Place, box
from worldwire_training.data_engine.player import track_rows
from worldwire_training.data_engine.renderer import FAR_M, MESA_PACKAGES, Renderer
from worldwire_training.data_engine.scene import EYE_HEIGHT_M, KINDS, Scene, build_scene
from worldwire_training.evaluation.pixels import seen_before
from worldwire_training.evaluation.places import find_open_place

HEIGHT, WIDTH = 96, 160
MOTION = MotionModel()
MARKER = np.array([1.2, -1.9, 6.0])


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    try:
        made = Renderer(HEIGHT, WIDTH)
    except MachineError as error:
        pytest.skip(f"no EGL (apt-get install {MESA_PACKAGES}): {error}")
    yield made
    made.close()


def camera(pose: PlayerPose, view: str = "first") -> np.ndarray:
    return MOTION.camera(pose, view)[None]


def marker_scene(at: np.ndarray = MARKER, size: float = 0.2) -> Scene:
    """An empty world at night with one small glowing cube."""
    mesh, dark = Mesh(), (0.0, 0.0, 0.0)
    mesh.add(box(size, size, size), (1, 0, 1), place=Place(at[0], -at[1] - size / 2, at[2]), glow=1.0, ao=1.0)
    scene = build_scene(0, "village", "day")
    air = replace(
        scene.atmosphere,
        zenith=dark,
        horizon=dark,
        glow=dark,
        cloud=dark,
        hills=(dark, dark),
        fog_distance_m=1e6,
    )
    return replace(scene, vertices=mesh.pack(), atmosphere=air)


def bright_middle(picture: np.ndarray) -> np.ndarray:
    """(x, y) in pixels of the glowing cube; pixel i covers [i, i + 1)."""
    weight = picture[..., 0].astype(float)
    assert weight.max() > 100, "the marker is not in view"
    rows, columns = np.indices(weight.shape) + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


def projected(point: np.ndarray, c2w: np.ndarray, k: Intrinsics) -> np.ndarray:
    x, y, z = (invert(c2w) @ [*point, 1.0])[:3]
    return np.array([k.fx * x / z + k.cx, k.fy * y / z + k.cy])


@pytest.mark.parametrize(
    "pose", [PlayerPose(0, -1.6, 0), PlayerPose(0.5, -1.6, 1, 20, -10), PlayerPose(3, -1.6, 2, -35, 15)]
)
def test_a_point_appears_where_the_intrinsics_say(renderer, pose):
    c2w = camera(pose)
    found = bright_middle(renderer.render(marker_scene(), c2w)[0])
    assert np.allclose(found, projected(MARKER, c2w[0], renderer.intrinsics), atol=0.35)


def test_other_intrinsics(renderer):
    k = Intrinsics(120.0, 90.0, 60.0, 50.0, HEIGHT, WIDTH)
    other = Renderer(HEIGHT, WIDTH, intrinsics=k)
    c2w = camera(PlayerPose(0, -1.6, 0))
    found = bright_middle(other.render(marker_scene(), c2w)[0])
    other.close()
    assert np.allclose(found, projected(MARKER, c2w[0], k), atol=0.35)


def test_turning_right_moves_the_picture_left_and_looking_up_moves_it_down(renderer):
    poses = [PlayerPose(0, -1.6, 0), PlayerPose(0, -1.6, 0, yaw_deg=8), PlayerPose(0, -1.6, 0, pitch_deg=8)]
    pictures = renderer.render(marker_scene(), np.concatenate([camera(pose) for pose in poses]))
    ahead, right, up = (bright_middle(picture) for picture in pictures)
    assert right[0] < ahead[0] - 5
    assert up[1] > ahead[1] + 5


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_and_pose_same_pixels(renderer, kind):
    x, z = build_scene(5, kind, "dusk").meeting_points[0]
    c2w = np.concatenate([camera(PlayerPose(x, -1.6, z, yaw)) for yaw in (0, 90)])
    first = renderer.render(build_scene(5, kind, "dusk"), c2w)
    renderer.render(build_scene(6, kind, "day"), c2w)
    assert np.array_equal(renderer.render(build_scene(5, kind, "dusk"), c2w), first)
    assert not np.array_equal(first[0], first[1])


def test_frames_do_not_depend_on_their_batch(renderer):
    scene = build_scene(2, "village", "day")
    c2w = np.concatenate([camera(PlayerPose(2, -1.6, 3, yaw)) for yaw in range(0, 200, 10)])
    together = renderer.render(scene, c2w)
    assert np.array_equal(renderer.render(scene, c2w[13:14])[0], together[13])


def test_two_renderers_of_one_process_do_not_disturb_each_other(renderer):
    scene, c2w = build_scene(1, "village", "day"), camera(PlayerPose(0, -1.6, -4))
    first = renderer.render(scene, c2w)
    other = Renderer(HEIGHT, WIDTH)
    assert np.array_equal(other.render(scene, c2w), first)
    assert np.array_equal(renderer.render(scene, c2w), first)
    other.close()
    assert np.array_equal(renderer.render(build_scene(1, "village", "day"), c2w), first)


def test_the_walker_is_seen_in_the_middle_and_swings_its_legs(renderer):
    scene, k = build_scene(4, "village", "day"), renderer.intrinsics
    poses = [PlayerPose(0, -1.6, -4 + 0.125 * step, 0) for step in range(12)]
    c2w = np.concatenate([camera(pose, "third") for pose in poses])
    stands = avatar_track(track_rows(poses))
    with_walker, without = renderer.render(scene, c2w, stands), renderer.render(scene, c2w)
    changed = (with_walker != without).any(axis=-1)
    assert np.all(changed.mean(axis=(1, 2)) > 0.03)
    columns = np.nonzero(changed[-1])[1]
    assert abs(columns.mean() - k.cx) < 0.05 * WIDTH
    assert np.ptp(stands[:, 3]) > 0.3


@pytest.mark.parametrize(("kind", "view"), [("village", "third"), ("rooms", "first")])
def test_an_episode_holds_frames_actions_and_poses(renderer, kind, view):
    episode = record_episode(renderer, 11, 9, view, kind)
    assert episode.frames.shape == (9, HEIGHT, WIDTH, 3)
    assert (episode.kind, episode.view, episode.scene_seed) == (kind, view, 11)
    assert np.allclose(episode.intrinsics[:2], WIDTH / 2 / np.tan(np.radians(40)))
    again = record_episode(renderer, 11, 9, view, kind)
    assert np.array_equal(again.frames, episode.frames)
    assert np.array_equal(again.c2w, episode.c2w)


def test_third_person_in_rooms_is_refused(renderer):
    with pytest.raises(ConfigError, match="boom"):
        record_episode(renderer, 0, 3, "third", "rooms")


def test_unusable_poses_are_refused(renderer):
    bad = np.full((1, 4, 4), np.nan)
    with pytest.raises(InputError, match="unusable poses"):
        renderer.render(build_scene(0, "rooms", "day"), bad)


def test_a_machine_without_egl_says_what_to_install(monkeypatch):
    def absent(**_: object) -> None:
        raise OSError("libEGL.so: cannot open shared object file")

    monkeypatch.setattr(renderer_module.moderngl, "create_standalone_context", absent)
    with pytest.raises(MachineError, match=MESA_PACKAGES):
        Renderer(HEIGHT, WIDTH)


def test_depth_is_along_the_view_and_far_away_where_there_is_sky(renderer: Renderer):
    scene = marker_scene(size=0.4)
    depth = renderer.depths_m(scene, camera(PlayerPose(yaw_deg=11.0)))[0]
    on_marker = MARKER @ camera(PlayerPose(yaw_deg=11.0))[0, :3, 2]
    front = depth[depth < FAR_M / 2]
    assert on_marker - 0.4 < front.min() < on_marker
    assert depth[0, 0] == pytest.approx(FAR_M, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [3, 8])
def test_pixels_that_both_pictures_show_have_one_colour(renderer: Renderer, kind: str, seed: int):
    """What `seen_before` calls the same surface looks the same; nothing behind the back is."""
    scene = build_scene(seed, kind, "day")
    place = find_open_place(scene.solids, scene.meeting_points[scene.starts], [(1.0, 0.0)], seed)
    assert place is not None
    start = PlayerPose(place[0], -EYE_HEIGHT_M, *place[1:])
    yaw = np.radians(start.yaw_deg)
    aside = replace(start, x_m=start.x_m + np.cos(yaw), z_m=start.z_m - np.sin(yaw))
    back = replace(start, yaw_deg=start.yaw_deg + 180.0)
    c2w = np.concatenate([camera(pose) for pose in (start, aside, back)])
    pictures, depths = renderer.render(scene, c2w).astype(float), renderer.depths_m(scene, c2w)
    k = renderer.intrinsics
    shared = seen_before(k, c2w[:2], depths[:2])
    assert seen_before(k, c2w[[0, 0]], depths[[0, 0]]).mean() > 0.97
    assert not seen_before(k, c2w[[0, 2]], depths[[0, 2]]).any()
    assert 0.05 < shared.mean() < 0.99
    there = reprojected(k, pictures[0], c2w[0], depths[1], c2w[1])
    differences = np.abs(there - pictures[1]).mean(axis=-1)
    assert np.median(differences[shared]) < 6
    assert np.median(differences[shared]) < 0.5 * max(8, np.median(differences[~shared]))


def reprojected(k: Intrinsics, picture: np.ndarray, c2w: np.ndarray, depth: np.ndarray, from_c2w: np.ndarray):
    """The colour of `picture` where each pixel of another camera looks, pixel by pixel (a slow reference)."""
    found = np.zeros_like(picture)
    for row in range(k.height):
        for column in range(k.width):
            ray = np.array([(column + 0.5 - k.cx) / k.fx, (row + 0.5 - k.cy) / k.fy, 1.0, 0.0])
            point = from_c2w @ (depth[row, column] * ray + [0, 0, 0, 1])
            x, y, z, _ = np.linalg.inv(c2w) @ point
            u, v = int(x / z * k.fx + k.cx), int(y / z * k.fy + k.cy)
            if z > 0 and 0 <= v < k.height and 0 <= u < k.width:
                found[row, column] = picture[v, u]
    return found
