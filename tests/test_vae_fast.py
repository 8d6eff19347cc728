"""The fast training forms of the VAE's layers give the model's own values and gradients."""

import pytest
import torch

from worldwire_runtime.model.vae import VAE, CausalConv3d, VAEConfig
from worldwire_training.vae_fast import TapSum, speed_up


@pytest.mark.parametrize(("frames", "history"), [(1, 0), (2, 0), (5, 0), (1, 2), (4, 2)])
def test_tap_sum_matches_the_model(frames: int, history: int):
    torch.manual_seed(0)
    batch, conv = 2, CausalConv3d(3, 4, (3, 3, 3)).double()
    x = torch.randn((frames + history) * batch, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    inputs = (x, conv.weight, conv.bias)
    slow = conv.convolve(x, frames * batch, batch)
    fast = TapSum.apply(x, conv.weight, conv.bias, frames * batch, batch)
    torch.testing.assert_close(fast, slow)
    seed = torch.randn_like(slow)
    for ours, theirs in zip(
        torch.autograd.grad(fast, inputs, seed), torch.autograd.grad(slow, inputs, seed), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_sped_up_vae_has_the_same_gradients():
    torch.manual_seed(0)
    config = VAEConfig(dim=4, dec_dim=4, z_dim=6, num_res_blocks=1, decoder_res_blocks=1)
    slow, fast = VAE(config), VAE(config)
    fast.load_state_dict(slow.state_dict())
    speed_up(fast, compile_norms=False)
    video = torch.rand(2, 3, 9, 32, 32) * 2 - 1
    for vae in (slow, fast):
        mean, _ = vae.encode_distribution(video)
        (vae.decode_raw(mean) - video).square().mean().backward()
    for (name, ours), theirs in zip(fast.named_parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-3, msg=name)
