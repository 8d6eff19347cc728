"""The decoder's convolutions in other forms: the same frames, whatever the chunks and the start."""

import copy

import pytest
import torch

from worldwire_runtime.convolutions import APART, PRODUCTS, VOLUME, Form, use_form
from worldwire_runtime.model.vae import VAE, VAEConfig


def decoded(vae: VAE, latents: torch.Tensor, chunks: tuple[int, ...]) -> torch.Tensor:
    frames, cache = [], None
    for part in latents.split(chunks, dim=2):
        shown, cache = vae.decode(part, cache)
        assert len(cache) == vae.cache_length
        frames.append(shown)
    return torch.cat(frames, dim=2)


@pytest.mark.parametrize("form", [PRODUCTS, VOLUME, APART])
@pytest.mark.parametrize("session_start", ["run_time_convs", "skip_time_convs"])
@pytest.mark.parametrize("chunks", [(5,), (1, 1, 1, 1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("batch", [1, 2])
@torch.inference_mode()
def test_every_form_gives_the_frames_of_the_model(form: Form, session_start, chunks, batch):
    torch.manual_seed(0)
    small = {"dim": 4, "dec_dim": 4, "z_dim": 6, "num_res_blocks": 1, "decoder_res_blocks": 1}
    vae = VAE(VAEConfig(**small, session_start=session_start)).eval()
    other = copy.deepcopy(vae)
    use_form(other.decoder, form)
    latents = torch.randn(batch, 6, 5, 2, 3)
    torch.testing.assert_close(
        decoded(other, latents, chunks), decoded(vae, latents, chunks), atol=2e-5, rtol=0
    )


def test_the_encoder_keeps_its_own_form():
    vae = VAE(VAEConfig(dim=4, dec_dim=4, z_dim=6, num_res_blocks=1, decoder_res_blocks=1))
    names = {name: weight.shape for name, weight in vae.state_dict().items()}
    use_form(vae.decoder, PRODUCTS)
    changed = [name for name, weight in vae.state_dict().items() if weight.shape != names[name]]
    assert changed
    assert all(name.startswith("decoder.") for name in changed)
