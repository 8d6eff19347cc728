"""Camera poses and the motion model: axes, round trips, and how keys and look move a player."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldwire.camera import (
    Intrinsics,
    check_c2w,
    from_quaternion,
    invert,
    make_c2w,
    rotation_from_yaw_pitch,
    to_quaternion,
    yaw_pitch_from_rotation,
)
from worldwire.errors import InputError
from worldwire.inputs import Inputs
from worldwire.motion import MotionModel, PlayerPose

yaws = st.floats(-179, 179)
pitches = st.floats(-85, 85)
metres = st.floats(-1000, 1000)
poses = st.builds(
    lambda yaw, pitch, x, y, z: make_c2w(rotation_from_yaw_pitch(yaw, pitch), (x, y, z)),
    yaws,
    pitches,
    metres,
    metres,
    metres,
)
players = st.builds(PlayerPose, metres, metres, metres, yaws, st.floats(-29, 29))


@given(poses)
def test_quaternion_round_trip(c2w):
    position, quaternion = to_quaternion(c2w)
    assert quaternion[3] >= 0
    np.testing.assert_allclose(from_quaternion(position, quaternion), c2w, atol=1e-9)


@given(poses, st.floats(0.01, 100), st.sampled_from([-1, 1]))
def test_length_and_sign_of_a_quaternion_do_not_matter(c2w, length, sign):
    position, quaternion = to_quaternion(c2w)
    scaled = [sign * length * part for part in quaternion]
    np.testing.assert_allclose(from_quaternion(position, scaled), c2w, atol=1e-9)


def test_quaternions_are_xyzw_and_turn_right_about_y_down():
    half = math.radians(90) / 2
    turned = from_quaternion([0, 0, 0], [0, math.sin(half), 0, math.cos(half)])
    np.testing.assert_allclose(turned[:3, :3], rotation_from_yaw_pitch(90, 0), atol=1e-12)


@given(yaws, pitches)
def test_yaw_pitch_round_trip(yaw, pitch):
    np.testing.assert_allclose(
        yaw_pitch_from_rotation(rotation_from_yaw_pitch(yaw, pitch)), (yaw, pitch), atol=1e-7
    )


@given(yaws, pitches)
def test_forward_axis_is_as_documented_and_the_horizon_stays_level(yaw, pitch):
    rotation = rotation_from_yaw_pitch(yaw, pitch)
    a, b = math.radians(yaw), math.radians(pitch)
    expected = (math.sin(a) * math.cos(b), -math.sin(b), math.cos(a) * math.cos(b))
    np.testing.assert_allclose(rotation[:, 2], expected, atol=1e-12)
    assert abs(rotation[1, 0]) < 1e-12
    assert np.linalg.det(rotation) == pytest.approx(1)


@given(poses)
def test_inverse_undoes_a_pose(c2w):
    np.testing.assert_allclose(invert(c2w) @ c2w, np.eye(4), atol=1e-9)


@pytest.mark.parametrize(
    "matrix",
    [
        np.full((4, 4), np.nan),
        np.zeros((4, 4)),
        np.diag([1.0, 1.0, -1.0, 1.0]),
        np.diag([2.0, 2.0, 2.0, 1.0]),
        make_c2w(np.eye(3), (1e9, 0, 0)),
        np.eye(3),
        [[1, 2], [3]],
    ],
)
def test_unusable_poses_are_input_errors(matrix):
    with pytest.raises(InputError, match="expected"):
        check_c2w(matrix)


@pytest.mark.parametrize("quaternion", [[0, 0, 0, 0], [0, 0, 0, math.nan], [0, 0, 1]])
def test_unusable_quaternions_are_input_errors(quaternion):
    with pytest.raises(InputError):
        from_quaternion([0, 0, 0], quaternion)


def test_field_of_view_reaches_the_edge_of_the_image_at_any_resolution():
    camera = Intrinsics.from_fov(192, 320, 80)
    for view in (camera, camera.scaled(96, 160), camera.scaled(12, 20)):
        assert math.degrees(2 * math.atan(view.cx / view.fx)) == pytest.approx(80)
        assert view.cy / view.fy == pytest.approx(camera.cy / camera.fy)


# ---------------------------------------------------------------------- motion


@given(players, st.sampled_from(["forward", "back", "left", "right"]), st.floats(-20, 20))
def test_keys_move_along_the_mean_heading_at_walking_speed(player, key, yaw_deg):
    after = MotionModel().advance(player, Inputs(keys={key}, yaw_deg=yaw_deg))
    step = np.array([after.x_m - player.x_m, after.y_m - player.y_m, after.z_m - player.z_m])
    heading = math.radians(player.yaw_deg + yaw_deg / 2)
    sideways = {"forward": 0, "right": math.pi / 2, "back": math.pi, "left": -math.pi / 2}[key]
    expected = 0.125 * np.array([math.sin(heading + sideways), 0, math.cos(heading + sideways)])
    np.testing.assert_allclose(step, expected, atol=1e-9)


@given(players, st.floats(-20, 20), st.floats(-20, 20))
def test_look_turns_without_moving(player, yaw_deg, pitch_deg):
    after = MotionModel().advance(player, Inputs(yaw_deg=yaw_deg, pitch_deg=pitch_deg))
    assert (after.x_m, after.y_m, after.z_m) == (player.x_m, player.y_m, player.z_m)
    assert (after.yaw_deg - player.yaw_deg - yaw_deg + 180) % 360 == pytest.approx(180)
    assert after.pitch_deg == pytest.approx(min(max(player.pitch_deg + pitch_deg, -30), 30))


def test_diagonals_are_not_faster_and_opposite_keys_cancel_out():
    motion, start = MotionModel(), PlayerPose()
    diagonal = motion.advance(start, Inputs(keys={"forward", "right"}))
    assert math.hypot(diagonal.x_m, diagonal.z_m) == pytest.approx(0.125)
    assert motion.advance(start, Inputs(keys={"forward", "back"})) == start


@given(players, st.sampled_from(["first", "third"]))
def test_a_player_is_found_again_from_the_camera(player, view):
    motion = MotionModel()
    found = motion.player(motion.camera(player, view), view)
    np.testing.assert_allclose(found.c2w, player.c2w, atol=1e-6)


def test_the_third_person_camera_hangs_behind_and_above():
    camera = MotionModel().camera(PlayerPose(yaw_deg=90), "third")
    np.testing.assert_allclose(camera[:3, 3], (-2.6, -0.4, 0), atol=1e-9)
