"""VAE training on a CPU at minute sizes: it learns, survives a kill, and writes what a world needs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from worldwire.cli import main as worldwire
from worldwire.errors import CheckpointError, ConfigError, DataError
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_training.common import Ranks, load_config
from worldwire_training.vae_data import MemoryFrames, augment, load_frames, to_video
from worldwire_training.vae_losses import LossWeights, psnr_db, vae_loss
from worldwire_training.vae_report import to_pixels, write_png
from worldwire_training.vae_training import (
    VAETrainConfig,
    VAETrainer,
    copy_second_frames,
    prepare_for_images,
    train_vae,
)

ALONE = Ranks(0, 1, torch.device("cpu"))
TINY = VAETrainConfig(
    model=VAEConfig(dim=4, dec_dim=4, z_dim=6, num_res_blocks=1, decoder_res_blocks=1),
    steps=4,
    image_share=0.5,
    image_batch=2,
    clip_batch=1,
    clip_frames=5,
    warmup_steps=2,
    precision="float32",
    compile="none",
    evaluations=1,
    evaluation_frames=9,
    evaluation_episodes=1,
    checkpoint_every_s=1e9,
    log_every=1,
)


def episodes(count: int = 3, frames: int = 9) -> np.ndarray:
    """Coloured squares that slide over a slope of grey."""
    out = np.zeros((count, frames, 32, 32, 3), dtype=np.uint8)
    for e in range(count):
        for f in range(frames):
            out[e, f] = np.linspace(40, 200, 32, dtype=np.uint8)[:, None, None]
            out[e, f, 8:20, (2 * f + 3 * e) % 20 : (2 * f + 3 * e) % 20 + 8, e % 3] = 250
    return out


def source() -> MemoryFrames:
    return MemoryFrames(torch.from_numpy(episodes()))


def losses(folder: Path) -> list[float]:
    lines = (folder / "scalars.jsonl").read_text().splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def test_a_killed_run_continues_as_if_nothing_happened(tmp_path: Path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    train_vae(TINY, source(), source(), whole, ranks=ALONE)

    killed = VAETrainer(TINY, source(), source(), halves, ALONE)
    for _ in range(3):
        killed.train_step()
    killed.save()
    torch.manual_seed(99)
    train_vae(TINY, source(), source(), halves, ranks=ALONE, resume=True)
    assert losses(halves) == losses(whole)
    ours, theirs = load_file(halves / "vae.safetensors"), load_file(whole / "vae.safetensors")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_results_load_as_a_vae_with_unit_latents(tmp_path: Path):
    quality = train_vae(TINY, source(), source(), tmp_path, ranks=ALONE)
    config = VAEConfig(**json.loads((tmp_path / "vae.json").read_text()))
    vae = VAE(config)
    vae.load_state_dict(load_file(tmp_path / "vae.safetensors"))
    latents = vae.encode(to_video(torch.from_numpy(episodes())))
    assert 0.3 < float(latents.detach().std()) < 3.0
    report = json.loads((tmp_path / "vae_log.json").read_text())
    assert report["quality_db"]["clips_db"] == quality.clips_db
    assert len(report["history"]) == 2
    assert (tmp_path / "vae_sheet.png").read_bytes().startswith(b"\x89PNG")


def test_resuming_without_or_with_another_checkpoint_is_a_typed_error(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        train_vae(TINY, source(), source(), tmp_path, ranks=ALONE, resume=True)
    VAETrainer(TINY, source(), source(), tmp_path, ALONE).save()
    other = replace(TINY, model=replace(TINY.model, dim=8))
    with pytest.raises(CheckpointError, match="another VAE"):
        train_vae(other, source(), source(), tmp_path, ranks=ALONE, resume=True)


def test_an_image_vae_decodes_still_latents_to_a_still_clip():
    torch.manual_seed(0)
    vae = VAE(TINY.model)
    prepare_for_images(vae)
    with torch.no_grad():
        for name, tensor in vae.named_parameters():
            if "decoder" in name and "time_conv" in name:
                half = tensor.shape[0] // 2
                tensor[:half] += 1.0
    copy_second_frames(dict(vae.named_parameters()))
    latent = torch.randn(1, 6, 1, 2, 2)
    with torch.no_grad():
        alone, clip = vae.decode(latent)[0], vae.decode(latent.expand(-1, -1, 3, -1, -1))[0]
    torch.testing.assert_close(clip, alone.expand_as(clip), atol=1e-5, rtol=0)


def test_losses_are_zero_only_for_a_perfect_picture():
    weights = LossWeights(kl=0.0)
    zero, mean, logvar = torch.zeros(1, 3, 5, 32, 32), torch.zeros(1, 6, 2, 2, 2), torch.zeros(1, 6, 2, 2, 2)
    assert vae_loss(zero, mean, logvar, weights)[0] == 0
    flicker = zero.clone()
    flicker[:, :, ::2] = 0.1
    steady = torch.full_like(zero, 0.06)
    assert vae_loss(flicker, mean, logvar, weights)[0] > vae_loss(steady, mean, logvar, weights)[0]
    assert psnr_db(torch.tensor(0.04)) == pytest.approx(20.0)


def test_frames_are_sampled_whole_and_in_order():
    torch.manual_seed(0)
    numbered = torch.arange(2 * 6, dtype=torch.uint8).view(2, 6, 1, 1, 1).expand(2, 6, 4, 4, 3)
    frames = MemoryFrames(numbered)
    assert frames.sample_images(5).shape == (5, 4, 4, 3)
    clips = frames.sample_clips(8, 3)[:, :, 0, 0, 0].int()
    assert (clips.diff(dim=1) == 1).all()
    assert (clips // 6 == clips[:, :1] // 6).all()
    with pytest.raises(DataError, match="too short"):
        frames.sample_clips(1, 7)
    with pytest.raises(DataError, match="no frames"):
        MemoryFrames(torch.zeros(2, 6, 4, 4, 3))


def test_ranks_share_the_episodes_and_none_is_held_out_twice(tmp_path: Path):
    for name, first in (("frames_0.npy", 0), ("frames_1.npy", 5)):
        numbered = np.arange(first, first + 5, dtype=np.uint8)
        np.save(tmp_path / name, np.broadcast_to(numbered[:, None, None, None, None], (5, 9, 4, 4, 3)))
    seen = []
    for part in range(2):
        training, held_out = load_frames(tmp_path, torch.device("cpu"), part=part, parts=2, held_out=2)
        seen += training.episodes[:, 0, 0, 0, 0].tolist()
        assert held_out.episodes[:, 0, 0, 0, 0].tolist() == [8, 9]
    assert sorted(seen) == list(range(8))
    with pytest.raises(DataError, match="frames"):
        load_frames(tmp_path / "none", torch.device("cpu"))


def test_augmentation_keeps_range_and_clip_together():
    torch.manual_seed(0)
    frame = torch.rand(8, 3, 1, 4, 4) * 2 - 1
    out = augment(frame.expand(-1, -1, 3, -1, -1), colour_jitter=0.5)
    assert out.abs().max() <= 1.0
    torch.testing.assert_close(out[:, :, 0], out[:, :, 2])


def test_png_is_readable(tmp_path: Path):
    image = pytest.importorskip("PIL.Image")
    pixels = to_pixels(torch.rand(5, 7, 3) * 2 - 1)
    write_png(tmp_path / "a.png", pixels)
    np.testing.assert_array_equal(np.asarray(image.open(tmp_path / "a.png")), pixels.numpy())


def test_the_command_runs_two_steps_and_resumes(tmp_path: Path):
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "frames_0.npy", episodes())
    config = tmp_path / "c.toml"
    config.write_text(
        "steps = 2\nimage_batch = 1\nclip_batch = 1\nclip_frames = 5\nevaluation_frames = 5\n"
        'precision = "float32"\ncompile = "none"\n'
        "[model]\ndim = 4\ndec_dim = 4\nz_dim = 6\nnum_res_blocks = 1\n"
    )
    arguments = ["--config", str(config), "--data", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    arguments += ["--held-out", "1", "--device", "cpu"]
    assert worldwire(["train", "vae", *arguments]) == 0
    assert worldwire(["train", "vae", *arguments, "--set", "steps=3", "--resume"]) == 0
    assert json.loads((tmp_path / "out" / "vae_log.json").read_text())["steps"] == 3


def test_configuration_of_the_tiny_world():
    path = Path(__file__).parents[1] / "training" / "worldwire_training" / "configs" / "vae_tiny.toml"
    config = load_config(path, VAETrainConfig)
    parameters = sum(p.numel() for p in VAE(config.model).parameters())
    assert parameters <= 9_000_000
    with pytest.raises(ConfigError, match="exactly one"):
        replace(config, steps=5)
