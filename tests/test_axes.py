"""Engine axes against the wire's: round trips, composition, directions, other derivations, pictures."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from worldwire.axes import (
    BLENDER,
    BY_NAME,
    OPENGL,
    OPENXR,
    ROS,
    ROS_OPTICAL,
    UNITY,
    UNREAL,
    WIRE,
    Axes,
    SessionOrigin,
    by_name,
    matrix_to_quaternion,
    pose_matrix,
    quaternion_to_matrix,
)
from worldwire.camera import check_c2w, from_quaternion, make_c2w, rotation_from_yaw_pitch, to_quaternion
from worldwire.errors import ConfigError, InputError, MachineError

RIGHT, DOWN, FORWARD = np.eye(3)
UP, LEFT, BACKWARD = -DOWN, -RIGHT, -FORWARD

# What the x, y and z of each engine are, as its own manual says it; metres of one unit.
DIRECTIONS = {
    WIRE: ((RIGHT, DOWN, FORWARD), (RIGHT, DOWN, FORWARD), 1.0),
    UNITY: ((RIGHT, UP, FORWARD), (RIGHT, UP, FORWARD), 1.0),
    UNREAL: ((FORWARD, RIGHT, UP), (FORWARD, RIGHT, UP), 0.01),
    ROS: ((FORWARD, LEFT, UP), (FORWARD, LEFT, UP), 1.0),
    ROS_OPTICAL: ((FORWARD, LEFT, UP), (RIGHT, DOWN, FORWARD), 1.0),
    OPENGL: ((RIGHT, UP, BACKWARD), (RIGHT, UP, BACKWARD), 1.0),
    OPENXR: ((RIGHT, UP, BACKWARD), (RIGHT, UP, BACKWARD), 1.0),
    BLENDER: ((RIGHT, FORWARD, UP), (RIGHT, UP, BACKWARD), 1.0),
}
ALL = pytest.mark.parametrize("axes", DIRECTIONS, ids=lambda axes: axes.name)

coordinates = st.floats(-1000, 1000, allow_nan=False)
positions = st.tuples(coordinates, coordinates, coordinates).map(np.array)
quaternions = (
    st.tuples(*[st.floats(-1, 1, allow_nan=False)] * 4)
    .map(np.array)
    .filter(lambda q: np.linalg.norm(q) > 0.1)
    .map(lambda q: q / np.linalg.norm(q))
)


def same_rotation(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two unit quaternions turn alike; q and -q do."""
    return bool(np.abs(np.abs((a * b).sum(-1)) - 1).max() < 1e-9)


def test_every_convention_is_tested():
    assert set(DIRECTIONS) == set(BY_NAME.values())


@ALL
def test_directions_mean_what_the_engine_says(axes):
    world, camera, unit_m = DIRECTIONS[axes]
    for axis, direction in enumerate(world):
        assert np.array_equal(axes.position_to_wire(np.eye(3)[axis]), direction * unit_m)
        assert np.allclose(axes.position_from_wire(direction * unit_m), np.eye(3)[axis])
    for axis, direction in enumerate(camera):
        # A camera that does not turn on the wire: its own axes point along the wire's.
        in_world = axes.matrix_from_wire(np.eye(4))[:3, axis]
        assert np.array_equal(axes.position_to_wire(in_world) / unit_m, direction)


@ALL
@given(position=positions, quaternion=quaternions)
def test_matrices_agree_with_a_change_of_basis(axes, position, quaternion):
    world, camera, unit_m = DIRECTIONS[axes]
    to_wire, from_camera = np.eye(4), np.eye(4)
    to_wire[:3, :3] = np.stack(world, axis=1) * unit_m
    from_camera[:3, :3] = np.linalg.inv(np.stack(camera, axis=1) * unit_m)
    native = pose_matrix(position, quaternion)
    expected = to_wire @ native @ from_camera
    assert np.allclose(axes.matrix_to_wire(native), expected, atol=1e-9)
    assert np.allclose(axes.matrix_from_wire(expected), native, atol=1e-9)


