"""The Gymnasium environment: its contract, in process and over the wire, and what its actions do."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
from fake_world import FakeWorld
from server_fixture import serving
from worlds import write_random_world

gymnasium = pytest.importorskip("gymnasium", reason="the extra 'robotics' is not installed")

from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit  # noqa: E402

from worldwire import connect  # noqa: E402
from worldwire.axes import ROS  # noqa: E402
from worldwire.errors import BusyError, ConfigError, ConnectionLostError, StateError  # noqa: E402
from worldwire.gym import ID, MAX_LOOK_DEG, WorldwireEnv  # noqa: E402
from worldwire_runtime.world import World  # noqa: E402


class Host(FakeWorld):
    """A fake world with the interface of a host; `sessions` are those that it opened."""

    def __init__(self):
        super().__init__()
        self.sessions, self.closed = [], False

    def session(self, plan=None):
        self.sessions.append(super().session(plan))
        return self.sessions[-1]

    def close(self):
        self.closed = True


def still(**changes):
    """An action of the mode "keys" that does nothing, or what `changes` says."""
    return {"keys": np.zeros(4, np.int8), "look": np.zeros(2, np.float32)} | changes


@pytest.mark.parametrize("actions", ["keys", "pose"])
def test_it_keeps_gymnasiums_contract(tmp_path, actions):
    """A real session with random weights; `make` adds gymnasium's own checks of every step."""
    with World.load(write_random_world(tmp_path / "world"), device="cpu") as world:
        env = gymnasium.make(ID, host=world, actions=actions)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if actions == "pose":  # positions are metres, not parts of one
                warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
            check_env(env.unwrapped)
        env.reset(seed=3)
        env.step(env.action_space.sample())
        env.close()


def test_over_the_wire_it_is_the_same():
    with serving() as server:
        remote = WorldwireEnv(server.endpoint)
        local = WorldwireEnv(Host())
        for env in (remote, local):
            env.action_space.seed(5)
        assert np.array_equal(remote.reset(seed=8)[0], local.reset(seed=8)[0])
        for _ in range(3):
            there, here = (env.step(env.action_space.sample()) for env in (remote, local))
            assert np.array_equal(there[0], here[0])
            assert np.array_equal(there[4]["frames"], here[4]["frames"])
            assert np.allclose(there[4]["matrices"], here[4]["matrices"])
        there[0][:] = 0  # a learner may write into its observation
        remote.close()
        remote.close()


def test_a_client_serves_several_environments():
    with serving() as server, connect(server.endpoint) as client:
        envs = gymnasium.vector.SyncVectorEnv([lambda: WorldwireEnv(client) for _ in range(2)])
        pictures, _ = envs.reset(seed=[1, 2])
        assert pictures.shape == (2, 32, 48, 3)
        assert not np.array_equal(pictures[0], pictures[1])
        envs.step(envs.action_space.sample())
        envs.close()
        client.session().close()  # it is still open: it was not the environments' to close


def test_keys_and_look_are_held_for_all_frames_of_a_step():
    host = Host()
    env = WorldwireEnv(host)
    assert env.key_names == ("forward", "back", "left", "right")
    env.reset(seed=0)
    picture, reward, terminated, truncated, info = env.step(
        still(keys=np.array([1, 0, 0, 1], np.int8), look=np.array([0.5, -1.0], np.float32))
    )
    played = host.sessions[0].played
    assert len(played) == len(info["frames"]) == 8
    assert {item.keys for item in played} == {frozenset({"forward", "right"})}
    assert {item.yaw_deg for item in played} == {MAX_LOOK_DEG / 2}
    assert {item.pitch_deg for item in played} == {-MAX_LOOK_DEG}
    assert np.array_equal(picture, info["frames"][-1])
    assert info["indices"].tolist() == list(range(1, 9))
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert picture in env.observation_space


