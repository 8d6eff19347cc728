"""Decoders for latents that stay (paper 3.4): a narrower one learns to show what the full one shows.

    worldwire train light-vae --config .../configs/light_vae_tiny.toml --data FRAMES --vae VAE --output LIGHT
    worldwire train light-vae --config ... --set rate=0.75 ...
    worldwire train light-vae --config .../configs/decoder_tiny.toml ...    # rate 0: the full one, sharper

The latents are those of the full VAE, so a world changes its decoder without anything else being trained.
With `adversarial` above 0 a critic of patches asks for detail (`patch_critic`).
Besides what `vae_training` writes, the output folder gets `light_vae.json`: PSNR, SSIM and decoding time of
the full and of the light VAE on held-out clips.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.model.vae import VAE, CausalConv3d, VAEConfig
from worldwire_training.common import Ranks
from worldwire_training.patch_critic import Adversary
from worldwire_training.vae_data import FrameSource, MemoryFrames, augment, to_video
from worldwire_training.vae_fast import speed_up
from worldwire_training.vae_losses import LossWeights, vae_loss
from worldwire_training.vae_report import frame_psnr_db, to_pixels
from worldwire_training.vae_training import VAETrainConfig, VAETrainer, autocast, noisy_latents

log = logging.getLogger(__name__)

TABLE_FILE = "light_vae.json"
TIMED_RUNS = 5
INTERLEAVED = {"time_conv": 2, "to_qkv": 3}
"""Layers whose output channels are so many groups of equal width, by a part of their name."""


@dataclass(frozen=True)
class LightVAEConfig:
    """How narrow the decoder gets, and how it is trained.

    rate: the share of the decoder's base width that goes. truth_share: of the target is the true frame, the
    rest what the full decoder shows. adversarial: the critic's say beside the distances (0: no critic), and
    critic_rate its learning rate. training: its `model` is not looked at.
    """

    training: VAETrainConfig
    rate: float = 0.5
    truth_share: float = 0.5
    adversarial: float = 0.0
    critic_rate: float = 2e-4

    def __post_init__(self) -> None:
        if not (0 <= self.rate < 1 and 0 <= self.truth_share <= 1 and self.adversarial >= 0):
            raise ConfigError(
                "a setting of the light VAE is out of range",
                expected="0 <= rate < 1, 0 <= truth_share <= 1 and adversarial >= 0",
                got=f"rate {self.rate}, truth_share {self.truth_share}, adversarial {self.adversarial}",
            )


def light_config(full: VAEConfig, rate: float) -> VAEConfig:
    """The VAE with a decoder narrower by `rate` and the same encoder.

    `pruning_rate` narrows both, so the encoder's nominal width grows by as much. ConfigError when the
    widths do not come out whole.
    """
    light = replace(
        full, pruning_rate=rate, dim=round(full.encoder_width / (1 - rate)), dec_dim=full.decoder_width
    )
    if light.encoder_width != full.encoder_width or not light.decoder_width:
        raise ConfigError(
            "the decoder cannot be pruned by so much",
            expected=f"a rate that leaves whole widths of {full.encoder_width} and {full.decoder_width}",
            got=str(rate),
        )
    return light


def prune(full: VAE, rate: float) -> VAE:
    """The light VAE with the full one's encoder, and of its decoder the first channels of every layer."""
    light = VAE(light_config(full.config, rate)).to(next(full.parameters()).device)
    own, theirs = light.state_dict(), full.state_dict()
    light.load_state_dict({name: cut(name, theirs[name], tensor.shape) for name, tensor in own.items()})
    return light


