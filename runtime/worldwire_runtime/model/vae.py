"""The video VAE: 16 x 16 pixels and 4 frames to one latent cell, causal in time, decoded as a stream.

This is the Wan2.2 layout with its original tensor names; the pruned MG-LightVAE variants and the tiny
world's own VAE are configurations of it. Frame 0 alone makes latent 0, frames 4k-3..4k make latent k.

Inside, a video is a plain batch of frames, [T * B, C, H, W], channels last in memory, with the B frames of
one time side by side: any run of frames is a view, and a causal 3-D convolution is a sum of 2-D convolutions,
one per time tap. That is as fast as the library's 3-D convolution where that is good, and up to 20 times
faster where it is not (float32 on CPUs).
"""

from __future__ import annotations

from collections.abc import Sequence
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
    widths (0.5 and 0.75 are the released light decoders), `encoder_pruning_rate` that of the encoder (0: the
    light decoders go with the full encoder). `latent_mean` and `latent_std` have `z_dim`
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
    encoder_pruning_rate: float | None = None
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
        for name in ("pruning_rate", "encoder_pruning_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0.0 <= rate < 1.0:
                raise ConfigError(f"VAE {name} is out of range", expected="0 <= rate < 1", got=str(rate))
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
        rate = self.pruning_rate if self.encoder_pruning_rate is None else self.encoder_pruning_rate
        return round(self.dim * (1.0 - rate))

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


def wan22_config(pruning_rate: float = 0.0, encoder_pruning_rate: float | None = None) -> VAEConfig:
    """The released Wan2.2 VAE (0), or its light variants (0.5 and 0.75), with the released statistics."""
    return VAEConfig(
        pruning_rate=pruning_rate,
        encoder_pruning_rate=encoder_pruning_rate,
        latent_mean=WAN_LATENT_MEAN,
        latent_std=WAN_LATENT_STD,
    )


class Stream:
    """What a pass over one chunk of frames takes from the chunks before it and leaves for those after it.

    `past` None is the start of a session. Layers take and keep in the order in which they run, so that
    `kept` is the `past` of the next chunk: a plain list of contiguous tensors [frames, B, H, W, C], whose
    layout survives being saved. With `keep` False nothing is kept: a pass over a whole video.
    """

    def __init__(self, batch: int, past: Sequence[Tensor] | None = None, keep: bool = True) -> None:
        self.batch = batch
        self.at_start = past is None
        self.kept: list[Tensor] = []
        self._past = [] if past is None else list(past)
        self._keep = keep

    def extend(self, x: Tensor, frames: int) -> Tensor:
        """Frames [T * B, C, H, W] behind this layer's last `frames` input frames; just `x` at the start."""
        past = self.past(x.dtype)
        if past is not None:
            x = torch.cat([past, x])
        self.keep(self.pad_front(x, frames * self.batch)[-frames * self.batch :])
        return x

    def past(self, dtype: torch.dtype) -> Tensor | None:
        """What this layer kept of the chunk before, [frames * B, C, H, W]; None at the start."""
        if self.at_start:
            return None
        return self._past[len(self.kept)].flatten(0, 1).movedim(3, 1).to(dtype)

    def keep(self, x: Tensor) -> None:
        """Keeps frames [frames * B, C, H, W] for the next chunk; each layer does so once."""
        if self._keep:
            # A copy: a view would keep the whole chunk alive and be saved with it.
            last = x.movedim(1, 3).clone(memory_format=torch.contiguous_format)
            self.kept.append(last.unflatten(0, (-1, self.batch)))

    @staticmethod
    def pad_front(x: Tensor, length: int) -> Tensor:
        """`x` behind frames of zeros, so that there are at least `length`."""
        return x if x.shape[0] >= length else F.pad(x, (0, 0, 0, 0, 0, 0, length - x.shape[0], 0))


class CausalConv3d(nn.Conv3d):
    """A 3-D convolution over the present and the past, computed as one 2-D convolution per time tap.

    Frames before the session count as zero; taps that would meet nothing else are left out.
    """

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int, int]) -> None:
        super().__init__(inputs, outputs, kernel, padding=(0, kernel[1] // 2, kernel[2] // 2))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        """[T * B, C, H, W] to [T * B, C', H, W]."""
        length = x.shape[0]
        if self.kernel_size[0] > 1:
            x = stream.extend(x, self.kernel_size[0] - 1)
        return self.convolve(x, length, stream.batch)

    def convolve(self, x: Tensor, length: int, batch: int) -> Tensor:
        """Outputs for the newest `length` of the frames `x`; what lies before them is all that was seen."""
        taps = self.kernel_size[0]
        used = min(taps, x.shape[0] // batch)
        x = Stream.pad_front(x, length + (used - 1) * batch)
        out = self._tap(x[-length:], taps - 1, self.bias)
        for lag in range(1, used):
            start = x.shape[0] - length - lag * batch
            out += self._tap(x[start : start + length], taps - 1 - lag)
        return out

    def strided(self, x: Tensor, stream: Stream) -> Tensor:
        """Every second output in time, without padding: T frames to (T - taps) // 2 + 1."""
        taps = self.kernel_size[0]
        x = x.unflatten(0, (-1, stream.batch))
        outputs = (x.shape[0] - taps) // 2 + 1
        parts = [x[tap : tap + 2 * outputs - 1 : 2].flatten(0, 1) for tap in range(taps)]
        out = self._tap(parts[0], 0, self.bias)
        for tap in range(1, taps):
            out += self._tap(parts[tap], tap)
        return out

    def _tap(self, x: Tensor, tap: int, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight[:, :, tap], bias, padding=self.padding[1:])


class ChannelNorm(nn.Module):
    """x / sqrt(mean over channels of x^2 + eps) * gamma, the mean in float32; then SiLU if `silu`."""

    def __init__(self, channels: int, *, trailing: int, silu: bool) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *(1,) * trailing))
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        scale = torch.rsqrt(length.square() / x.shape[1] + NORM_EPSILON)
        x = x * scale.to(x.dtype) * self.gamma.view(-1, 1, 1).to(x.dtype)
        return F.silu(x) if self.silu else x


class ResidualBlock(nn.Module):
    """Norm, SiLU and a causal 3 x 3 x 3 convolution, twice, plus a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        # Numbered as in the original, where the SiLUs are 1 and 4 and a dropout is 5.
        self.residual = nn.ModuleDict(
            {
                "0": ChannelNorm(inputs, trailing=3, silu=True),
                "2": CausalConv3d(inputs, outputs, (3, 3, 3)),
                "3": ChannelNorm(outputs, trailing=3, silu=True),
                "6": CausalConv3d(outputs, outputs, (3, 3, 3)),
            }
        )
        self.shortcut = None if inputs == outputs else CausalConv3d(inputs, outputs, (1, 1, 1))

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        hidden = self.residual["2"](self.residual["0"](x), stream)
        hidden = self.residual["6"](self.residual["3"](hidden), stream)
        return hidden + (x if self.shortcut is None else self.shortcut(x, stream))


class FrameAttention(nn.Module):
    """Single-head attention among the cells of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, trailing=2, silu=False)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.to_qkv(self.norm(x)).flatten(2).transpose(1, 2).unsqueeze(1)  # [N, one head, cells, 3 C]
        mixed = F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))
        return x + self.proj(mixed.squeeze(1).transpose(1, 2).unflatten(2, x.shape[2:]))


