"""A network that does not fit one device: sharded over the ranks by FSDP2, activations computed twice.

Weights, gradients, optimiser state and average are split over all ranks (`torch.distributed.fsdp`); a block
is put together while it works. Checkpoints (`torch.distributed.checkpoint`) are folders in which every rank
writes its part; they can be read by another number of ranks.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from worldwire.errors import CheckpointError
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.dit import DiT
from worldwire_training.base_model import BaseModel
from worldwire_training.common import EMA, Ranks

log = logging.getLogger(__name__)

BLOCK_METHODS = ("prepare", "context_keys")
"""Methods of a block, beside its forward, that use its weights."""
FACTS = "facts.json"


def recompute_blocks(dit: DiT) -> None:
    """Forget what happens inside a block until the gradient needs it: a third more time, far less memory."""
    for block in dit.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def shard(model: BaseModel, ranks: Ranks) -> None:
    """Split the parameters of every block, and the rest, over all ranks; in place."""
    cuda = ranks.device.type == "cuda"
    if not dist.is_initialized():
        dist.init_process_group("nccl" if cuda else "gloo", store=HashStore(), rank=0, world_size=1)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    for block in cast(Sequence[Block], model.dit.blocks):
        fully_shard(block.cross_attn, mesh=mesh)  # the text's keys are asked of it apart from the block
        register_fsdp_forward_method(block.cross_attn, "keys")
        fully_shard(block, mesh=mesh)
        for method in BLOCK_METHODS:
            register_fsdp_forward_method(block, method)
    fully_shard(model, mesh=mesh)


def fill_gradients(model: BaseModel) -> None:
    """Zeros for weights that a step did not use: then all have optimiser state, which a resume looks for."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def whole(value: Tensor) -> Tensor:
    """A tensor put together from its shards, on every rank; all ranks must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def gather(model: BaseModel, ema: EMA) -> dict[str, Tensor]:
    """The averaged weights put together, on the CPU of rank 0 (empty elsewhere); all ranks must ask."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    with ema.applied(model):
        state = get_model_state_dict(model, options=options)
        # Copies: with one rank, the tensors are the model's own, which get their old values back.
        return {name: tensor.clone() for name, tensor in state.items() if isinstance(tensor, Tensor)}


def save_sharded(
    path: Path,
    model: BaseModel,
    optimizer: torch.optim.Optimizer,
    ema: EMA,
    facts: Mapping[str, Any],
    ranks: Ranks,
) -> None:
    """Write the folder `path`, every rank its part; whole or not at all: the old one or the new one.

    Raises CheckpointError on every rank when one of them cannot write.
    """
    partial_path, old = path.with_name(path.name + ".partial"), path.with_name(path.name + ".old")
    if ranks.is_main:
        shutil.rmtree(partial_path, ignore_errors=True)
    ranks.barrier()
    problem = ""
    try:
        save(_state(model, optimizer, ema), checkpoint_id=partial_path)
    except Exception as error:  # the library raises many types, and collects those of all ranks
        problem = str(error)
    if ranks.broadcast_float(float(bool(problem))):
        raise CheckpointError(
            f"{path} cannot be written: {problem}", remedy="the one before is kept: make room, then resume"
        )
    if ranks.is_main:
        (partial_path / FACTS).write_text(json.dumps(dict(facts)), encoding="utf-8")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        partial_path.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    ranks.barrier()


def sharded_facts(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder that is whole (a kill between two renames leaves the old one), and its facts."""
    for folder in (path, path.with_name(path.name + ".old")):
        try:
            return folder, json.loads((folder / FACTS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder} is damaged: {error}", remedy="start a new run") from error
    raise CheckpointError(
        f"no training checkpoint at {path}", remedy="start without resuming to begin a new run"
    )


def load_sharded(folder: Path, model: BaseModel, optimizer: torch.optim.Optimizer, ema: EMA) -> None:
    """Continue from a folder that any number of ranks wrote."""
    state = _state(model, optimizer, ema)
    try:
        load(state, checkpoint_id=folder)
    except Exception as error:
        raise CheckpointError(
            f"{folder} does not fit this run: {error}",
            remedy="resume with the configuration that it began with",
        ) from error
    set_model_state_dict(model, state["model"])
    set_optimizer_state_dict(model, optimizer, state["optimizer"])
    ema.load_state_dict({"updates": ema.updates, "shadow": state["ema"]})


def _state(model: BaseModel, optimizer: torch.optim.Optimizer, ema: EMA) -> dict[str, Any]:
    return {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer),
        "ema": ema.shadow,
    }