@ALL
@given(position=positions, quaternion=quaternions)
def test_quaternions_agree_with_matrices_and_the_result_is_a_camera(axes, position, quaternion):
    metres, turned = axes.pose_to_wire(position, quaternion)
    matrix = axes.matrix_to_wire(pose_matrix(position, quaternion))
    assert np.allclose(pose_matrix(metres, turned), matrix, atol=1e-9)
    assert np.linalg.det(matrix[:3, :3]) == pytest.approx(1)
    assert np.allclose(check_c2w(matrix), from_quaternion(metres, turned))


@ALL
@given(position=positions, quaternion=quaternions)
def test_round_trips(axes, position, quaternion):
    back = axes.pose_from_wire(*axes.pose_to_wire(position, quaternion))
    assert np.allclose(back[0], position, atol=1e-9)
    assert np.allclose(back[1], quaternion, atol=1e-9)  # not its negative: streams stay smooth
    there = axes.pose_to_wire(*axes.pose_from_wire(position, quaternion))
    assert np.allclose(there[0], position, atol=1e-9)
    assert np.allclose(there[1], quaternion, atol=1e-9)


@ALL
@given(first=quaternions, second=quaternions, position=positions, point=positions)
def test_composition_survives(axes, first, second, position, point):
    """A point of the engine's camera is the same point, whether it moves before the conversion or after."""
    native = pose_matrix(position, first)
    moved = native[:3, :3] @ point + position
    camera_point = np.stack(DIRECTIONS[axes][1], axis=1) @ point * axes.metres_per_unit
    c2w = axes.matrix_to_wire(native)
    assert np.allclose(axes.position_to_wire(moved), c2w[:3, :3] @ camera_point + c2w[:3, 3], atol=1e-6)
    then = pose_matrix(np.zeros(3), second)
    world_turn = axes.matrix_to_wire(then @ axes.matrix_from_wire(np.eye(4)))
    assert np.allclose(axes.matrix_to_wire(then @ native), world_turn @ c2w, atol=1e-6)


R2 = np.sqrt(0.5)
# docs/axes.md gives these one-liners to clients in other languages: to the wire, then from it.
POSITIONS_ON_THE_PAGE = [
    (UNITY, lambda x, y, z: (x, -y, z), lambda x, y, z: (x, -y, z)),
    (UNREAL, lambda x, y, z: (y / 100, -z / 100, x / 100), lambda x, y, z: (z * 100, x * 100, -y * 100)),
    (ROS, lambda x, y, z: (-y, -z, x), lambda x, y, z: (z, -x, -y)),
    (OPENGL, lambda x, y, z: (x, -y, -z), lambda x, y, z: (x, -y, -z)),
    (ROS_OPTICAL, lambda x, y, z: (-y, -z, x), lambda x, y, z: (z, -x, -y)),
    (BLENDER, lambda x, y, z: (x, -z, y), lambda x, y, z: (x, z, -y)),
]
QUATERNIONS_ON_THE_PAGE = [
    (UNITY, lambda x, y, z, w: (-x, y, -z, w), lambda x, y, z, w: (-x, y, -z, w)),
    (UNREAL, lambda x, y, z, w: (-y, z, -x, w), lambda x, y, z, w: (-z, -x, y, w)),
    (ROS, lambda x, y, z, w: (-y, -z, x, w), lambda x, y, z, w: (z, -x, -y, w)),
    (OPENGL, lambda x, y, z, w: (x, -y, -z, w), lambda x, y, z, w: (x, -y, -z, w)),
]
PRODUCTS_ON_THE_PAGE = [
    (ROS_OPTICAL, lambda x, y, z, w: (-y, -z, x, w), (0.5, -0.5, 0.5, 0.5)),
    (BLENDER, lambda x, y, z, w: (x, -z, y, w), (-R2, 0, 0, R2)),
]


@pytest.mark.parametrize(("axes", "to_wire", "from_wire"), POSITIONS_ON_THE_PAGE)
@given(p=positions)
def test_positions_of_the_page(axes, to_wire, from_wire, p):
    assert np.allclose(axes.position_to_wire(p), to_wire(*p))
    assert np.allclose(axes.position_from_wire(p), from_wire(*p))


