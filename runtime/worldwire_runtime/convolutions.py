"""Other forms of the decoder's causal convolutions, for a GPU; each equals the model's up to rounding.

`taps`      the model's own: a 2-D convolution per time tap, over frames put behind those of the past
`products`  one 2-D convolution: every frame meets the weights of all taps once, and later frames add up what
            they need. Nothing is put together before it, and a narrow layer's product is three times wider.
            The cache holds products of earlier frames in place of the frames (`cache_shapes`).
`volume`    the library's 3-D convolution over the frames of `taps`
"""

from __future__ import annotations

from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire_runtime.model.vae import CausalConv3d, Decoder, Stream

Form = Literal["taps", "products", "volume"]
TAPS: Final[Form] = "taps"
PRODUCTS: Final[Form] = "products"
VOLUME: Final[Form] = "volume"


def use_form(network: nn.Module, form: Form) -> None:
    """Gives all convolutions of a network that look back this form; `products` rearranges their weights."""
    if form == TAPS:
        return
    for layer in network.modules():
        if type(layer) is CausalConv3d and layer.kernel_size[0] > 1:
            if form == PRODUCTS:
                by_tap = layer.weight.data.flip(2).movedim(2, 0)  # the newest tap first
                layer.weight = nn.Parameter(by_tap.flatten(0, 1).contiguous(), requires_grad=False)
            layer.__class__ = ProductConv if form == PRODUCTS else VolumeConv


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
