"""Other forms of the decoder's layers; each equals the model's up to rounding.

`taps`      the model's own: a 2-D convolution per time tap, over frames put behind those of the past
`products`  for a GPU: one 2-D convolution, every frame meets the weights of all taps once, and later frames
            add up what they need. Nothing is put together before it, and a narrow layer's product is three
            times wider. The cache holds products of earlier frames in place of the frames (`cache_shapes`).
            Frames are convolved before they are enlarged.
`volume`    the library's 3-D convolution over the frames of `taps`
`apart`     for float32 on a CPU: chunk and past meet each tap apart, so nothing is put together; enlarged
            frames are convolved before they are enlarged; norms work in place. A sixth less time.
"""

from __future__ import annotations

from typing import Final, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire_runtime.model.vae import (
    NORM_EPSILON,
    CausalConv3d,
    ChannelNorm,
    Decoder,
    Stream,
    Upsample,
)

Form = Literal["taps", "products", "volume", "apart"]
TAPS: Final[Form] = "taps"
PRODUCTS: Final[Form] = "products"
VOLUME: Final[Form] = "volume"
APART: Final[Form] = "apart"


def use_form(network: nn.Module, form: Form) -> None:
    """Gives the layers of a network this form, for inference; `products` and `apart` rearrange weights."""
    if form == TAPS:
        return
    for layer in network.modules():
        if type(layer) is CausalConv3d and layer.kernel_size[0] > 1:
            _give_form(layer, form)
        elif form in (PRODUCTS, APART) and type(layer) is Upsample:
            _give_phases(layer, form)
        elif form == APART and type(layer) is ChannelNorm:
            layer.__class__ = InPlaceNorm


def _give_form(layer: CausalConv3d, form: Form) -> None:
    by_tap = layer.weight.data.movedim(2, 0)
    if form == PRODUCTS:
        _become(layer, ProductConv, by_tap.flip(0).flatten(0, 1).contiguous())  # the newest tap first
    elif form == APART:
        _become(layer, ApartConv, _channels_last(by_tap))
    else:
        layer.__class__ = VolumeConv


def _give_phases(layer: Upsample, form: Form) -> None:
    convolution = cast(nn.Conv2d, layer.resample["1"])
    weights = phases(convolution.weight.data.float()).to(convolution.weight.dtype)
    weights = _channels_last(weights) if form == APART else weights.flatten(0, 1)
    convolution.weight = nn.Parameter(weights, requires_grad=False)
    layer.__class__ = PhaseUpsample if form == APART else WovenUpsample


def _become(layer: nn.Module, form: type[nn.Module], weight: Tensor) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=False)
    layer.__class__ = form


def _channels_last(weights: Tensor) -> Tensor:
    """[n, C', C, rows, columns]: each of the n kernels as the library's convolutions like it best."""
    return weights.movedim(2, 4).contiguous().movedim(4, 2)


def cache_shapes(decoder: Decoder, latent_hw: tuple[int, int]) -> list[torch.Size]:
    """What a session's decoding keeps from latent to latent: one [frames, 1, H, W, C] for each layer."""
    rows, columns = latent_hw
    stages = list(enumerate(decoder.upsamples))  # all but the last double the resolution at their end
    parts = [(0, decoder.conv1), (0, decoder.middle), *stages, (len(stages) - 1, decoder.head)]
    return [
        torch.Size((frames, 1, rows << doubled, columns << doubled, channels))
        for doubled, part in parts
        for layer in part.modules()
        if isinstance(layer, CausalConv3d) and layer.kernel_size[0] > 1
        for frames, channels in [_kept_by(layer)]
    ]


def _kept_by(layer: CausalConv3d) -> tuple[int, int]:
    """How many frames of how many channels a layer keeps."""
    taps = layer.kernel_size[0]
    if isinstance(layer, ProductConv):
        return taps * (taps - 1) // 2, layer.out_channels  # one that waits for one frame, one for two, ...
    return taps - 1, layer.in_channels


class ProductConv(CausalConv3d):
    """A causal convolution that multiplies each frame once. weight: [taps * C', C, rows, columns]."""

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        """[T * B, C, H, W] to [T * B, C', H, W]."""
        products = F.conv2d(x, self.weight, padding=self.padding[1:])
        newest, *earlier = products.chunk(self.kernel_size[0], dim=1)
        past, kept, begin = stream.past(x.dtype), [], 0
        assert self.bias is not None
        out = newest + self.bias.view(-1, 1, 1)
        for lag, part in enumerate(earlier, 1):
            waiting = lag * stream.batch  # products that wait for frames to come
            if past is None:
                line = Stream.pad_front(part, len(part) + waiting)
            else:
                line = torch.cat([past[begin : begin + waiting], part])
            out = out + line[: len(part)]
            kept.append(line[len(part) :])
            begin += waiting
        stream.keep(torch.cat(kept))
        return out