def cut(name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
    """The part of a layer's tensor that belongs to its first channels."""
    groups = next((count for part, count in INTERLEAVED.items() if part in name), 1)
    inner = [slice(size) for size in shape[1:]]
    parts = tensor.unflatten(0, (groups, -1))[:, : shape[0] // groups]
    return parts.flatten(0, 1)[(slice(None), *inner)].clone()


class LightVAETrainer(VAETrainer):
    """Trains the decoder of a pruned VAE; its encoder and the full VAE are frozen."""

    _adversary: Adversary | None = None

    def __init__(
        self,
        config: LightVAEConfig,
        full: VAE,
        frames: FrameSource,
        held_out: MemoryFrames,
        output: Path,
        ranks: Ranks,
    ) -> None:
        self._light, self._full = config, full.to(ranks.device).eval().requires_grad_(False)
        light = light_config(full.config, config.rate)
        super().__init__(
            replace(config.training, model=light, image_share=0.0), frames, held_out, output, ranks
        )
        if config.adversarial:
            self._adversary = Adversary(config.adversarial, config.critic_rate, ranks)

    def build(self) -> VAE:
        light = prune(self._full, self._light.rate)
        for part in (light.encoder, light.conv1):
            part.requires_grad_(False)
        if self.config.compile != "whole":
            speed_up(light, compile_norms=self.config.compile == "norms")
        return light

    def loss_function(self) -> Callable[[VAE, Tensor], tuple[Tensor, Tensor]]:
        """(light VAE, u8 frames) to (loss, mean squared error to the true frames)."""

        def loss(light: VAE, frames: Tensor) -> tuple[Tensor, Tensor]:
            video = augment(to_video(frames), self.config.colour_jitter)
            with autocast(self.config, frames.device):
                latents, shown = self._teach(video)
                output = light.decode_raw(latents)
            distance, error = light_loss(output, video, shown, self._light.truth_share, self.config.losses)
            if self._adversary is None:
                return distance, error
            progress = self.budget.progress(self.step)
            verdict = self._adversary.loss(output.float(), video, distance, last_layer(light), progress)
            return distance + verdict, error

        return loss

    def after_step(self) -> None:
        """The critic's turn."""
        if self._adversary is not None:
            self._adversary.learn()

    def extra_state(self) -> dict[str, Any]:
        """The critic."""
        return {} if self._adversary is None else self._adversary.state_dict()

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The critic; CheckpointError when the checkpoint was made with one and this run has none, or so."""
        if bool(state) != (self._adversary is not None):
            raise CheckpointError(
                f"{self.output} was trained {'with' if state else 'without'} a critic",
                expected=f"adversarial {'above 0' if state else '0'}",
                got=f"adversarial {self._light.adversarial:g}",
            )
        if self._adversary is not None:
            self._adversary.load_state_dict(state)

    @torch.no_grad()
    def _teach(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """Slightly noisy latents of a video, and what the full decoder makes of them if that is a target."""
        mean, logvar = self._full.encode_distribution(video)
        latents = noisy_latents(mean.float(), logvar.float(), self.config.latent_noise)
        if self._light.truth_share == 1:
            return latents, video
        return latents, self._full.decode_raw(latents).float()

    def latent_statistics(self) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
        """Those of the full VAE: the latents are the same."""
        return self._full.config.latent_mean, self._full.config.latent_std

    def table(self) -> dict[str, dict[str, float]]:
        """PSNR, SSIM and decoding time of both on the held-out clips; after `finish`."""
        video = to_video(
            self.held_out.episodes[: self.config.evaluation_episodes, : self.config.evaluation_frames]
        )
        with autocast(self.config, self.ranks.device):
            return {"full": rate_vae(self._full, video), "light": rate_vae(self.vae, video)}


def last_layer(vae: VAE) -> Tensor:
    """The weight of the decoder's last convolution."""
    return [module.weight for module in vae.decoder.modules() if isinstance(module, CausalConv3d)][-1]


def light_loss(
    output: Tensor, video: Tensor, shown: Tensor, truth_share: float, weights: LossWeights
) -> tuple[Tensor, Tensor]:
    """The pixel terms of `vae_loss` against a mixture of true and shown frames, and the MSE to the true ones.

    All [B, 3, T, H, W] in [-1, 1].
    """
    target = truth_share * video + (1 - truth_share) * shown
    nothing = output.new_zeros(1)
    loss, _ = vae_loss(output - target, nothing, nothing, replace(weights, kl=0.0))
    return loss, (output.detach().float() - video).square().mean()


@torch.no_grad()
def rate_vae(vae: VAE, video: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of reconstructed clips [B, 3, T, H, W], and milliseconds to decode one latent."""
    from worldwire_training.evaluation.pixels import ssim

    latents = vae.encode(video)
    frames = vae.decode(latents)[0].float()
    ours, truth = (
        to_pixels(each.permute(0, 2, 3, 4, 1)).flatten(0, 1).cpu().numpy() for each in (frames, video)
    )
    similar = [ssim(a, b) for a, b in zip(ours, truth, strict=True)]
    return {
        "psnr_db": float(frame_psnr_db(frames, video).mean()),
        "ssim": sum(similar) / len(similar),
        "decode_ms_per_latent": decode_ms(vae, latents[:1]),
        "decoder_parameters": float(sum(p.numel() for p in vae.decoder.parameters())),
    }


def decode_ms(vae: VAE, latents: Tensor) -> float:
    """Median milliseconds per latent when [1, z, n, h, w] are decoded one by one, after a first round."""
    seconds: list[float] = []
    for _ in range(1 + TIMED_RUNS):
        cache, started = None, time.perf_counter()
        for latent in latents.split(1, dim=2):
            _, cache = vae.decode(latent, cache)
        if latents.is_cuda:
            torch.cuda.synchronize(latents.device)
        seconds.append((time.perf_counter() - started) / latents.shape[2])
    return 1000 * sorted(seconds[1:])[TIMED_RUNS // 2]


def train_light_vae(
    config: LightVAEConfig,
    full: VAE,
    frames: FrameSource,
    held_out: MemoryFrames,
    output: Path,
    *,
    ranks: Ranks,
    resume: bool = False,
) -> dict[str, dict[str, float]]:
    """Train, evaluate, write; returns the table. The same call on every rank."""
    trainer = LightVAETrainer(config, full, frames, held_out, output, ranks)
    if resume:
        trainer.resume()
    while not trainer.budget.spent(trainer.step):
        trainer.train_step()
    trainer.finish()
    table = trainer.table()
    if ranks.is_main:
        facts: dict[str, Any] = {"rate": config.rate, "table": table, "config": asdict(config)}
        (output / TABLE_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        for name, row in table.items():
            log.info("%s: %s", name, " ".join(f"{key} {value:.4g}" for key, value in row.items()))
    return table
