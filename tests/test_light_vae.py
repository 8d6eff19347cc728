"""Light decoders: the encoder stays, widths and channels are cut as they should be, a run has a table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_training_cases import tiny_world

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.model.vae import PIXEL_PATCH, RGB, VAE, VAEConfig
from worldwire_training.base_config import read_config
from worldwire_training.common import Ranks
from worldwire_training.light_vae import (
    TABLE_FILE,
    LightVAEConfig,
    LightVAETrainer,
    cut,
    last_layer,
    light_config,
    light_loss,
    prune,
    train_light_vae,
)
from worldwire_training.vae_data import MemoryFrames
from worldwire_training.vae_losses import LossWeights
from worldwire_training.vae_training import VAETrainConfig
from worldwire_training.worlds import load_vae

CONFIG = Path(read_config.__code__.co_filename).parent / "configs" / "light_vae_tiny.toml"


def full_vae() -> VAE:
    torch.manual_seed(0)
    statistics = {"latent_mean": (0.5,) * 4, "latent_std": (2.0,) * 4}
    return VAE(replace(tiny_world().vae, dim=4, dec_dim=8, **statistics))


@pytest.mark.parametrize(("rate", "width"), [(0.5, 12), (0.75, 6)])
def test_the_encoder_keeps_its_width(rate: float, width: int):
    light = light_config(VAEConfig(dim=32, dec_dim=24), rate)
    assert (light.encoder_width, light.decoder_width) == (32, width)
    assert light.pruning_rate == rate
    again = light_config(light_config(VAEConfig(dim=32, dec_dim=24), 0.5), 0.5)
    assert (again.encoder_width, again.decoder_width) == (32, 6)


def test_a_decoder_without_channels_is_refused():
    with pytest.raises(ConfigError, match="cannot be pruned"):
        light_config(VAEConfig(dim=4, dec_dim=4), 0.99)
    with pytest.raises(ConfigError, match="out of range"):
        LightVAEConfig(VAETrainConfig(steps=1), rate=1.0)


def test_latents_do_not_change_and_first_channels_are_kept():
    full = full_vae()
    light = prune(full, 0.5)
    video = torch.rand(1, 3, 5, 32, 64) * 2 - 1
    torch.testing.assert_close(light.encode(video), full.encode(video))
    assert light.decode(light.encode(video))[0].shape == video.shape
    weight = full.decoder.middle[0].residual["2"].weight
    kept = light.decoder.middle[0].residual["2"].weight
    assert torch.equal(kept, weight[: kept.shape[0], : kept.shape[1]])


def test_frames_of_a_pair_and_queries_keys_values_are_cut_each():
    tensor = torch.arange(12.0)
    assert cut("decoder.x.time_conv.bias", tensor, torch.Size([4])).tolist() == [0, 1, 6, 7]
    assert cut("decoder.x.to_qkv.bias", tensor, torch.Size([6])).tolist() == [0, 1, 4, 5, 8, 9]
    assert cut("decoder.x.bias", tensor, torch.Size([3])).tolist() == [0, 1, 2]


def test_the_loss_is_zero_at_its_target_and_reports_the_truth():
    video, shown = torch.rand(1, 3, 5, 32, 32), torch.rand(1, 3, 5, 32, 32)
    loss, error = light_loss(shown, video, shown, 0.0, LossWeights())
    assert loss == 0
    torch.testing.assert_close(error, (shown - video).square().mean())
    assert light_loss(shown, video, shown, 1.0, LossWeights())[0] > 0


def test_a_run_leaves_a_vae_and_a_table(tmp_path: Path):
    frames = MemoryFrames(torch.randint(0, 255, (2, 9, 32, 64, 3), dtype=torch.uint8))
    training = VAETrainConfig(
        steps=2,
        clip_batch=1,
        clip_frames=5,
        precision="float32",
        compile="none",
        evaluation_frames=5,
        evaluations=1,
    )
    full = full_vae()
    ranks = Ranks(0, 1, torch.device("cpu"))
    table = train_light_vae(LightVAEConfig(training), full, frames, frames, tmp_path, ranks=ranks)
    assert table["light"]["decoder_parameters"] < 0.5 * table["full"]["decoder_parameters"]
    assert json.loads((tmp_path / TABLE_FILE).read_text())["table"] == table
    light = load_vae(tmp_path, ranks.device, torch.float32)
    assert light.config.latent_std == (2.0,) * 4
    assert torch.equal(light.encoder.conv1.weight, full.encoder.conv1.weight.bfloat16().float())


def test_the_shipped_settings_are_read():
    assert read_config(CONFIG, LightVAEConfig, ["rate=0.75"]).rate == 0.75


def training(**changes) -> VAETrainConfig:
    settings = {
        "clip_batch": 1,
        "clip_frames": 5,
        "precision": "float32",
        "compile": "none",
        "evaluations": 0,
    }
    return VAETrainConfig(**{**settings, "evaluation_frames": 5, "peak_rate": 1e-3, **changes})


def trainer(config: LightVAEConfig, output: Path) -> LightVAETrainer:
    torch.manual_seed(1)
    frames = MemoryFrames(torch.randint(0, 255, (2, 9, 32, 64, 3), dtype=torch.uint8))
    return LightVAETrainer(config, full_vae(), frames, frames, output, Ranks(0, 1, torch.device("cpu")))


def test_the_full_decoder_trains_on_and_its_encoder_stays(tmp_path: Path):
    full = full_vae()
    run = trainer(LightVAEConfig(training(steps=2), rate=0.0, adversarial=0.5), tmp_path)
    for name, tensor in full.state_dict().items():
        assert torch.equal(run.vae.state_dict()[name], tensor), name
    for _ in range(2):
        run.train_step()
    for name, tensor in full.state_dict().items():
        changed = not torch.equal(run.vae.state_dict()[name], tensor)
        assert changed == name.startswith(("decoder", "conv2")), name


def test_a_run_with_a_critic_goes_on_as_if_nothing_had_happened(tmp_path: Path):
    config = LightVAEConfig(training(steps=6), rate=0.0, adversarial=0.5)
    whole = trainer(config, tmp_path / "a")
    for _ in range(6):
        whole.train_step()
    cut_short = trainer(config, tmp_path / "b")
    for _ in range(3):
        cut_short.train_step()
    cut_short.save()
    resumed = trainer(config, tmp_path / "b")
    resumed.resume()
    for _ in range(3):
        resumed.train_step()
    for name, tensor in whole.vae.state_dict().items():
        assert torch.equal(resumed.vae.state_dict()[name], tensor), name
    without = trainer(replace(config, adversarial=0.0), tmp_path / "b")
    with pytest.raises(CheckpointError, match="with a critic"):
        without.resume()


def test_the_last_layer_makes_the_picture():
    weight = last_layer(full_vae())
    assert weight.shape[0] == RGB * PIXEL_PATCH**2


def test_the_sharper_decoders_settings_are_read():
    config = read_config(CONFIG.with_name("decoder_tiny.toml"), LightVAEConfig, [])
    assert (config.rate, config.truth_share) == (0, 1)
    assert config.adversarial > 0


@pytest.mark.parametrize(("truth_share", "asked"), [(1.0, 0), (0.5, 1)])
def test_the_full_decoder_is_asked_only_where_it_is_a_target(tmp_path: Path, truth_share: float, asked: int):
    run = trainer(LightVAEConfig(training(steps=1), rate=0.0, truth_share=truth_share), tmp_path)
    decode, calls = run._full.decode_raw, []
    run._full.decode_raw = lambda latents: calls.append(latents) or decode(latents)
    run.train_step()
    assert len(calls) == asked