class Middle(nn.ModuleList):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            [ResidualBlock(channels, channels), FrameAttention(channels), ResidualBlock(channels, channels)]
        )

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self[2](self[1](self[0](x, stream)), stream)


class Head(nn.ModuleDict):
    """Norm, SiLU, causal convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        norm = ChannelNorm(inputs, trailing=3, silu=True)
        super().__init__({"0": norm, "2": CausalConv3d(inputs, outputs, (3, 3, 3))})

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        return self["2"](self["0"](x), stream)


class Downsample(nn.Module):
    """Halves the resolution (3 x 3, stride 2, padded right and below) and, if `temporal`, the frame rate."""

    def __init__(self, channels: int, temporal: bool) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, stride=2)})
        self.time_conv = CausalConv3d(channels, channels, (3, 1, 1)) if temporal else None

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = self.resample["1"](F.pad(x, (0, 1, 0, 1)))
        return x if self.time_conv is None else self._halve_rate(x, stream, self.time_conv)

    def _halve_rate(self, x: Tensor, stream: Stream, time_conv: CausalConv3d) -> Tensor:
        """The session's first frame passes as it is; every later pair is seen with the frame before it."""
        x = stream.extend(x, 1)
        if not stream.at_start:
            return time_conv.strided(x, stream)
        first = x[: stream.batch]
        return first if x.shape[0] == stream.batch else torch.cat([first, time_conv.strided(x, stream)])


