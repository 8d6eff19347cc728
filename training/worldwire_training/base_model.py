"""The networks of a world that train together, and their loss on a batch of clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from worldwire.errors import ConfigError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.action import ActionCache
from worldwire_runtime.model.attention import KeyValue
from worldwire_runtime.model.blocks import BlockCache, BlockClip
from worldwire_runtime.model.dit import ClipConditions, ContextCache, DiT, PreparedClip
from worldwire_runtime.model.sampler import flow_schedule
from worldwire_runtime.model.text import PAD_TOKEN, TinyTextConfig, TinyTextEncoder
from worldwire_training.clip_sampler import ClipBatch
from worldwire_training.losses import (
    ErrorBuffer,
    add_noise,
    clip_timesteps,
    estimate_data,
    flow_matching_losses,
    mix_in_levels,
    sample_noise_levels,
    truncated_noise_levels,
)
from worldwire_training.rolling_context import rolling_cache


@dataclass(frozen=True)
class NoiseConfig:
    """Noise on the new latents, and the disturbances of their clean context.

    shift: of the logit-normal noise levels towards noise. sampler_share: how many levels are instead one of
    those at which a sampler of `sampler_steps` steps asks. draws: noise levels for each clip in a step; more
    than one needs an attention whose context does not see the new latents, and computes it once for all of
    them. context_sigma: the largest standard deviation of the Gaussian noise on context latents. error_gamma:
    the largest weight of a residual from the error buffer on past latents (0: no buffer), memory_gamma: the
    same on memory latents (None: as on the past); error_rate: the share of clips that get one;
    error_latents: its size. lowest, highest: no levels outside these are trained (`experts.py`).
    """

    shift: float = 3.0
    sampler_share: float = 0.0
    sampler_steps: int = 3
    draws: int = 1
    context_sigma: float = 0.15
    error_gamma: float = 0.0
    memory_gamma: float | None = None
    error_rate: float = 0.5
    error_latents: int = 512
    lowest: float = 0.0
    highest: float = 1.0

    def __post_init__(self) -> None:
        if self.shift <= 0 or self.draws < 1 or self.error_latents < 1 or self.sampler_steps < 1:
            raise ConfigError("a noise setting is out of range", got=str(self))
        if not 0 <= self.sampler_share <= 1:
            raise ConfigError(
                "noise.sampler_share is no share", expected="0 to 1", got=str(self.sampler_share)
            )

        if not 0 <= self.lowest < self.highest <= 1 or (self.sampler_share and not self.sampler_levels):
            raise ConfigError(
                "the range of noise levels is empty",
                expected="0 <= lowest < highest <= 1, with a level of the sampler unless sampler_share = 0",
                got=f"{self.lowest} to {self.highest}",
            )

    @property
    def sampler_levels(self) -> tuple[float, ...]:
        """The noise levels in range at which the few-step sampler asks, highest first."""
        levels = flow_schedule(self.sampler_steps, self.shift).sigmas[:-1]
        return tuple(level for level in levels if self.lowest <= level <= self.highest)

    def draw(self, samples: int, generator: torch.Generator, device: torch.device) -> Tensor:
        """Noise levels [samples]."""
        if (self.lowest, self.highest) == (0.0, 1.0):
            sigma = sample_noise_levels(samples, self.shift, generator, device)
        else:
            sigma = truncated_noise_levels(samples, self.lowest, self.highest, self.shift, generator, device)
        return mix_in_levels(sigma, self.sampler_levels, self.sampler_share, generator)


class BaseModel(nn.Module):
    """The diffusion transformer and the text encoder."""

    def __init__(self, dit: DiT, text: TinyTextEncoder) -> None:
        super().__init__()
        self.dit = dit
        self.text = text

    @classmethod
    def build(cls, world: WorldConfig) -> BaseModel:
        return cls(DiT(world.dit), TinyTextEncoder(text_config(world)))

    def conditions(self, batch: ClipBatch) -> ClipConditions:
        """What the transformer is told about the clips; a prompt that is not told is an empty one."""
        tokens = torch.where(batch.told.prompt[:, None], batch.prompt_tokens, PAD_TOKEN)
        return batch.conditions(self.text.embed(tokens))

    def forward(self, batch: ClipBatch, context: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Velocities of the new latents `noisy` [B * draws, C, n, h, w] at noise levels `sigma` [B * draws].

        context: [B, C, memory + past, h, w]; the draws of a clip follow each other.
        """
        prepared = self.dit.prepare(self.conditions(batch))
        draws, seen = len(noisy) // len(batch.latents), context.shape[2]
        attention = self.dit.config.attention
        if attention == "joint" or not seen or (attention == "cached" and draws == 1):
            prepared = repeat_clip(prepared, draws)
            latents = torch.cat([context.repeat_interleave(draws, 0), noisy], dim=2)
            return self.dit(latents, clip_timesteps(sigma, seen, noisy.shape[2]), prepared, seen)
        if attention == "rolling":
            cache = rolling_cache(self.dit, context, prepared, batch.shape)
        else:
            cache = self.dit.encode_context(context, prepared)
        new = repeat_clip(prepared.part(seen, prepared.latents), draws)
        times = clip_timesteps(sigma, 0, noisy.shape[2])
        return self.dit.denoise(noisy, times, new, repeat_cache(cache, len(context), draws))


