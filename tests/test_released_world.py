"""A small tree in the released layout plays, through a session and through a server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from released_trees import small_config, write_tree
from server_fixture import serving

from worldwire.camera import make_c2w, rotation_from_yaw_pitch
from worldwire.client import connect
from worldwire.errors import CheckpointError, ConfigError, ImageError
from worldwire.inputs import KEYS, Inputs
from worldwire.motion import MotionModel, PlayerPose
from worldwire_runtime.camera import released
from worldwire_runtime.camera.inferred import inferred_inputs
from worldwire_runtime.camera.plucker import cell_rays
from worldwire_runtime.conditioning import latent_of_frame, released_plucker
from worldwire_runtime.model.action import released_padding
from worldwire_runtime.released.rules import official_schedule
from worldwire_runtime.world import World

FORWARD = Inputs(frozenset({"forward"}), yaw_deg=1.5)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("release"))


@pytest.fixture
def tree(pristine, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "release"))


@pytest.fixture(scope="module")
def world(pristine) -> World:
    return load(pristine)


def load(folder: Path, **options) -> World:
    return World.load(folder, device="cpu", precision="float32", **options)


def play(world: World, inputs=(FORWARD, FORWARD), **reset) -> np.ndarray:
    session = world.session()
    frames = [session.reset(image="meadow", prompt="a village by day", **reset)]
    for item in inputs:
        frames += session.step(item)
    return np.stack([frame.pixels for frame in frames])


def test_it_plays_57_frames_then_40_with_memory(world):
    session = world.session()
    first = session.reset(image="meadow", prompt="a village by day")
    clips = [session.step(FORWARD) for _ in range(3)]
    assert [first.index, *(len(clip) for clip in clips)] == [0, 56, 40, 40]
    assert clips[0][-1].memory_latents == ()
    assert clips[1][-1].memory_latents[-1] == 1  # the sink
    assert len(clips[2][-1].memory_latents) == 5
    assert clips[2][-1].pixels.shape == (32, 64, 3)
    assert clips[0][0].pixels.std() > 0


def test_the_same_seed_gives_the_same_frames_and_a_saved_session_goes_on(world):
    assert np.array_equal(play(world, seed=3), play(world, seed=3))
    assert not np.array_equal(play(world, seed=3), play(world, seed=4))
    session = world.session()
    session.reset(image="meadow", prompt="a village")
    session.step(FORWARD)
    session.step(FORWARD)
    other = session.branch()
    ours, theirs = session.step(FORWARD), other.step(FORWARD)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(ours, theirs, strict=True))


def test_it_plays_through_a_server(world):
    with serving(world) as server, connect(server.endpoint) as client, client.session() as session:
        first = session.reset(image="meadow", prompt="a village by day")
        frames = session.step(FORWARD)
    assert (first.index, len(frames)) == (0, 56)
    assert frames[-1].pixels.shape == (32, 64, 3)
    assert client.info.extra["weights"] == "released"
    assert client.info.extra["vae_pruning"] == 0.75


def test_prompt_keys_look_and_cameras_reach_the_frames(world):
    told = play(world)
    for other in (
        play(world, (Inputs(frozenset({"back"}), yaw_deg=1.5),) * 2),
        play(world, (Inputs(frozenset({"forward"}), yaw_deg=-1.5),) * 2),
    ):
        assert not np.array_equal(told, other)
    session = world.session()
    session.reset(image="meadow", prompt="night")
    assert not np.array_equal(session.step(FORWARD)[-1].pixels, told[56])


# ------------------------------------------------------------------ which file plays


def test_the_folder_of_a_transformer_picks_it_and_its_sampler(pristine):
    distilled, base = load(pristine), load(pristine / "base_model")
    assert (distilled.config.sampler.steps, distilled.config.sampler.guidance) == (3, 1.0)
    assert (base.config.sampler.steps, base.config.sampler.guidance) == (50, 5.0)


def test_guidance_runs_a_null_branch_without_memory_and_actions(pristine, monkeypatch):
    world = load(pristine / "base_model")
    monkeypatch.setattr(world.rules, "_config", _with_steps(world.config, 2))
    session = world.session()
    session.reset(image="meadow", prompt="a village")
    session.step(FORWARD)
    clips = recorded(world, monkeypatch)
    session.step(FORWARD)
    (told, context), (null, null_context) = clips
    assert (told.plucker.shape[1], null.plucker.shape[1]) == (19, 14)
    assert (context.shape[2], null_context.shape[2]) == (9, 4)
    assert torch.equal(null.plucker, told.plucker[:, 5:])
    assert set(null.keyboard.unique().tolist()) == {-1.0}
    assert set(null.mouse.unique().tolist()) == {1.0}
    assert not torch.equal(null.text, told.text)


@pytest.mark.parametrize("pruning", [0, 0.5, 0.75])
def test_every_vae_of_the_tree_decodes(pristine, pruning):
    world = load(pristine, vae_pruning=pruning)
    assert world.config.vae.decoder_width == 16 * (1 - pruning)
    assert world.config.vae.encoder_width == 8
    assert play(world, (FORWARD,)).shape == (57, 32, 64, 3)


def test_the_lightest_vae_that_is_there_plays(tree):
    (tree / "MG-LightVAE_v2.pth").unlink()
    assert load(tree).config.vae.pruning_rate == 0.5
    (tree / "MG-LightVAE.pth").unlink()
    assert load(tree).config.vae.pruning_rate == 0.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_it_plays_in_every_precision(pristine, precision):
    world = World.load(pristine, device="cpu", precision=precision)
    assert world.info.extra["precision"] == precision
    assert play(world, (FORWARD,))[1:].std() > 0


# ------------------------------------------------------------------ what is refused


def test_a_prompt_alone_starts_nothing(world):
    with pytest.raises(ImageError, match="starts from a picture"):
        world.session().reset(prompt="a village")


def test_keys_without_cameras_are_refused(world):
    with pytest.raises(ConfigError, match="both or poses"):
        world.session().reset(image="meadow", conditioning="keys")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"attention": "cached"}, "trained for another attention mode"),
        ({"vae_pruning": 0.25}, "a VAE pruned by 0.25"),
        ({"text_on": "moon"}, "device or cpu"),
    ],
)
def test_wrong_options_are_refused(pristine, options, named):
    with pytest.raises((ConfigError, CheckpointError), match=named):
        load(pristine, **options)


def test_another_clip_plan_is_refused(world):
    with pytest.raises(ConfigError, match="paper"):
        world.session("low-latency")


@pytest.mark.parametrize(
    "name",
    [
        "Wan2.2_VAE.pth",
        "models_t5_umt5-xxl-enc-bf16.pth",
        "google/umt5-xxl",
        "base_model/diffusion_pytorch_model-00002-of-00003.safetensors",
        "base_model/config.json",
    ],
)
def test_a_missing_file_is_named(tree, name):
    path = tree / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        load(tree / "base_model")
    assert Path(name).name in str(caught.value)


def test_sizes_that_disagree_are_refused(tree):
    path = tree / "base_distilled_model" / "config.json"
    path.write_text(path.read_text().replace('"ffn_dim": 48', '"ffn_dim": 64'))
    with pytest.raises(ConfigError, match="different networks"):
        load(tree)


def test_an_empty_folder_is_no_world(tmp_path):
    with pytest.raises(ConfigError, match="released files"):
        load(tmp_path)


# ------------------------------------------------------------------ what the network is told


def _with_steps(config, steps):
    return replace(config, sampler=replace(config.sampler, steps=steps))


def recorded(world, monkeypatch):
    """Conditions and context of everything that is sampled from now on."""
    clips = []
    for name in ("sample", "velocity"):
        asked = getattr(world.denoiser, name)

        def record(conditions, context, *rest, asked=asked):
            if not any(conditions is told for told, _ in clips):
                clips.append((conditions, context))
            return asked(conditions, context, *rest)

        monkeypatch.setattr(world.denoiser, name, record)
    return clips


def official_actions(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Held keys and mouse as the official scripts hold them, with a pause and a diagonal."""
    keyboard, mouse = torch.zeros(frames, 6), torch.zeros(frames, 2)
    for start, keys, turn in (
        (0, (0,), 0.1),
        (12, (0, 3), 0.0),
        (30, (), -0.1),
        (41, (2,), 0.1),
        (70, (1,), 0.0),
    ):
        keyboard[start:] = 0.0
        keyboard[start:, list(keys)] = 1.0
        mouse[start:, 1] = turn
    mouse[20:24, 0] = 0.05
    return keyboard, mouse


