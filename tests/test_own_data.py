"""Data of one's own: recorded sessions, videos with poses, and shards cut for training."""

from pathlib import Path

import numpy as np
import pytest
from fake_world import FakeWorld
from server_fixture import serving
from worlds import write_random_world

pytest.importorskip("av", reason="the extra 'training' is not installed")

import worldwire
from worldwire import Inputs
from worldwire.camera import Intrinsics, make_c2w, rotation_from_yaw_pitch
from worldwire.cli import main
from worldwire.errors import DataError
from worldwire.inputs import KEYS
from worldwire.trajectory import Trajectory, write_tum
from worldwire_training.base_config import BaseConfig, read_config
from worldwire_training.bulk_episodes import BulkEpisodes
from worldwire_training.commands.train import config_file
from worldwire_training.data_engine.shards import read_episodes
from worldwire_training.data_engine.video import encode_video
from worldwire_training.own_data import capture
from worldwire_training.own_data.pack import cut, pack
from worldwire_training.own_data.video import Footage, Target, fit_pictures, infer_keys, to_episode

CAMERA = Intrinsics.from_fov(32, 64, 80)
TARGET = Target(32, 64, 80.0, 16.0)


def path_ahead(count: int, rate: float = 30.0, speed: float = 2.0) -> Trajectory:
    """Walks ahead and turns right by 1 degree a frame."""
    times = np.arange(count) / rate
    poses = [make_c2w(rotation_from_yaw_pitch(float(f), 0.0), (0, 0, speed * t)) for f, t in enumerate(times)]
    return Trajectory(times, np.stack(poses))


def test_lockstep_play_becomes_episodes(tmp_path: Path):
    with (
        serving(FakeWorld()) as server,
        worldwire.connect(server.endpoint) as client,
        client.session() as session,
        capture(session, client.info, tmp_path, prompt="x", frames=17) as played,
    ):
        played.reset(prompt="a red place", seed=3)
        for _ in range(3):
            played.step(Inputs(frozenset({"forward"}), yaw_deg=2.0))
        assert played.frames_per_step == session.frames_per_step
    episodes = list(read_episodes(tmp_path))
    assert [len(episode.frames) for episode in episodes] == [17, 9]
    first = episodes[0]
    assert first.prompt == "a red place"
    assert first.keys[1:, KEYS.index("forward")].all()
    assert not first.keys[0].any()
    np.testing.assert_allclose(first.look_deg[1:, 0], 2.0, atol=1e-4)
    np.testing.assert_allclose(episodes[1].c2w[0], first.c2w[-1])
    assert not episodes[1].keys[0].any()


def test_live_play_records_the_keys_that_frames_acknowledge(tmp_path: Path):
    with (
        serving(FakeWorld()) as server,
        worldwire.connect(server.endpoint) as client,
        client.session() as session,
        capture(session, client.info, tmp_path, prompt="a place") as played,
    ):
        played.reset()
        played.start()
        played.send_input({"left"}, yaw_deg=1.0)
        frames = []
        while len(frames) < 24:
            frames += played.poll_frames(1.0)
    (episode,) = read_episodes(tmp_path)
    acknowledged = np.array([frame.ack == 1 for frame in frames])[: len(episode.frames) - 1]
    assert acknowledged.any()
    np.testing.assert_array_equal(episode.keys[1:, KEYS.index("left")], acknowledged)


def test_a_script_is_walked_and_recorded(tmp_path: Path):
    script = tmp_path / "walk.txt"
    script.write_text("16 forward\n")
    with serving(FakeWorld()) as server:
        words = ["data", "capture", "--connect", server.endpoint, "--out", str(tmp_path / "out")]
        assert main([*words, "--prompt", "a place", "--script", str(script)]) == 0
    (episode,) = read_episodes(tmp_path / "out")
    assert episode.keys[1:, KEYS.index("forward")].all()


def test_keys_are_inferred_from_poses():
    keys = infer_keys(path_ahead(20, rate=16.0).c2w, TARGET)
    assert keys[1:, KEYS.index("forward")].all()
    assert not keys[:, [KEYS.index(name) for name in ("back", "jump", "attack")]].any()
    assert not keys[0].any()
    back = infer_keys(path_ahead(20, rate=16.0, speed=-2.0).c2w, TARGET)
    assert back[1:, KEYS.index("back")].all()
    assert not infer_keys(path_ahead(20, rate=16.0, speed=0.1).c2w, TARGET).any()


