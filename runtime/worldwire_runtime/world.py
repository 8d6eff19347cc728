"""A world: weights and what goes with them, shared by all sessions that play in it."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from worldwire.api import WorldInfo
from worldwire.errors import ConfigError, ImageError, MachineError
from worldwire_runtime.config import ClipPlan, WorldConfig
from worldwire_runtime.decoder import Decoder, DecoderStream
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.memory import Memory
from worldwire_runtime.model.checkpoint import load_module
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.text import TinyTextEncoder
from worldwire_runtime.model.vae import VAE
from worldwire_runtime.rolling import RollingContext
from worldwire_runtime.rules import OwnRules, Rules
from worldwire_runtime.seed_images import SeedImages, check_picture

log = logging.getLogger(__name__)

PRESETS = Path(__file__).parent / "presets"
CONFIG_FILE, DIT_FILE, VAE_FILE, TEXT_FILE = (
    "config.json",
    "dit.safetensors",
    "vae.safetensors",
    "text.safetensors",
)
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}

Network = TypeVar("Network", bound=nn.Module)


READ_PART = 0.95
"""How far the loading is when all files were read."""

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
        config: WorldConfig,
        dit: DiT,
        vae: VAE,
        text_encoder: TinyTextEncoder,
        seed_images: SeedImages,
        *,
        device: torch.device,
        dtype: torch.dtype,
        compiled: bool = False,
    ):
        self.config, self.seed_images, self.device, self.dtype = config, seed_images, device, dtype
        self._vae = _settle(vae, device, dtype)
        self._text_encoder = _settle(text_encoder, device, torch.float32)
        self.denoiser = Denoiser(_settle(dit, device, dtype), config.sampler.shift, compiled=compiled)
        self._decoder = Decoder(self._vae, compiled=compiled)
        self.rules: Rules = OwnRules(config, device, dtype)

    @classmethod
    def load(
        cls,
        preset: str | Path = "tiny",
        device: str = "auto",
        precision: str = "auto",
        *,
        compiled: bool = False,
        progress: Progress = _silent,
    ) -> World:
        """Loads a shipped preset by its name, or a folder with the same files. Needs no network.

        device: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N". precision: "auto", "bfloat16" or
        "float32"; "auto" is bfloat16 where the processor multiplies it natively. compiled: fuses the networks
        with torch.compile, which takes a minute the first time and makes every later frame faster.
        progress: is called with the part that is done, 0 to 1, and what comes next, for people.
        Raises ConfigError, CheckpointError or MachineError before any long work.
        """
        folder = preset_folder(preset)
        place = pick_device(device)
        dtype = pick_dtype(precision, place)
        config = WorldConfig.from_file(folder / CONFIG_FILE)
        with torch.device("meta"):
            dit, vae, text = DiT(config.dit), VAE(config.vae), TinyTextEncoder(config.text)
        files: list[tuple[nn.Module, str, torch.dtype]] = [
            (dit, DIT_FILE, dtype),
            (vae, VAE_FILE, dtype),
            (text, TEXT_FILE, torch.float32),
        ]
        sizes = [_size(folder / name) for _, name, _ in files]
        for number, (module, name, stored) in enumerate(files):
            progress(READ_PART * sum(sizes[:number]) / max(1, sum(sizes)), f"reading {name}")
            load_module(module, folder / name, dtype=stored)
        progress(READ_PART, f"moving the weights to {place}")
        seeds = SeedImages(folder / "seeds", config.height, config.width)
        return cls(config, dit, vae, text, seeds, device=place, dtype=dtype, compiled=compiled)

    @property
    def info(self) -> WorldInfo:
        """What a client may know, for the default plan."""
        return self.info_for(None)

    def info_for(self, plan: str | None) -> WorldInfo:
        """The same for a plan by name."""
        info = self.config.info(self.config.plan(plan), self.seed_images.names)
        cuda = self.device.type == "cuda"
        here = {
            "seeds": self.seed_images.facts,
            "device": torch.cuda.get_device_name(self.device) if cuda else self.device.type,
            "gpus": int(cuda),
            "precision": str(self.dtype).removeprefix("torch."),
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
            return self._text_encoder([prompt]).to(self.dtype)

    def encode_image(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The latent [1, C, h, w] of one picture uint8 [H, W, 3]."""
        video = torch.tensor(pixels).to(self.device, self.dtype).permute(2, 0, 1)[None, :, None] / 127.5 - 1
        with torch.inference_mode():
            return self._vae.encode(video)[:, :, 0].float()

    def new_memory(self) -> Memory:
        """An empty memory on this world's device."""
        return Memory(
            self.config.intrinsics, far_m=self.config.memory_far_m, device=self.device, dtype=self.dtype
        )

    def new_context(self, plan: ClipPlan) -> RollingContext | None:
        """The keys and values that one session rolls on from clip to clip, if this network does that."""
        if self.config.dit.attention != "rolling":
            return None
        era = self.config.rolling_latents
        return RollingContext(self.rules, self.denoiser, plan.memory, plan.past, era)

    def new_decoder(self) -> DecoderStream:
        """A decoder at the start of a stream."""
        return DecoderStream(self._decoder)


def preset_folder(preset: str | Path) -> Path:
    """The folder of a shipped preset, or the given folder."""
    for folder in (PRESETS / str(preset), Path(preset)):
        if (folder / CONFIG_FILE).is_file():
            return folder
    raise ConfigError(
        "unknown preset",
        expected=" or ".join(preset_names()) + f", or a folder with a {CONFIG_FILE}",
        got=repr(str(preset)),
        remedy="`worldwire models list` shows what is installed",
    )


def preset_names() -> list[str]:
    """The presets that this installation ships."""
    return sorted(path.parent.name for path in PRESETS.glob(f"*/{CONFIG_FILE}"))


def pick_device(device: str) -> torch.device:
    """The device by its name; "auto" is a GPU if there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError("unknown device", expected="auto, cpu, cuda or cuda:N", got=repr(device))
    place = torch.device(device)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise MachineError(
            f"there is no device {device}",
            got=f"{torch.cuda.device_count()} CUDA devices",
            remedy="use --device cpu",
        )
    return place


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The number format; "auto" is bfloat16 where the device multiplies it natively."""
    if precision == "auto":
        native = (
            device.type == "cuda"
            or torch.cpu._is_avx512_bf16_supported()
            or torch.cpu._is_amx_tile_supported()
        )
        return torch.bfloat16 if native else torch.float32
    if precision not in PRECISIONS:
        raise ConfigError(
            "unknown precision", expected="auto or " + " or ".join(PRECISIONS), got=repr(precision)
        )
    return PRECISIONS[precision]


def _size(path: Path) -> int:
    """Bytes of a file; 0 if there is none: who reads it says so."""
    return path.stat().st_size if path.is_file() else 0


def _settle(module: Network, device: torch.device, dtype: torch.dtype) -> Network:
    return module.to(device, dtype).eval().requires_grad_(False)


from worldwire_runtime.session import Session  # noqa: E402 - Session's module needs World's name only for types
