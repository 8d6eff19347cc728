"""Light decoders: the encoder stays, widths and channels are cut as they should be, a run has a table."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_training_cases import tiny_world

from worldwire.errors import ConfigError
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_training.base_config import read_config
from worldwire_training.common import Ranks
from worldwire_training.light_vae import (
    TABLE_FILE,
    LightVAEConfig,
    cut,
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
