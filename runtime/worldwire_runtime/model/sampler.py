"""Flow-matching samplers: noise levels, a few-step Euler sampler, and UniPC with guidance for the base model.

A noisy latent is (1 - sigma) * data + sigma * noise, the network predicts v = noise - data, and the timestep
is 1000 * sigma. All coefficients are Python numbers computed beforehand, so no step waits for a device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from worldwire.errors import ConfigError

TRAIN_STEPS = 1000
RELEASED_SHIFT = 5.0
RELEASED_START = 0.9990000128746033  # 1 - 1/1000 in float32, as the released scheduler stores it
RELEASED_GUIDANCE = 5.0
MAX_ORDER = 2

# (x, timestep 0 ... 1000) -> v
Velocity = Callable[[Tensor, float], Tensor]


@dataclass(frozen=True)
class Schedule:
    """Noise levels from the first evaluation to 0 (one more than steps), and each evaluation's timestep."""

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]

    @property
    def steps(self) -> int:
        return len(self.timesteps)


def shifted(sigma: float, shift: float) -> float:
    """Bends a noise level towards noise: shift * sigma / (1 + (shift - 1) * sigma)."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def flow_schedule(steps: int, shift: float, start: float = 1.0) -> Schedule:
    """`steps` evenly spaced levels from `start` to 0, bent by `shift`; real-valued timesteps."""
    _check(steps, shift, start)
    sigmas = (*(shifted(start * (1 - index / steps), shift) for index in range(steps)), 0.0)
    return Schedule(sigmas, tuple(TRAIN_STEPS * sigma for sigma in sigmas[:-1]))


def released_schedule(steps: int, shift: float = RELEASED_SHIFT) -> Schedule:
    """The released scheduler's levels: they start just below 1, and the timesteps are rounded down."""
    schedule = flow_schedule(steps, shift, RELEASED_START)
    return Schedule(schedule.sigmas, tuple(float(math.floor(value)) for value in schedule.timesteps))


class Solver(Protocol):
    """From noise [B, C, n, h, w] to data along a velocity; equal ones do the same (they may be compared)."""

    def __call__(self, velocity: Velocity, noise: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Euler:
    """The few-step sampler of the worlds trained here."""

    schedule: Schedule

    def __call__(self, velocity: Velocity, noise: Tensor) -> Tensor:
        return euler(velocity, noise, self.schedule)


@dataclass(frozen=True)
class UniPCSolver:
    """The sampler of the released model."""

    schedule: Schedule

    def __call__(self, velocity: Velocity, noise: Tensor) -> Tensor:
        return UniPC(self.schedule).run(velocity, noise)


def euler(velocity: Velocity, noise: Tensor, schedule: Schedule) -> Tensor:
    """Integrates dx/dsigma = v along the schedule; returns the data estimate."""
    x = noise
    for sigma, following, timestep in zip(
        schedule.sigmas, schedule.sigmas[1:], schedule.timesteps, strict=False
    ):
        x = x + (following - sigma) * velocity(x, timestep)
    return x


def guided(conditional: Tensor, unconditional: Tensor, scale: float = RELEASED_GUIDANCE) -> Tensor:
    """Classifier-free guidance of velocities: null + scale * (full - null)."""
    return unconditional + scale * (conditional - unconditional)


@dataclass(frozen=True)
class UniPCStep:
    """Coefficients of one step (fact: UniPC of order 2, "bh2", predicting data).

    With m the data estimate, m' the one before and x' the last corrected sample:
    corrected x = correct_sample * x' + correct_older * m'' + correct_last * m' + correct_now * m (None: no
    correction), next x = predict_sample * x + predict_now * m + predict_last * m'.
    """

    correct: tuple[float, float, float, float] | None
    predict: tuple[float, float, float]


class UniPC:
    """One denoising run of the base model; make a new one per clip (it holds the last estimates)."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._coefficients = unipc_coefficients(schedule.sigmas)
        self._index = 0
        self._estimates: list[Tensor] = []
        self._sample: Tensor | None = None

    def step(self, velocity: Tensor, sample: Tensor) -> Tensor:
        """The next sample, from the velocity predicted at `sample`; call exactly `schedule.steps` times."""
        coefficients = self._coefficients[self._index]
        estimate = sample - self.schedule.sigmas[self._index] * velocity
        if coefficients.correct is not None and self._sample is not None:
            sample = _combine(
                coefficients.correct, self._sample, self._previous(2), self._previous(1), estimate
            )
        following = _combine(coefficients.predict, sample, estimate, self._previous(1))
        self._estimates = [*self._estimates[-1:], estimate]
        self._sample = sample
        self._index += 1
        return following

    def run(self, velocity: Velocity, noise: Tensor) -> Tensor:
        """All steps from noise to data."""
        x = noise
        for timestep in self.schedule.timesteps:
            x = self.step(velocity(x, timestep), x)
        return x

    def _previous(self, age: int) -> Tensor | None:
        return self._estimates[-age] if len(self._estimates) >= age else None


def unipc_coefficients(sigmas: Sequence[float]) -> tuple[UniPCStep, ...]:
    """The coefficients of every step of a run along `sigmas` (the last one 0)."""
    steps = len(sigmas) - 1
    orders = [min(MAX_ORDER, steps - index, index + 1) for index in range(steps)]
    return tuple(
        UniPCStep(
            correct=_corrector(sigmas, index, orders[index - 1]) if index else None,
            predict=_predictor(sigmas, index, orders[index]),
        )
        for index in range(steps)
    )


def _predictor(sigmas: Sequence[float], index: int, order: int) -> tuple[float, float, float]:
    """Weights of the sample, the estimate now and the one before, for the step from `index` on."""
    now, following = sigmas[index], sigmas[index + 1]
    if following == 0:
        return 0.0, 1.0, 0.0
    h, slope = _interval(now, following)
    reach = (1 - following) * slope
    older = 0.0 if order == 1 else 0.5 * reach / ((_log_snr(sigmas[index - 1]) - _log_snr(now)) / h)
    return following / now, -reach + older, -older


def _corrector(sigmas: Sequence[float], index: int, order: int) -> tuple[float, float, float, float]:
    """Weights of the last sample and of the estimates two back, one back and now, over the step just made."""
    last, now = sigmas[index - 1], sigmas[index]
    h, slope = _interval(last, now)
    reach = (1 - now) * slope
    if order == 1:
        older, newest = 0.0, 0.5
    else:
        ratio = (_log_snr(sigmas[index - 2]) - _log_snr(last)) / h
        first = slope / -h - 1
        second = first / -h - 0.5
        weight = (first - 2 * second) / (slope * (1 - ratio))
        older, newest = weight / ratio, first / slope - weight
    return now / last, -reach * older, reach * (older + newest - 1), -reach * newest


def _interval(sigma: float, following: float) -> tuple[float, float]:
    """h, the growth of the log signal-to-noise ratio, and e^-h - 1."""
    h = _log_snr(following) - _log_snr(sigma)
    return h, math.expm1(-h)


def _log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma)


def _combine(weights: Sequence[float], *tensors: Tensor | None) -> Tensor:
    parts = [weight * tensor for weight, tensor in zip(weights, tensors, strict=True) if tensor is not None]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _check(steps: int, shift: float, start: float) -> None:
    if steps < 1 or shift <= 0 or not 0 < start <= 1:
        raise ConfigError(
            "the noise schedule is impossible",
            expected="steps >= 1, shift > 0, 0 < start <= 1",
            got=f"steps {steps}, shift {shift}, start {start}",
        )
