"""Flow matching and the error buffer: what they do to tensors."""

import math
from pathlib import Path

import pytest
import torch

from worldwire_training.losses import (
    NOISE_BINS,
    DivergedError,
    ErrorBuffer,
    add_noise,
    clip_timesteps,
    diverged,
    estimate_data,
    flow_matching_losses,
    mix_in_levels,
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


def test_sampler_levels_are_mixed_in():
    sigma, draw = torch.full((4000,), 0.25), torch.Generator().manual_seed(0)
    mixed = mix_in_levels(sigma, (1.0, 0.75), 0.5, draw)
    assert set(mixed.tolist()) == {0.25, 1.0, 0.75}
    assert (mixed == 1.0).float().mean() == pytest.approx(0.25, abs=0.03)
    assert mix_in_levels(sigma, (1.0,), 0.0, draw) is sigma


def test_error_buffer_groups_residuals_by_noise_level_and_perturbs_by_gamma():
    buffer = ErrorBuffer(NOISE_BINS, (1, 1, 1), torch.device("cpu"))
    context, draw = torch.zeros(2, 1, 300, 1, 1), torch.Generator().manual_seed(0)
    gamma = torch.tensor([[0.0], [0.5]]).expand(2, 300)
    assert buffer.perturb(context, gamma, draw).abs().max() == 0
    data = torch.zeros(2, 1, 1, 1, 1)
    for value in (1.0, 2.0):  # a later residual of the same noise level takes its place
        predicted = torch.tensor([value, 4 * value]).view(2, 1, 1, 1, 1)
        buffer.add(predicted, data, torch.tensor([0.01, 1.0]), draw)
    assert buffer.residuals.flatten().tolist() == [2.0, *[0.0] * (NOISE_BINS - 2), 8.0]
    perturbed = buffer.perturb(context, gamma, draw)
    assert perturbed[0].abs().max() == 0
    assert set(perturbed[1].flatten().tolist()) == {0.0, 1.0, 4.0}
    other = ErrorBuffer(NOISE_BINS, (1, 1, 1), torch.device("cpu"))
    other.load_state_dict(buffer.state_dict())
    assert torch.equal(other.residuals, buffer.residuals)


def test_divergence_names_the_batch_that_was_kept():
    error = diverged("the loss of step 3", math.nan, Path("kept.pt"))
    assert isinstance(error, DivergedError)
    assert "kept.pt" in str(error)