class Upsample(nn.Module):
    """Doubles the frame rate if `temporal`, then the resolution (nearest, 3 x 3)."""

    def __init__(self, channels: int, temporal: bool, session_start: SessionStart) -> None:
        super().__init__()
        self.resample = nn.ModuleDict({"1": nn.Conv2d(channels, channels, 3, padding=1)})
        self.time_conv = CausalConv3d(channels, 2 * channels, (3, 1, 1)) if temporal else None
        self._skip_first = session_start == "skip_time_convs"

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        if self.time_conv is not None:
            double = self._double_rate_from_start if stream.at_start else self._double_rate
            x = double(x, stream, self.time_conv)
        return self.enlarge(x)

    def enlarge(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 2 H, 2 W]."""
        return self.resample["1"](F.interpolate(x, scale_factor=2.0))

    def _double_rate(self, x: Tensor, stream: Stream, time_conv: CausalConv3d) -> Tensor:
        """The two halves of the channels are consecutive frames: T frames to 2T."""
        first, second = time_conv(x, stream).chunk(2, dim=1)
        pairs = zip(first.split(stream.batch), second.split(stream.batch), strict=True)
        return torch.cat([frame for pair in pairs for frame in pair])

    def _double_rate_from_start(self, x: Tensor, stream: Stream, time_conv: CausalConv3d) -> Tensor:
        """The session's first latent gives one frame: T frames to 2T - 1."""
        if not self._skip_first:
            return self._double_rate(x, stream, time_conv)[stream.batch :]
        first, later = x[: stream.batch], x[stream.batch :]
        return torch.cat([first, self._double_rate(later, stream, time_conv)])