@pytest.mark.parametrize(("axes", "to_wire", "from_wire"), QUATERNIONS_ON_THE_PAGE)
@given(q=quaternions)
def test_quaternions_of_the_page(axes, to_wire, from_wire, q):
    assert np.allclose(axes.quaternion_to_wire(q), to_wire(*q))
    assert np.allclose(axes.quaternion_from_wire(q), from_wire(*q))


@pytest.mark.parametrize(("axes", "turned", "mounted"), PRODUCTS_ON_THE_PAGE)
@given(q=quaternions)
def test_products_of_the_page(axes, turned, mounted, q):
    product = Rotation.from_quat(turned(*q)) * Rotation.from_quat(mounted)
    assert same_rotation(axes.quaternion_to_wire(q), product.as_quat())


RIGHT_30 = make_c2w(rotation_from_yaw_pitch(30.0, 0.0), np.zeros(3))
UP_20 = make_c2w(rotation_from_yaw_pitch(0.0, 20.0), np.zeros(3))


def about(axis: str, degrees: float) -> np.ndarray:
    """A quaternion of half angles, the algebra that every engine uses."""
    half, vector = np.radians(degrees) / 2, dict(zip("xyz", np.eye(3), strict=True))[axis]
    return np.append(np.sin(half) * vector, np.cos(half))


@pytest.mark.parametrize(
    ("axes", "turn_right", "look_up"),
    [
        (UNITY, about("y", 30), about("x", -20)),
        (UNREAL, about("z", 30), about("y", -20)),  # FRotator(Pitch=20) is a turn of -20 about y
        (ROS, about("z", -30), about("y", -20)),
        (OPENGL, about("y", -30), about("x", 20)),
        (OPENXR, about("y", -30), about("x", 20)),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_turning_right_and_looking_up(axes, turn_right, look_up):
    assert np.allclose(pose_matrix(np.zeros(3), axes.quaternion_to_wire(turn_right)), RIGHT_30)
    assert np.allclose(pose_matrix(np.zeros(3), axes.quaternion_to_wire(look_up)), UP_20)


def test_left_handed_are_unity_and_unreal():
    assert {axes.name for axes in DIRECTIONS if axes.left_handed} == {"unity", "unreal"}


def test_blenders_camera_at_rest_looks_down():
    c2w = BLENDER.matrix_to_wire(np.eye(4))
    assert np.array_equal(c2w[:3, 2], DOWN)
    assert np.array_equal(c2w[:3, 1], BACKWARD)  # the picture's lower edge


def test_a_body_frame_and_its_optical_frame_see_alike():
    """The usual static transform base_link -> camera_optical has rpy (-90°, 0, -90°)."""
    body = pose_matrix((1.0, 2.0, 3.0), about("z", 40))
    optical = Rotation.from_euler("xyz", [-90, 0, -90], degrees=True)
    mounted = body @ make_c2w(optical.as_matrix(), np.zeros(3))
    assert np.allclose(ROS.matrix_to_wire(body), ROS_OPTICAL.matrix_to_wire(mounted))


@given(quaternion=quaternions)
def test_quaternions_and_matrices_against_scipy(quaternion):
    assert np.allclose(quaternion_to_matrix(quaternion), Rotation.from_quat(quaternion).as_matrix())
    back = matrix_to_quaternion(quaternion_to_matrix(quaternion))
    assert back[3] >= 0
    assert same_rotation(back, quaternion)
    _, other = to_quaternion(pose_matrix(np.zeros(3), quaternion))
    assert same_rotation(np.array(other), back)


@ALL
def test_batches_are_their_items(axes):
    rng = np.random.default_rng(0)
    position, quaternion = rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3, 4))
    metres, turned = axes.pose_to_wire(position, quaternion)
    matrices = axes.matrix_to_wire(pose_matrix(position, quaternion))
    assert metres.shape == (5, 3, 3)
    assert np.allclose(turned[4, 2], axes.quaternion_to_wire(quaternion[4, 2]))
    assert np.allclose(matrices[4, 2], axes.matrix_to_wire(pose_matrix(position[4, 2], quaternion[4, 2])))


@given(first=quaternions, place=positions, quaternion=quaternions, position=positions)
def test_a_session_begins_at_the_identity(first, place, quaternion, position):
    origin = SessionOrigin(pose_matrix(place, first))
    later = pose_matrix(position, quaternion)
    assert np.allclose(origin.to_session(origin.c2w), np.eye(4), atol=1e-9)
    assert np.allclose(origin.from_session(origin.to_session(later)), later, atol=1e-9)


