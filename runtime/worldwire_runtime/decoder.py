"""From latents to pixels: the VAE's streaming decoder for the sessions of one world."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worldwire.errors import StateError
from worldwire_runtime.acceleration import SteadyCompiled, Tell, compiler_missing, silent
from worldwire_runtime.model.vae import VAE

log = logging.getLogger(__name__)


class Decoder:
    """One world's decoder: a pure function of latents and cache, compiled or not, shared by its sessions.

    `compiled` fuses it with torch.compile once the shapes of a session have settled. On a CPU without a C++
    compiler it stays as it is, with a line in the log; the frames are the same up to rounding.
    """

    def __init__(self, vae: VAE, *, compiled: bool = False, tell: Tell = silent) -> None:
        self.vae = vae
        place = vae.conv2.weight.device
        if place.type == "cuda":
            channels_last(vae)
        reason = compiler_missing() if compiled and place.type == "cpu" else None
        if reason is not None:
            log.warning("the decoder runs uncompiled: %s", reason)
        self._run = SteadyCompiled(self._decode, tell) if compiled and reason is None else self._decode

    @torch.inference_mode()
    def decode(self, latents: Tensor, cache: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Latents [n, z, h, w] and a cache (None at the start) to pixels u8 [F, H, W, 3] and new cache."""
        # Latents arrive as views of all kinds; one layout is compiled once.
        video = latents.to(self.vae.conv2.weight.device, torch.float32).contiguous()
        return self._run(video, cache)

    def _decode(self, latents: Tensor, cache: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        frames, cache = self.vae.decode(latents.transpose(0, 1).unsqueeze(0), cache)
        pixels = (frames[0].permute(1, 2, 3, 0).float() + 1.0) * 127.5
        return pixels.round().to(torch.uint8), cache


def to_host(pixels: Tensor) -> NDArray[np.uint8]:
    """Pictures as an array; off a GPU through pinned memory, which 720p takes 40 times faster."""
    if not pixels.is_cuda:
        return pixels.numpy()
    held = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
    held.copy_(pixels, non_blocking=True)
    torch.cuda.current_stream(pixels.device).synchronize()
    return held.numpy()


def channels_last(network: nn.Module) -> None:
    """Lays out the weights of convolutions as a GPU's convolutions want them: channels fastest."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


class DecoderStream:
    """One session's decoding: the decoder and what it remembers of the frames so far."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._cache: list[Tensor] | None = None

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """The next latents [n, z, h, w] as frames u8 [F, H, W, 3]: 1 for a session's first, then 4 each."""
        pixels, self._cache = self._decoder.decode(latents, self._cache)
        return to_host(pixels)

    def copy(self) -> DecoderStream:
        """An independent stream that goes on from here. Caches are never written to, so they are shared."""
        other = DecoderStream(self._decoder)
        other._cache = None if self._cache is None else list(self._cache)
        return other

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs; empty at a session's start."""
        return {f"{index:02}": tensor for index, tensor in enumerate(self._cache or ())}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`'s answer.

        Raises:
            StateError: it is not the state of such a decoder.
        """
        expected = self._decoder.vae.cache_length
        if state and sorted(state) != [f"{index:02}" for index in range(expected)]:
            raise StateError(
                "a saved decoder state does not fit this world's decoder",
                expected=f"{expected} numbered tensors, or none",
                got=f"{len(state)}: {sorted(state)[:4]}",
            )
        weight = self._decoder.vae.conv2.weight
        moved = [state[name].to(weight.device, weight.dtype) for name in sorted(state)]
        self._cache = moved or None
