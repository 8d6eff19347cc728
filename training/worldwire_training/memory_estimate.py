"""How much memory a training run will take, before it starts: no tensor of the run is made.

Weights, gradients, optimiser and average follow from the parameters. Activations are what autograd keeps for
one microbatch of the most frequent shape, counted on fake tensors. Under context parallelism that is a strip
of its pictures: in attention a process has all tokens, but of its heads alone, which is as much.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from worldwire.errors import MachineError
from worldwire_runtime.conditioning import ACTION_WINDOW_LATENTS
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model import attention
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_training.base_config import BaseConfig
from worldwire_training.base_model import BaseModel, text_config
from worldwire_training.clip_sampler import ClipBatch, Shape, ShapeSchedule, Told
from worldwire_training.common import Ranks
from worldwire_training.context_parallel import strip_of
from worldwire_training.losses import flow_matching_losses
from worldwire_training.parallel import recompute_blocks

BYTES = 4
COPIES = {"muon": 4, "adamw": 5}
"""Of the parameters in float32: themselves, gradients, average, and one or two of the optimiser."""
SLACK = 1.3
"""For what comes and goes during a step, and for clip shapes that keep a little more than the main one."""
KEYS, MOUSE = 6, 2


@dataclass(frozen=True)
class Estimate:
    """Bytes on each device. shape: the clip shape that steps take most often; all are of about one size."""

    parameters: int
    state: int
    activations: int
    shape: str

    @property
    def total(self) -> int:
        return round(SLACK * (self.state + self.activations))

    def __str__(self) -> str:
        parts = {"weights and optimiser": self.state, f"activations of {self.shape}": self.activations}
        listed = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in parts.items())
        return f"{self.total / 2**30:.2f} GiB in all ({self.parameters / 1e6:.1f} M parameters: {listed})"


def estimate(config: BaseConfig, world: WorldConfig, ranks: int) -> Estimate:
    """What one of `ranks` devices will hold."""
    schedule = ShapeSchedule(
        config.shapes, latents_per_step=config.latents_per_step, seed=0, draws=config.noise.draws
    )
    main = max(config.shapes, key=lambda shape: shape.weight)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in BaseModel.build(world).parameters())
    share = ranks if config.parallel == "shard" else 1
    state = BYTES * COPIES[config.optimizer.kind] * parameters // share
    activations = activation_bytes(config, world, main, schedule.samples(main))
    return Estimate(parameters, state, activations, main.name)


def check_memory(config: BaseConfig, world: WorldConfig, ranks: Ranks) -> Estimate:
    """The estimate, with the encoded episodes on the GPU already; MachineError when less is free."""
    needed = estimate(config, world, ranks.world_size)
    free, _ = torch.cuda.mem_get_info(ranks.device)
    refuse_if_short(needed, free)
    return needed


def refuse_if_short(needed: Estimate, free: int) -> None:
    """MachineError unless `free` bytes hold the run."""
    if needed.total > free:
        raise MachineError(
            "the device has too little memory for this run",
            expected=str(needed),
            got=f"{free / 2**30:.2f} GiB free",
            remedy="lower latents_per_step (and raise microbatches), set recompute = true, shard, or"
            " raise context_parallel",
        )


def activation_bytes(config: BaseConfig, world: WorldConfig, shape: Shape, clips: int) -> int:
    """What autograd keeps between forward and backward of one microbatch."""
    dtype = torch.bfloat16 if config.mixed_precision else torch.float32
    plain, attention.MAX_PLAIN_SCORES = attention.MAX_PLAIN_SCORES, 0  # as on a GPU: scores are not kept
    try:
        with FakeTensorMode():
            model = _build(world, dtype)
            if config.recompute:
                recompute_blocks(model.dit)
            return _kept_bytes(model, lambda: _forward(model, config, world, shape, clips, dtype))
    finally:
        attention.MAX_PLAIN_SCORES = plain


def _build(world: WorldConfig, dtype: torch.dtype) -> BaseModel:
    """The network with weights of this type, as autocast uses them (fake tensors cannot be converted)."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return BaseModel.build(world)
    finally:
        torch.set_default_dtype(before)


def _forward(
    model: BaseModel, config: BaseConfig, world: WorldConfig, shape: Shape, clips: int, dtype: torch.dtype
) -> Tensor:
    cells = strip_of(world, config.context_parallel).size(world.latent_hw)
    batch = fake_batch(world, shape, clips, dtype, cells)
    context, data = batch.latents.tensor_split([shape.context], dim=2)
    data = data.repeat_interleave(config.noise.draws, 0)
    velocity = model(batch, context, torch.zeros_like(data), torch.zeros(len(data)))
    return flow_matching_losses(velocity, data, torch.zeros_like(data)).mean()


def _kept_bytes(model: BaseModel, forward: Callable[[], Tensor]) -> int:
    """Bytes of all that is saved for the backward pass, weights not counted."""
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = forward()
    del loss
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    return sum(storage.nbytes() for place, storage in kept.items() if place not in weights)


def fake_batch(
    world: WorldConfig, shape: Shape, clips: int, dtype: torch.dtype, cells: tuple[int, int]
) -> ClipBatch:
    """A batch of the right sizes, of pictures (or strips of them) of so many rows and columns of cells."""
    rows, columns = cells
    total = shape.context + shape.new
    frames = FRAMES_PER_LATENT * (shape.window + ACTION_WINDOW_LATENTS - 1)
    return ClipBatch(
        shape=shape,
        latents=torch.zeros(clips, world.dit.in_dim, total, rows, columns, dtype=dtype),
        plucker=torch.zeros(clips, total, world.dit.plucker_channels, rows, columns, dtype=dtype),
        keyboard=torch.zeros(clips, frames, KEYS, dtype=dtype),
        mouse=torch.zeros(clips, frames, MOUSE, dtype=dtype),
        started=torch.ones(clips, frames, dtype=torch.bool),
        prompt_tokens=torch.zeros(clips, text_config(world).text_len, dtype=torch.int64),
        told=Told.everything(clips, torch.device("cpu")),
        slots=torch.arange(shape.memory),
        position=0,
        window_time_start=world.window_time_start,
    )
