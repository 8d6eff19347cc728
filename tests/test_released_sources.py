"""Which weights play: presets without any, random ones, experts; what a machine must have for them."""

from __future__ import annotations

import argparse
import json
import shutil
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from released_trees import small_config, write_text, write_transformer, write_tree, write_vaes
from worlds import write_random_world

from worldwire.cli import main
from worldwire.errors import CheckpointError, ConfigError, MachineError
from worldwire.inputs import Inputs
from worldwire_runtime import footprint, machine
from worldwire_runtime import world as world_module
from worldwire_runtime.commands.world_options import add_world_options, as_arguments
from worldwire_runtime.config import ClipPlan, ExpertsConfig, WorldConfig
from worldwire_runtime.experts import Expert, ExpertDenoiser, Residence
from worldwire_runtime.footprint import Resident, check_memory, memory_estimate, transformer_bytes
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.released.tree import EXPERT_FOLDERS
from worldwire_runtime.sources import CONFIG_FILE, PRESETS, locate
from worldwire_runtime.world import World

FORWARD = Inputs(frozenset({"forward"}))
GIB = 2**30


def preset(name: str) -> WorldConfig:
    return WorldConfig.from_file(PRESETS / name / CONFIG_FILE)


def load(folder: Path, **options) -> World:
    return World.load(folder, device="cpu", precision="float32", **options)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def experts(tmp_path_factory) -> Path:
    """A tree of two views' experts, in the layout that the runtime expects."""
    folder = tmp_path_factory.mktemp("experts")
    config = replace(small_config(), experts=ExpertsConfig(), views=("first", "third"))
    (folder / CONFIG_FILE).write_text(config.to_json())
    for seed, name in enumerate(EXPERT_FOLDERS.values()):
        torch.manual_seed(seed)
        write_transformer(folder / name, config.dit, torch.float32)
    write_vaes(folder, config.vae)
    write_text(folder, config)
    return folder


# ------------------------------------------------------------------ presets and where their weights are


@pytest.mark.parametrize("name", ["5b-720p", "28b-moe"])
def test_a_preset_without_weights_says_where_to_get_them(name):
    with pytest.raises(CheckpointError, match="comes without weights"):
        locate(name)
    assert locate(name, "random").kind == "random"


def test_a_preset_takes_its_weights_from_a_tree(pristine, tmp_path):
    tree = Path(shutil.copytree(pristine, tmp_path / "tree"))
    (tree / CONFIG_FILE).unlink()
    bare = locate("5b-720p", tree)
    assert bare.tree.folder == tree
    assert bare.config.dit == small_config().dit  # the tree's own sizes
    assert bare.config.height == 704
    assert locate(tree).config == bare.config
    assert locate(tree / "base_model").config.sampler.guidance == 5.0
    with pytest.raises(CheckpointError, match="no released weights"):
        locate("5b-720p", tmp_path)


def test_released_weights_beside_a_config_of_ours_are_refused(pristine, tmp_path):
    folder = write_random_world(tmp_path / "world")
    with pytest.raises(ConfigError, match="does not speak of the released model"):
        locate(folder, pristine)


@pytest.mark.parametrize("attention", [None, "joint", "cached", "rolling"])
def test_random_weights_play_in_any_attention_mode(pristine, tmp_path, attention):
    folder = tmp_path / "bare"
    shutil.copytree(pristine / "seeds", folder / "seeds")
    shutil.copy(pristine / CONFIG_FILE, folder)
    world = load(folder, weights="random", attention=attention, vae_pruning=0.5)
    assert world.info.extra["weights"] == "random"
    assert world.config.dit.attention == (attention or "joint")
    session = world.session()
    session.reset(seed=1)
    frames = [*session.step(FORWARD), *session.step(FORWARD)]
    assert len(frames) == 96
    assert frames[-1].pixels.std() > 0


@pytest.mark.parametrize("attention", ["joint", "cached", "rolling"])
@pytest.mark.parametrize("new", [1, 2])
def test_random_weights_play_low_latency_plans(pristine, attention, new):
    world = load(pristine, weights="random", attention=attention)
    session = world.session(ClipPlan(first=1 + new, past=4, new=new, memory=5))
    session.reset(seed=1)
    for _ in range(12):
        frames = session.step(FORWARD)
    assert len(frames) == 4 * new
    assert len(frames[-1].memory_latents) == 5


