"""The video VAE: 16 x 16 pixels and 4 frames to one latent cell, causal in time, decoded as a stream.

This is the Wan2.2 layout with its original tensor names; the pruned MG-LightVAE variants and the tiny
world's own VAE are configurations of it. Frame 0 alone makes latent 0, frames 4k-3..4k make latent k.

Inside, tensors are time-major, [T, B, C, H, W], with channels last in memory: a frame is then one item of a
plain batch, any run of frames is a view, and a causal 3-D convolution is a sum of 2-D convolutions, one per
time tap. That is as fast as the library's 3-D convolution where that is good, and up to 20 times faster
where it is not (float32 on CPUs).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire.errors import ConfigError, StateError

PIXEL_PATCH = 2
"""The outermost 2 x 2 pixels are folded into channels before any convolution."""
RGB = 3
FRAMES_PER_LATENT = 4
NORM_EPSILON = 1e-6

# Per-channel statistics of the released Wan2.2 latents, which are constants of its code and not in its file.
# fmt: off
WAN_LATENT_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
WAN_LATENT_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on

SessionStart = Literal["run_time_convs", "skip_time_convs"]


@dataclass(frozen=True)
class VAEConfig:
    """Sizes of a VAE. The defaults are the released Wan2.2 VAE without its latent statistics.

    `decoder_res_blocks` None means `num_res_blocks` + 1, as released. `pruning_rate` narrows both base
    widths (0.5 and 0.75 are the released light decoders). `latent_mean` and `latent_std` have `z_dim`
    entries; None leaves latents as the encoder makes them. `session_start` says what the temporal
    up-sampling does with the first latent: Matrix-Game 3.0 runs it on zero history and drops the first of
    the two frames, upstream Wan2.2 skips it and starts the history after it. The same weights give other
    pixels for about 20 frames; every chunk after that agrees.
    """

    dim: int = 160
    dec_dim: int = 256
    z_dim: int = 48
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    decoder_res_blocks: int | None = None
    temporal_downsample: tuple[bool, ...] = (False, True, True)
    pruning_rate: float = 0.0
    latent_mean: tuple[float, ...] | None = None
    latent_std: tuple[float, ...] | None = None
    session_start: SessionStart = "run_time_convs"

    def __post_init__(self) -> None:
        for name in ("dim_mult", "temporal_downsample", "latent_mean", "latent_std"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        if min(self.dim, self.dec_dim, self.z_dim, self.num_res_blocks, *self.dim_mult) < 1:
            raise ConfigError("VAE widths, multipliers and block counts must be positive", got=str(self))
        if len(self.temporal_downsample) != len(self.dim_mult) - 1:
            raise ConfigError(
                "VAE temporal_downsample does not fit dim_mult",
                expected=f"{len(self.dim_mult) - 1} entries, one per stage but the last",
                got=f"{len(self.temporal_downsample)}",
            )
        if not 0.0 <= self.pruning_rate < 1.0:
            raise ConfigError(
                "VAE pruning_rate is out of range", expected="0 <= rate < 1", got=str(self.pruning_rate)
            )
        if self.session_start not in ("run_time_convs", "skip_time_convs"):
            raise ConfigError(
                "unknown VAE session_start",
                expected="run_time_convs or skip_time_convs",
                got=self.session_start,
            )
        for name in ("latent_mean", "latent_std"):
            value = getattr(self, name)
            if value is not None and len(value) != self.z_dim:
                raise ConfigError(
                    f"VAE {name} has the wrong length", expected=f"z_dim = {self.z_dim}", got=str(len(value))
                )

    @property
    def encoder_width(self) -> int:
        return round(self.dim * (1.0 - self.pruning_rate))

    @property
    def decoder_width(self) -> int:
        return round(self.dec_dim * (1.0 - self.pruning_rate))

    @property
    def spatial_factor(self) -> int:
        """Pixels per latent cell along each side."""
        return PIXEL_PATCH * 2 ** len(self.temporal_downsample)

    @property
    def temporal_factor(self) -> int:
        """Frames per latent after the first."""
        return 2 ** sum(self.temporal_downsample)


def wan22_config(pruning_rate: float = 0.0) -> VAEConfig:
    """The released Wan2.2 VAE (0), or its light variants (0.5 and 0.75), with the released statistics."""
    return VAEConfig(pruning_rate=pruning_rate, latent_mean=WAN_LATENT_MEAN, latent_std=WAN_LATENT_STD)


class Stream:
    """What a pass over one chunk takes from the chunks before it and leaves for those after it.

    `past` None is the start of a session. Layers take and keep in the order in which they run, so that
    `kept` is the `past` of the next chunk: a plain list of tensors [frames, B, C, H, W].
    """

    def __init__(self, past: Sequence[Tensor] | None) -> None:
        self._past = None if past is None else list(past)
        self.kept: list[Tensor] = []

    @property
    def at_start(self) -> bool:
        return self._past is None

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """`x` [T, B, C, H, W] behind this layer's last `frames` input frames; just `x` at the start."""
        if self._past is not None:
            x = torch.cat([self._past[len(self.kept)].to(x.dtype), x])
        last = x[-frames:]
        missing = frames - last.shape[0]
        # A copy: a view would keep the whole chunk alive and be saved with it.
        self.kept.append(F.pad(last, (0, 0) * (x.dim() - 1) + (missing, 0)) if missing else last.clone())
        return x


