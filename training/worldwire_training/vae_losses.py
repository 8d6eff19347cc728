"""Losses of the video VAE, as pure functions. No learned perceptual network: nothing is downloaded.

The pixel terms see only the residual (output - target), [B, 3, T, H, W] in [-1, 1] units: gradients and
averages are linear, so the difference of two gradients is the gradient of the difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PYRAMID_FACTORS = (4, 16)
"""Pixels per side over which the pyramid term averages before it compares."""


@dataclass(frozen=True)
class LossWeights:
    """Weight of each term. `gradient` sharpens edges, `pyramid` sets large areas' colours early, `motion`
    compares the change from frame to frame, `kl` keeps the latents' scale."""

    pixel: float = 1.0
    gradient: float = 0.25
    pyramid: float = 0.5
    motion: float = 0.25
    kl: float = 1e-4


def pixel_loss(residual: Tensor) -> Tensor:
    """Mean absolute difference."""
    return residual.abs().mean()


def gradient_loss(residual: Tensor) -> Tensor:
    """Mean absolute difference of horizontal plus vertical image gradients."""
    return residual.diff(dim=-1).abs().mean() + residual.diff(dim=-2).abs().mean()


def pyramid_loss(residual: Tensor) -> Tensor:
    """Mean absolute difference of area averages, summed over PYRAMID_FACTORS that divide the picture."""
    frames = residual.transpose(1, 2).flatten(0, 1)
    factors = [n for n in PYRAMID_FACTORS if frames.shape[-1] % n == 0 and frames.shape[-2] % n == 0]
    return sum((F.avg_pool2d(frames, n).abs().mean() for n in factors), residual.new_zeros(()))


def motion_loss(residual: Tensor) -> Tensor:
    """Mean absolute difference of the change from each frame to the next; zero for single images."""
    return residual.diff(dim=2).abs().mean() if residual.shape[2] > 1 else residual.new_zeros(())


def kl_loss(mean: Tensor, logvar: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the unit normal distribution, per latent number."""
    return 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar).mean()


def vae_loss(residual: Tensor, mean: Tensor, logvar: Tensor, weights: LossWeights) -> tuple[Tensor, Tensor]:
    """The weighted sum, and the mean squared error beside it for the PSNR curve (no gradient)."""
    residual, mean, logvar = residual.float(), mean.float(), logvar.float()
    total = (
        weights.pixel * pixel_loss(residual)
        + weights.gradient * gradient_loss(residual)
        + weights.pyramid * pyramid_loss(residual)
        + weights.motion * motion_loss(residual)
        + weights.kl * kl_loss(mean, logvar)
    )
    return total, residual.detach().square().mean()


def psnr_db(squared_error: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of mean squared errors in [-1, 1] units, whose peak-to-peak range is 2."""
    return 10.0 * torch.log10(4.0 / squared_error.clamp(min=1e-10))
