"""The robotics and XR examples on a world of random weights: what they write, what they ask of a session."""

from __future__ import annotations

import io
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_world import FakeWorld
from PIL import Image
from server_fixture import serving
from worlds import HEIGHT, WIDTH, write_random_world

av = pytest.importorskip("av", reason="the extra 'play' is not installed")
pytest.importorskip("pygame", reason="the extra 'play' is not installed")

from worldwire.axes import ROS  # noqa: E402
from worldwire.errors import DataError, MachineError  # noqa: E402
from worldwire.pose_messages import from_pose_stamped  # noqa: E402
from worldwire.trajectory import read_trajectory  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"
STREET = EXAMPLES / "trajectories" / "street_ros.tum"
SCRIPTS = ("camera_trajectory", "ros_pose_stream", "stereo", "late_reprojection", "engine_axes")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> str:
    return str(write_random_world(tmp_path_factory.mktemp("worlds") / "random"))


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs a script as from a shell, in an empty folder; gives what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def run_script(name: str, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_script


@pytest.fixture
def stereo(monkeypatch):
    """The functions of examples/stereo.py."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return runpy.run_path(str(EXAMPLES / "stereo.py"))


def film(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", SCRIPTS)
def test_help(run, name, capsys):
    with pytest.raises(SystemExit) as left:
        run(name, "--help")
    assert left.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_a_trajectory_becomes_a_film(run, world, tmp_path):
    said = run("camera_trajectory", STREET, "--axes", "ros", "--world", world)
    assert said.startswith("9.4 m in 8.0 s, up to 1.3 m/s")
    frames = film(tmp_path / "trajectory.mp4")
    assert len(frames) == 8 * 16 + 1
    assert frames[0].shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert Image.open(tmp_path / "trajectory.png").width > 6 * WIDTH


def test_a_session_gets_every_pose_once_and_stands_still_at_the_end(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    follow = runpy.run_path(str(EXAMPLES / "shared.py"))["follow"]
    session = FakeWorld().session()
    session.reset()
    way = read_trajectory(STREET, ROS).from_first().resample(16).c2w[1:12]
    frames = list(follow(session, way))
    assert [frame.index for frame in frames] == list(range(1, 12))
    played = np.stack([item.c2w for item in session.played])
    assert len(played) == 16
    assert np.array_equal(played[:11], way)
    assert (played[11:] == way[-1]).all()


def test_ros_poses_go_in_and_come_out(run, world, tmp_path):
    """The poses of the frames, in the robot's world and on its clock, are those of its file."""
    lines = run("ros_pose_stream", STREET, "--world", world).splitlines()
    seen = [from_pose_stamped(json.loads(line), ROS) for line in lines]
    asked = read_trajectory(STREET, ROS).resample(16)
    assert np.allclose([pose.t_ns / 1e9 for pose in seen], asked.times_s)
    assert np.allclose([pose.c2w for pose in seen[1:]], asked.c2w[1:], atol=1e-5)
    assert np.allclose(seen[0].c2w[:3, 3], asked.c2w[0, :3, 3])  # level, so that down stays down
    assert len(film(tmp_path / "ros.mp4")) == len(lines)


def robot_at(ahead_m: float, t_ns: int) -> str:
    """A PoseStamped line; five seconds into the robot's day."""
    pose = {
        "position": {"x": ahead_m, "y": 0, "z": 1},
        "orientation": {"x": 0, "y": 0, "z": 0, "w": 1},
    }
    return json.dumps({"header": {"stamp": {"sec": 5, "nanosec": t_ns}}, "pose": pose})


def test_a_stream_of_poses_over_the_wire(run, monkeypatch, tmp_path):
    lines = [robot_at(ahead_m=number / 10, t_ns=number * 25_000_000) for number in range(21)]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines)))
    with serving() as server:
        said = run("ros_pose_stream", "-", "--world", server.endpoint, "--out", "live.mp4")
    last = json.loads(said.splitlines()[-1])
    assert len(said.splitlines()) == 9  # half a second
    assert last["header"]["stamp"] == {"sec": 5, "nanosec": 500_000_000}
    assert last["pose"]["position"] == pytest.approx({"x": 2, "y": 0, "z": 1})
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines[0] + "\nbroken"))
    with serving() as server, pytest.raises(DataError, match="line 2"):
        run("ros_pose_stream", "-", "--world", server.endpoint)


def test_the_eyes_share_a_session_and_stand_beside_the_head(stereo):
    session = FakeWorld().session()
    session.reset()
    head = read_trajectory(STREET, ROS).from_first().resample(16).c2w[1:13]
    pairs = list(stereo["stereo"](session, head, 0.064))
    left, right = (np.stack([pair[side].c2w for pair in pairs]) for side in (0, 1))
    assert len(pairs) == 12
    offsets = [np.linalg.inv(now) @ eye for now, eye in zip(head, right, strict=True)]
    assert np.allclose([offset[:3, 3] for offset in offsets], [0.032, 0, 0], atol=1e-9)
    assert np.allclose((left + right)[:, :3, 3] / 2, head[:, :3, 3])
    # A step for the left eye, one for the right; each step's spare frames are left out.
    assert [pair[0].index for pair in pairs] == [*range(1, 9), *range(17, 21)]
    assert [pair[1].index for pair in pairs] == [*range(9, 17), *range(25, 29)]


def test_an_anaglyph_takes_red_from_the_left(stereo):
    red, cyan = np.zeros((2, 4, 4, 3), np.uint8)
    red[..., 0], cyan[..., 1:] = 200, 100
    assert (stereo["anaglyph"](red, cyan) == (200, 100, 100)).all()


def test_stereo_writes_a_film_and_a_still(run, world, tmp_path):
    run("stereo", "--world", world, "--seconds", "1")
    frames = film(tmp_path / "stereo.mp4")
    assert len(frames) == 16
    assert frames[0].shape == (2 * HEIGHT, 4 * WIDTH, 3)
    assert Image.open(tmp_path / "stereo_anaglyph.png").size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("shader", [False, True], ids=["numpy", "shader"])
def test_late_reprojection_shows_both(run, world, tmp_path, shader):
    try:
        said = run("late_reprojection", "--world", world, "--seconds", "1", *["--shader"] * shader)
    except MachineError as error:
        pytest.skip(f"no off-screen OpenGL: {error}")
    assert "behind the head on average" in said
    frames = film(tmp_path / "reprojection.mp4")
    assert len(frames) == 64
    assert frames[0].shape == (2 * HEIGHT, 4 * WIDTH, 3)


def test_six_engines_on_one_sheet(run, tmp_path):
    pytest.importorskip("moderngl", reason="the extra 'training' is not installed")
    try:
        said = run("engine_axes", "--roll", "0")
    except MachineError as error:
        pytest.skip(f"no EGL: {error}")
    assert said.startswith("axes.png")
    assert Image.open(tmp_path / "axes.png").size > (900, 400)


def test_the_picture_of_the_page_is_small():
    assert (EXAMPLES.parent / "docs" / "media" / "axes.png").stat().st_size < 300_000