def test_poses_in_the_axes_of_a_robot():
    """ROS: two metres ahead, one to the left, turned left by 90 degrees; reached in even steps."""
    host = Host()
    env = WorldwireEnv(host, actions="pose", axes="ros")
    env.reset(seed=0)
    half = np.sqrt(0.5)
    *_, info = env.step(
        {"position": np.array([2.0, 1.0, 0.0]), "quaternion_xyzw": np.array([0, 0, half, half])}
    )
    ahead = [item.c2w[2, 3] for item in host.sessions[0].played]
    assert np.allclose(ahead, np.arange(1, 9) / 4)
    assert np.allclose(host.sessions[0].played[-1].c2w[:3, 3], [-1, 0, 2])
    assert np.allclose(info["matrices"][-1][:3, 3], [2, 1, 0])
    assert np.allclose(info["matrices"][-1][:3, 0], [0, 1, 0], atol=1e-9)  # x, ahead, now points left
    assert np.allclose(ROS.matrix_to_wire(info["matrices"][-1]), host.sessions[0].played[-1].c2w)


def test_a_reward_sees_all_frames_of_the_step():
    seen = []

    def distance_m(frames, action):
        seen.append((len(frames), action))
        return frames[-1].c2w[2, 3]

    env = RecordEpisodeStatistics(TimeLimit(WorldwireEnv(Host(), reward=distance_m), max_episode_steps=2))
    env.reset(seed=0)
    forward = still(keys=np.array([1, 0, 0, 0], np.int8))
    assert env.step(forward)[1] == pytest.approx(1.0)
    *_, truncated, info = env.step(forward)
    assert truncated
    assert info["episode"]["r"] == pytest.approx(3.0)
    assert seen[0] == (8, forward)


def test_the_seed_and_the_options_reach_the_session(monkeypatch):
    host, asked = Host(), []
    env = WorldwireEnv(host)
    reset = host.sessions[0].reset
    monkeypatch.setattr(host.sessions[0], "reset", lambda **named: (asked.append(named), reset(**named))[1])
    env.reset(seed=7, options={"prompt": "rooms", "view": "third"})
    env.reset(options={"image": "red"})
    env.reset(seed=7)
    env.reset()
    assert asked[0] == {"seed": 7, "prompt": "rooms", "view": "third"}
    assert asked[1]["image"] == "red"
    assert asked[2]["seed"] == 7
    assert asked[1]["seed"] == asked[3]["seed"] != 7  # drawn from the seed before it
    with pytest.raises(ConfigError, match="unknown reset option"):
        env.reset(options={"promt": "rooms"})


def test_recordings_play_at_the_worlds_speed():
    one = WorldwireEnv(Host(), render_mode="rgb_array")
    assert one.render() is None
    one.reset(seed=0)
    one.step(still())
    assert one.render().shape == (32, 48, 3)
    assert one.metadata["render_fps"] == 2
    all_frames = WorldwireEnv(Host(), render_mode="rgb_array_list")
    all_frames.reset(seed=0)
    all_frames.step(still())
    all_frames.step(still())
    assert len(all_frames.render()) == 17
    assert all_frames.render() == []
    assert all_frames.metadata["render_fps"] == 16
    assert WorldwireEnv.metadata["render_fps"] == 16


def test_what_it_opened_it_closes():
    made = []
    env = WorldwireEnv(lambda: made.append(Host()) or made[0])
    env.close()
    assert made[0].closed
    assert made[0].open_sessions == 0
    given = Host()
    WorldwireEnv(given).close()
    assert not given.closed


def test_wrong_use_is_told():
    with pytest.raises(StateError, match="reset"):
        WorldwireEnv(Host()).step(still())
    with pytest.raises(ConfigError, match="unknown actions"):
        WorldwireEnv(Host(), actions="buttons")
    with pytest.raises(ConfigError, match="unknown axes"):
        WorldwireEnv(Host(), axes="unrael")
    with pytest.raises(ConfigError, match="unknown render mode"):
        WorldwireEnv(Host(), render_mode="human")
    with pytest.raises(ConfigError, match="unknown clip plan"):
        WorldwireEnv(Host(), plan="papre")
    with pytest.raises((ConnectionLostError, BusyError)):
        WorldwireEnv(lambda: connect("tcp://127.0.0.1:9", timeout_s=0.2))


def test_without_gymnasium_it_names_the_extra():
    program = "import sys; sys.modules['gymnasium'] = None; import worldwire.gym"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'worldwire[robotics]'" in done.stderr.splitlines()[-1]
