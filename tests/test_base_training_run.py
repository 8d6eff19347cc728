"""A whole run on a CPU: bulk episodes and a VAE from files, encoding, training, a world that is played."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from base_training_cases import tiny_world
from safetensors.torch import save_file

pytest.importorskip("moderngl", reason="the extra 'training' is not installed")

from worldwire.cli import main
from worldwire.errors import CheckpointError, ConfigError, DataError
from worldwire.inputs import Inputs
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.checkpoint import read_state
from worldwire_runtime.model.vae import VAE
from worldwire_runtime.world import World, preset_folder
from worldwire_training import base_run
from worldwire_training.base_config import BaseConfig, DataConfig, ValidationConfig, read_config
from worldwire_training.base_model import BaseModel
from worldwire_training.base_run import WORLD_FOLDER, train_base
from worldwire_training.bulk_episodes import BulkEpisodes
from worldwire_training.clip_sampler import Shape
from worldwire_training.common import Ranks
from worldwire_training.data_engine.prompts import prompt_vocabulary
from worldwire_training.latents import LatentStore, encode_episodes
from worldwire_training.worlds import blend, export_world, load_base, load_vae, world_config

FRAMES = 33


def write_worker(folder: Path, worker: int, episodes: int, frames: int = FRAMES) -> None:
    draw, world = np.random.default_rng(worker), tiny_world()
    stem = folder / f"worker-{worker:02d}"
    c2w = np.tile(np.eye(4), (episodes, frames, 1, 1))
    c2w[:, :, 2, 3] = 0.1 * np.arange(frames)
    size = (episodes, frames, world.height, world.width, 3)
    np.save(f"{stem}.frames.npy", draw.integers(0, 255, size, dtype=np.uint8))
    np.save(f"{stem}.keys.npy", draw.random((episodes, frames, 6)) < 0.5)
    np.save(f"{stem}.look.npy", draw.normal(size=(episodes, frames, 2)).astype(np.float32))
    np.save(f"{stem}.c2w.npy", c2w)
    listed = [{"prompt": "a village", "scene_seed": 10 * worker + row} for row in range(episodes)]
    Path(f"{stem}.json").write_text(json.dumps({"frames": frames, "episodes": listed}))


def write_vae(folder: Path) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    vae = VAE(tiny_world().vae)
    save_file(vae.state_dict(), folder / "vae.safetensors")
    (folder / "vae.json").write_text(json.dumps(asdict(vae.config)))


@pytest.fixture
def run(tmp_path: Path) -> BaseConfig:
    for name in ("episodes", "held_out"):
        (tmp_path / name).mkdir()
        write_worker(tmp_path / name, 0, 1)
    write_worker(tmp_path / "episodes", 1, 2)
    write_vae(tmp_path / "vae")
    table = json.loads(tiny_world().to_json())
    for name in ("format", "vae"):
        del table[name]
    return BaseConfig(
        output=str(tmp_path / "base"),
        data=DataConfig(*(str(tmp_path / name) for name in ("episodes", "held_out", "vae")), encode_batch=2),
        world=table,
        shapes=(Shape(0, 4, 2), Shape(0, 1, 2)),
        steps=2,
        latents_per_step=12,
        device="cpu",
        mixed_precision=False,
        compile="none",
        validation=ValidationConfig(scenes=1, latents=5, clips=2),
    )


def test_a_run_ends_with_a_world_that_can_be_played(run: BaseConfig):
    figures = train_base(run)
    assert figures["loss_at_0.6"] > 0
    folder = Path(run.output) / WORLD_FOLDER
    session = World.load(folder, device="cpu", precision="float32").session()
    assert session.reset(prompt="a village").pixels.shape == (32, 64, 3)
    assert len(session.step(Inputs())) == 8
    again = train_base(replace(run, output=run.output + "_2", init_from=str(folder), steps=1))
    assert again.keys() == figures.keys()


def test_latents_are_those_of_the_vae(run: BaseConfig):
    vae = load_vae(Path(run.data.vae), torch.device("cpu"), torch.float32)
    source, world = BulkEpisodes.open(Path(run.data.episodes)), tiny_world()
    tokens = torch.tensor([[1, 2, 0, 0, 0, 0]])
    store = encode_episodes(
        source, [2, 0, 1], vae, tokenize=lambda prompts: tokens.expand(len(prompts), -1), world=world, batch=2
    )
    assert store.latents.shape == (3, 9, 4, 2, 4)
    video = torch.from_numpy(source.frames[2].copy()).permute(3, 0, 1, 2)[None] / 127.5 - 1
    expected = vae.encode(video)[0].transpose(0, 1)
    torch.testing.assert_close(store.latents[0].float(), expected, rtol=1e-2, atol=1e-2)
    alone = vae.encode(video[:, :, 8:9])[0, :, 0]
    torch.testing.assert_close(store.images[0, 2].float(), alone, rtol=1e-2, atol=1e-2)
    assert torch.allclose(store.mouse[0], torch.from_numpy(source.look_deg[2]).flip(-1) / 15)
    assert torch.equal(store.c2w[0, 3], torch.from_numpy(source.c2w[2, 12] @ np.eye(4)))
    assert store.overlaps.diagonal(dim1=1, dim2=2).min() > 0.99
    path = Path(run.output) / "latents.pt"
    store.save(path)
    assert torch.equal(LatentStore.load(path, torch.device("cpu")).latents, store.latents)


def test_latents_are_encoded_once(run: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = tmp_path / "latents"
    run = replace(run, data=replace(run.data, latents_cache=str(cache)), steps=1)
    first = train_base(run)
    assert len(list(cache.glob("latents-*.pt"))) == 2

    def refuse(*_: object, **__: object) -> LatentStore:
        raise AssertionError("encoded again")

    with monkeypatch.context() as unpatched:
        unpatched.setattr(base_run, "encode_episodes", refuse)
        assert train_base(replace(run, output=run.output + "_2")) == first
    train_base(replace(run, data=replace(run.data, most_episodes=2)))
    assert len(list(cache.glob("latents-*.pt"))) == 3


def test_runs_that_begin_together_encode_once(
    run: BaseConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    data = replace(run.data, latents_cache=str(tmp_path / "latents"))
    vae = load_vae(Path(run.data.vae), torch.device("cpu"), torch.float32)
    calls: list[int] = []

    def slow(*args: Any, **named: Any) -> LatentStore:
        calls.append(1)
        time.sleep(0.5)  # the other run asks meanwhile
        return encode_episodes(*args, **named)

    monkeypatch.setattr(base_run, "encode_episodes", slow)
    with ThreadPoolExecutor(2) as runs:
        stores = [
            runs.submit(base_run.training_store, data, tiny_world(), vae, Ranks.join("cpu")) for _ in range(2)
        ]
        first, second = (store.result() for store in stores)
    assert len(calls) == 1
    assert torch.equal(first.latents, second.latents)


def test_cached_latents_belong_to_a_vae(run: BaseConfig):
    vae = load_vae(Path(run.data.vae), torch.device("cpu"), torch.float32)
    source, world = BulkEpisodes.open(Path(run.data.episodes)), tiny_world()
    name = base_run.cache_name(source, [0, 1], world, vae)
    assert name == base_run.cache_name(source, [0, 1], world, vae)
    assert name != base_run.cache_name(source, [0, 2], world, vae)
    with torch.no_grad():
        next(vae.parameters()).add_(1e-3)
    assert name != base_run.cache_name(source, [0, 1], world, vae)


def test_the_shipped_world_can_be_trained_on():
    """Its files hold int8 rows, and its sizes and words are those of the shipped configuration."""
    folder = preset_folder("tiny")
    config = read_config(Path(base_run.__file__).parent / "configs" / "base_tiny.toml", BaseConfig)
    shipped = WorldConfig.from_file(folder / "config.json")
    model = load_base(folder, world_config(config.world, shipped.vae, prompt_vocabulary()))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in model.parameters())
    stored = read_state(folder / "dit.safetensors", torch.float32)
    assert torch.equal(model.dit.head.head.weight, stored["head.head.weight"])
    with pytest.raises(CheckpointError, match="knows other words"):
        load_base(folder, replace(shipped, text=replace(shipped.text, vocabulary=other_words(shipped))))


def other_words(world: WorldConfig) -> tuple[str, ...]:
    return (*world.text.vocabulary[:-1], "zeppelin")


def test_missing_and_broken_episodes_are_named(run: BaseConfig, tmp_path: Path):
    with pytest.raises(DataError, match="there are no episodes"):
        BulkEpisodes.open(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no episode to encode"):
        encode_episodes(
            BulkEpisodes.open(Path(run.data.episodes)),
            [],
            VAE(tiny_world().vae),
            tokenize=lambda _: torch.zeros(0),
            world=tiny_world(),
        )
    whole = tmp_path / "episodes" / "worker-01.frames.npy"
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be read"):
        BulkEpisodes.open(Path(run.data.episodes))


def test_a_world_needs_a_vae_of_its_own_latents(run: BaseConfig, tmp_path: Path):
    with pytest.raises(CheckpointError, match="no trained VAE"):
        load_vae(tmp_path / "nowhere", torch.device("cpu"), torch.float32)
    other = replace(tiny_world().vae, z_dim=6)
    with pytest.raises(ConfigError, match=r"world\.dit\.in_dim = 6"):
        world_config(run.world, other, ["a"])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_base(tmp_path, tiny_world())


def test_the_command_names_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "run.toml"
    path.write_text("output = 'x'\nspeed = 3\n")
    assert main(["train", "base", "--config", str(path)]) == 2
    assert "unknown keys ['speed']" in capsys.readouterr().err


def test_the_vae_of_a_shipped_world_serves_for_training():
    vae = load_vae(preset_folder("tiny"), torch.device("cpu"), torch.float32)
    assert vae.config.z_dim == 48
    assert vae.config.latent_mean is not None


def test_a_blend_lies_between_a_base_model_and_its_student(tmp_path: Path):
    world = tiny_world()
    for seed, name in enumerate(("base", "student")):
        torch.manual_seed(seed)
        export_world(tmp_path / name, world, BaseModel.build(world), VAE(world.vae))
    blend(tmp_path / "base", tmp_path / "student", 0.25, tmp_path / "between")
    base, student, between = (
        load_base(tmp_path / name, world).dit.blocks[0].ffn[0].weight
        for name in ("base", "student", "between")
    )
    torch.testing.assert_close(
        between, 0.75 * base + 0.25 * student, rtol=0, atol=0.02 * float(base.abs().max())
    )
    assert World.load(tmp_path / "between", device="cpu").config.text == world.text
    with pytest.raises(ConfigError, match="share"):
        blend(tmp_path / "base", tmp_path / "student", 1.5, tmp_path / "beyond")
