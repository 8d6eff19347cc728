"""The data format: what is written is read again; what is broken is refused with its place."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av", reason="the extra 'training' is not installed")

from worldwire.errors import DataError
from worldwire_training.data_engine.episode import Episode, cameras
from worldwire_training.data_engine.inspection import Statistics, contact_sheet
from worldwire_training.data_engine.player import track_rows
from worldwire_training.data_engine.shards import read_episodes, read_shard, write_shard

FRAMES, HEIGHT, WIDTH = 12, 48, 80


def made_up_episode(seed: int = 0) -> Episode:
    """A smooth picture that drifts while the player walks ahead and turns."""
    from worldwire import Inputs, MotionModel, PlayerPose

    motion, poses = MotionModel(), [PlayerPose(0, -1.6, 0, 10.0 * seed)]
    for _ in range(FRAMES - 1):
        poses.append(motion.advance(poses[-1], Inputs({"forward"}, yaw_deg=2.0)))
    keys, look = np.zeros((FRAMES, 6), np.bool_), np.zeros((FRAMES, 2), np.float32)
    keys[1:, 0], look[1:, 0] = True, 2.0
    y, x = np.indices((HEIGHT, WIDTH))
    waves = [127 + 100 * np.sin(x / 9 + frame / 5 + seed) * np.cos(y / 11) for frame in range(FRAMES)]
    player = track_rows(poses)
    return Episode(
        frames=np.repeat(np.array(waves)[..., None], 3, -1).astype(np.uint8),
        keys=keys,
        look_deg=look,
        c2w=cameras(player, "first", motion),
        player=player,
        intrinsics=np.array([50.0, 50.0, 40.0, 24.0]),
        prompt="rooms by day with green walls",
        view="first",
        kind="rooms",
        time_of_day="day",
        frames_per_second=16.0,
        scene_seed=seed,
        policy="wander",
    )


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = tmp_path / "seeds-0.tar"
    write_shard(path, [(f"{seed:08d}", made_up_episode(seed)) for seed in range(3)])
    return path


def rewritten(shard: Path, change) -> Path:
    """The shard with `change(name, bytes) -> bytes or None` applied to every member."""
    out = shard.with_name("changed.tar")
    with tarfile.open(shard) as old, tarfile.open(out, "w") as new:
        for info in old:
            data = change(info.name, old.extractfile(info).read())
            if data is not None:
                info.size = len(data)
                new.addfile(info, io.BytesIO(data))
    return out


def with_arrays(shard: Path, **arrays: np.ndarray | None) -> Path:
    """The shard with other arrays in its second episode."""

    def change(name: str, data: bytes) -> bytes:
        if name != "00000001.npz":
            return data
        kept = dict(np.load(io.BytesIO(data))) | arrays
        packed = io.BytesIO()
        np.savez(packed, **{key: value for key, value in kept.items() if value is not None})
        return packed.getvalue()

    return rewritten(shard, change)


def with_json(shard: Path, **fields: object) -> Path:
    def change(name: str, data: bytes) -> bytes:
        if name != "00000001.json":
            return data
        kept = json.loads(data) | fields
        return json.dumps({key: value for key, value in kept.items() if value is not None}).encode()

    return rewritten(shard, change)


def test_a_round_trip_keeps_everything(shard):
    episodes = list(read_episodes(shard.parent))
    assert [episode.scene_seed for episode in episodes] == [0, 1, 2]
    for seed, read in enumerate(episodes):
        wrote = made_up_episode(seed)
        for name in ("keys", "look_deg", "c2w", "player", "intrinsics"):
            assert np.array_equal(getattr(read, name), getattr(wrote, name))
        assert replace(read, **_arrays(wrote)).__dict__.keys() == wrote.__dict__.keys()
        assert (read.prompt, read.view, read.policy) == (wrote.prompt, wrote.view, wrote.policy)
        error = read.frames.astype(float) - wrote.frames
        assert 10 * np.log10(255**2 / (error**2).mean()) > 38


def _arrays(episode: Episode) -> dict[str, np.ndarray]:
    return {name: getattr(episode, name) for name in ("frames", "keys", "look_deg", "c2w", "player")}


def test_common_tools_open_a_shard(shard):
    with tarfile.open(shard) as tar:
        names = tar.getnames()
    assert names[:3] == ["00000000.mp4", "00000000.npz", "00000000.json"]


def test_a_real_capture_is_read_by_the_same_reader(tmp_path):
    episode = made_up_episode()
    capture = replace(
        episode,
        player=None,
        scene_seed=None,
        policy=None,
        actions_known=False,
        keys=np.zeros_like(episode.keys),
        look_deg=np.zeros_like(episode.look_deg),
        kind="capture",
        time_of_day="noon",
        frames_per_second=29.97,
    )
    write_shard(tmp_path / "capture.tar", [("garden-walk", capture)])
    (read,) = read_episodes(tmp_path / "capture.tar")
    assert (read.player, read.scene_seed, read.actions_known) == (None, None, False)


def cut(shard: Path, share: float) -> None:
    """Leaves this share of what holds data (a tar ends with padding that nobody misses)."""
    data = shard.read_bytes()
    shard.write_bytes(data[: int(len(data.rstrip(b"\0")) * share)])


@pytest.mark.parametrize("share", [0.02, 0.5, 0.9, 0.999])
def test_a_shard_cut_short_is_refused(shard, share):
    cut(shard, share)
    with pytest.raises(DataError, match="cut short"):
        list(read_episodes(shard))


def test_a_shard_cut_between_two_episodes_is_refused(shard):
    with tarfile.open(shard) as tar:
        second = tar.getmember("00000001.mp4").offset
    shard.write_bytes(shard.read_bytes()[:second])
    with pytest.raises(DataError, match="end mark"):
        list(read_episodes(shard))


def test_episodes_before_the_cut_are_still_read(shard):
    cut(shard, 0.8)
    episodes = read_shard(shard)
    assert next(episodes)[0] == "00000000"
    with pytest.raises(DataError, match="cut short"):
        list(episodes)


@pytest.mark.parametrize("lost", [".mp4", ".npz", ".json"])
def test_a_missing_part_is_named(shard, lost):
    changed = rewritten(shard, lambda name, data: None if name == "00000001" + lost else data)
    with pytest.raises(DataError, match=f"00000001 is incomplete.*{lost}"):
        list(read_episodes(changed))


def poses(change) -> np.ndarray:
    c2w = made_up_episode(1).c2w
    change(c2w)
    return c2w


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"c2w": poses(lambda c2w: c2w.__setitem__((5, 0, 3), np.nan))}, "frame 5 holds NaN"),
        ({"c2w": poses(lambda c2w: c2w.__setitem__((slice(7, None), 0, 3), 9.0))}, "jumps at frame 7"),
        ({"c2w": poses(lambda c2w: c2w.__imul__(1.5))}, "no rigid motion"),
        ({"c2w": made_up_episode().c2w[:-1]}, "c2w does not fit 12 frames"),
        ({"keys": np.ones((FRAMES, 6), np.bool_)}, "first action is not neutral"),
        ({"keys": np.zeros((FRAMES, 4), np.bool_)}, "keys does not fit"),
        ({"look_deg": np.full((FRAMES, 2), np.inf, np.float32)}, "no sensible turn"),
        ({"look_deg": None}, "missing .'look_deg'"),
        ({"depth": np.zeros(3)}, "unknown .'depth'"),
        ({"intrinsics": np.zeros(4)}, "wrong intrinsics"),
    ],
)
def test_wrong_arrays_are_refused_with_their_place(shard, arrays, match):
    with pytest.raises(DataError, match=match) as caught:
        list(read_episodes(with_arrays(shard, **arrays)))
    assert "00000001" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"version": 2}, "another version"),
        ({"format": "other"}, "another kind"),
        ({"frames": 99}, "not as long as stated"),
        ({"prompt": None}, "lacks fields"),
        ({"prompt": " "}, "no prompt"),
        ({"view": "bird"}, "unknown view"),
        ({"key_names": ["w", "s"]}, "other keys"),
        ({"frames_per_second": 0}, "frames_per_second"),
    ],
)
def test_wrong_descriptions_are_refused(shard, fields, match):
    with pytest.raises(DataError, match=match):
        list(read_episodes(with_json(shard, **fields)))


def test_damaged_members_are_refused(shard):
    for suffix, match in ((".mp4", "video cannot be read"), (".npz", "cannot be read"), (".json", "no JSON")):
        changed = rewritten(
            shard, lambda name, data, s=suffix: b"\0" * 64 if name == "00000001" + s else data
        )
        with pytest.raises(DataError, match=match):
            list(read_episodes(changed))


def test_a_bad_episode_is_not_written(tmp_path):
    bad = replace(made_up_episode(), prompt="")
    with pytest.raises(DataError, match="no prompt"):
        write_shard(tmp_path / "a.tar", [("fine", made_up_episode()), ("bad", bad)])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(DataError, match="worldwire data generate"):
        list(read_episodes(tmp_path))


def test_the_sheet_and_the_statistics(shard):
    statistics = Statistics()
    episodes = list(read_episodes(shard))
    for episode in episodes:
        statistics.add(episode)
    sheet = np.asarray(contact_sheet(episodes))
    assert sheet.shape[0] > 3 * 120
    assert sheet.std() > 20
    text = "\n".join(statistics.lines())
    assert "3 episodes, 36 frames" in text
    assert "moving in 100.0 %" in text
    assert "2.00 m/s" not in text  # twelve frames hold eleven steps
    assert "forward 92 %" in text
    statistics.add(replace(episodes[0], policy=None))
    assert "None" not in "\n".join(statistics.lines())  # a capture has no policy
