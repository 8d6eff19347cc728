"""The decoder stream: pixels, saving, branching, and a logged fall-back without a compiler."""

import copy
import logging

import numpy as np
import pytest
import torch
from fake_lane import fake_lane
from test_graphs import fake_record
from torch.utils._python_dispatch import TorchDispatchMode

from worldwire_runtime import acceleration
from worldwire_runtime import decoder as decoder_module
from worldwire_runtime.convolutions import PRODUCTS, use_form
from worldwire_runtime.decoder import (
    SETTLED_CALLS,
    Decoder,
    DecoderStream,
    channels_last,
    largest_bytes,
    latents_at_once,
)
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
    latents = torch.randn(SETTLED_CALLS + 4, 6, 2, 2)
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


def test_parts_of_a_clip_are_its_latents(vae: VAE):
    latents, timer = torch.randn(1 + 14 + 10, 6, 2, 2), StageTimer(torch.device("cpu"))
    one, several = DecoderStream(Decoder(vae)), DecoderStream(Decoder(vae), at_once=5)
    parts = []
    for clip in latents.split((1, 14, 10)):
        pixels = [list(stream.show(clip, timer)) for stream in (one, several)]
        parts += [len(part) for part in pixels[1]]
        assert abs(np.concatenate(pixels[0]).astype(int) - np.concatenate(pixels[1])).max() <= 1
    assert parts == [1, 20, 20, 16, 20, 20]
    assert not several.is_settled
    assert all(not several.is_settled and list(several.show(latents[:10], timer)) for _ in range(3))
    assert several.is_settled


def test_what_is_left_of_a_first_clip_is_never_recorded(vae: VAE):
    """However many sessions begin in a world: recording waits for the whole device."""
    decoder, timer = (
        Decoder(copy.deepcopy(vae), graphs=True, record=fake_record),
        StageTimer(torch.device("cpu")),
    )
    stream, plain = DecoderStream(decoder, at_once=5), DecoderStream(Decoder(vae))
    latents = torch.randn(1 + 14 + 10, 6, 2, 2)
    expected = [np.concatenate(list(plain.show(clip, timer))) for clip in latents.split((1, 14, 10))]
    for session in range(12):
        for clip, right in zip(latents.split((1, 14, 10)), expected, strict=True):
            assert abs(np.concatenate(list(stream.show(clip, timer))).astype(int) - right).max() <= 1
        assert stream.is_settled == (session > 1)
        stream = stream.anew()
    assert decoder._in_place.recordings == 1


def test_each_plan_has_its_own_compiled_calls(vae: VAE, monkeypatch):
    """A world's sessions may differ in how many latents a call decodes."""
    compiled: list[int] = []

    def compile_(function, **_):
        def run(latents, cache):
            compiled.append(len(latents))
            return function(latents, cache)

        return run

    monkeypatch.setattr(acceleration, "_compiled", compile_)
    monkeypatch.setattr(decoder_module, "compiler_missing", lambda: None)
    decoder, timer = Decoder(vae, compiled=True), StageTimer(torch.device("cpu"))
    for at_once in (5, 1, 5):
        stream = DecoderStream(decoder, at_once)
        for clip in torch.randn(1 + 4 + 20, 6, 2, 2).split((1, 4, 20)):
            for _ in stream.show(clip, timer):
                pass
    assert set(compiled) == {1, 5}
    assert compiled[-4:] == [5, 5, 5, 5]


def test_the_lane_gives_each_call_its_latents(vae: VAE, monkeypatch):
    decoder = Decoder(vae)
    plain, decoder.lane = DecoderStream(decoder), None
    latents, timer = torch.randn(1 + 14, 6, 2, 2), StageTimer(torch.device("cpu"))
    expected = [np.concatenate(list(plain.show(clip, timer))) for clip in latents.split((1, 14))]
    decoder.lane = fake_lane(monkeypatch)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    stream = DecoderStream(decoder, at_once=5)
    shown = [list(stream.show(clip, timer)) for clip in latents.split((1, 14))]
    assert [len(part) for part in shown[1]] == [20, 20, 16]
    for parts, right in zip(shown, expected, strict=True):
        assert abs(np.concatenate(parts).astype(int) - right).max() <= 1


@pytest.mark.parametrize(
    ("latents", "gib_each", "gpu_gib", "parts"),
    [
        (10, 0.33, 140, 5),
        (10, 0.66, 140, 2),
        (10, 1.32, 140, 1),
        (10, 3.0, 140, 1),
        (10, 0.33, 24, 1),
        (10, 0.33, 48, 2),
        (3, 0.01, 140, 1),
        (6, 0.01, 140, 3),
        (7, 0.01, 140, 1),
    ],
)
def test_long_clips_are_decoded_in_equal_parts_that_fit(latents, gib_each, gpu_gib, parts):
    assert latents_at_once(latents, round(gib_each * 2**30), gpu_gib * 2**30) == parts


def test_the_largest_tensor_of_decoding_is_known():
    """Of the layers' own outputs, in the form that a GPU takes."""
    config = VAEConfig(dim=4, dec_dim=16, z_dim=6, num_res_blocks=1, decoder_res_blocks=1)
    network, sizes = VAE(config).eval(), []
    use_form(network.decoder, PRODUCTS)
    with torch.inference_mode(), Largest(sizes):
        _, cache = network.decode(torch.randn(1, 6, 1, 3, 4), None)
        network.decode(torch.randn(1, 6, 1, 3, 4), cache)
    assert max(sizes) == largest_bytes(config, (3, 4), 4)


class Largest(TorchDispatchMode):
    """Notes the bytes of what convolutions make."""

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self._sizes = sizes

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if "conv" in func.name():
            self._sizes.append(made.nbytes)
        return made


def test_latents_are_decoded_only_as_their_frames_are_taken(vae: VAE):
    stream = DecoderStream(Decoder(vae))
    frames = stream.show(torch.randn(3, 6, 2, 2), StageTimer(torch.device("cpu")))
    assert stream.state() == {}
    assert next(frames).shape[0] == 1
    assert next(frames).shape[0] == 4