def as_inputs(keyboard: torch.Tensor, mouse: torch.Tensor) -> list[Inputs]:
    """Official actions as ours; their action f leads to frame f + 1, ours to frame f."""
    return [
        Inputs(frozenset(name for name, held in zip(KEYS, keys, strict=True) if held), 15 * yaw, -15 * pitch)
        for keys, (pitch, yaw) in zip(keyboard.tolist(), mouse.tolist(), strict=True)
    ]


def test_the_network_is_told_what_the_official_pipeline_tells_it(world, monkeypatch):
    clips = recorded(world, monkeypatch)
    keyboard, mouse = official_actions(97)
    keyboard[[56, 96]], mouse[[56, 96]] = keyboard[[55, 95]], mouse[[55, 95]]  # clips end on a held action
    inputs = as_inputs(keyboard, mouse)
    session = world.session()
    frames = [session.reset(image="meadow"), *session.step(inputs[:56])]
    frames += session.step(inputs[56:96])

    extrinsics = released.extrinsics(released.integrate(keyboard, mouse))
    theirs = released.to_world(extrinsics).numpy()
    ours = np.stack([frame.c2w for frame in frames])
    assert np.abs(ours - theirs).max() < 1e-3  # metres; 8.73 cm is no exact diagonal of 12.35 cm

    config = world.config
    slots = list(frames[-1].memory_latents)
    (first, _), (later, _) = clips
    for conditions, window, chosen in ((first, range(15), []), (later, range(11, 25), slots)):
        cameras = extrinsics[[4 * latent for latent in window]]
        memory = extrinsics[[4 * latent for latent in chosen]]
        asking = extrinsics[released.query_frames(97, 5)][: len(chosen)]
        rays = cell_rays(config.intrinsics, config.latent_hw, 16)
        plucker = released_plucker(cameras[None], memory[None], asking[None], rays)
        assert (conditions.plucker - plucker).abs().max() < 1e-3
        start = max(0, 4 * window[0] - 3)
        for name, actions in (("keyboard", keyboard), ("mouse", mouse)):
            told = getattr(conditions, name)
            padded = released_padding(actions[None, start : 4 * window[-1] + 1], config.dit.action_config)
            assert torch.allclose(told, padded, atol=1e-6), name
        assert conditions.window_times.tolist() == list(window)
        assert conditions.memory_times.tolist() == chosen


