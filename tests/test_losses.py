"""Flow matching and the error buffer: what they do to tensors."""

import pytest
import torch

from worldwire_training.losses import (
    DivergedError,
    ErrorBuffer,
    add_noise,
    check_finite,
    clip_timesteps,
    estimate_data,
    flow_matching_losses,
    sample_noise_levels,
)


def test_noise_is_undone_by_the_true_velocity():
    data, noise = torch.randn(2, 3, 4, 2, 2), torch.randn(2, 3, 4, 2, 2)
    sigma = torch.tensor([0.2, 0.9])
    noisy = add_noise(data, noise, sigma)
    torch.testing.assert_close(estimate_data(noisy, noise - data, sigma), data)
    assert flow_matching_losses(noise - data, data, noise).tolist() == [0.0, 0.0]


def test_loss_looks_at_new_latents_only():
    data, noise = torch.randn(2, 3, 2, 2, 2), torch.randn(2, 3, 2, 2, 2)
    velocity = torch.cat([torch.full((2, 3, 5, 2, 2), 1e6), noise - data], dim=2)
    assert flow_matching_losses(velocity, data, noise).max() == 0


def test_context_is_at_time_zero_and_new_latents_share_theirs():
    times = clip_timesteps(torch.tensor([0.5, 0.25]), context=2, new=3)
    assert times.tolist() == [[0, 0, 500, 500, 500], [0, 0, 250, 250, 250]]


def test_shift_moves_noise_levels_towards_noise():
    plain, shifted = (
        sample_noise_levels(4000, shift, torch.Generator().manual_seed(0), torch.device("cpu"))
        for shift in (1.0, 3.0)
    )
    assert plain.mean() == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(shifted, 3 * plain / (1 + 2 * plain))


def test_error_buffer_keeps_the_newest_residuals_and_perturbs_by_gamma():
    buffer = ErrorBuffer(4, (1, 1, 1), torch.device("cpu"))
    context, generator = torch.zeros(2, 1, 3, 1, 1), torch.Generator().manual_seed(0)
    gamma = torch.tensor([0.0, 0.5])
    assert buffer.perturb(context, gamma, generator) is context
    for value in (1.0, 2.0, 4.0):
        buffer.add(torch.full((1, 1, 2, 1, 1), value), torch.zeros(1, 1, 2, 1, 1))
    assert sorted(buffer.residuals.flatten().tolist()) == [2, 2, 4, 4]
    perturbed = buffer.perturb(context, gamma, generator)
    assert perturbed[0].abs().max() == 0
    assert set(perturbed[1].flatten().tolist()) <= {1.0, 2.0}
    other = ErrorBuffer(4, (1, 1, 1), torch.device("cpu"))
    other.load_state_dict(buffer.state_dict())
    assert other.filled == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_a_typed_error(value):
    check_finite(1.0, "loss", 3)
    with pytest.raises(DivergedError, match=r"loss is .* at step 3"):
        check_finite(value, "loss", 3)
