"""The decoder stream: pixels, saving, branching, and a logged fall-back without a compiler."""

import copy
import logging

import numpy as np
import pytest
import torch
from test_graphs import fake_record

from worldwire_runtime import decoder as decoder_module
from worldwire_runtime.convolutions import PRODUCTS
from worldwire_runtime.decoder import SETTLED_LATENTS, Decoder, DecoderStream, channels_last
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.timing import StageTimer


@pytest.fixture(scope="module")
def vae() -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(dim=4, dec_dim=4, z_dim=6, num_res_blocks=1, decoder_res_blocks=1)).eval()


def test_pixels_are_the_vae_frames(vae: VAE):
    latents = torch.randn(3, 6, 2, 3)
    pixels = DecoderStream(Decoder(vae)).decode(latents)
    with torch.inference_mode():
        frames, _ = vae.decode(latents.transpose(0, 1)[None])
    assert pixels.shape == (9, 32, 48, 3)
    expected = ((frames[0].permute(1, 2, 3, 0) + 1) * 127.5).round().to(torch.uint8)
    assert (pixels == expected.numpy()).all()


def test_the_layout_of_the_weights_changes_no_pixel(vae: VAE):
    latents, other = torch.randn(3, 6, 2, 3), copy.deepcopy(vae)
    channels_last(other)
    assert any(
        weight.ndim == 5 and weight.is_contiguous(memory_format=torch.channels_last_3d)
        for weight in other.parameters()
    )
    plain = DecoderStream(Decoder(vae)).decode(latents).astype(int)
    assert abs(DecoderStream(Decoder(other)).decode(latents) - plain).max() <= 1


def test_saved_and_copied_streams_continue_bit_for_bit(vae: VAE):
    decoder = Decoder(vae)
    stream = DecoderStream(decoder)
    assert stream.state() == {}
    assert stream.decode(torch.randn(1, 6, 2, 2)).shape[0] == 1
    assert {name: part.shape for name, part in stream.state().items()} == stream.state_shapes((2, 2))
    saved = {name: tensor.contiguous().clone() for name, tensor in stream.state().items()}
    copied, restored = stream.copy(), DecoderStream(decoder)
    restored.load_state(saved)
    following = torch.randn(2, 6, 2, 2)
    stream.decode(torch.randn(1, 6, 2, 2))
    first, second = copied.decode(following), restored.decode(following)
    assert first.shape[0] == 8
    assert (first == second).all()


def test_without_a_compiler_it_says_so_and_runs(vae: VAE, monkeypatch, caplog):
    monkeypatch.setattr(decoder_module, "compiler_missing", lambda: "there is no C++ compiler")
    with caplog.at_level(logging.WARNING):
        decoder = Decoder(vae, compiled=True)
    assert "no C++ compiler" in caplog.text
    assert DecoderStream(decoder).decode(torch.randn(1, 6, 2, 2)).shape == (1, 32, 32, 3)


@pytest.mark.parametrize("form", ["taps", PRODUCTS])
def test_a_recorded_decoder_changes_its_own_cache_alone(vae: VAE, form):
    plain = DecoderStream(Decoder(vae))
    decoder = Decoder(copy.deepcopy(vae), graphs=True, record=fake_record, form=form)
    stream, timer = DecoderStream(decoder), StageTimer(torch.device("cpu"))
    latents = torch.randn(SETTLED_LATENTS + 4, 6, 2, 2)
    expected = [plain.decode(latent).astype(int) for latent in latents[:-2].split(1)]
    for shown, right in zip(stream.show(latents[:-2], timer), expected, strict=True):
        assert abs(shown - right).max() <= 1
    assert stream.is_settled
    assert decoder._in_place.recordings == 1
    assert timer.stages_ms["decode"] > 0
    copied, restored = stream.copy(), DecoderStream(decoder)
    restored.load_state(stream.state())
    other = torch.randn(2, 6, 2, 2)
    for _ in stream.show(other, timer):
        pass
    right = np.concatenate([plain.decode(latent) for latent in latents[-2:].split(1)]).astype(int)
    state = stream.state()
    for same in (copied, restored):
        assert abs(np.concatenate(list(same.show(latents[-2:], timer))) - right).max() <= 1
    assert decoder._in_place.recordings == 3  # each knows the memory of one
    again, begun = stream.anew(), DecoderStream(Decoder(vae))
    for shown, right in zip(again.show(latents, timer), begun.show(latents, timer), strict=True):
        assert abs(shown.astype(int) - right).max() <= 1
    assert again.state()["00"].data_ptr() == state["00"].data_ptr()
    assert decoder._in_place.recordings == 3


def test_latents_are_decoded_only_as_their_frames_are_taken(vae: VAE):
    stream = DecoderStream(Decoder(vae))
    frames = stream.show(torch.randn(3, 6, 2, 2), StageTimer(torch.device("cpu")))
    assert stream.state() == {}
    assert next(frames).shape[0] == 1
    assert next(frames).shape[0] == 4