def test_a_level_origin_keeps_down_where_it_is():
    tilted = make_c2w(rotation_from_yaw_pitch(50.0, -35.0), (1.0, -1.6, 2.0))
    begun = SessionOrigin.level(tilted).to_session(tilted)
    assert np.allclose(begun, make_c2w(rotation_from_yaw_pitch(0.0, -35.0), np.zeros(3)))


def test_unusable_poses_are_refused():
    with pytest.raises(InputError, match="all zeros"):  # what an unset ROS message holds
        ROS.quaternion_to_wire((0, 0, 0, 0))
    with pytest.raises(InputError, match="NaN"):
        UNITY.position_to_wire((0, float("nan"), 0))
    with pytest.raises(InputError, match="4, 4"):
        UNREAL.matrix_to_wire(np.eye(3))
    with pytest.raises(InputError):
        OPENGL.position_to_wire("here")


def test_unknown_axes_are_listed():
    assert by_name("unreal") is UNREAL
    with pytest.raises(ConfigError, match="unity, unreal, ros"):
        by_name("unrael")


def test_axes_that_would_mirror_the_picture_are_refused():
    with pytest.raises(ConfigError, match="handedness"):
        Axes("mixed", UNITY.world, OPENGL.camera, "left-handed world, right-handed camera")
    with pytest.raises(ConfigError):
        Axes("skewed", ((1, 1, 0), (0, 1, 0), (0, 0, 1)), WIRE.camera, "not orthonormal")


# ---------------------------------------------------------------------- one pose, drawn by six engines

ENGINES = ("Unity", "Unreal", "ROS", "OpenGL", "OpenXR", "Blender")
PLACES = [  # heading to the right, pitch up, roll clockwise
    (0, 0, 0),
    (-15, 3, 8),
    (140, -20, -30),
    (-95, 25, 60),
]


@pytest.fixture(scope="module")
def village():
    """examples/engine_axes.py with its renderer and scene."""
    pytest.importorskip("moderngl", reason="the extra 'training' is not installed")
    path = Path(__file__).parents[1] / "examples" / "engine_axes.py"
    spec = importlib.util.spec_from_file_location("engine_axes", path)
    example = importlib.util.module_from_spec(spec)
    sys.modules["engine_axes"] = example  # its dataclasses look there
    spec.loader.exec_module(example)
    try:
        renderer = example.EngineRenderer()
    except MachineError as error:
        pytest.skip(f"no EGL: {error}")
    yield example, renderer, example.build_scene(example.VILLAGE_SEED, kind="village")
    renderer.close()


@pytest.mark.parametrize("angles", PLACES, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engines_own_camera_and_the_wires_draw_the_same_picture(village, engine, angles):
    example, renderer, scene = village
    camera = example.ENGINES[engine](example.Stand(3.0, 1.6, -9.0, *angles))
    native, converted = renderer.native(scene, camera), renderer.converted(scene, camera)
    off = np.abs(native.astype(int) - converted)
    # Unreal's reversed depth rounds otherwise: a few pixels where surfaces touch.
    assert off.mean() < 0.1
    assert (off.max(axis=-1) > 8).mean() < 0.003
    assert native.std() > 20


def test_all_engines_draw_one_picture(village):
    example, renderer, scene = village
    stand = example.Stand(3.0, 1.6, -9.0, -15.0, 3.0, 8.0)
    pictures = [renderer.native(scene, build(stand)).astype(int) for build in example.ENGINES.values()]
    assert tuple(example.ENGINES) == ENGINES
    assert max(np.abs(picture - pictures[0]).mean() for picture in pictures) < 0.1


def test_the_wrong_axes_draw_another_picture(village):
    """The comparison can fail."""
    example, renderer, scene = village
    camera = example.unity(example.Stand(3.0, 1.6, -9.0, -15.0, 3.0, 8.0))
    native = renderer.native(scene, camera).astype(int)
    wrong = renderer.render(scene, OPENGL.matrix_to_wire(camera.matrix)[None])[0]
    assert np.abs(native - wrong).mean() > 20