def test_the_memory_is_chosen_as_the_official_pipeline_chooses(world):
    """One camera per latent stands for its four frames."""
    keyboard, mouse = official_actions(137)
    inputs = as_inputs(keyboard, mouse)
    session = world.session()
    session.reset(image="meadow")
    ends = (57, 97, 137)
    for start, end in zip((1, *ends), ends, strict=False):
        frames = session.step(inputs[start - 1 : end - 1])
    extrinsics = released.extrinsics(released.integrate(keyboard, mouse))[::4]
    window_start = (137 - 56) // 4 + 1
    queries = [latent_of_frame(frame) for frame in released.query_frames(137, 5)]
    shares = released.biased_overlap(extrinsics[queries], extrinsics[1:window_start], world.config.intrinsics)
    wanted = [index + 1 for index in released.oldest_best(shares)]
    assert list(frames[-1].memory_latents) == [*wanted[:4], 1]


def test_the_timesteps_are_those_that_the_official_network_sees():
    assert official_schedule(3, 5.0).timesteps == (1000.0, 908.0, 712.0)


def test_three_steps_are_the_official_constants(world, monkeypatch):
    """The sampler with a network whose velocity is known in each step (fact sheet, section 3)."""
    noise = torch.randn(2, 48, 2, 4)
    monkeypatch.setattr(world.rules, "conditions", lambda clip: None)

    class Known:
        def sample(self, conditions, context, noise, solver):
            return solver(lambda x, timestep: next(velocities), noise)

    v = torch.randn(3, 1, 48, 2, 2, 4)
    velocities = iter(v)
    clean = world.rules.generate(Known(), None, torch.zeros(0, 48, 2, 4), noise)
    weights = torch.tensor([0.0367763067, 0.2490441056, 0.7139794230])
    wanted = noise - (weights[:, None, None, None, None] * v[:, 0].transpose(1, 2)).sum(0)
    assert torch.allclose(clean, wanted, atol=1e-5)


def test_noise_is_drawn_as_the_official_code_draws_it(world, monkeypatch):
    drawn = []
    generate = world.rules.generate
    monkeypatch.setattr(
        world.rules, "generate", lambda d, c, x, noise: drawn.append(noise) or generate(d, c, x, noise)
    )
    session = world.session()
    session.reset(image="meadow", seed=5)
    session.step(FORWARD)
    session.step(FORWARD)
    generator = torch.Generator().manual_seed(5)
    for noise, window, clean in zip(drawn, (15, 14), (1, 4), strict=True):
        whole = torch.randn((1, 48, window, 2, 4), generator=generator, dtype=torch.bfloat16)
        assert torch.equal(noise, whole[0, :, clean:].transpose(0, 1).float())


# ------------------------------------------------------------------ poses alone


