"""From latents to pixels: the VAE's streaming decoder for the sessions of one world.

On a GPU all decoding of a world runs in a lane of its own, one thread and one CUDA stream, beside the
denoising of the clips to come. On a CPU it runs where it is asked for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worldwire_runtime.acceleration import SteadyCompiled, Tell, compiler_missing, silent
from worldwire_runtime.ahead import HIGH_PRIORITY
from worldwire_runtime.convolutions import TAPS, Form, cache_shapes, use_form
from worldwire_runtime.graphs import WARM_CALLS, CudaRecorder, Graphed, Recorder
from worldwire_runtime.model.vae import FRAMES_PER_LATENT, VAE, VAEConfig
from worldwire_runtime.timing import StageTimer

log = logging.getLogger(__name__)

SETTLED_CALLS = WARM_CALLS + 2
"""Of a session that recur, after which its decoding has been compiled and recorded."""
MOST_AT_ONCE = 5
"""Latents of a long clip that a GPU decodes in one call: more of its first layers fit side by side."""
TENSORS_OF_A_GPU = 64
"""So often the largest tensor of such a call goes into the GPU's memory, at least."""

T = TypeVar("T")
Cache = list[Tensor]
Pixels = NDArray[np.uint8]


class Decoder:
    """One world's decoder: a function of latents and cache, compiled or not, shared by its sessions.

    `compiled` fuses it with torch.compile once the shapes of a session have settled; on a CPU without a C++
    compiler it stays as it is, with a line in the log. `graphs`: it is replayed as a CUDA graph that changes
    a session's cache in place (`record`: what records it). `measured` lets cuDNN try its algorithms for each
    shape. `form`: of the causal convolutions (`worldwire_runtime.convolutions`). The frames are the same up
    to rounding.
    """

    def __init__(
        self,
        vae: VAE,
        *,
        compiled: bool = False,
        graphs: bool = False,
        record: Recorder | None = None,
        measured: bool = True,
        form: Form = TAPS,
        tell: Tell = silent,
    ) -> None:
        self.vae = vae
        place = vae.conv2.weight.device
        self.lane = Lane(place) if place.type == "cuda" else None
        self._measured = measured and place.type == "cuda"
        use_form(vae.decoder, form)
        if place.type == "cuda":
            channels_last(vae)
        reason = compiler_missing() if compiled and place.type == "cpu" else None
        if reason is not None:
            log.warning("the decoder runs uncompiled: %s", reason)
        compiled = compiled and reason is None
        self._compiled, self._tell = compiled, tell
        self._steady: dict[int, Callable[..., Any]] = {}  # by how many latents: plans differ in that
        self._in_place: Graphed | None = None
        if graphs:
            # It runs beside the denoiser's graphs: they share no memory.
            record = record or CudaRecorder(self.lane.stream if self.lane is not None else None)
            self._in_place = Graphed(self._measure_and_advance, record, tell, resident=("cache",))

    @property
    def changes_caches(self) -> bool:
        """Whether `decode` writes into the cache that it is given."""
        return self._in_place is not None

    @torch.inference_mode()
    def decode(self, latents: Tensor, cache: Cache | None, recurs: bool = True) -> tuple[Tensor, Cache]:
        """Latents [n, z, h, w] and a cache (None at the start) to pixels u8 [F, H, W, 3] and new cache.

        recurs: whether calls of so many latents come again; others are not worth compiling or recording.
        """
        # Latents arrive as views of all kinds; one layout is compiled once.
        video = latents.to(self.vae.conv2.weight.device, torch.float32).contiguous()
        if cache is None:  # once a session: not worth measuring either
            return self._decode(video, None)
        if self._in_place is not None:
            advance = self._in_place if recurs else self._decode_in_place
            return advance(video, cache), cache
        with measured_convolutions(self._measured):
            return self._steadily(self._decode, video, cache) if recurs else self._decode(video, cache)

    def _steadily(self, function: Callable[..., T], latents: Tensor, cache: Cache) -> T:
        """Compiled, if this decoder is, for each number of latents that recurs."""
        if not self._compiled:
            return function(latents, cache)
        steady = self._steady.setdefault(len(latents), SteadyCompiled(function, self._tell))
        return cast(T, steady(latents, cache))

    def _decode(self, latents: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        frames, cache = self.vae.decode(latents.transpose(0, 1).unsqueeze(0), cache)
        pixels = (frames[0].permute(1, 2, 3, 0).float() + 1.0) * 127.5
        return pixels.round().to(torch.uint8), cache

    def _decode_in_place(self, latents: Tensor, cache: Cache) -> Tensor:
        pixels, following = self._decode(latents, cache)
        for held, new in zip(cache, following, strict=True):
            held.copy_(new)
        return pixels

    def _measure_and_advance(self, latents: Tensor, cache: Cache) -> Tensor:
        with measured_convolutions(self._measured):
            return self._steadily(self._decode_in_place, latents, cache)


@contextmanager
def measured_convolutions(wanted: bool) -> Iterator[None]:
    """cuDNN tries its algorithms for a shape that is new to this thread; never while a graph is recorded."""
    if not wanted:
        yield
        return
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = not torch.cuda.is_current_stream_capturing()
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Lane:
    """One thread with a CUDA stream of its own, in which a world's latents are decoded in order.

    One thread, for cuDNN and torch.compile keep what they found out by thread, and sessions share recordings.
    Of high priority, so that kernels of the next clip never hold up frames whose latents are there.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device, priority=HIGH_PRIORITY)
        self._thread = ThreadPoolExecutor(1, "worldwire-decoder")

    def each(self, work: Callable[[Tensor], Landing], latents: Tensor, at_once: int = 1) -> Iterator[Pixels]:
        """What becomes of so many latents [at_once, ...] in order, from what the caller's stream has done.

        All of it is launched when the first is asked for; nobody waits for more than the next.
        """
        made = torch.cuda.Event()
        made.record(torch.cuda.current_stream(self.stream.device))
        return self._each(partial(self._run, made, work), latents.split(at_once))

    def _each(self, work: Callable[[Tensor], Landing], parts: Iterable[Tensor]) -> Iterator[Pixels]:
        pending = deque(self._thread.submit(work, part) for part in parts)
        try:
            while pending:
                yield pending.popleft().result().wait()
        finally:
            for future in pending:
                future.cancel()

    def _run(self, made: torch.cuda.Event, work: Callable[[Tensor], Landing], latents: Tensor) -> Landing:
        with torch.cuda.stream(self.stream), torch.inference_mode():
            self.stream.wait_event(made)
            latents.record_stream(self.stream)
            return work(latents)


class Landing(NamedTuple):
    """Pictures on their way to the host. landed: None if they are there."""

    pixels: Tensor
    landed: torch.cuda.Event | None = None

    def wait(self) -> Pixels:
        """The pictures, once they are there."""
        if self.landed is not None:
            self.landed.synchronize()
        return self.pixels.numpy()


def to_host(pixels: Tensor) -> Landing:
    """Sends pictures to the host; off a GPU through pinned memory, which 720p takes 40 times faster."""
    if not pixels.is_cuda:
        return Landing(pixels)
    held = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True)
    held.copy_(pixels, non_blocking=True)
    landed = torch.cuda.Event(blocking=True)
    landed.record(torch.cuda.current_stream(pixels.device))
    return Landing(held, landed)


def channels_last(network: nn.Module) -> None:
    """Lays out the weights of convolutions as a GPU's convolutions want them: channels fastest."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in network.parameters():
        if parameter.ndim in formats:
            parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])


