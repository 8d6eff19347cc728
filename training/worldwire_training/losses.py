"""Flow matching on the new latents of a clip, and the error buffer; pure functions of tensors.

The model predicts the velocity v = noise - data at x_t = (1 - sigma) data + sigma noise, so that
data = x_t - sigma v. Latents are [B, C, F, h, w], noise levels sigma [B] in (0, 1); the network's time is
1000 sigma.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from worldwire.errors import WorldwireError
from worldwire_runtime.model.sampler import TRAIN_STEPS, shifted

NOISE_BINS = 8
"""Groups of the error buffer, equally wide in the noise level."""


class DivergedError(WorldwireError):
    """A loss or a gradient is no longer a finite number."""

    code = "training_diverged"


def sample_noise_levels(
    samples: int, shift: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Noise levels [samples], logit-normal, then bent towards noise as the sampler's grid is."""
    sigma = torch.randn(samples, generator=generator, device=device).sigmoid()
    return shifted(sigma, shift)  # type: ignore[arg-type, return-value]


def truncated_noise_levels(
    samples: int,
    lowest: float,
    highest: float,
    shift: float,
    generator: torch.Generator,
    device: torch.device,
) -> Tensor:
    """Noise levels [samples] of the logit-normal bent by `shift`, cut off outside `lowest` ... `highest`."""
    normal = torch.distributions.Normal(0.0, 1.0)

    def share_below(level: float) -> float:
        plain = torch.tensor(level / (shift - (shift - 1) * level), dtype=torch.float64)
        return float(normal.cdf(torch.logit(plain)))

    low, high = share_below(lowest), share_below(highest)
    uniform = torch.rand(samples, generator=generator, device=device, dtype=torch.float64)
    normal_values = torch.special.ndtri(low + (high - low) * uniform)
    plain = normal_values.sigmoid()
    return (shift * plain / (1 + (shift - 1) * plain)).clamp(lowest, highest).float()


def mix_in_levels(
    sigma: Tensor, levels: tuple[float, ...], share: float, generator: torch.Generator
) -> Tensor:
    """Noise levels [B], a `share` of them replaced by one of `levels`, each equally often.

    A few-step sampler asks the network at very few levels, the first of which (pure noise) a logit-normal
    hardly ever draws.
    """
    if not share:
        return sigma
    chosen = torch.rand(len(sigma), generator=generator, device=sigma.device) < share
    which = torch.randint(len(levels), (len(sigma),), generator=generator, device=sigma.device)
    return torch.where(chosen, _on_device(levels, sigma.device)[which], sigma)


@cache
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Copied once: a copy from the host waits for the device."""
    return torch.tensor(values, device=device)


def add_noise(data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """x_t of `data` [B, C, F, h, w] at the noise levels `sigma` [B]."""
    level = sigma.view(-1, 1, 1, 1, 1).to(data.dtype)
    return (1 - level) * data + level * noise


def estimate_data(x_t: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """The data that a predicted velocity stands for."""
    return x_t - sigma.view(-1, 1, 1, 1, 1).to(x_t.dtype) * velocity


def clip_timesteps(sigma: Tensor, context: int, new: int) -> Tensor:
    """Times [B, context + new]: zero on the clean context, 1000 sigma on all new latents of a sample."""
    times = torch.zeros(len(sigma), context + new, device=sigma.device)
    times[:, context:] = TRAIN_STEPS * sigma[:, None]
    return times


def flow_matching_losses(velocity: Tensor, data: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error of each sample [B], float32, over the new latents only.

    velocity: [B, C, n, h, w], or [B, C, context + n, h, w] of which the first ones are not looked at.
    """
    predicted = velocity[:, :, -data.shape[2] :].float()
    return (predicted - (noise - data).float()).square().flatten(1).mean(1)


def diverged(what: str, value: float, batch: Path | None = None) -> DivergedError:
    """The error of a run whose numbers are not finite; `batch`: the file that keeps what it trained on."""
    kept = f"; its batch is kept in {batch}" if batch else ""
    return DivergedError(
        f"{what} is not finite (loss {value}){kept}",
        expected="finite numbers",
        remedy="resume from the last checkpoint with a lower learning rate or a smaller gradient_clip",
    )


class ErrorBuffer:
    """Residuals of past predictions that disturb the context (paper 3.1 and 3.2, after SVI).

    Residuals of single latents, delta = x0-prediction - data, in `NOISE_BINS` groups by the noise level of
    the prediction: [bins, size / bins, C, h, w]. A new one takes the place of any of its group, so that
    all groups stay recent; what was never filled is zero. Context latents become x + gamma delta with delta
    drawn uniformly from all groups, so that training sees contexts like those it generates.
    """

    def __init__(self, size: int, latent_shape: tuple[int, ...], device: torch.device) -> None:
        rows = max(1, size // NOISE_BINS)
        self.residuals = torch.zeros(NOISE_BINS, rows, *latent_shape, device=device, dtype=torch.bfloat16)

    def add(self, predicted: Tensor, data: Tensor, sigma: Tensor, generator: torch.Generator) -> None:
        """Store the residuals of [B, C, n, h, w] predictions made at the noise levels `sigma` [B]."""
        residuals = (predicted - data).detach().movedim(2, 1)
        groups = (sigma * NOISE_BINS).long().clamp_(0, NOISE_BINS - 1)[:, None].expand(residuals.shape[:2])
        rows = torch.randint(self.residuals.shape[1], groups.shape, generator=generator, device=groups.device)
        self.residuals[groups, rows] = residuals.to(self.residuals.dtype)

    def perturb(self, context: Tensor, gamma: Tensor, generator: torch.Generator) -> Tensor:
        """`context` [B, C, F, h, w] plus gamma [B, F] times residuals drawn for each latent."""
        every = self.residuals.flatten(0, 1)
        drawn = torch.randint(len(every), gamma.shape, generator=generator, device=every.device)
        delta = every[drawn].movedim(1, 2).to(context.dtype)
        return context + gamma[:, None, :, None, None].to(context.dtype) * delta

    def state_dict(self) -> dict[str, Tensor]:
        return {"residuals": self.residuals}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`'s answer."""
        self.residuals.copy_(state["residuals"])