def test_a_wider_video_is_cropped_to_the_worlds_view():
    wide = Intrinsics.from_fov(96, 192, 110)
    columns = np.broadcast_to(np.linspace(0, 255, 192).astype(np.uint8)[None, None, :, None], (1, 96, 192, 3))
    fitted = fit_pictures(np.ascontiguousarray(columns), wide, CAMERA)
    assert fitted.shape == (1, 32, 64, 3)
    share = CAMERA.width / CAMERA.fx * wide.fx / wide.width
    assert np.ptp(fitted) == pytest.approx(255 * share, rel=0.05)
    with pytest.raises(DataError, match="sees less"):
        fit_pictures(np.zeros((1, 96, 192, 3), np.uint8), Intrinsics.from_fov(96, 192, 60), CAMERA)


def test_footage_is_resampled_to_the_worlds_clock(tmp_path: Path):
    pictures = np.zeros((60, 32, 64, 3), np.uint8) + np.arange(60, dtype=np.uint8)[:, None, None, None]
    footage = Footage(pictures, np.arange(60) / 30.0, CAMERA)
    episode = to_episode(footage, path_ahead(60), TARGET, "a place", "first")
    assert len(episode.frames) == 29
    assert episode.frames[16, 0, 0, 0] == 30
    np.testing.assert_allclose(episode.c2w[16, 2, 3], 2.0, atol=1e-6)
    with pytest.raises(DataError, match="too little in common"):
        to_episode(footage, path_ahead(5), TARGET, "a place", "first")
    table = tmp_path / "actions.csv"
    table.write_text("frame,keys,yaw_deg,pitch_deg\n1,forward left,2,0\n3,jump,0,1\n")
    told = to_episode(footage, path_ahead(60), TARGET, "a place", "first", table)
    assert told.keys[1].tolist() == [True, False, True, False, False, False]
    assert told.look_deg[3].tolist() == [0, 1]
    table.write_text("frame,keys,yaw_deg,pitch_deg\n1,fly,2,0\n")
    with pytest.raises(DataError, match="line 2"):
        to_episode(footage, path_ahead(60), TARGET, "a place", "first", table)


def test_import_and_pack_end_in_what_training_reads(tmp_path: Path):
    world = write_random_world(tmp_path / "world")
    draw = np.random.default_rng(0)
    (tmp_path / "walk.mp4").write_bytes(encode_video(draw.integers(0, 255, (64, 32, 64, 3), np.uint8), 30.0))
    write_tum(tmp_path / "walk.tum", path_ahead(64))
    command = ["data", "import", "--video", str(tmp_path / "walk.mp4"), "--poses", str(tmp_path / "walk.tum")]
    command += [
        "--fov",
        "80",
        "--prompt",
        "a village",
        "--world",
        str(world),
        "--out",
        str(tmp_path / "shards"),
    ]
    assert main(command) == 0
    words = ["data", "pack", str(tmp_path / "shards"), "--out", str(tmp_path / "run"), "--world", str(world)]
    assert main([*words, "--frames", "9"]) == 0
    training = BulkEpisodes.open(tmp_path / "run" / "episodes")
    assert training.frames.shape[1:] == (9, 32, 64, 3)
    assert training.prompts[0] == "a village"
    assert len(BulkEpisodes.open(tmp_path / "run" / "held_out")) == 1
    assert main([*words, "--frames", "10"]) == 2
    with pytest.raises(DataError, match="holds too little"):
        pack(tmp_path / "shards", tmp_path / "none", CAMERA, 161, 1)
    with pytest.raises(DataError, match="another camera"):
        pack(tmp_path / "shards", tmp_path / "none", Intrinsics.from_fov(32, 64, 60), 9, 0)


def test_pieces_share_their_border_and_begin_neutral():
    footage = Footage(np.zeros((60, 32, 64, 3), np.uint8), np.arange(60) / 30.0, CAMERA)
    episode = to_episode(footage, path_ahead(60), TARGET, "a place", "first")
    first, second = list(cut(episode, 13))[:2]
    np.testing.assert_array_equal(first.c2w[-1], second.c2w[0])
    assert second.keys[1:].any()
    assert not second.keys[0].any()


def test_settings_of_fine_tuning_are_those_of_the_base_but_for_what_they_say():
    configs = Path(read_config.__code__.co_filename).parent / "configs"
    base, tuned = (
        read_config(configs / f"{name}.toml", BaseConfig) for name in ("base_tiny", "finetune_tiny")
    )
    assert tuned.world == base.world
    assert tuned.init_from == "tiny"
    assert tuned.optimizer.kind == base.optimizer.kind
    assert tuned.optimizer.peak_rate < base.optimizer.peak_rate
    assert config_file("finetune_tiny") == configs / "finetune_tiny.toml"