def per_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of [N, C, H, W] to every frame of [T, B, C, H, W]."""
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution over the present and the past, computed as one 2-D convolution per time tap.

    Frames before the session count as zero, so their taps are not computed at all.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(inputs, outputs, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Tensor, stream: Stream | None = None) -> Tensor:
        """[T, B, C, H, W] to [T, B, C', H, W]."""
        frames, taps = x.shape[0], self.kernel_size[0]
        if stream is not None and taps > 1:
            x = stream.extend(x, taps - 1)
        total = x.shape[0]
        out = self._tap(x[total - frames :], taps - 1, self.bias)
        for lag in range(1, taps):
            source = x[max(0, total - frames - lag) : max(0, total - lag)]
            if source.shape[0]:
                out[frames - source.shape[0] :] += self._tap(source, taps - 1 - lag, None)
        return out

    def strided(self, x: Tensor) -> Tensor:
        """Every second output, without padding: [T, B, C, H, W] to [(T - taps) // 2 + 1, B, C', H, W]."""
        taps = self.kernel_size[0]
        outputs = (x.shape[0] - taps) // 2 + 1
        out = self._tap(x[: 2 * outputs : 2], 0, self.bias)
        for tap in range(1, taps):
            out = out + self._tap(x[tap : tap + 2 * outputs - 1 : 2], tap, None)
        return out

    def _tap(self, x: Tensor, tap: int, bias: Tensor | None) -> Tensor:
        padding = (self.kernel_size[1] // 2, self.kernel_size[2] // 2)
        return per_frame(lambda frames: F.conv2d(frames, self.weight[:, :, tap], bias, padding=padding), x)


class ChannelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + eps) * gamma, for [T, B, C, H, W]; the mean in float32."""

    def __init__(self, channels: int, trailing: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * trailing))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.float().square().mean(dim=2, keepdim=True) + NORM_EPSILON)
        return x * scale.to(x.dtype) * self.gamma.view(-1, 1, 1).to(x.dtype)


class ResidualBlock(nn.Module):
    """Norm, SiLU and a causal 3 x 3 x 3 convolution, twice, plus a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # The places of the activations (1, 4) and the dropout (5) keep the original tensor names.
        self.residual = nn.ModuleDict(
            {
                "0": ChannelNorm(inputs, trailing=3),
                "2": CausalConv3d(inputs, outputs, (3, 3, 3)),
                "3": ChannelNorm(outputs, trailing=3),
                "6": CausalConv3d(outputs, outputs, (3, 3, 3)),
            }
        )
        self.shortcut = nn.Identity() if inputs == outputs else CausalConv3d(inputs, outputs, (1, 1, 1))

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        hidden = self.residual["2"](F.silu(self.residual["0"](x)), stream)
        hidden = self.residual["6"](F.silu(self.residual["3"](hidden)), stream)
        return hidden + self.shortcut(x)


class FrameAttention(nn.Module):
    """Single-head attention among the cells of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, trailing=2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + per_frame(self._attend, self.norm(x))

    def _attend(self, x: Tensor) -> Tensor:
        qkv = self.to_qkv(x).flatten(2).transpose(1, 2).unsqueeze(1)  # [N, one head, cells, 3 C]
        mixed = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        return self.proj(mixed.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:]))


class Middle(nn.ModuleList):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            [ResidualBlock(channels, channels), FrameAttention(channels), ResidualBlock(channels, channels)]
        )

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        return self[2](self[1](self[0](x, stream)), stream)


class Head(nn.ModuleDict):
    """Norm, SiLU, causal convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            {"0": ChannelNorm(inputs, trailing=3), "2": CausalConv3d(inputs, outputs, (3, 3, 3))}
        )

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        return self["2"](F.silu(self["0"](x)), stream)