def check_draws(world: WorldConfig, noise: NoiseConfig) -> None:
    """ConfigError for several noise draws with an attention whose context sees the new latents."""
    if world.dit.attention == "joint" and noise.draws > 1:
        raise ConfigError(
            "several noise draws need a context that does not see the new latents",
            expected="noise.draws = 1 with attention joint",
            got=f"noise.draws = {noise.draws}",
        )


def text_config(world: WorldConfig) -> TinyTextConfig:
    """The small text encoder that trains with the transformer; ConfigError for a world with a frozen one."""
    if not isinstance(world.text, TinyTextConfig):
        raise ConfigError(
            f"the text encoder of {world.name} is not trained here",
            expected="a world with the small text encoder ([world.text] vocabulary, text_len, ...)",
            got=type(world.text).__name__,
        )
    return world.text


def clip_losses(
    model: nn.Module,
    batch: ClipBatch,
    noise: NoiseConfig,
    generator: torch.Generator,
    errors: ErrorBuffer | None = None,
) -> Tensor:
    """Flow-matching loss of each noise draw of each clip, float32 [B * draws]."""
    clean, seen = batch.latents, batch.shape.context
    context = disturb(clean[:, :, :seen], batch.shape.memory, noise, generator, errors)
    data = clean[:, :, seen:].repeat_interleave(noise.draws, 0).float()
    sigma = noise.draw(len(data), generator, data.device)
    drawn = torch.randn(data.shape, generator=generator, device=data.device)
    noisy = add_noise(data, drawn, sigma)
    velocity = model(batch, context, noisy.to(clean.dtype), sigma)
    if errors is not None:
        errors.add(estimate_data(noisy, velocity.detach().float(), sigma), data, sigma, generator)
    return flow_matching_losses(velocity, data, drawn)


def disturb(
    context: Tensor, memory: int, noise: NoiseConfig, generator: torch.Generator, errors: ErrorBuffer | None
) -> Tensor:
    """The context as imperfect as a session's own: a little Gaussian noise, and residuals of predictions.

    context: [B, C, F, h, w] whose first `memory` latents are retrieved ones.
    """
    samples, frames, device = len(context), context.shape[2], context.device
    sigma = noise.context_sigma * torch.rand(samples, generator=generator, device=device)
    gauss = torch.randn(context.shape, generator=generator, device=device)
    disturbed = context.float() + sigma.view(-1, 1, 1, 1, 1) * gauss
    if errors is not None and frames:
        most = torch.full((frames,), noise.error_gamma, device=device)
        if noise.memory_gamma is not None:
            most[:memory] = noise.memory_gamma
        level = torch.rand(samples, generator=generator, device=device)
        chosen = torch.rand(samples, generator=generator, device=device) < noise.error_rate
        disturbed = errors.perturb(disturbed, (level * chosen)[:, None] * most, generator)
    return disturbed.to(context.dtype)


def repeat_clip(prepared: PreparedClip, times: int) -> PreparedClip:
    """Each sample's conditions `times` times in a row; time positions are shared by the whole batch."""
    if times == 1:
        return prepared
    return PreparedClip(tuple(_repeat_block(block, times) for block in prepared.blocks), prepared.rotary)


def repeat_cache(cache: ContextCache, samples: int, times: int) -> ContextCache:
    """Each sample's context `times` times in a row. The mouse's batch is samples times tokens."""

    def tokens(part: Tensor) -> Tensor:
        return part.unflatten(0, (samples, -1)).repeat_interleave(times, 0).flatten(0, 1)

    def action(offered: ActionCache) -> ActionCache:
        return ActionCache(KeyValue(*map(tokens, offered.mouse)), _repeat_keys(offered.keyboard, times))

    blocks = [
        BlockCache(_repeat_keys(block.attention, times), block.action and action(block.action))
        for block in cache.blocks
    ]
    return ContextCache(tuple(blocks), cache.latents)


def _repeat_block(clip: BlockClip, times: int) -> BlockClip:
    action = clip.action and clip.action._replace(
        mouse_hidden=clip.action.mouse_hidden.repeat_interleave(times, 0),
        keyboard=_repeat_keys(clip.action.keyboard, times),
    )
    scale, shift = (part.repeat_interleave(times, 0) for part in (clip.camera_scale, clip.camera_shift))
    return BlockClip(scale, shift, _repeat_keys(cast(KeyValue, clip.text), times), action)


def _repeat_keys(keys: KeyValue, times: int) -> KeyValue:
    return KeyValue(*(part.repeat_interleave(times, 0) for part in keys))