def test_random_weights_are_the_same_every_time(pristine):
    first, second = (load(pristine, weights="random") for _ in range(2))
    for a, b in zip(first.denoiser.dit.parameters(), second.denoiser.dit.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_plan_by_its_name_becomes_the_default():
    source = locate("5b-720p", "random", plan="low-latency")
    assert source.config.plan() == locate("5b-720p", "random").config.plan("low-latency")
    with pytest.raises(ConfigError, match=r"unknown clip plan; expected: paper or low-latency .*'leisurely'"):
        locate("5b-720p", "random", plan="leisurely")


def test_memory_is_checked_for_the_plan_that_is_played(monkeypatch):
    monkeypatch.setattr(world_module, "free_bytes", lambda device: 17 * GIB)
    monkeypatch.setattr(world_module, "pick_dtype", lambda *_: torch.bfloat16)
    monkeypatch.setattr(world_module, "assemble", None)
    options = {"device": "cpu", "precision": "int8", "weights": "random"}
    with pytest.raises(MachineError, match=r"--plan low-latency takes 14"):
        World.load("5b-720p", **options)
    with pytest.raises(TypeError, match="NoneType"):  # it would be loaded
        World.load("5b-720p", plan="low-latency", **options)


def test_wrong_words_for_random_weights_are_refused():
    with pytest.raises(ConfigError, match="attention mode"):
        locate("5b-720p", "random", attention="sparse")
    with pytest.raises(ConfigError, match="no experts to offload"):
        locate("5b-720p", "random", offload=True)


def test_options_travel_to_another_command_line_and_back():
    parser = argparse.ArgumentParser()
    add_world_options(parser)
    given = [
        "--preset",
        "28b-moe",
        "--random-weights",
        "--attention",
        "cached",
        "--text-on",
        "cpu",
        "--offload",
    ]
    args = parser.parse_args(given)
    assert parser.parse_args(as_arguments(args)) == args


def test_the_bench_says_what_is_wrong_before_it_starts_a_server(capsys):
    assert main(["bench", "--preset", "5b-720p", "--random-weights", "--clips", "1"]) == 2
    assert "at least 20 clips" in capsys.readouterr().err


# ------------------------------------------------------------------ experts


def test_experts_play_each_view_with_its_own(experts):
    world = load(experts)
    shown = {}
    for view in ("first", "third"):
        session = world.session()
        session.reset(image=picture(), prompt="a village", view=view)
        shown[view] = session.step(FORWARD)[-1].pixels
    assert (shown["first"] != shown["third"]).any()


@pytest.mark.parametrize("offload", [False, True])
def test_offloaded_experts_show_the_same(experts, offload):
    session = load(experts, offload=offload).session()
    session.reset(image=picture(), prompt="a village")
    plain = load(experts).session()
    plain.reset(image=picture(), prompt="a village")
    for ours, theirs in zip(session.step(FORWARD), plain.step(FORWARD), strict=True):
        assert (ours.pixels == theirs.pixels).all()


def test_one_view_may_lack_its_expert(experts, tmp_path):
    tree = Path(shutil.copytree(experts, tmp_path / "tree"))
    shutil.rmtree(tree / EXPERT_FOLDERS["high_third"])
    session = load(tree).session()
    session.reset(image=picture(), view="first")
    session.step(FORWARD)
    session.reset(image=picture(), view="third")
    with pytest.raises(ConfigError, match="no expert for the view"):
        session.step(FORWARD)
    shutil.rmtree(tree / EXPERT_FOLDERS["low"])
    with pytest.raises(CheckpointError, match="low_noise_model"):
        load(tree)


def test_the_noise_level_switches_the_expert():
    asked = []

    class Named:
        def __init__(self, name):
            self.name = name

        def velocity(self, conditions, context):
            return lambda x, timestep: asked.append((self.name, timestep)) or x

    denoiser = ExpertDenoiser(Expert(Named("high")), Expert(Named("low")), boundary=900.0, shift=5.0)
    velocity = denoiser.velocity(None, None)
    for timestep in (1000.0, 908.0, 900.0, 899.0, 712.0):
        velocity(torch.zeros(1), timestep)
    assert [name for name, _ in asked] == ["high"] * 3 + ["low"] * 2


def test_what_an_expert_prepared_is_let_go_before_the_other_prepares():
    """At 720p it is 13 GiB for each of them."""
    kept: list[weakref.ref] = []

    class Prepared:
        def __call__(self, x, timestep):
            return x

    class Preparing:
        def velocity(self, conditions, context):
            assert all(other() is None for other in kept)
            made = Prepared()
            kept.append(weakref.ref(made))
            return made

    velocity = ExpertDenoiser(Expert(Preparing()), Expert(Preparing()), boundary=900.0, shift=5.0).velocity(
        None, None
    )
    for timestep in (1000.0, 950.0, 800.0, 700.0):
        velocity(torch.zeros(1), timestep)
    assert len(kept) == 2


def test_weights_come_and_go_without_being_written_back():
    network = torch.nn.Linear(4, 4)
    before = network.weight.data.clone()
    home = network.weight.data.data_ptr()
    residence = Residence(network, torch.device("meta"))
    residence.bring()
    assert network.weight.device.type == "meta"
    residence.leave()
    assert network.weight.data.data_ptr() == home
    assert torch.equal(network.weight.data, before)


def picture():
    return torch.randint(
        0, 255, (32, 64, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    ).numpy()


# ------------------------------------------------------------------ memory and machine


def test_weights_are_counted_exactly():
    config = preset("5b-720p").dit
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in DiT(config).parameters())
    assert transformer_bytes(config, Resident()) == 2 * parameters
    attention_only = transformer_bytes(config, Resident(eight_bit="attention"))
    assert 2 * parameters - attention_only == 8 * 30 * 3072**2  # 240 layers, a byte less for each weight


def test_the_estimate_knows_what_is_where():
    config = preset("5b-720p")
    everything, small = memory_estimate(config, Resident()), memory_estimate(config, Resident(text=False))
    assert everything.device_bytes - small.device_bytes == 2 * 5_680_910_336
    assert small.host["text encoder"] == 2 * 5_680_910_336
    assert (
        memory_estimate(config, Resident(), config.plan("low-latency")).device_bytes < everything.device_bytes
    )
    assert "transformer 12.1" in str(everything)


def test_small_cards_are_said_to_suffice():
    config = preset("5b-720p")
    eight_bit = Resident(text=False, eight_bit="all")
    assert memory_estimate(config, eight_bit).device_bytes < 24 * GIB
    assert memory_estimate(config, eight_bit, config.plan("low-latency")).device_bytes < 16 * GIB


def test_experts_may_wait_in_main_memory():
    config = preset("28b-moe")
    all_there, one = (
        memory_estimate(config, Resident(experts=3)),
        memory_estimate(config, Resident(experts=1)),
    )
    assert all_there.device["transformer"] == 3 * one.device["transformer"]
    assert one.host["resting experts"] == 2 * one.device["transformer"]
    assert all_there.device_bytes < 139 * GIB
    assert one.device_bytes < 80 * GIB


@pytest.mark.parametrize(
    ("free_gib", "named"),
    [
        (30, "--text-on cpu takes"),
        (22, "--text-on cpu --precision int8 takes"),
        (17, "--plan low-latency takes"),
        (4, "preset tiny"),
    ],
)
def test_too_little_memory_is_said_with_what_would_fit(free_gib, named):
    with pytest.raises(MachineError) as caught:
        check_memory(preset("5b-720p"), Resident(), free_gib * GIB, "cuda:0")
    assert named in str(caught.value)
    assert f"{free_gib:.1f} GiB free" in str(caught.value)


def test_memory_is_checked_before_anything_is_loaded(pristine, monkeypatch):
    monkeypatch.setattr(world_module, "free_bytes", lambda device: 0)
    monkeypatch.setattr(world_module, "assemble", None)
    with pytest.raises(MachineError, match="needs more memory"):
        load(pristine)


def test_a_large_world_without_a_gpu_is_refused_unless_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MachineError, match="needs a GPU"):
        World.load("5b-720p", weights="random")
    footprint.check_gpu(preset("tiny"))