class Downsample(nn.Module):
    """Halves the resolution (3 x 3, stride 2, padded right and below) and, if `temporal`, the frame rate."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        self.time_conv = CausalConv3d(channels, channels, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        x = per_frame(lambda frames: self.resample["1"](F.pad(frames, (0, 1, 0, 1))), x)
        return x if self.time_conv is None else self._halve_rate(x, stream)

    def _halve_rate(self, x: Tensor, stream: Stream | None) -> Tensor:
        """The session's first frame passes as it is; every later pair is seen with the frame before it."""
        at_start = stream is None or stream.at_start
        if stream is not None:
            x = stream.extend(x, 1)
        if not at_start:
            return self.time_conv.strided(x)
        return x if x.shape[0] == 1 else torch.cat([x[:1], self.time_conv.strided(x)])


class Upsample(nn.Module):
    """Doubles the frame rate if `temporal`, then the resolution (nearest, 3 x 3)."""

    def __init__(self, channels: int, temporal: bool, session_start: SessionStart) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, padding=1)})
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None
        self._skip_first = session_start == "skip_time_convs"

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        if self.time_conv is not None:
            x = self._double_rate_from_start(x, stream) if stream.at_start else self._double_rate(x, stream)
        return per_frame(lambda frames: self.resample["1"](F.interpolate(frames, scale_factor=2.0)), x)

    def _double_rate(self, x: Tensor, stream: Stream) -> Tensor:
        """The two halves of the channels are consecutive frames: [T, B, C, H, W] to [2T, B, C, H, W]."""
        return self.time_conv(x, stream).unflatten(2, (2, -1)).transpose(1, 2).flatten(0, 1)

    def _double_rate_from_start(self, x: Tensor, stream: Stream) -> Tensor:
        """The session's first latent gives one frame: [T, B, C, H, W] to [2T - 1, B, C, H, W]."""
        if not self._skip_first:
            return self._double_rate(x, stream)[1:]
        return torch.cat([x[:1], self._double_rate(x[1:], stream)])


