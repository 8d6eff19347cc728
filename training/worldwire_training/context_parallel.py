"""Context parallelism: neighbouring processes have one clip together, each a strip of every latent's picture.

Everything but the attention among all tokens works on a token or on its column through time, so a process
runs the plain network on a smaller picture. For that attention, tokens are exchanged for heads (DeepSpeed
Ulysses): each process attends with all tokens in its share of the heads, exactly and with any kernel. The
exchange is a change of placement of a DTensor, whose gradient torch knows. (torch's ring attention was the
other choice: experimental, bound to a few GPU kernels, and without an exact form of the `cached` mask.)

Every process of a group draws the same clips and noise, and ends with the whole velocity and loss; the mean
of the gradients over all processes, which FSDP takes, is then the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Shard

from worldwire.errors import ConfigError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.attention import EVERYTHING, Context, KeyValue
from worldwire_runtime.model.blocks import Block
from worldwire_runtime.model.config import PATCH, DiTConfig
from worldwire_runtime.model.dit import ClipConditions, PreparedClip
from worldwire_runtime.model.rope import Rotary, trunk_rotary
from worldwire_training.base_model import BaseModel
from worldwire_training.clip_sampler import ClipBatch
from worldwire_training.common import Ranks
from worldwire_training.latents import LatentStore

CLIPS, STRIPS = "clips", "strips"
"""The dimensions of the mesh: groups with clips of their own, and the neighbours that share one."""
ROWS, COLUMNS = -2, -1
HEADS, TOKENS, OWNERS = 1, 2, 3
"""Dimensions of queries, keys and values [B, heads, tokens of each owner, owners, head width]."""

Attend = Callable[[Tensor, KeyValue, Context], Tensor]


@dataclass(frozen=True)
class Strip:
    """One process's part of every picture: strip `number` of `count` along `axis` (of the last two)."""

    axis: int
    number: int
    count: int

    def cut(self, cells: Tensor, behind: int = 0) -> Tensor:
        """The strip of cells [..., h, w], with so many dimensions `behind` them."""
        return cells.chunk(self.count, dim=self.axis - behind)[self.number]

    def size(self, latent_hw: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of latent cells of a strip."""
        rows, columns = latent_hw
        return (rows // self.count, columns) if self.axis == ROWS else (rows, columns // self.count)


def token_grid(world: WorldConfig) -> tuple[int, int]:
    """Rows and columns of tokens of one latent."""
    rows, columns = world.latent_hw
    return rows // PATCH[0], columns // PATCH[1]


def strip_of(world: WorldConfig, count: int, number: int = 0) -> Strip:
    """The strip `number` of `count` of the world's pictures: of rows where these divide, else of columns.

    Raises ConfigError where tokens or heads do not divide, or the attention is `rolling`.
    """
    rows, columns = token_grid(world)
    if rows % count and columns % count:
        raise ConfigError(
            "the pictures do not divide into context_parallel strips",
            expected=f"a divisor of {rows} rows or {columns} columns of tokens",
            got=f"context_parallel = {count}",
        )
    if world.dit.num_heads % count:
        raise ConfigError(
            "the attention heads do not divide among context_parallel processes",
            expected=f"a divisor of world.dit.num_heads = {world.dit.num_heads}",
            got=f"context_parallel = {count}",
        )
    if count > 1 and world.dit.attention == "rolling":
        raise ConfigError(
            "context parallelism does not know rolling attention",
            expected="context_parallel = 1, or attention joint or cached",
            got=f"context_parallel = {count}, attention rolling",
        )
    return Strip(COLUMNS if rows % count else ROWS, number, count)


def neighbours(ranks: Ranks) -> DeviceMesh:
    """The `ranks.sharing` processes, this one among them, that share a clip; all ranks must ask."""
    shape = (ranks.clip_ranks, ranks.sharing)
    return init_device_mesh(ranks.device.type, shape, mesh_dim_names=(CLIPS, STRIPS))[STRIPS]


def share_clips(model: BaseModel, world: WorldConfig, mesh: DeviceMesh) -> None:
    """Let the processes of `mesh` compute each clip together; in place.

    The model is called as before, with whole clips, the same on all of them, and gives whole velocities. Its
    transformer is not to be called apart from it any more.
    """
    strip, dit = strip_of(world, mesh.size(), mesh.get_local_rank()), model.dit
    for block in cast(Sequence[Block], dit.blocks):
        block.self_attn.attend = partial(attend_across, block.self_attn.attend, mesh)
    space = partial(_places, dit.config, token_grid(world), strip)
    dit.prepare = partial(_prepare_strip, dit.prepare, space)  # type: ignore[method-assign]
    model.forward = partial(_forward_strip, model.forward, strip, mesh)  # type: ignore[method-assign]


@torch.inference_mode()
def same_store(store: LatentStore, mesh: DeviceMesh) -> LatentStore:
    """The episodes of the first process of `mesh`, on all of them: encoders may differ in the last bits.

    Overwrites those of `store`.
    """
    tensors = {field.name: getattr(store, field.name).contiguous() for field in fields(store)}
    for tensor in tensors.values():
        dist.broadcast(tensor, group=mesh.get_group(), group_src=0)
    return LatentStore(**tensors)


def attend_across(
    attend: Attend, mesh: DeviceMesh, query: Tensor, keys: KeyValue, context: Context = EVERYTHING
) -> Tensor:
    """`attend` over the tokens of all processes of `mesh`; each gives and gets [B, heads, its tokens, D].

    A process's token t is token t * processes + rank of all: leading tokens stay the leading ones, so that a
    context remains one. Attention does not ask for more order, for positions are in queries and keys.
    """
    whole, key, value = (_all_tokens(part, mesh) for part in (query, *keys))
    seen = Context(*(mesh.size() * tokens for tokens in context))
    return _all_heads(attend(whole, KeyValue(key, value), seen), mesh)


def _all_tokens(own: Tensor, mesh: DeviceMesh) -> Tensor:
    """[B, heads, tokens, D] of own tokens to [B, heads / processes, tokens * processes, D] of all."""
    split = DTensor.from_local(own.unsqueeze(OWNERS), mesh, [Shard(OWNERS)])
    return split.redistribute(placements=[Shard(HEADS)]).to_local().flatten(TOKENS, OWNERS)


def _all_heads(attended: Tensor, mesh: DeviceMesh) -> Tensor:
    """The way back: [B, heads / processes, tokens * processes, D] to [B, heads, tokens, D]."""
    split = DTensor.from_local(attended.unflatten(TOKENS, (-1, mesh.size())), mesh, [Shard(HEADS)])
    return split.redistribute(placements=[Shard(OWNERS)]).to_local().squeeze(OWNERS)


def _forward_strip(
    forward: Callable[..., Tensor],
    strip: Strip,
    mesh: DeviceMesh,
    batch: ClipBatch,
    context: Tensor,
    noisy: Tensor,
    sigma: Tensor,
) -> Tensor:
    """`BaseModel.forward` on a strip of whole clips; the whole velocity."""
    part = replace(batch, latents=strip.cut(batch.latents), plucker=strip.cut(batch.plucker))
    own = forward(part, strip.cut(context), strip.cut(noisy), sigma)
    split = DTensor.from_local(own, mesh, [Shard(own.ndim + strip.axis)])
    # every process goes on to a loss of its own: their gradients add up
    return split.full_tensor(grad_placements=[Partial()])


def _prepare_strip(
    prepare: Callable[[ClipConditions], PreparedClip],
    space: Callable[[torch.device], Rotary],
    cond: ClipConditions,
) -> PreparedClip:
    """`DiT.prepare` of a strip's conditions, its tokens at the places that they have in the whole picture."""
    prepared = prepare(cond)
    return prepared._replace(rotary=prepared.rotary._replace(space=space(cond.plucker.device)))


def _places(config: DiTConfig, grid: tuple[int, int], strip: Strip, device: torch.device) -> Rotary:
    """The rotary tables [1, 1, N, heads or 1, head width] of the rows and columns of a strip of `grid`."""
    anytime = torch.zeros(1, 1, device=device)
    whole = trunk_rotary(anytime, grid, config.num_heads, config.head_dim, config.sigma_theta).space
    return Rotary(*(strip.cut(table.unflatten(2, grid), behind=2).flatten(2, 3) for table in whole))