def test_poses_alone_are_told_as_the_keys_and_look_that_lead_there(world, monkeypatch):
    clips = recorded(world, monkeypatch)
    inputs = as_inputs(*(part[:56] for part in official_actions(97)))
    session, steered = world.session(), world.session()
    session.reset(image="meadow")
    frames = session.step(inputs)
    steered.reset(image="meadow")
    followed = steered.step([Inputs(c2w=frame.c2w) for frame in frames])
    (by_keys, _), (by_poses, _) = clips
    assert torch.allclose(by_keys.keyboard, by_poses.keyboard)
    assert torch.allclose(by_keys.mouse, by_poses.mouse, atol=1e-5)
    assert torch.allclose(by_keys.plucker, by_poses.plucker, atol=1e-5)
    assert np.abs(frames[-1].c2w - followed[-1].c2w).max() < 1e-9


def test_keys_beside_a_pose_are_told_as_they_are(world, monkeypatch):
    clips = recorded(world, monkeypatch)
    session = world.session()
    session.reset(image="meadow")
    here = make_c2w(rotation_from_yaw_pitch(0, 0), (0, 0, 0))
    session.step(Inputs(frozenset({"left"}), c2w=here))
    assert clips[0][0].keyboard[0, 20].tolist() == [0, 0, 1, 0, 0, 0]


@given(
    st.sampled_from([frozenset(keys) for keys in ((), ("forward",), ("back", "left"), ("right", "forward"))]),
    st.floats(-20, 20),
    st.floats(-2, 2),
    st.floats(-170, 170),
)
def test_what_the_motion_model_does_is_inferred_again(keys, yaw_deg, pitch_deg, heading_deg):
    motion = MotionModel()
    before = PlayerPose(3.0, 0.0, -7.0, heading_deg, 1.0)
    after = motion.advance(before, Inputs(keys, yaw_deg, pitch_deg))
    found = inferred_inputs(before, after, motion)
    assert found.keys == keys
    assert found.yaw_deg == pytest.approx(yaw_deg, abs=1e-9)
    assert found.pitch_deg == pytest.approx(pitch_deg, abs=1e-9)


def test_drifting_is_no_walking_and_running_holds_the_same_keys():
    motion = MotionModel()
    step_m = motion.walking_speed_m_per_s / motion.frames_per_second
    for length, keys in ((0.3, frozenset()), (3.0, frozenset({"forward"}))):
        after = PlayerPose(z_m=length * step_m)
        assert inferred_inputs(PlayerPose(), after, motion).keys == keys


def test_the_full_size_benchmark_writes_loads_and_plays_a_tree(tmp_path):
    """The script of the GPU, at a small size."""
    path = Path(__file__).parent.parent / "benchmarks" / "full_size_tree.py"
    (tmp_path / "config.json").write_text(small_config().to_json())
    options = ["--config", str(tmp_path / "config.json"), "--out", str(tmp_path / "tree"), "--device", "cpu"]
    subprocess.run([sys.executable, str(path), *options, "--json", str(tmp_path / "record.json")], check=True)
    record = json.loads((tmp_path / "record.json").read_text())
    assert set(record["seconds"]) == {"verify", "load", "first_frame", "first_clip", "second_clip"}
    assert record["peak_main_memory_gib"] > 0


def test_a_prompt_is_encoded_alike_without_its_padding(world):
    """No token sees the padding, so it need not run."""
    text = world._text_encoder
    tokens = text.tokenizer(["a village by day"], padding="max_length", max_length=12, return_tensors="pt")
    with torch.inference_mode():
        hidden = text.encoder(tokens["input_ids"], tokens["attention_mask"])
    padded = torch.where(tokens["attention_mask"].bool()[..., None], hidden, 0).float()
    short = world.encode_prompt("a village by day")
    assert short.shape == (1, 12, 16)
    assert torch.allclose(short, padded, atol=2e-2)  # the encoder runs in bfloat16
    assert short[0, :5].abs().sum() > 0
    assert not short[0, 5:].any()


@pytest.mark.parametrize("name", ["Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_every_file_is_checked_before_the_first_is_read(tree, name, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("read before every file was checked")

    monkeypatch.setattr("worldwire_runtime.model.stored.read_each", refuse)
    state = torch.load(tree / name, weights_only=True)
    gone = next(iter(state))
    torch.save({key: tensor for key, tensor in state.items() if key != gone}, tree / name)
    with pytest.raises(CheckpointError, match="missing"):
        load(tree)


def test_a_folder_without_a_tokenizer_is_named(tree):
    for path in (tree / "google" / "umt5-xxl").iterdir():
        path.write_text("{}")
    with pytest.raises(CheckpointError, match="tokenizer"):
        load(tree)
