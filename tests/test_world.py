"""Worlds: what is loaded, what is refused and how, the seed images, and the world that is shipped."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from worlds import HEIGHT, WIDTH, random_config, write_random_world

from worldwire.errors import CheckpointError, ConfigError, ImageError, MachineError
from worldwire.inputs import Inputs
from worldwire_runtime.acceleration import SteadyCompiled
from worldwire_runtime.config import ClipPlan, WorldConfig
from worldwire_runtime.model.text import TinyTextConfig
from worldwire_runtime.seed_images import SeedImages
from worldwire_runtime.world import CONFIG_FILE, DIT_FILE, PRESETS, TEXT_FILE, VAE_FILE, World, preset_names

SHIPPED_BYTES = 30 * 2**20


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return write_random_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def folder(pristine, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "world"))


@pytest.fixture(scope="module")
def world(pristine) -> World:
    return load(pristine)


def load(folder: Path) -> World:
    return World.load(folder, device="cpu", precision="float32")


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"preset": "atlantis"}, ConfigError, "tiny"),
        ({"preset": "/no/such/folder"}, ConfigError, "config.json"),
        ({"device": "abacus"}, ConfigError, "auto, cpu, cuda"),
        ({"device": "meta"}, ConfigError, "auto, cpu, cuda"),
        ({"device": "cuda:99"}, MachineError, "cuda:99"),
        ({"precision": "float7"}, ConfigError, "bfloat16 or float32"),
    ],
    ids=["preset", "folder", "device", "other_device", "absent_device", "precision"],
)
def test_unknown_options_are_refused_with_what_there_is(pristine, options, error, named):
    with pytest.raises(error, match=named):
        World.load(**({"preset": pristine, "device": "cpu"} | options))


def test_unknown_plans_are_refused_with_what_there_is(world):
    with pytest.raises(ConfigError, match="low-latency or paper"):
        world.session("high-latency")
    with pytest.raises(ConfigError, match="low-latency or paper"):
        world.info_for("high-latency")


@pytest.mark.parametrize("section", ["config", "dit", "vae", "text", "sampler", "motion", "plans.paper"])
def test_unknown_and_missing_keys_of_a_config_are_named(folder, section):
    path = folder / CONFIG_FILE
    values = json.loads(path.read_text())
    place = values
    for name in section.split(".") if section != "config" else ():
        place = place[name]
    required = {"config": "height", "dit": "dim", "text": "vocabulary", "plans.paper": "past"}.get(section)
    place["hieght"] = 1
    if required is not None:
        del place[required]
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigError) as caught:
        load(folder)
    assert "hieght" in str(caught.value)
    assert required is None or required in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99}'])
def test_a_file_that_is_no_config_is_named(folder, text):
    (folder / CONFIG_FILE).write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load(folder)


@pytest.mark.parametrize("numbers", [(1, 4, 2, 5), (3, 0, 2, 5), (3, 4, 0, 5), (3, 4, 2, -1)])
def test_impossible_clip_plans_are_refused(numbers):
    with pytest.raises(ConfigError, match="clip plan"):
        ClipPlan(*numbers)


def test_sizes_and_slots_that_do_not_fit_are_refused():
    values = json.loads(random_config().to_json())
    del values["format"]
    with pytest.raises(ConfigError, match="multiples of 32"):
        WorldConfig.from_dict(values | {"height": 40})
    with pytest.raises(ConfigError, match="memory times"):
        WorldConfig.from_dict(values | {"window_time_start": 4})


@pytest.mark.parametrize("name", [DIT_FILE, VAE_FILE, TEXT_FILE])
def test_every_wrong_tensor_of_a_file_is_named(folder, name):
    state = load_file(folder / name)
    plain = sorted(
        key for key, tensor in state.items() if tensor.dtype == torch.float32 and "scale" not in key
    )
    gone, bent = plain[0], plain[1]
    del state[gone]
    state[bent] = torch.zeros(3, 1, 7)
    state["surplus"] = torch.zeros(2)
    save_file(state, folder / name)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    for fault in (name, f"missing: {gone}", "extra: surplus", f"{bent} [3, 1, 7] instead of"):
        assert fault in str(caught.value)


@pytest.mark.parametrize("name", [DIT_FILE, VAE_FILE, TEXT_FILE])
def test_absent_and_cut_files_are_named(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=name):
        load(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load(folder)


# ------------------------------------------------------------------ what is told and kept


def test_a_config_reads_back_what_it_wrote(tmp_path):
    config = random_config()
    (tmp_path / CONFIG_FILE).write_text(config.to_json())
    assert WorldConfig.from_file(tmp_path / CONFIG_FILE) == config


def test_clients_are_told_of_the_plan_and_the_seed_images(world):
    info = world.info
    assert (info.height, info.width, info.frames_per_step) == (HEIGHT, WIDTH, 8)
    assert world.info_for("paper").frames_per_step == 40
    assert info.seed_images == ("meadow", "hall") == tuple(info.extra["seeds"])
    assert info.extra["seeds"]["hall"] == {"prompt": "a village", "view": "third"}


def test_words_that_the_world_never_learned_are_logged(world, caplog):
    world.session().reset("a submarine by day")
    assert "submarine" in caplog.text
    assert "village" not in caplog.text


# ------------------------------------------------------------------ seed images


@pytest.mark.parametrize(
    ("given", "view"),
    [
        ({}, "first"),
        ({"image": "hall"}, "third"),
        ({"image": "hall", "view": "first"}, "first"),
        ({"view": "third"}, "third"),
        ({"prompt": "a village"}, "first"),
        ({"prompt": "a village", "view": "third"}, "third"),
        ({"image": np.zeros((HEIGHT, WIDTH, 3), np.uint8)}, "first"),
    ],
)
def test_a_seed_image_plays_in_its_own_view_unless_told(world, given, view):
    session = world.session()
    session.reset(**given)
    turned = session.step(Inputs(yaw_deg=10.0))[-1].c2w
    assert np.any(turned[:3, 3]) == (view == "third")  # only a camera on a boom moves when the player turns


def test_without_a_name_the_first_picture_of_the_view_is_taken(world):
    assert world.start_picture(None, None, "third").prompt == "a village"
    assert world.start_picture(None, None, None).prompt == "a village by day"
    assert world.start_picture("a day", "hall", None).prompt == "a day"


def test_a_world_without_seed_images_starts_from_prompts_only(folder):
    shutil.rmtree(folder / "seeds")
    world = load(folder)
    assert world.info.seed_images == ()
    with pytest.raises(ConfigError, match="ships none"):
        world.session().reset()
    assert world.session().reset("a village").index == 0


def test_corrupt_and_wrong_pictures_are_named_when_they_are_asked_for(folder):
    (folder / "seeds" / "meadow.png").write_bytes(b"\x89PNG, or rather not")
    Image.new("RGB", (8, 8)).save(folder / "seeds" / "hall.png")
    seeds = SeedImages(folder / "seeds", HEIGHT, WIDTH)
    with pytest.raises(ImageError, match=r"meadow\.png"):
        seeds.get("meadow")
    with pytest.raises(ImageError, match=r"\[32, 64, 3\]"):
        seeds.get("hall")
    with pytest.raises(ConfigError, match="meadow, hall"):
        seeds.get("atlantis")


@pytest.mark.parametrize("text", ["", "[]", '{"meadow": "a village"}', '{"meadow": {"view": "first"}}'])
def test_a_corrupt_index_of_seed_images_is_named(folder, text):
    (folder / "seeds" / "seeds.json").write_text(text)
    with pytest.raises(ConfigError, match=r"seeds\.json"):
        load(folder)


# ------------------------------------------------------------------ acceleration


def test_only_shapes_that_repeat_are_compiled(monkeypatch):
    compiled = []

    def fuse(function, **_):
        compiled.append(function)
        return lambda x: function(x) + 100

    def double(x):
        return 2 * x

    monkeypatch.setattr(torch, "compile", fuse)
    steady = SteadyCompiled(double)
    clips = [1, 2, 3, 3, 3, 3, 1, 3]  # lengths, as of a session's first clips and then all others
    shown = [float(steady(torch.ones(length)).max()) for length in clips]
    assert shown == [2, 2, 2, 2, 102, 102, 2, 102]
    assert compiled == [double]


# ------------------------------------------------------------------ the shipped world


def test_the_shipped_world_is_small_and_plays_without_a_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a world must load without a network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    folder = PRESETS / "tiny"
    assert "tiny" in preset_names()
    assert (
        sum(path.stat().st_size for path in [*folder.glob("*.safetensors"), folder / CONFIG_FILE])
        <= SHIPPED_BYTES
    )
    world = World.load("tiny", device="cpu")
    session = world.session()
    first = session.reset(seed=1)
    assert first.pixels.shape == (192, 320, 3)
    still = session.branch().step(Inputs())
    turned = session.step(Inputs(yaw_deg=4.0))
    assert len(still) == len(turned) == 8
    apart = np.abs(still[-1].pixels.astype(float) - turned[-1].pixels).mean()
    moved = np.abs(still[-1].pixels.astype(float) - first.pixels).mean()
    assert apart > 2 * moved
    assert apart > 10


def test_all_shipped_seed_images_can_be_read():
    for name in preset_names():
        config = WorldConfig.from_file(PRESETS / name / CONFIG_FILE)
        seeds = SeedImages(PRESETS / name / "seeds", config.height, config.width)
        for seed in map(seeds.get, seeds.names):
            assert seed.view in config.views
            if isinstance(config.text, TinyTextConfig):
                assert not set(seed.prompt.replace(",", "").split()) - set(config.text.vocabulary)
