"""Losses and gradients of clips that all processes share: torchrun --nproc-per-node 2 context_run.py OUT

Alone (`gradients_of`), the same without context parallelism. The answer of rank 0 goes into OUT.
"""

import sys
from dataclasses import replace
from typing import NamedTuple

import torch
from base_training_cases import tiny_world
from torch import Tensor

from worldwire_runtime.config import WorldConfig
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.clip_sampler import ClipSampler, DropRates, Shape
from worldwire_training.common import Ranks, average_gradients
from worldwire_training.context_parallel import neighbours, share_clips
from worldwire_training.losses import ErrorBuffer
from worldwire_training.parallel import recompute_blocks
from worldwire_training.speed_probe import random_store

CLIPS = 2


class Case(NamedTuple):
    """A clip, who sees whom, and the size of a picture, which says whether rows or columns are split."""

    attention: str
    draws: int
    shape: Shape
    pixels: tuple[int, int]


CASES = {
    "joint, rows": Case("joint", 1, Shape(5, 4, 2), (64, 96)),
    "cached, columns": Case("cached", 1, Shape(5, 4, 2), (32, 64)),
    "cached, several draws": Case("cached", 2, Shape(2, 4, 2), (64, 64)),
    "no context": Case("joint", 1, Shape(0, 0, 1), (64, 64)),
}


def world_of(case: Case) -> WorldConfig:
    plain = tiny_world()
    rows, columns = case.pixels
    return replace(plain, height=rows, width=columns, dit=replace(plain.dit, attention=case.attention))


def gradients_of(case: Case, ranks: Ranks) -> dict[str, Tensor]:
    """The losses, all gradients by name, and the error buffer, after one microbatch."""
    world = world_of(case)
    torch.manual_seed(0)
    model = BaseModel.build(world)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    recompute_blocks(model.dit)
    if ranks.sharing > 1:
        share_clips(model, world, neighbours(ranks))
    torch.manual_seed(1)
    store = random_store(world, "cpu")
    store = replace(store, latents=store.latents.float(), images=store.images.float())
    draw = torch.Generator().manual_seed(2)
    batch = ClipSampler(store, world).sample(case.shape, CLIPS, draw, DropRates())
    errors = ErrorBuffer(8, tuple(store.latents.shape[2:]), torch.device("cpu"))
    noise = NoiseConfig(draws=case.draws, error_gamma=0.5)
    losses = clip_losses(model, batch, noise, draw, errors)
    losses.mean().backward()
    average_gradients(model.parameters(), ranks)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return gradients | {"losses": losses.detach(), "errors": errors.residuals}


def main(output: str) -> None:
    ranks = Ranks.join("cpu")
    ranks = ranks.sharing_clips(ranks.world_size)
    found = {name: gradients_of(case, ranks) for name, case in CASES.items()}
    if ranks.is_main:
        torch.save(found, output)
    ranks.barrier()
    ranks.leave()


if __name__ == "__main__":
    main(sys.argv[1])
