"""The video VAE: the released tensor names, streaming that ignores chunking, causality, typed errors."""

from pathlib import Path

import pytest
import torch

from worldwire.errors import ConfigError, StateError
from worldwire_runtime.model.vae import VAE, VAEConfig, fold_pixels, unfold_pixels, wan22_config

TENSOR_LIST = Path(__file__).parent / "data" / "matrix_game_3_vae_tensors.txt"
PRUNING_COLUMNS = {0.0: 1, 0.5: 2, 0.75: 3}
SMALL = {"dim": 4, "dec_dim": 4, "z_dim": 6, "num_res_blocks": 1, "decoder_res_blocks": 1}


def small_vae(**changes) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(**{**SMALL, **changes})).eval()


@pytest.mark.parametrize("pruning_rate", PRUNING_COLUMNS)
def test_released_layout_has_the_original_names_and_shapes(pruning_rate: float):
    with torch.device("meta"):
        vae = VAE(wan22_config(pruning_rate))
    rows = [line.split("\t") for line in TENSOR_LIST.read_text().splitlines() if not line.startswith("#")]
    column = PRUNING_COLUMNS[pruning_rate]
    expected = {row[0]: tuple(int(n) for n in row[column].split("x")) for row in rows}
    assert {name: tuple(t.shape) for name, t in vae.state_dict().items()} == expected
    assert len(expected) == 196


def test_latent_statistics_survive_the_meta_device():
    with torch.device("meta"):
        vae = VAE(wan22_config())
    assert vae.latent_mean.flatten()[0].item() == pytest.approx(-0.2289)
    assert vae.latent_std.flatten()[-1].item() == pytest.approx(0.7744)


@pytest.mark.parametrize("session_start", ["run_time_convs", "skip_time_convs"])
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1, 1), (1, 4), (4, 1), (2, 3)])
@torch.inference_mode()
def test_any_chunking_gives_the_same_frames_and_cache(session_start: str, chunks: tuple[int, ...]):
    vae = small_vae(session_start=session_start)
    latents = torch.randn(2, 6, 5, 2, 3)
    whole, whole_cache = vae.decode(latents)
    frames, cache = [], None
    for part in latents.split(chunks, dim=2):
        out, cache = vae.decode(part, cache)
        frames.append(out)
    assert whole.shape == (2, 3, 17, 32, 48)
    torch.testing.assert_close(torch.cat(frames, dim=2), whole, atol=1e-5, rtol=0)
    assert len(cache) == vae.cache_length
    for ours, theirs in zip(cache, whole_cache, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_cache_can_be_branched():
    vae = small_vae()
    _, cache = vae.decode(torch.randn(1, 6, 2, 2, 2))
    kept = [tensor.clone() for tensor in cache]
    following = torch.randn(1, 6, 1, 2, 2)
    first, _ = vae.decode(following, cache)
    vae.decode(torch.randn(1, 6, 1, 2, 2), cache)
    again, _ = vae.decode(following, kept)
    torch.testing.assert_close(first, again, atol=0, rtol=0)


@torch.inference_mode()
def test_decoder_and_encoder_look_only_back():
    vae = small_vae()
    latents = torch.randn(1, 6, 4, 2, 2)
    changed = latents.clone()
    changed[:, :, 3] += 1.0
    frames, other = vae.decode(latents)[0], vae.decode(changed)[0]
    torch.testing.assert_close(frames[:, :, :9], other[:, :, :9], atol=0, rtol=0)
    assert not torch.equal(frames[:, :, 9:], other[:, :, 9:])

    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    later = video.clone()
    later[:, :, 5:] = 0.0
    torch.testing.assert_close(vae.encode(video)[:, :, :2], vae.encode(later)[:, :, :2], atol=0, rtol=0)


@torch.inference_mode()
def test_encoding_in_parts_gives_the_same_latents():
    vae = small_vae()
    video = torch.rand(2, 3, 17, 32, 48) * 2 - 1
    whole = vae.encode(video)
    assert whole.shape == (2, 6, 5, 2, 3)
    for latents_per_pass in (1, 3):
        torch.testing.assert_close(vae.encode(video, latents_per_pass), whole, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_latent_statistics_cancel():
    mean, std = tuple(0.1 * i for i in range(6)), tuple(1.0 + i for i in range(6))
    plain, normalised = small_vae(), small_vae(latent_mean=mean, latent_std=std)
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    expected = (plain.encode(video) - torch.tensor(mean).view(-1, 1, 1, 1)) / torch.tensor(std).view(
        -1, 1, 1, 1
    )
    torch.testing.assert_close(normalised.encode(video), expected)
    frames = normalised.decode(normalised.encode(video))[0]
    torch.testing.assert_close(frames, plain.decode(plain.encode(video))[0], atol=1e-5, rtol=0)


def test_folding_pixels_puts_colour_then_column_then_row():
    video = torch.rand(2, 3, 3, 4, 6)
    folded = fold_pixels(video)
    colour, column, row = 2, 1, 0
    assert folded.shape == (6, 12, 2, 3)
    torch.testing.assert_close(folded[2, (colour * 2 + column) * 2 + row, 1, 2], video[0, colour, 1, 2, 5])
    torch.testing.assert_close(unfold_pixels(folded, batch=2), video)


def test_wrong_sizes_are_typed_errors():
    vae = small_vae()
    with pytest.raises(StateError, match="cannot encode"):
        vae.encode(torch.zeros(1, 3, 4, 32, 32))
    with pytest.raises(StateError, match="cannot encode"):
        vae.encode(torch.zeros(1, 3, 5, 32, 40))
    with pytest.raises(StateError, match="cannot decode"):
        vae.decode(torch.zeros(1, 5, 1, 2, 2))
    with pytest.raises(StateError, match="cache"):
        vae.decode(torch.zeros(1, 6, 1, 2, 2), [torch.zeros(1)])
    with pytest.raises(ConfigError, match="latent_mean"):
        VAEConfig(latent_mean=(0.0,))
    with pytest.raises(ConfigError, match="temporal_downsample"):
        VAEConfig(dim_mult=(1, 2))
    with pytest.raises(ConfigError, match="pruning_rate"):
        VAEConfig(pruning_rate=1.0)
