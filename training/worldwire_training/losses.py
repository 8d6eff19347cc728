"""Flow matching on the new latents of a clip, and the error buffer; pure functions of tensors.

The model predicts the velocity v = noise - data at x_t = (1 - sigma) data + sigma noise, so that
data = x_t - sigma v. Latents are [B, C, F, h, w], noise levels sigma [B] in (0, 1); the network's time is
1000 sigma.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldwire.errors import WorldwireError
from worldwire_runtime.model.sampler import TRAIN_STEPS, shifted


class DivergedError(WorldwireError):
    """A loss or a gradient is no longer a finite number."""

    code = "training_diverged"


def sample_noise_levels(
    samples: int, shift: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Noise levels [samples], logit-normal, then bent towards noise as the sampler's grid is."""
    sigma = torch.randn(samples, generator=generator, device=device).sigmoid()
    return shifted(sigma, shift)  # type: ignore[arg-type, return-value]


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


def check_finite(value: float, what: str, step: int) -> None:
    """Raise DivergedError when `value` is NaN or infinite."""
    if value - value != 0:
        raise DivergedError(
            f"{what} is {value} at step {step}",
            expected="a finite number",
            remedy="resume from the last checkpoint with a lower learning rate or a smaller gradient_clip",
        )


class ErrorBuffer:
    """Residuals of past predictions that disturb the context (paper 3.1 and 3.2, after SVI).

    A ring of `size` residuals of single latents, delta = x0-prediction - data, [size, C, h, w]. Context
    latents become x + gamma delta with delta drawn uniformly, so that training sees contexts like those it
    generates.
    """

    def __init__(self, size: int, latent_shape: tuple[int, ...], device: torch.device) -> None:
        self.residuals = torch.zeros(size, *latent_shape, device=device, dtype=torch.bfloat16)
        self.filled = 0
        self._next = 0

    def add(self, predicted: Tensor, data: Tensor) -> None:
        """Store the residuals of [B, C, n, h, w] predictions; the oldest ones make room."""
        residuals = (predicted - data).detach().movedim(2, 1).flatten(0, 1)[: len(self.residuals)]
        places = (torch.arange(len(residuals), device=residuals.device) + self._next) % len(self.residuals)
        self.residuals[places] = residuals.to(self.residuals.dtype)
        self._next = (self._next + len(residuals)) % len(self.residuals)
        self.filled = min(len(self.residuals), self.filled + len(residuals))

    def perturb(self, context: Tensor, gamma: Tensor, generator: torch.Generator) -> Tensor:
        """`context` [B, C, F, h, w] plus gamma [B] times residuals drawn for each latent."""
        if self.filled == 0 or context.shape[2] == 0:
            return context
        samples, _, frames = context.shape[:3]
        drawn = torch.randint(
            self.filled, (samples, frames), generator=generator, device=self.residuals.device
        )
        delta = self.residuals[drawn].movedim(1, 2).to(context.dtype)
        return context + gamma.view(-1, 1, 1, 1, 1).to(context.dtype) * delta

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"residuals": self.residuals, "filled": self.filled, "next": self._next}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Continue from `state_dict`'s answer."""
        self.residuals.copy_(state["residuals"])  # type: ignore[arg-type]
        self.filled, self._next = int(state["filled"]), int(state["next"])
