"""Trajectories: files of every kind, resampling, live streams; and the messages of ROS and OpenXR."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp

from worldwire.axes import BY_NAME, OPENGL, OPENXR, ROS, UNITY, WIRE, pose_matrix
from worldwire.camera import Intrinsics
from worldwire.errors import DataError, InputError
from worldwire.pose_messages import (
    TimedPose,
    from_pose_stamped,
    from_xr_fov,
    from_xr_pose,
    pack_xr_pose,
    to_pose_stamped,
    to_xr_pose,
)
from worldwire.trajectory import Trajectory, interpolate, read_trajectory, resample_live, write_tum

SHIPPED = sorted((Path(__file__).parents[1] / "examples" / "trajectories").glob("*.*"))


def wander(poses: int = 12, seed: int = 0) -> Trajectory:
    """A smooth random way at uneven times."""
    rng = np.random.default_rng(seed)
    times_s = np.cumsum(rng.uniform(0.02, 0.3, poses))
    turns = Rotation.from_rotvec(np.cumsum(rng.normal(0, 0.2, (poses, 3)), axis=0))
    positions = np.cumsum(rng.normal(0, 0.1, (poses, 3)), axis=0)
    return Trajectory(times_s, pose_matrix(positions, turns.as_quat()))


def rows(trajectory: Trajectory, axes) -> list[list[float]]:
    position, quaternion = axes.pose_from_c2w(trajectory.c2w)
    return np.concatenate([trajectory.times_s[:, None], position, quaternion], axis=1).tolist()


def write(path: Path, trajectory: Trajectory, axes) -> None:
    """The trajectory in the format of the suffix."""
    table = rows(trajectory, axes)
    if path.suffix == ".csv":
        path.write_text("frame, qw, qx,qy,qz,tx,ty,tz,t\n" + "".join(_csv_line(row) for row in table))
    elif path.suffix == ".json":
        poses = [{"t": r[0], "position": r[1:4], "quaternion_xyzw": r[4:]} for r in table]
        path.write_text(json.dumps({"axes": axes.name, "poses": poses}))
    elif path.suffix == ".jsonl":
        stamped = (TimedPose(round(t * 1e9), c2w) for t, c2w in zip(*_fields(trajectory), strict=True))
        path.write_text("\n".join(json.dumps(to_pose_stamped(pose, axes)) for pose in stamped))
    else:
        write_tum(path, trajectory, axes)


def _fields(trajectory: Trajectory):
    return trajectory.times_s, trajectory.c2w


def _csv_line(row: list[float]) -> str:
    t, tx, ty, tz, qx, qy, qz, qw = row
    return f"1,{qw},{qx},{qy},{qz},{tx},{ty},{tz},{t}\n"


@pytest.mark.parametrize("axes", BY_NAME.values(), ids=BY_NAME)
@pytest.mark.parametrize("suffix", [".tum", ".txt", ".csv", ".json", ".jsonl"])
def test_every_kind_of_file_in_every_axes(tmp_path, suffix, axes):
    path, trajectory = tmp_path / f"way{suffix}", wander()
    write(path, trajectory, axes)
    read = read_trajectory(path, axes)
    assert np.allclose(np.diff(read.times_s), np.diff(trajectory.times_s), atol=2e-6)
    assert np.allclose(read.c2w, trajectory.c2w, atol=2e-5)


def test_json_holds_matrices_too_and_names_its_axes(tmp_path):
    trajectory, path = wander(), tmp_path / "way.json"
    poses = [
        {"t": t, "matrix": UNITY.matrix_from_wire(c2w).tolist()}
        for t, c2w in zip(*_fields(trajectory), strict=True)
    ]
    path.write_text(json.dumps({"axes": "unity", "poses": poses}))
    assert np.allclose(read_trajectory(path).c2w, trajectory.c2w)
    with pytest.raises(DataError, match="names its axes itself"):
        read_trajectory(path, ROS)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tum", "0 0 0 0 0 0 0 1\n# fine\n0.1 0 0 0 0 0 1\n", "line 3 is no pose"),
        ("a.tum", "0 0 0 0 0 0 0 1\n0 0 0 0 0 0 0 1\n", "do not rise at pose 1"),
        ("a.tum", "0 0 0 0 0 0 0 0\n", "no length"),
        ("a.tum", "0 0 0 nan 0 0 0 1\n", "NaN"),
        ("a.tum", "# nothing\n", "N > 0"),
        ("a.csv", "t,x,y,z\n0,0,0,0\n", "columns are missing"),
        ("a.csv", "t,tx,ty,tz,qx,qy,qz,qw\n0,0,0,0,0,0\n", "line 2 is no pose"),
        ("a.json", '{"poses": 3}', "no trajectory"),
        ("a.json", "[1, 2]", "no trajectory"),
        ("a.json", '{"poses": [{"t": 0, "position": [0, 0, 0]}]}', "line 1 is no pose"),
        ("a.json", '{"axes": "unrael", "poses": []}', "unknown axes"),
        ("a.jsonl", '{"header": {}}', "line 1 is no PoseStamped"),
        ("a.jsonl", "{", "line 1 is no PoseStamped"),
        ("a.bag", "", "unknown kind"),
        ("missing.tum", None, "cannot be read"),
    ],
)
def test_unreadable_files_say_where(tmp_path, name, content, said):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said) as caught:
        read_trajectory(tmp_path / name)
    assert name in str(caught.value)


def test_resampling_against_scipy():
    trajectory = wander(20)
    resampled = trajectory.resample(16)
    assert np.allclose(np.diff(resampled.times_s), 1 / 16)
    assert resampled.times_s[-1] <= trajectory.times_s[-1] < resampled.times_s[-1] + 1 / 16
    rotations = Slerp(trajectory.times_s, Rotation.from_matrix(trajectory.c2w[:, :3, :3]))
    assert np.allclose(resampled.c2w[:, :3, :3], rotations(resampled.times_s).as_matrix())
    for axis in range(3):
        straight = np.interp(resampled.times_s, trajectory.times_s, trajectory.c2w[:, axis, 3])
        assert np.allclose(resampled.c2w[:, axis, 3], straight)


def test_the_last_pose_on_a_frames_time_is_kept():
    way = Trajectory(np.arange(17) / 10, np.tile(np.eye(4), (17, 1, 1)))
    assert len(way.resample(10).times_s) == 17


def test_outside_its_time_a_camera_stands_still():
    trajectory = wander()
    before, after = trajectory.at([-5.0, 99.0])
    assert np.allclose(before, trajectory.c2w[0])
    assert np.allclose(after, trajectory.c2w[-1])


def test_one_pose_is_a_trajectory():
    still = Trajectory(np.array([3.0]), np.eye(4)[None])
    assert still.resample(16).c2w.shape == (1, 4, 4)
    assert (still.duration_s, still.length_m) == (0, 0)


@given(angle=st.floats(0, 3.1), share=st.floats(0, 1))
def test_a_turn_is_even(angle, share):
    start, end = np.eye(4), np.eye(4)
    end[:3, :3] = Rotation.from_rotvec([0, angle, 0]).as_matrix()
    between = interpolate(start, end, share)
    turned = Rotation.from_matrix(between[:3, :3]).as_rotvec()
    assert np.allclose(turned, [0, share * angle, 0], atol=1e-6)


def test_from_first_makes_the_first_camera_the_identity():
    trajectory = wander()
    begun = trajectory.from_first()
    assert np.allclose(begun.c2w[0], np.eye(4))
    assert begun.length_m == pytest.approx(trajectory.length_m)
    level = trajectory.from_first(level=True)
    assert np.allclose(level.c2w[0][:3, 3], 0)
    assert level.c2w[0][0, 2] == pytest.approx(0)  # it heads straight on


def test_a_live_stream_is_the_same_as_the_file():
    trajectory = wander(30)
    timed = [TimedPose(round(t * 1e9), c2w) for t, c2w in zip(*_fields(trajectory), strict=True)]
    live, expected = list(resample_live(timed, 16)), trajectory.resample(16)
    assert len(live) == len(expected.times_s)
    assert np.allclose([pose.c2w for pose in live], expected.c2w, atol=1e-6)
    assert np.allclose([pose.t_ns / 1e9 for pose in live], expected.times_s)


def test_a_live_stream_gives_each_frame_as_soon_as_it_can():
    def poses():
        for index in range(4):
            heard.append(index)
            yield TimedPose(index * 125_000_000, np.eye(4))

    heard: list[int] = []
    stream = resample_live(poses(), 16)
    next(stream)
    assert heard == [0]
    next(stream)
    next(stream)
    assert heard == [0, 1]
    assert list(resample_live([], 16)) == []


def test_a_stream_that_goes_back_in_time_is_refused():
    with pytest.raises(DataError, match="do not rise"):
        list(resample_live([TimedPose(5, np.eye(4)), TimedPose(4, np.eye(4))], 16))


# ---------------------------------------------------------------------- messages


def test_a_ros_message_need_not_be_a_dictionary():
    """Objects with attributes, as rclpy gives them: two metres ahead, one to the left, turned left by 90°."""
    message = SimpleNamespace(
        header=SimpleNamespace(stamp=SimpleNamespace(sec=3, nanosec=500), frame_id="map"),
        pose=SimpleNamespace(
            position=SimpleNamespace(x=2.0, y=1.0, z=0.0),
            orientation=SimpleNamespace(x=0.0, y=0.0, z=0.5**0.5, w=0.5**0.5),
        ),
    )
    pose = from_pose_stamped(message, ROS)
    assert pose.t_ns == 3_000_000_500
    assert np.allclose(pose.c2w[:3, 3], [-1, 0, 2])
    assert np.allclose(pose.c2w[:3, 2], [-1, 0, 0])  # it looks to the left


def test_messages_round_trip():
    for c2w in wander().c2w:
        stamped = json.loads(json.dumps(to_pose_stamped(TimedPose(1_700_000_000_123_456_789, c2w), ROS)))
        assert stamped["header"]["stamp"] == {"sec": 1_700_000_000, "nanosec": 123_456_789}
        back = from_pose_stamped(stamped, ROS)
        assert back.t_ns == 1_700_000_000_123_456_789
        assert np.allclose(back.c2w, c2w)
        assert np.allclose(from_xr_pose(to_xr_pose(c2w)), c2w)
        assert np.allclose(from_xr_pose(pack_xr_pose(c2w)), c2w, atol=1e-6)


def test_xr_pose_bytes_hold_the_orientation_first():
    c2w = OPENXR.pose_to_c2w((1, 2, 3), (0, 0, 0, 1))
    assert np.array_equal(np.frombuffer(pack_xr_pose(c2w), np.float32), [0, 0, 0, 1, 1, 2, 3])
    assert np.allclose(c2w[:3, 3], [1, -2, -3])


def test_xr_fov_of_a_lopsided_eye():
    fov = {"angleLeft": -0.9, "angleRight": 0.7, "angleUp": 0.8, "angleDown": -0.75}
    camera = from_xr_fov(fov, 1000, 900)
    assert -camera.cx / camera.fx == pytest.approx(np.tan(-0.9))
    assert (900 - camera.cx) / camera.fx == pytest.approx(np.tan(0.7))
    assert camera.cy / camera.fy == pytest.approx(np.tan(0.8))
    assert (camera.cy - 1000) / camera.fy == pytest.approx(np.tan(-0.75))
    half = np.radians(40)
    even = {"angleLeft": -half, "angleRight": half, "angleUp": half, "angleDown": -half}
    assert np.allclose(
        (from_xr_fov(even, 64, 64).fx, from_xr_fov(even, 64, 64).cy),
        (Intrinsics.from_fov(64, 64, 80).fx, 32),
    )
    with pytest.raises(InputError, match="empty"):
        from_xr_fov(even | {"angleLeft": half}, 64, 64)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({"pose": {}}, "field position"),
        ({"position": {"x": 0, "y": 0}, "orientation": {"x": 0, "y": 0, "z": 0, "w": 1}}, "layout"),
        ({"position": {"x": "a", "y": 0, "z": 0}, "orientation": {}}, "no numbers"),
        (b"123", "28 bytes"),
    ],
)
def test_other_layouts_are_refused(broken, said):
    with pytest.raises(InputError, match=said):
        from_xr_pose(broken)


# ---------------------------------------------------------------------- what the examples ship


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_trajectories_walk_at_the_speed_of_the_training_data(path):
    axes = {"opengl": OPENGL, "ros": ROS}.get(path.stem.rsplit("_", 1)[-1], WIRE)
    way = read_trajectory(path, axes).from_first().resample(16)
    speed_m_per_s = np.linalg.norm(np.diff(way.c2w[:, :3, 3], axis=0), axis=1) * 16
    assert 4 <= way.duration_s <= 20
    assert speed_m_per_s.max() <= 2.2
    assert np.abs(way.c2w[:, 1, 3]).max() < 0.5  # on the ground, whatever the axes of the file
    assert path.stat().st_size < 30_000


def test_two_trajectories_are_shipped():
    assert len(SHIPPED) >= 2