def fold_average(x: Tensor, outputs: int, frames: int, cells: int) -> Tensor:
    """The encoder's shortcut: fold `frames` x `cells` x `cells` into channels, average runs of channels.

    [T, B, C, H, W] to [ceil(T / frames), B, outputs, H / cells, W / cells]; missing frames in front are zero.
    """
    x = F.pad(x, (0, 0, 0, 0, 0, 0, 0, 0, -x.shape[0] % frames, 0))
    T, B, C, H, W = x.shape
    x = x.reshape(T // frames, frames, B, C, H // cells, cells, W // cells, cells)
    x = x.permute(0, 2, 3, 1, 5, 7, 4, 6)  # T, B, (C, frame, row, column), H, W
    return x.reshape(T // frames, B, outputs, -1, H // cells, W // cells).mean(dim=3)


def repeat_unfold(x: Tensor, outputs: int, frames: int, cells: int) -> Tensor:
    """The decoder's shortcut: repeat channels consecutively, unfold them to `frames` x `cells` x `cells`.

    [T, B, C, H, W] to [T * frames, B, outputs, H * cells, W * cells].
    """
    T, B, C, H, W = x.shape
    repeats = outputs * frames * cells * cells // C
    x = x.unsqueeze(3).expand(T, B, C, repeats, H, W).reshape(T, B, outputs, frames, cells, cells, H, W)
    x = x.permute(0, 3, 1, 2, 6, 4, 7, 5)  # T, frame, B, C, H, row, W, column
    return x.reshape(T * frames, B, outputs, H * cells, W * cells)


class EncoderStage(nn.Module):
    """Residual blocks and a down-sampling (not in the last stage), around an averaged shortcut."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, spatial: bool, temporal: bool) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        layers: list[nn.Module] = [ResidualBlock(a, b) for a, b in pairwise(widths)]
        if spatial:
            layers.append(Downsample(outputs, temporal))
        self.downsamples = nn.ModuleList(layers)
        self._shortcut = (outputs, 2 if temporal else 1, 2 if spatial else 1)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        shortcut = fold_average(x, *self._shortcut)
        for layer in self.downsamples:
            x = layer(x, stream)
        return x + shortcut


class DecoderStage(nn.Module):
    """Residual blocks, then an up-sampling with a repeat shortcut around it all (not in the last stage)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        blocks: int,
        *,
        spatial: bool,
        temporal: bool,
        session_start: SessionStart,
    ) -> None:
        super().__init__()
        widths = [inputs] + [outputs] * blocks
        layers: list[nn.Module] = [ResidualBlock(a, b) for a, b in pairwise(widths)]
        if spatial:
            layers.append(Upsample(outputs, temporal, session_start))
        self.upsamples = nn.ModuleList(layers)
        self._shortcut = (outputs, 2 if temporal else 1, 2) if spatial else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        source = x
        for layer in self.upsamples:
            x = layer(x, stream)
        if self._shortcut is None:
            return x
        return x + repeat_unfold(source, *self._shortcut)[-x.shape[0] :]  # the start drops its first frame


class Encoder(nn.Module):
    """Folded pixels [T, B, 12, H/2, W/2] to mean and log-variance [T', B, 2 z, H/16, W/16]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = [config.encoder_width * mult for mult in (1, *config.dim_mult)]
        temporal = (*config.temporal_downsample, False)
        last = len(config.dim_mult) - 1
        self.conv1 = CausalConv3d(RGB * PIXEL_PATCH**2, widths[0], (3, 3, 3))
        self.downsamples = nn.ModuleList(
            EncoderStage(a, b, config.num_res_blocks, spatial=i < last, temporal=temporal[i])
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.middle = Middle(widths[-1])
        self.head = Head(widths[-1], 2 * config.z_dim)

    def forward(self, x: Tensor, stream: Stream | None) -> Tensor:
        x = self.conv1(x, stream)
        for stage in self.downsamples:
            x = stage(x, stream)
        return self.head(self.middle(x, stream), stream)


class Decoder(nn.Module):
    """Latents [T', B, z, H/16, W/16] to folded pixels [T, B, 12, H/2, W/2]."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        mults = (config.dim_mult[-1], *reversed(config.dim_mult))
        widths = [config.decoder_width * mult for mult in mults]
        temporal = (*reversed(config.temporal_downsample), False)
        last = len(config.dim_mult) - 1
        blocks = config.num_res_blocks + 1 if config.decoder_res_blocks is None else config.decoder_res_blocks
        self.conv1 = CausalConv3d(config.z_dim, widths[0], (3, 3, 3))
        self.middle = Middle(widths[0])
        self.upsamples = nn.ModuleList(
            DecoderStage(
                a, b, blocks, spatial=i < last, temporal=temporal[i], session_start=config.session_start
            )
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.head = Head(widths[-1], RGB * PIXEL_PATCH**2)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = self.middle(self.conv1(x, stream), stream)
        for stage in self.upsamples:
            x = stage(x, stream)
        return self.head(x, stream)


def fold_pixels(video: Tensor) -> Tensor:
    """[B, 3, T, H, W] to [T, B, 12, H/2, W/2], channels last; channel = (colour * 2 + column) * 2 + row."""
    B, C, T, H, W = video.shape
    x = video.reshape(B, C, T, H // PIXEL_PATCH, PIXEL_PATCH, W // PIXEL_PATCH, PIXEL_PATCH)
    x = x.permute(2, 0, 3, 5, 1, 6, 4).flatten(4)  # T, B, H, W, (colour, column, row)
    return x.movedim(-1, 2)


def unfold_pixels(x: Tensor) -> Tensor:
    """The inverse of `fold_pixels`: [T, B, 12, H, W] to [B, 3, T, 2H, 2W]."""
    T, B, _, H, W = x.shape
    x = x.reshape(T, B, RGB, PIXEL_PATCH, PIXEL_PATCH, H, W).permute(1, 2, 0, 5, 4, 6, 3)
    return x.reshape(B, RGB, T, H * PIXEL_PATCH, W * PIXEL_PATCH)


def time_major(x: Tensor) -> Tensor:
    """[B, C, T, H, W] to [T, B, C, H, W] with the channels last in memory."""
    return x.permute(2, 0, 3, 4, 1).contiguous().movedim(-1, 2)


class VAE(nn.Module):
    """Encoder and streaming decoder. See the module's page for the layout."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.conv1 = CausalConv3d(2 * config.z_dim, 2 * config.z_dim, (1, 1, 1))
        self.conv2 = CausalConv3d(config.z_dim, config.z_dim, (1, 1, 1))
        self.decoder = Decoder(config)
        # Not in the file, as released. On the CPU even when the model is built on the meta device.
        mean = config.latent_mean or (0.0,) * config.z_dim
        std = config.latent_std or (1.0,) * config.z_dim
        self.register_buffer(
            "latent_mean", torch.tensor(mean, device="cpu").view(-1, 1, 1, 1), persistent=False
        )
        self.register_buffer(
            "latent_std", torch.tensor(std, device="cpu").view(-1, 1, 1, 1), persistent=False
        )

    def encode(self, video: Tensor, latents_per_pass: int | None = None) -> Tensor:
        """Video [B, 3, 1 + 4n, H, W] in [-1, 1] to normalised latents [B, z, 1 + n, H/16, W/16], the mean.

        `latents_per_pass` bounds the memory for long videos; the latents do not depend on it.
        """
        mean, _ = self.encode_distribution(video, latents_per_pass)
        return (mean - self.latent_mean) / self.latent_std

    def encode_distribution(
        self, video: Tensor, latents_per_pass: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the unnormalised latents, each [B, z, 1 + n, H/16, W/16]."""
        self._check_video(video)
        x = fold_pixels(video.to(self.conv1.weight.dtype))
        moments = (
            self.encoder(x, None) if latents_per_pass is None else self._encode_parts(x, latents_per_pass)
        )
        mean, logvar = self.conv1(moments).permute(1, 2, 0, 3, 4).chunk(2, dim=1)
        return mean, logvar

    def _encode_parts(self, x: Tensor, latents_per_pass: int) -> Tensor:
        rate = self.config.temporal_factor
        parts = [x[:1], *x[1:].split(rate * latents_per_pass)] if x.shape[0] > 1 else [x]
        moments, past = [], None
        for part in parts:
            stream = Stream(past)
            moments.append(self.encoder(part, stream))
            past = stream.kept
        return torch.cat(moments)

    def decode(self, latents: Tensor, cache: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Normalised latents [B, z, n, h, w] to frames [B, 3, F, 16h, 16w] in [-1, 1], and the new cache.

        `cache` None starts a session, whose first latent gives one frame and every other four. Pass the
        returned cache with the next latents: the frames do not depend on how latents are grouped. The
        cache is a list of new tensors; the one given is left as it is, so a session can be branched.
        """
        self._check_latents(latents, cache)
        frames, cache = self._decode(latents * self.latent_std + self.latent_mean, cache)
        return frames.clamp(-1.0, 1.0), cache

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Frames, not clamped, of unnormalised latents from a session's start: what training needs."""
        self._check_latents(latents, None)
        return self._decode(latents, None)[0]

    def _decode(self, latents: Tensor, cache: Sequence[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        stream = Stream(cache)
        x = self.conv2(time_major(latents.to(self.conv2.weight.dtype)))
        return unfold_pixels(self.decoder(x, stream)), stream.kept

    def _check_video(self, video: Tensor) -> None:
        space, rate = self.config.spatial_factor, self.config.temporal_factor
        good = video.dim() == 5 and video.shape[1] == RGB and video.shape[2] % rate == 1
        if not good or video.shape[3] % space or video.shape[4] % space:
            raise StateError(
                "the VAE cannot encode this video",
                expected=f"[B, {RGB}, 1 + {rate}n, {space}h, {space}w]",
                got=str(list(video.shape)),
            )

    def _check_latents(self, latents: Tensor, cache: Sequence[Tensor] | None) -> None:
        if latents.dim() != 5 or latents.shape[1] != self.config.z_dim or not latents.shape[2]:
            expected = f"[B, {self.config.z_dim}, n >= 1, h, w]"
            raise StateError(
                "the VAE cannot decode these latents", expected=expected, got=str(list(latents.shape))
            )
        if cache is not None and len(cache) != self.cache_length:
            raise StateError(
                "the decoder cache is not one of this VAE",
                expected=f"{self.cache_length} tensors",
                got=str(len(cache)),
            )

    @property
    def cache_length(self) -> int:
        """How many tensors a decoder cache holds: one per causal convolution that looks back."""
        convolutions = (m for m in self.decoder.modules() if isinstance(m, CausalConv3d))
        return sum(convolution.kernel_size[0] > 1 for convolution in convolutions)
