"""Samplers on problems whose answer is known."""

from __future__ import annotations

import pytest
import torch

from worldwire.errors import ConfigError
from worldwire_runtime.model.sampler import (
    TRAIN_STEPS,
    Schedule,
    UniPC,
    euler,
    flow_schedule,
    guided,
    released_schedule,
    shifted,
)

# Fact sheet, section 3: what three released steps amount to.
RELEASED_WEIGHTS = (0.0367763067, 0.2490441056, 0.7139794230)


def straight_path(data, noise):
    """The velocity field whose every path is a straight line from this noise to this data."""
    return lambda x, timestep: noise - data


@pytest.mark.parametrize("steps", [1, 3, 8])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_euler_is_exact_on_straight_paths(steps, shift):
    data, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.allclose(
        euler(straight_path(data, noise), noise, flow_schedule(steps, shift)), data, atol=1e-5
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_unipc_ends_at_the_last_estimate(steps):
    data, noise = torch.randn(2, 3), torch.randn(2, 3)
    schedule = released_schedule(steps)
    first = schedule.sigmas[0]
    start = first * noise + (1 - first) * data
    assert torch.allclose(UniPC(schedule).run(straight_path(data, noise), start), data, atol=1e-5)


def test_unipc_is_more_accurate_than_euler():
    """Data spread like N(0, 0.5^2): on an exact path, x keeps its size relative to the spread at sigma.

    Compared before the last jump to 0, which both make alike.
    """

    def variance(sigma):
        return (1 - sigma) ** 2 * 0.25 + sigma**2

    def velocity(x, timestep):
        sigma = timestep / TRAIN_STEPS
        return x * (sigma - (1 - sigma) * 0.25) / variance(sigma)

    full = flow_schedule(12, 5.0, start=0.999)
    short = Schedule(full.sigmas[:-1], full.timesteps[:-1])
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64)
    exact = noise * (variance(short.sigmas[-1]) / variance(short.sigmas[0])) ** 0.5
    solver, x = UniPC(full), noise
    for timestep in short.timesteps:
        x = solver.step(velocity(x, timestep), x)
    assert (x - exact).norm() < 0.3 * (euler(velocity, noise, short) - exact).norm()


def test_three_released_steps_collapse_to_constants():
    schedule = released_schedule(3)
    velocities, noise = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    remaining = iter(velocities)
    result = UniPC(schedule).run(lambda x, timestep: next(remaining), noise)
    expected = noise - sum(
        weight * velocity for weight, velocity in zip(RELEASED_WEIGHTS, velocities, strict=True)
    )
    assert schedule.timesteps == (999.0, 908.0, 713.0)
    assert torch.allclose(result, expected, atol=1e-7)


def test_schedules_fall_from_noise_to_data():
    schedule = flow_schedule(5, 3.0)
    assert schedule.sigmas[0] == 1.0
    assert schedule.sigmas[-1] == 0.0
    assert list(schedule.sigmas) == sorted(schedule.sigmas, reverse=True)
    assert shifted(0.5, 1.0) == 0.5
    assert shifted(0.5, 3.0) == 0.75


def test_guidance_extrapolates():
    full, null = torch.tensor(2.0), torch.tensor(1.0)
    assert guided(full, null, 5.0) == 6.0
    assert guided(full, null, 1.0) == 2.0


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"shift": 0.0}, {"start": 1.5}])
def test_impossible_schedules_are_refused(wrong):
    with pytest.raises(ConfigError, match="impossible"):
        flow_schedule(**{"steps": 3, "shift": 5.0} | wrong)