def fold_average(x: Tensor, batch: int, outputs: int, frames: int, cells: int) -> Tensor:
    """The encoder's shortcut: fold `frames` x `cells` x `cells` into channels, average runs of channels.

    T frames [T * B, C, H, W] to ceil(T / frames) of [outputs, H / cells, W / cells]; missing ones are 0.
    """
    missing = -(x.shape[0] // batch) % frames
    x = Stream.pad_front(x, x.shape[0] + missing * batch)
    length, C, H, W = x.shape
    x = x.reshape(length // (frames * batch), frames, batch, C, H // cells, cells, W // cells, cells)
    x = x.permute(0, 2, 4, 6, 3, 1, 5, 7)  # T, B, H, W, (C, frame, row, column)
    x = x.reshape(length // frames, H // cells, W // cells, outputs, -1).mean(dim=4)
    return x.movedim(3, 1)


def repeat_unfold(x: Tensor, batch: int, outputs: int, frames: int, cells: int) -> Tensor:
    """The decoder's shortcut: repeat channels consecutively, unfold them to `frames` x `cells` x `cells`.

    T frames [T * B, C, H, W] to T * frames of [outputs, H * cells, W * cells].
    """
    length, C, H, W = x.shape
    repeats = outputs * frames * cells * cells // C
    x = x.movedim(1, 3).unsqueeze(4).expand(length, H, W, C, repeats)
    x = x.reshape(length // batch, batch, H, W, outputs, frames, cells, cells)
    x = x.permute(0, 5, 1, 2, 6, 3, 7, 4)  # T, frame, B, H, row, W, column, C
    return x.reshape(length * frames, H * cells, W * cells, outputs).movedim(3, 1)


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

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        shortcut = fold_average(x, stream.batch, *self._shortcut)
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
        shortcut = repeat_unfold(source, stream.batch, *self._shortcut)
        return x + shortcut[-x.shape[0] :]  # at the start, both ways drop their first frame


class Encoder(nn.Module):
    """Folded pixels [T * B, 12, H/2, W/2] to mean and log-variance [T' * B, 2 z, H/16, W/16]."""

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

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        x = self.conv1(x, stream)
        for stage in self.downsamples:
            x = stage(x, stream)
        return self.head(self.middle(x, stream), stream)


class Decoder(nn.Module):
    """Latents [T' * B, z, H/16, W/16] to folded pixels [T * B, 12, H/2, W/2]."""

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
    """[B, 3, T, H, W] to [T * B, 12, H/2, W/2], channels last; channel = (colour * 2 + column) * 2 + row."""
    B, C, T, H, W = video.shape
    x = video.reshape(B, C, T, H // PIXEL_PATCH, PIXEL_PATCH, W // PIXEL_PATCH, PIXEL_PATCH)
    x = x.permute(2, 0, 3, 5, 1, 6, 4)  # T, B, H, W, colour, column, row
    return x.reshape(T * B, H // PIXEL_PATCH, W // PIXEL_PATCH, -1).movedim(3, 1)


def unfold_pixels(x: Tensor, batch: int) -> Tensor:
    """The inverse of `fold_pixels`: [T * B, 12, H, W] to [B, 3, T, 2H, 2W]."""
    length, _, H, W = x.shape
    x = x.reshape(length // batch, batch, RGB, PIXEL_PATCH, PIXEL_PATCH, H, W).permute(1, 2, 0, 5, 4, 6, 3)
    return x.reshape(batch, RGB, length // batch, H * PIXEL_PATCH, W * PIXEL_PATCH)


def time_major(x: Tensor) -> Tensor:
    """[B, C, T, H, W] to [T * B, C, H, W] with the channels last in memory."""
    return x.permute(2, 0, 3, 4, 1).contiguous().flatten(0, 1).movedim(3, 1)


def batch_major(x: Tensor, batch: int) -> Tensor:
    """The inverse of `time_major`."""
    return x.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)


class VAE(nn.Module):
    """Encoder and streaming decoder. See the module's page for the layout."""

    latent_mean: Tensor
    latent_std: Tensor

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
        x, batch = fold_pixels(video.to(self.conv1.weight.dtype)), video.shape[0]
        if latents_per_pass is None:
            moments = self._encode_part(x, Stream(batch, keep=False))
        else:
            moments = self._encode_parts(x, batch, latents_per_pass)
        mean, logvar = batch_major(moments, batch).chunk(2, dim=1)
        return mean, logvar

    def _encode_part(self, x: Tensor, stream: Stream) -> Tensor:
        return self.conv1(self.encoder(x, stream), stream)

    def _encode_parts(self, x: Tensor, batch: int, latents_per_pass: int) -> Tensor:
        later = (
            x[batch:].split(self.config.temporal_factor * latents_per_pass * batch)
            if x.shape[0] > batch
            else ()
        )
        stream = Stream(batch)
        moments = [self._encode_part(x[:batch], stream)]
        for part in later:
            stream = Stream(batch, stream.kept)
            moments.append(self._encode_part(part, stream))
        return torch.cat(moments)

    def decode(self, latents: Tensor, cache: Sequence[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Normalised latents [B, z, n, h, w] to frames [B, 3, F, 16h, 16w] in [-1, 1], and the new cache.

        `cache` None starts a session, whose first latent gives one frame and every other four. Pass the
        returned cache with the next latents: the frames do not depend on how latents are grouped. The
        cache is a list of new tensors; the one given is left as it is, so a session can be branched.
        """
        self._check_latents(latents, cache)
        stream = Stream(latents.shape[0], cache)
        frames = self._decode(latents * self.latent_std + self.latent_mean, stream)
        return frames.clamp(-1.0, 1.0), stream.kept

    def decode_raw(self, latents: Tensor) -> Tensor:
        """Frames, not clamped, of a whole session's unnormalised latents: what training needs."""
        self._check_latents(latents, None)
        return self._decode(latents, Stream(latents.shape[0], keep=False))

    def _decode(self, latents: Tensor, stream: Stream) -> Tensor:
        x = self.conv2(time_major(latents.to(self.conv2.weight.dtype)), stream)
        return unfold_pixels(self.decoder(x, stream), stream.batch)

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