class VolumeConv(CausalConv3d):
    """A causal convolution by the library's own over three dimensions."""

    def convolve(self, x: Tensor, length: int, batch: int) -> Tensor:
        """Outputs for the newest `length` of the frames `x`."""
        if not length:  # which the library refuses
            return super().convolve(x, length, batch)
        x = Stream.pad_front(x, length + (self.kernel_size[0] - 1) * batch)
        video = x.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)
        video = video.contiguous(memory_format=torch.channels_last_3d)  # of one session it is so already
        out = F.conv3d(video, self.weight, self.bias, padding=self.padding)
        return out.permute(2, 0, 1, 3, 4).flatten(0, 1)


class ApartConv(CausalConv3d):
    """A causal convolution whose chunk and past meet each tap apart. weight: [taps, C', C, rows, columns]."""

    def forward(self, x: Tensor, stream: Stream) -> Tensor:  # type: ignore[override]
        """[T * B, C, H, W] to [T * B, C', H, W]."""
        length, reach = len(x), (self.kernel_size[0] - 1) * stream.batch
        past, newest = stream.past(x.dtype), self.kernel_size[0] - 1
        out = self._tap(x, newest, self.bias)
        for tap in range(newest):
            waiting = (newest - tap) * stream.batch  # so many frames look back to before the chunk
            if length > waiting:
                out[waiting:] += self._tap(x[:-waiting], tap)
            if past is not None:
                seen = past[reach - waiting :][:length]
                out[: len(seen)] += self._tap(seen[:waiting], tap)
        if length < reach:
            x = Stream.pad_front(x, reach) if past is None else torch.cat([past, x])
        stream.keep(x[-reach:])
        return out

    def _tap(self, x: Tensor, tap: int, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, self.weight[tap], bias, padding=self.padding[1:])


class PhaseUpsample(Upsample):
    """Convolves before it enlarges: of the 3 x 3 pixels that a kernel meets after, only 2 x 2 are different.

    Each of the four pixels that come of one sees its own 2 x 2 neighbours: 4/9 of the multiplications.
    """

    def enlarge(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 2 H, 2 W]."""
        convolution = cast(nn.Conv2d, self.resample["1"])
        rows, columns = x.shape[2:]
        out = x.new_empty(len(x), rows, 2, columns, 2, convolution.out_channels)
        for phase, weight in enumerate(convolution.weight):
            row, column = divmod(phase, 2)
            pixels = F.conv2d(x, weight, convolution.bias, padding=1).movedim(1, 3)
            out[:, :, row, :, column] = pixels[:, row : row + rows, column : column + columns]
        return out.flatten(3, 4).flatten(1, 2).movedim(3, 1)


class WovenUpsample(Upsample):
    """The same in one convolution, from which each pixel then takes its phase: weight [4 * C', C, 2, 2]."""

    def enlarge(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, 2 H, 2 W]."""
        convolution = cast(nn.Conv2d, self.resample["1"])
        each = F.conv2d(x, convolution.weight, padding=1).movedim(1, 3).unflatten(3, (4, -1))
        rows, columns = (torch.arange(2 * size, device=x.device) for size in x.shape[2:])
        phase = 2 * (rows % 2).unsqueeze(1) + columns % 2
        pixels = each[:, ((rows + 1) // 2).unsqueeze(1), (columns + 1) // 2, phase]
        return (pixels + convolution.bias).movedim(3, 1)


def phases(weight: Tensor) -> Tensor:
    """[C', C, 3, 3], of a convolution of pixels that were doubled, to [4, C', C, 2, 2] of those before.

    Upper left pixel, upper right, lower left, lower right.
    """
    return torch.stack([_pairs(_pairs(weight, 2)[row], 3)[column] for row in (0, 1) for column in (0, 1)])


def _pairs(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Three taps along a dimension as the two that the first, and the second, of two equal pixels sees."""
    before, here, after = weight.split(1, dim)
    return torch.cat([before, here + after], dim), torch.cat([before + here, after], dim)


class InPlaceNorm(ChannelNorm):
    """The norm with one new tensor of the input's size."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W]."""
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
        scale = length.square_().div_(x.shape[1]).add_(NORM_EPSILON).rsqrt_()
        normed = (x * scale.to(x.dtype)).mul_(self.gamma.view(-1, 1, 1))
        return F.silu(normed, inplace=True) if self.silu else normed
