"""How much memory a world takes, estimated from its configuration alone: said before anything is loaded.

Weights and what each session keeps from clip to clip are counted exactly; the memory of a clip is the sum of
the few large tensors that are alive at once (`docs/released_checkpoints.md` compares).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from torch import nn
from torch.utils import _pytree as pytree

from worldwire.errors import MachineError
from worldwire_runtime.config import ClipPlan, WorldConfig
from worldwire_runtime.convolutions import PRODUCTS, Form, cache_shapes, use_form
from worldwire_runtime.decoder import largest_bytes, latents_at_once
from worldwire_runtime.memory import CAPACITY
from worldwire_runtime.model.config import PATCH, DiTConfig
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.text import TinyTextConfig, UMT5Config
from worldwire_runtime.model.vae import FRAMES_PER_LATENT, VAE, VAEConfig
from worldwire_runtime.quantize.layers import layer_names
from worldwire_runtime.rolling import most_places
from worldwire_runtime.usage import GIB

BF16_BYTES, FLOAT32_BYTES = 2, 4
DRIVER_BYTES = GIB  # CUDA context, library workspaces, the allocator's fragments
# Tensors of the named width that are alive at once in the hungriest place.
FFN_BUFFERS, STREAM_BUFFERS, DECODER_BUFFERS = 2, 6, 4
LEAST_OF_A_GPU = 1_000_000_000
"""Transformers of more parameters are no pleasure without a GPU."""


@dataclass(frozen=True)
class Resident:
    """What of a world is where, and in which numbers.

    bytes_per_weight: of the networks (4: float32, 2: bfloat16). eight_bit: which linears are stored in 8 bits
    ("attention", "all" or None). text: whether the text encoder is on the device. experts: how many
    transformers are on the device at once. decoder: the form of its convolutions, which says what sessions
    keep. overlap: clips are decoded while the next ones are made. graphs: calls are recorded. gpu_bytes: what
    the GPU has to give before anything is loaded (0: not known, or no GPU). The defaults are those of a GPU.
    """

    bytes_per_weight: int = BF16_BYTES
    eight_bit: str | None = None
    text: bool = True
    experts: int = 1
    decoder: Form = PRODUCTS
    overlap: bool = True
    graphs: bool = True
    gpu_bytes: int = 0


@dataclass(frozen=True)
class Footprint:
    """Bytes on the device by part, at the peak of a clip; and bytes of the main memory.

    device: what all sessions share. session: what each of them keeps, on the device as well.
    """

    device: dict[str, int]
    session: dict[str, int]
    host: dict[str, int] = field(default_factory=dict)

    @property
    def device_bytes(self) -> int:
        """With one session."""
        return sum(self.device.values()) + self.session_bytes

    @property
    def session_bytes(self) -> int:
        """Of each further one."""
        return sum(self.session.values())

    def __str__(self) -> str:
        parts = ", ".join(
            f"{name} {size / GIB:.1f}" for name, size in (self.device | self.session).items() if size
        )
        further = f"{self.session_bytes / GIB:.1f} for each further session"
        return f"{self.device_bytes / GIB:.1f} GiB ({parts}; {further})"


def memory_estimate(config: WorldConfig, resident: Resident, plan: ClipPlan | None = None) -> Footprint:
    """The peak of one session that plays `plan` (the default one)."""
    plan = plan or config.plan()
    transformer = transformer_bytes(config.dit, resident)
    text = text_encoder_bytes(config.text, resident)
    total = 1 if config.experts is None else 1 + len(config.views)
    device = {
        "transformer": transformer * min(total, resident.experts),
        "VAE": _parameters(_vae(config.vae, resident.decoder)) * resident.bytes_per_weight,
        "text encoder": text if resident.text else 0,
        "clip": _clip_bytes(config, plan, resident),
        "driver": DRIVER_BYTES,
    }
    session = {
        "memory": _latent_cells(config) * config.dit.in_dim * CAPACITY * resident.bytes_per_weight,
        "decoder's cache": _decoder_cache_bytes(config, resident),
        "held keys": _held_bytes(config, plan, resident),
    }
    host = {
        "resting experts": transformer * (total - min(total, resident.experts)),
        "text encoder": 0 if resident.text else text,
    }
    return Footprint(device, session, host)


def transformer_bytes(config: DiTConfig, resident: Resident) -> int:
    """One transformer's weights; the 8-bit ones take a byte each."""
    dit = _transformer(config)
    small = _eight_bit_weights(dit, resident.eight_bit) if resident.eight_bit else 0
    return _parameters(dit) * resident.bytes_per_weight - small * (resident.bytes_per_weight - 1)


def text_encoder_bytes(config: TinyTextConfig | UMT5Config, resident: Resident) -> int:
    """umT5 is kept in bfloat16 off the device, whatever the networks are in."""
    if isinstance(config, TinyTextConfig):
        return (len(config.vocabulary) + config.text_len) * config.text_dim * FLOAT32_BYTES
    attention, ffn = 4 * config.dim * config.dim_attn, 3 * config.dim * config.dim_ffn
    block = attention + ffn + 2 * config.dim + config.num_buckets * config.num_heads
    count = config.vocab * config.dim + config.num_layers * block + config.dim
    return count * (resident.bytes_per_weight if resident.text else BF16_BYTES)