def largest_bytes(config: VAEConfig, latent_hw: tuple[int, int], bytes_per_number: int) -> int:
    """The largest tensor of decoding one latent: in `products`, at half resolution, what three taps make."""
    cells = latent_hw[0] * latent_hw[1] * (config.spatial_factor // 2) ** 2
    return FRAMES_PER_LATENT * cells * 3 * config.decoder_width * bytes_per_number


def latents_at_once(latents: int, bytes_each: int, memory_bytes: int) -> int:
    """How many latents of clips of so many a GPU with so much memory decodes in one call, all calls alike.

    Of a short clip one, for its frames are to leave as soon as they can. bytes_each: `largest_bytes`.
    """
    if latents < MOST_AT_ONCE:
        return 1
    most = max(1, min(MOST_AT_ONCE, memory_bytes // TENSORS_OF_A_GPU // bytes_each))
    return next(count for count in range(most, 0, -1) if latents % count == 0)


class DecoderStream:
    """One session's decoding: the decoder and what it remembers of the frames so far.

    at_once: so many latents are decoded in one call; what is left of a session's first clip, in another.
    """

    def __init__(self, decoder: Decoder, at_once: int = 1) -> None:
        self._decoder, self._at_once = decoder, at_once
        self._cache: Cache | None = None
        self._room: Cache | None = None
        self._calls = 0  # of those that recur

    @property
    def is_settled(self) -> bool:
        """Whether nothing of this session's decoding is still to be compiled or recorded."""
        return self._calls >= SETTLED_CALLS

    def show(self, latents: Tensor, timer: StageTimer) -> Iterator[Pixels]:
        """The next latents [n, z, h, w] in parts, as frames u8 [F, H, W, 3]: 1 for the first, then 4 each.

        On a GPU the iterator may be taken in another thread, while the caller's stream goes on.
        """

        def work(part: Tensor) -> Landing:
            with timer("decode"), torch.inference_mode():
                return to_host(self._advance(part))

        if self._decoder.lane is not None:
            return self._decoder.lane.each(work, latents, self._at_once)
        return (work(part).wait() for part in latents.split(self._at_once))

    def decode(self, latents: Tensor) -> Pixels:
        """The same for all of them in one call, waited for."""
        return to_host(self._advance(latents)).wait()

    def _advance(self, latents: Tensor) -> Tensor:
        recurs = len(latents) == self._at_once
        pixels, cache = self._decoder.decode(latents, self._settled(self._cache), recurs)
        self._cache = self._settled(cache)
        self._calls += recurs
        return pixels

    def _settled(self, cache: Cache | None) -> Cache | None:
        """A cache, in the room for it if there is some."""
        if cache is None or self._room is None or cache is self._room:
            return cache
        with torch.inference_mode():
            for held, new in zip(self._room, cache, strict=True):
                held.copy_(new)
                if new.is_cuda:  # a saved one comes from another stream, which may not reuse it before that
                    new.record_stream(torch.cuda.current_stream(new.device))
        return self._room

    def take_room(self, other: DecoderStream) -> None:
        """Goes on in the memory of a stream that is over, which recorded graphs know by its address."""
        if self._decoder.changes_caches:
            self._room = other._room or other._cache
            self._calls += other._calls

    def anew(self) -> DecoderStream:
        """A stream at its start, in place of this one."""
        other = DecoderStream(self._decoder, self._at_once)
        other.take_room(self)
        return other

    def copy(self) -> DecoderStream:
        """An independent stream that goes on from here."""
        other = DecoderStream(self._decoder, self._at_once)
        if self._cache is not None:
            # Caches that are never written to are shared.
            own = self._decoder.changes_caches
            with torch.inference_mode():
                other._cache = [tensor.clone() if own else tensor for tensor in self._cache]
        return other

    def state(self) -> dict[str, Tensor]:
        """Everything that `load_state` needs; empty at a session's start."""
        return _named(self._cache or ())

    def state_shapes(self, latent_hw: tuple[int, int]) -> dict[str, torch.Size]:
        """What `state` gives once a session has begun."""
        return _named(cache_shapes(self._decoder.vae.decoder, latent_hw))

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Continue from `state`'s answer, which has the names and shapes of `state_shapes`."""
        weight = self._decoder.vae.conv2.weight
        with (
            torch.inference_mode()
        ):  # tensors of the kind that decoding makes: others would be compiled for anew
            moved = [state[name].to(weight.device, weight.dtype, copy=True) for name in sorted(state)]
        self._cache = moved or None


def _named(parts: Iterable[T]) -> dict[str, T]:
    """What the layers keep, by names that sort in their order."""
    return {f"{index:02}": part for index, part in enumerate(parts)}
