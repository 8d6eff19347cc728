"""What a training run shows of itself: loss by noise level, and walks on held-out scenes beside the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.vae import FRAMES_PER_LATENT, VAE
from worldwire_training.base_config import ValidationConfig
from worldwire_training.base_model import BaseModel
from worldwire_training.clip_sampler import ClipSampler, DropRates, Shape
from worldwire_training.experts import ExpertPair
from worldwire_training.latents import LatentStore
from worldwire_training.losses import add_noise, flow_matching_losses
from worldwire_training.rollout import roll_out
from worldwire_training.vae_report import to_pixels, write_png

NOISE_LEVELS = (0.1, 0.3, 0.6, 0.857, 0.95, 1.0)
"""Three steps ask at 0.6, 0.857 and 1; experts take turns at 0.9286 (`experts.expert_boundary(3, 3.0)`)."""
PSNR_SECONDS = (0.5, 2.0, 5.0)
STRIP_SECONDS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)
STRIP_REDUCTION = 2
NOTHING_DROPPED = DropRates(0.0, 0.0, 0.0)
SEED = 20_000


@dataclass(frozen=True)
class Validator:
    """Held-out episodes as latents and as pictures.

    store: the latents of all held-out episodes. truth: uint8 [S, F, H, W, 3], the frames of its first S
    episodes.
    """

    config: ValidationConfig
    world: WorldConfig
    store: LatentStore
    truth: NDArray[np.uint8]
    vae: VAE

    @torch.inference_mode()
    def run(self, model: BaseModel | ExpertPair, picture: Path) -> dict[str, float]:
        """Figures by name; writes a picture strip, the truth above what was generated."""
        model.eval()
        generator = torch.Generator(self.store.device).manual_seed(SEED)
        figures = self._losses(model, generator)
        scenes = self.store.first(len(self.truth))
        latents = min(self.config.latents, self.store.latents_per_episode)
        walked = roll_out(model, scenes, self.world, latents, generator)
        played, ceiling = self._decode(walked), self._decode(scenes.latents[:, :latents])
        figures |= self._psnr(played, ceiling)
        write_strip(picture, self.truth, played, self.world.frames_per_second)
        model.train()
        return figures

    def _losses(self, model: BaseModel | ExpertPair, generator: torch.Generator) -> dict[str, float]:
        """Flow-matching loss at fixed noise levels for the default plan, with memory."""
        plan = self.world.plan()
        shape = Shape(plan.memory, plan.past, plan.new)
        if shape.memory + shape.window > self.store.latents_per_episode:
            shape = Shape(0, 1, 1)
        sampler = ClipSampler(self.store, self.world)
        batch = sampler.sample(shape, self.config.clips, generator, NOTHING_DROPPED)
        context, data = batch.latents.float().tensor_split([shape.context], dim=2)
        noise = torch.randn(data.shape, generator=generator, device=data.device)
        figures = {}
        for level in NOISE_LEVELS:
            sigma = torch.full((len(data),), level, device=data.device)
            noisy = add_noise(data, noise, sigma).to(batch.latents.dtype)
            velocity = model(batch, context.to(batch.latents.dtype), noisy, sigma)
            figures[f"loss_at_{level}"] = flow_matching_losses(velocity, data, noise).mean().item()
        return figures

    def _decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Latents [S, L, C, h, w] to frames uint8 [S, F, H, W, 3], one scene at a time."""
        dtype = next(self.vae.parameters()).dtype
        frames = []
        for scene in latents:
            decoded, _ = self.vae.decode(scene.transpose(0, 1)[None].to(dtype))
            frames.append(to_pixels(decoded[0].permute(1, 2, 3, 0)).cpu().numpy())
        return np.stack(frames)

    def _psnr(self, played: NDArray[np.uint8], ceiling: NDArray[np.uint8]) -> dict[str, float]:
        """PSNR at some seconds of what was generated, of the first frame repeated, and of the VAE alone."""
        figures = {}
        for seconds in PSNR_SECONDS:
            frame = round(seconds * self.world.frames_per_second)
            if frame >= played.shape[1]:
                continue
            truth = self.truth[:, frame]
            figures[f"psnr_{seconds}s"] = psnr(played[:, frame], truth)
            figures[f"psnr_freeze_{seconds}s"] = psnr(self.truth[:, 0], truth)
            figures[f"psnr_vae_{seconds}s"] = psnr(ceiling[:, frame], truth)
        return figures


def psnr(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    """Mean PSNR in dB of pictures [S, H, W, 3]."""
    error = (pictures.astype(np.float32) - truth.astype(np.float32)) ** 2
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error.mean(axis=(1, 2, 3)), 1e-3))))


def write_strip(
    path: Path, truth: NDArray[np.uint8], played: NDArray[np.uint8], frames_per_second: float
) -> None:
    """A PNG: for each scene a row of true pictures above a row of generated ones, at `STRIP_SECONDS`."""
    frames = [round(seconds * frames_per_second) for seconds in STRIP_SECONDS]
    shown = [frame for frame in frames if frame < played.shape[1]]
    rows = []
    for true, generated in zip(truth, played, strict=True):
        rows += [np.concatenate(list(pictures[shown]), axis=1) for pictures in (true, generated)]
    sheet = np.concatenate(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, torch.from_numpy(_reduced(sheet, STRIP_REDUCTION)))


def _reduced(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """A picture [H, W, 3] at 1 / `factor` of its size, each pixel the mean of a square."""
    height, width, colours = picture.shape
    squares = picture.reshape(height // factor, factor, width // factor, factor, colours)
    return squares.mean(axis=(1, 3)).round().astype(np.uint8)


def frames_needed(config: ValidationConfig) -> int:
    """Frames of truth that a walk of `config.latents` latents is compared with."""
    return 1 + FRAMES_PER_LATENT * (config.latents - 1)
