"""A world: weights and what goes with them, shared by all sessions that play in it."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldwire.api import WorldInfo
from worldwire.errors import ConfigError, ImageError
from worldwire_runtime.acceleration import Tell, silent
from worldwire_runtime.ahead import Ahead
from worldwire_runtime.assembly import Networks, Place, assemble
from worldwire_runtime.config import ClipPlan
from worldwire_runtime.decoder import Decoder, DecoderStream
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.experts import Expert, ExpertDenoiser, Residence, expert_denoisers, of_view
from worldwire_runtime.footprint import (
    Resident,
    check_gpu,
    check_memory,
    latents_per_call,
    memory_estimate,
)
from worldwire_runtime.machine import (
    PRECISIONS,
    check_arithmetic,
    free_bytes,
    limit_memory,
    pick_device,
    pick_dtype,
)
from worldwire_runtime.memory import Memory
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.vae import VAE
from worldwire_runtime.quantize.attention import use_8bit_attention
from worldwire_runtime.quantize.config import quantization_of
from worldwire_runtime.quantize.layers import join_projections
from worldwire_runtime.quantize.passes import use_row_kernels
from worldwire_runtime.released.rules import ReleasedRules
from worldwire_runtime.rolling import RollingContext
from worldwire_runtime.rules import OwnRules, Rules
from worldwire_runtime.seed_images import SeedImages, check_picture
from worldwire_runtime.short_attention import counts_prompts, shortened, use_short_attention
from worldwire_runtime.sources import (
    CONFIG_FILE,
    DIT_FILE,
    PRESETS,
    RANDOM,
    TEXT_FILE,
    VAE_FILE,
    Source,
    locate,
    preset_folder,
    preset_names,
)
from worldwire_runtime.speed import Speed
from worldwire_runtime.split_keys import use_split_keys
from worldwire_runtime.usage import GIB

__all__ = [
    "CONFIG_FILE",
    "DIT_FILE",
    "PRECISIONS",
    "PRESETS",
    "TEXT_FILE",
    "VAE_FILE",
    "Session",
    "StartPicture",
    "World",
    "pick_device",
    "pick_dtype",
    "preset_folder",
    "preset_names",
]

log = logging.getLogger(__name__)

TEXT_PLACES = ("device", "cpu")

Progress = Callable[[float, str], None]


def _silent(_: float, __: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class StartPicture:
    """How a session begins: pixels uint8 [H, W, 3] (None: the prompt must make them), a sentence, a view."""

    pixels: NDArray[np.uint8] | None
    prompt: str
    view: str


class World:
    """Weights on a device. Make one with `World.load`, then as many sessions as you like."""

    def __init__(
        self,
        source: Source,
        networks: Networks,
        place: Place,
        resident: Resident,
        *,
        speed: Speed,
        tell: Tell = silent,
    ):
        config, device, dtype = source.config, place.device, place.dtype
        self.config, self.device, self.dtype, self.weights = config, device, dtype, source.kind
        self._precision = (
            place.quantization.precision if place.quantization else str(dtype).removeprefix("torch.")
        )
        self.speed, self._resident = speed, resident
        self.ahead = Ahead(device, bool(self.speed.overlap))
        self.seed_images = SeedImages(source.seeds, config.height, config.width)
        self._vae, self._text_encoder = networks.vae, networks.text
        denoisers = {name: self._denoiser(dit, tell) for name, dit in networks.transformers.items()}
        self.denoiser = next(iter(denoisers.values()))
        self._experts = self._take_turns(networks, denoisers)
        self._decoder = self._make_decoder(tell)
        self.rules: Rules = (
            ReleasedRules(config, device, dtype, self.encode_prompt)
            if config.conventions == "released"
            else OwnRules(config, device, dtype)
        )

    @classmethod
    def load(
        cls,
        preset: str | Path = "tiny",
        device: str = "auto",
        precision: str = "auto",
        *,
        speed: Speed | None = None,
        plan: str | None = None,
        weights: str | Path | None = None,
        attention: str | None = None,
        vae_pruning: float | None = None,
        text_on: str = "device",
        offload: bool = False,
        memory_gib: float | None = None,
        progress: Progress = _silent,
    ) -> World:
        """Loads a shipped preset by its name, a folder with the same files, or the released model's folder.

        Needs no network. device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N". precision:
        "auto", "bfloat16", "float32", or an 8-bit form (`worldwire_runtime.quantize`); "auto" is bfloat16
        where the processor multiplies it natively. speed: what makes the networks fast (default: what fits
        the device). plan: the clip plan of sessions that name none (default: the preset's); memory is checked
        for it.
        weights: a folder with the released files for a preset without weights, or "random" for timing.
        attention: another mode, for random weights only. vae_pruning: 0, 0.5 or 0.75, of the released
        decoders (the most pruned one that is there). text_on: "device" or "cpu", where a umT5 lives.
        offload: experts that are not at work wait in the main memory.
        memory_gib: the most that a GPU may give, to play as a smaller card would.
        progress: is called with the part that is done, 0 to 1, and what comes next, for people; later with
        1 and what keeps a session waiting while it is compiled, and "" when it goes on.
        Raises ConfigError, CheckpointError or MachineError before any long work.
        """
        source = locate(
            preset, weights, plan=plan, attention=attention, vae_pruning=vae_pruning, offload=offload
        )
        place = _place(source, device, precision, text_on)
        speed = (speed or Speed()).on(place.device)
        resident = _check_memory(source, place, speed, memory_gib, asked_for=device)
        networks = assemble(source, place, progress)
        progress(1.0, "ready")
        return cls(source, networks, place, resident, speed=speed, tell=partial(progress, 1.0))

    @property
    def vae(self) -> VAE:
        """The video VAE, for what looks into it or wraps it."""
        return self._vae

    def denoiser_for(self, view: str) -> Denoiser | ExpertDenoiser:
        """What samples clips seen in a view."""
        return of_view(self._experts, view) if self._experts else self.denoiser

    def _denoiser(self, dit: DiT, tell: Tell) -> Denoiser:
        """A transformer's denoiser, as fast as it was asked for."""
        if self.device.type == "cuda":
            use_short_attention(dit)
            use_split_keys(dit, self.device)
        if self.speed.attention_8bit:
            use_8bit_attention(dit)
        if self.config.experts is None or not self.config.experts.offload:  # moved apart, weights are apart
            join_projections(dit)
        use_row_kernels(dit)
        compiled, graphs = bool(self.speed.compiled), bool(self.speed.graphs)
        return Denoiser(
            dit,
            self.config.sampler.shift,
            compiled=compiled,
            graphs=graphs,
            tell=tell,
            device=self.device,
            shorten=shortened if counts_prompts(self.device, self.dtype) else None,
        )

    def _make_decoder(self, tell: Tell) -> Decoder:
        """The decoder, as fast as it was asked for."""
        return Decoder(
            self._vae,
            compiled=bool(self.speed.compiled),
            graphs=bool(self.speed.graphs),
            form=self.speed.decoder_form(self.device, self.dtype),
            tell=tell,
        )

    def _take_turns(self, networks: Networks, denoisers: dict[str, Denoiser]) -> dict[str, ExpertDenoiser]:
        """The experts by view; none for a world with one transformer."""
        experts = self.config.experts
        if experts is None:
            return {}
        taking = {
            name: Expert(
                denoiser, Residence(networks.transformers[name], self.device) if experts.offload else None
            )
            for name, denoiser in denoisers.items()
        }
        return expert_denoisers(taking, experts.boundary, self.config.sampler.shift)

    @property
    def info(self) -> WorldInfo:
        """What a client may know, for the default plan."""
        return self.info_for(None)

    def info_for(self, plan: str | None) -> WorldInfo:
        """The same for a plan by name."""
        chosen = self.config.plan(plan)
        info = self.config.info(chosen, self.seed_images.names)
        cuda = self.device.type == "cuda"
        needs = memory_estimate(self.config, self._resident, chosen)
        here = {
            "seeds": self.seed_images.facts,
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "gpus": int(cuda),
            "threads": torch.get_num_threads(),
            "precision": self._precision,
            "speed": self.speed.facts,
            "weights": self.weights,
            "estimated_memory_gib": round(needs.device_bytes / GIB, 2),
            "estimated_session_gib": round(needs.session_bytes / GIB, 2),
        }
        return dataclasses.replace(info, extra=info.extra | here)

    def session(self, plan: str | ClipPlan | None = None, memory: bool = True) -> Session:
        """A new player's walk; call its `reset` first. memory: False plays without memory slots."""
        chosen = plan if isinstance(plan, ClipPlan) else self.config.plan(plan)
        return Session(self, chosen, use_memory=memory)

    def close(self) -> None:
        """Worlds need no closing; here so that local and remote ones end alike."""

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ what sessions ask for

    def start_picture(
        self, prompt: str | None, image: NDArray[np.uint8] | str | None, view: str | None
    ) -> StartPicture:
        """Resolves what `reset` was given: an image, the name of one, a prompt alone, or nothing."""
        if view is not None and view not in self.config.views:
            raise ConfigError("unknown view", expected=" or ".join(self.config.views), got=repr(view))
        if image is None and prompt is not None:
            if not self.rules.draws_first_picture:
                raise ImageError(
                    "this world starts from a picture, not from words alone",
                    expected=", ".join(self.seed_images.names) or "an image",
                    got=f"the prompt {prompt!r}",
                    remedy="pass an image beside the prompt",
                )
            return StartPicture(None, prompt, view or self.config.views[0])
        if isinstance(image, np.ndarray):
            pixels = check_picture(image, self.config.height, self.config.width)
            return StartPicture(pixels, prompt or "", view or self.config.views[0])
        if image is not None and not isinstance(image, str):
            raise ImageError(
                "a seed image has the wrong type", expected="uint8 array or a name", got=type(image).__name__
            )
        seed_image = self.seed_images.first(view) if image is None else self.seed_images.get(image)
        sentence = seed_image.prompt if prompt is None else prompt
        return StartPicture(seed_image.pixels, sentence, view or seed_image.view)

    def encode_prompt(self, prompt: str) -> Tensor:
        """Text embedding [1, T, text_dim]; words that the world never learned are logged."""
        unknown = self._text_encoder.unknown_words(prompt)
        if unknown:
            log.warning(
                "the world %s was not trained on these words: %s", self.config.name, ", ".join(unknown)
            )
        with torch.inference_mode():
            return self._text_encoder([prompt]).to(self.device, self.dtype)

    def encode_image(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The latent [1, C, h, w] of one picture uint8 [H, W, 3]."""
        video = torch.tensor(pixels).to(self.device, self.dtype).permute(2, 0, 1)[None, :, None] / 127.5 - 1
        with torch.inference_mode():
            return self._vae.encode(video)[:, :, 0].float()

    def new_memory(self) -> Memory:
        """An empty memory on this world's device."""
        return Memory(
            self.config.intrinsics,
            far_m=self.config.memory_far_m,
            selection=self.config.memory_selection,
            choose_on=self.speed.chooser,
            device=self.device,
            dtype=self.dtype,
            ahead=self.ahead,
        )

    def new_context(self, plan: ClipPlan) -> RollingContext | None:
        """The keys and values that one session rolls on from clip to clip, if this network does that."""
        if self.config.dit.attention != "rolling":
            return None
        return RollingContext(
            self.rules,
            self.denoiser,
            plan.memory,
            plan.past,
            era=self.config.rolling_latents,
            turn_deg=self.config.rolling_turn_deg,
            device=self.device,
        )

    def new_decoder(self, plan: ClipPlan) -> DecoderStream:
        """A decoder at the start of a stream."""
        return DecoderStream(self._decoder, latents_per_call(self.config, plan, self._resident))

    @property
    def overlaps(self) -> bool:
        """Whether frames are decoded beside the next step."""
        return bool(self.speed.overlap)

    def wait(self) -> None:
        """Until the device has done what this thread gave it; a GPU's lane goes on."""
        self.ahead.settle()


def _place(source: Source, device: str, precision: str, text_on: str) -> Place:
    """Where the networks go and in which numbers, after the machine was asked whether it has these."""
    config = source.config
    if text_on not in TEXT_PLACES:
        raise ConfigError("unknown place of the text encoder", expected=" or ".join(TEXT_PLACES), got=text_on)
    target = pick_device(device)
    dtype = pick_dtype(precision, target)
    quantization = quantization_of(precision, config.quantization)
    check_arithmetic(quantization, target)
    return Place(target, dtype, quantization, target if text_on == "device" else torch.device("cpu"))


def _check_memory(
    source: Source, place: Place, speed: Speed, memory_gib: float | None, asked_for: str
) -> Resident:
    """What is where; MachineError if the device has less free than a session will take, or is no GPU.

    asked_for: the device in the caller's word; a large world plays on a CPU if it is "cpu".
    """
    free = free_bytes(place.device)
    if memory_gib is not None:
        limit_memory(place.device, memory_gib)
        free = min(free, int(memory_gib * GIB))
    if asked_for == "auto" and place.device.type == "cpu":
        check_gpu(source.config)
    resident = _resident(source, place, speed, free)
    check_memory(source.config, resident, free, str(place.device))
    return resident


def _resident(source: Source, place: Place, speed: Speed, free: int) -> Resident:
    """What of a world is on the device. A CPU takes umT5 mapped from its file; random weights have none."""
    experts = source.config.experts
    return Resident(
        bytes_per_weight=place.dtype.itemsize,
        eight_bit=place.quantization.layers if place.quantization else None,
        text=place.text.type != "cpu" and source.kind != RANDOM,
        experts=1 if experts is None or experts.offload else 1 + len(source.config.views),
        decoder=speed.decoder_form(place.device, place.dtype),
        overlap=bool(speed.overlap),
        graphs=bool(speed.graphs),
        gpu_bytes=free if place.device.type == "cuda" else 0,
    )


from worldwire_runtime.session import Session  # noqa: E402 - Session's module needs World's name only for types