def test_fp8_needs_a_chip_that_has_it():
    with pytest.raises(MachineError, match=r"8\.9 or later.*A100: 8\.0.*int8"):
        machine.refuse_fp8((8, 0), "A100")
    machine.refuse_fp8((9, 0), "H200")
    machine.check_arithmetic(Quantization("fp8"), torch.device("cpu"))


def test_an_engine_of_another_machine_is_refused_by_what_differs(tmp_path):
    here = machine.build_facts(torch.device("cpu"))
    machine.check_build(tmp_path / "engine", here | {"note": "more is fine"}, here, "build it again")
    with pytest.raises(MachineError, match=r"torch .*got: torch 1\.0"):
        machine.check_build(tmp_path / "engine", here | {"torch": "1.0"}, here, "build it again")
    with pytest.raises(MachineError, match="unknown"):
        machine.check_build(tmp_path / "engine", {}, here, "build it again")


def test_presets_read_back_what_they_wrote_and_build():
    for name in ("5b-720p", "28b-moe"):
        config = preset(name)
        values = json.loads(config.to_json())
        del values["format"]
        assert WorldConfig.from_dict(values) == config
        with torch.device("meta"):
            DiT(config.dit)
    assert preset("5b-720p").intrinsics.fx == pytest.approx(640)
    assert preset("5b-720p").intrinsics.fy == pytest.approx(352)