def what_fits(config: WorldConfig, resident: Resident, free_bytes: int) -> Iterator[tuple[str, Footprint]]:
    """Ways to make a world fit, the least painful first, each with what it takes."""
    light = replace(config, vae=replace(config.vae, pruning_rate=0.75, encoder_pruning_rate=0.0))
    off, off_words = replace(resident, text=False), "--text-on cpu"
    if resident.experts > 1:
        off, off_words = replace(off, experts=1), "--text-on cpu --offload"
    eight = replace(off, eight_bit="all")
    plan = min(config.plans, key=lambda name: memory_estimate(light, eight, config.plan(name)).device_bytes)
    for words, smaller, parts in (
        (off_words, config, off),
        (f"{off_words} --vae-pruning 0.75", light, off),
        (f"{off_words} --precision int8", config, eight),
        (f"{off_words} --vae-pruning 0.75 --precision int8", light, eight),
        (
            f"{off_words} --vae-pruning 0.75 --precision int8 --plan {plan}",
            replace(light, default_plan=plan),
            eight,
        ),
    ):
        footprint = memory_estimate(smaller, parts)
        if footprint.device_bytes <= free_bytes:
            yield words, footprint


def check_memory(config: WorldConfig, resident: Resident, free_bytes: int, where: str) -> Footprint:
    """The estimate, or the MachineError that it exceeds `free_bytes`, with what would fit."""
    footprint = memory_estimate(config, resident)
    if footprint.device_bytes <= free_bytes:
        return footprint
    words, smaller = next(what_fits(config, resident, free_bytes), ("", None))
    raise MachineError(
        f"{config.name} needs more memory than {where} has free",
        expected=str(footprint),
        got=f"{free_bytes / GIB:.1f} GiB free",
        remedy=f"{words} takes {smaller}"
        if smaller
        else "no option of this world fits: play `--preset tiny`",
    )


def check_gpu(config: WorldConfig) -> None:
    """MachineError for a world that is too large to be played without a GPU by accident."""
    if _parameters(_transformer(config.dit)) > LEAST_OF_A_GPU:
        raise MachineError(
            f"{config.name} needs a GPU, and there is none",
            expected="a CUDA device with " + str(memory_estimate(config, Resident(text=False))),
            got="no CUDA device",
            remedy="play `--preset tiny`; `--device cpu` plays this one all the same, at minutes per clip",
        )


# ---------------------------------------------------------------------- the parts


def _clip_bytes(config: WorldConfig, plan: ClipPlan, resident: Resident) -> int:
    """What a clip leaves for its steps, and the larger of a forward's and a decoder call's own tensors."""
    dit = config.dit
    latents = max(plan.first, plan.memory + plan.past + plan.new)
    tokens = latents * _latent_cells(config) // (PATCH[0] * PATCH[1])
    width = resident.bytes_per_weight
    camera = 2 * dit.num_layers * tokens * dit.dim * width
    text = 2 * dit.num_layers * dit.text_len * dit.dim * width
    keys = 2 * dit.num_layers * tokens * dit.dim * width if dit.attention == "cached" else 0
    forward = tokens * (FFN_BUFFERS * dit.ffn_dim * width + STREAM_BUFFERS * dit.dim * FLOAT32_BYTES)
    decoding = _decoding_bytes(config, plan, resident)
    return camera + text + keys + (forward + decoding if resident.overlap else max(forward, decoding))


def _decoding_bytes(config: WorldConfig, plan: ClipPlan, resident: Resident) -> int:
    """The frames of one call at half resolution, where the decoder's last stage begins twice as wide.

    Several latents twice, if calls are recorded: the allocator keeps what the first calls took beside the
    memory of a recording. One latent finds room in what a forward pass left. And what a call leaves for the
    next one, while what it was left by the one before is still there.
    """
    pixels = config.height * config.width // 4
    buffers = DECODER_BUFFERS * FRAMES_PER_LATENT * pixels * 2 * config.vae.decoder_width
    latents = latents_per_call(config, plan, resident)
    copies = 2 * latents + 1 if latents > 1 and resident.graphs else latents
    return copies * buffers * resident.bytes_per_weight + _decoder_cache_bytes(config, resident)


def latents_per_call(config: WorldConfig, plan: ClipPlan, resident: Resident) -> int:
    """How many latents of a plan's clips the decoder takes at once."""
    largest = largest_bytes(config.vae, config.latent_hw, resident.bytes_per_weight)
    return latents_at_once(plan.new, largest, resident.gpu_bytes)


def _decoder_cache_bytes(config: WorldConfig, resident: Resident) -> int:
    """What one session's decoding keeps from latent to latent."""
    shapes = cache_shapes(_vae(config.vae, resident.decoder).decoder, config.latent_hw)
    return sum(shape.numel() for shape in shapes) * resident.bytes_per_weight


def _held_bytes(config: WorldConfig, plan: ClipPlan, resident: Resident) -> int:
    """The keys and values that a session's longest clip holds under rolling attention."""
    if config.dit.attention != "rolling":
        return 0
    like = torch.empty(1, *config.latent_hw, device="meta")
    held = pytree.tree_leaves(_transformer(config.dit).hold(most_places(plan), like))
    numbers = sum(leaf.numel() for leaf in held if leaf is not None)
    return numbers * resident.bytes_per_weight


def _latent_cells(config: WorldConfig) -> int:
    rows, columns = config.latent_hw
    return rows * columns


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _eight_bit_weights(dit: DiT, layers: str) -> int:
    return sum(dit.get_parameter(f"{name}.weight").numel() for name in layer_names(dit, layers))


@lru_cache
def _transformer(config: DiTConfig) -> DiT:
    """Its shapes, without numbers."""
    with torch.device("meta"):
        return DiT(config)


@lru_cache
def _vae(config: VAEConfig, form: Form) -> VAE:
    """The same of a VAE whose decoder has a form."""
    with torch.device("meta"):
        vae = VAE(config)
    use_form(vae.decoder, form)
    return vae
