"""Gluon: the product of `kernels.attention` with a role for each group of warps, for Hopper GPUs alone.

`flash` leaves the schedule to Triton, which waits for every integer product where it stands. Here the order
is written out. One warp copies keys and values, always some blocks ahead. Two groups of four warps, half of
the queries each, compute: a group issues the scores of the next block, works on the softmax of this one
meanwhile, and multiplies by the values; while it waits for that product, the other group's softmax has the
multiprocessor.

Scores of int8 or e4m3, values in e4m3. Blocks come in the order of `flash`: the last one, which alone is
masked, first. Sums stay in the tensor cores, or (`apart`) a block's product starts from zero and joins them
in float32. Registers then decide what runs beside a group's own softmax: with blocks of up to `OVERLAPPED`
keys the product with the values; with longer ones nothing, only the other group's products.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from worldwire_runtime.kernels.specialised import (
    COMPUTING_REGISTERS,
    COPYING_REGISTERS,
    GROUP_WARPS,
    GROUPS,
    REGISTERS_AT_START,
    async_load,
    tiled,
)
from worldwire_runtime.kernels.tuning import Tiles

SCORE_TYPES = {torch.int8: gl.int8, torch.float8_e4m3fn: gl.float8e4nv}
OVERLAPPED = gl.constexpr(64)
WIDTHS = (32, 64, 128)
"""Of a head; more would not fit into a group's registers."""


@gluon.jit
def copy_blocks(buffers, barriers, copied, TILE_K: gl.constexpr, STAGES: gl.constexpr):
    """The copying warp: block after block, as soon as its place in shared memory is used up."""
    _, keys, values = buffers
    _, keys_here, values_here, used = barriers
    key_desc, value_desc, first_key, first_value, blocks, last = copied
    for block in range(blocks):
        stage = block % STAGES
        start = gl.where(block == 0, last, (block - 1) * TILE_K)
        mbarrier.wait(used.index(stage), ((block // STAGES) & 1) ^ 1)
        mbarrier.expect(keys_here.index(stage), key_desc.block_type.nbytes)
        async_load(key_desc, [first_key + start, 0], keys_here.index(stage), keys.index(stage))
        mbarrier.expect(values_here.index(stage), value_desc.block_type.nbytes)
        async_load(value_desc, [first_value, start], values_here.index(stage), values.index(stage))


@gluon.jit
def weigh(scores, scale, largest, total, SHIFT: gl.constexpr):
    """As `flash.weigh`."""
    new_largest = gl.maximum(largest, gl.max(scores, axis=1) * scale)
    weights = gl.exp2(scores * scale[:, None] - (new_largest - SHIFT)[:, None])
    fade = gl.exp2(largest - new_largest)
    return weights, fade, new_largest, total * fade + gl.sum(weights, axis=1)


@gluon.jit
def faded(sums, fade, MIXED: gl.constexpr):
    """Sums over earlier blocks by the newer maximum."""
    return sums * gl.convert_layout(fade, gl.SliceLayout(1, MIXED))[:, None]


@gluon.jit
def issue_scores(query, keys, ROWS: gl.constexpr, TILE_K: gl.constexpr):
    """Begins the scores of a block."""
    SUM: gl.constexpr = gl.int32 if query.dtype == gl.int8 else gl.float32
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [GROUP_WARPS, 1], [16, TILE_K, 32])
    unused = gl.full([ROWS, TILE_K], 0, SUM, SCORES)
    return warpgroup_mma(query, keys.permute([1, 0]), unused, use_acc=False, is_async=True)


@gluon.jit
def issue_mixing(
    weights,
    sums,
    value,
    ROWS: gl.constexpr,
    TILE_K: gl.constexpr,
    MIXED: gl.constexpr,
    ADDED: gl.constexpr,
):
    """Begins probabilities, in e4m3 in the order of `attention.turned`, times values; ADDED: to the sums."""
    factor = gl.reshape(weights.to(gl.float8e4nv), [ROWS, TILE_K // 16, 2, 4, 2])
    factor = gl.reshape(gl.permute(factor, [0, 1, 3, 2, 4]), [ROWS, TILE_K])
    factor = gl.convert_layout(factor, gl.DotOperandLayout(0, MIXED, 4))
    return warpgroup_mma(factor, value.permute([1, 0]), sums, use_acc=ADDED, is_async=True)


@gluon.jit
def sum_joined(
    query,
    keys,
    values,
    barriers,
    state,
    blocks,
    ROWS: gl.constexpr,
    TILE_K: gl.constexpr,
    STAGES: gl.constexpr,
    SHIFT: gl.constexpr,
):
    """Weighted sums of the values, in the tensor cores, and the sum of the weights.

    state: scores of the first block, the queries' scale, zeros to begin with.
    """
    _, keys_here, values_here, used = barriers
    scores, scale, sums = state
    MIXED: gl.constexpr = sums.type.layout
    largest = gl.full([ROWS], float("-inf"), gl.float32, scale.type.layout)
    total = gl.full([ROWS], 0.0, gl.float32, scale.type.layout)
    for block in range(blocks - 1):
        stage, ahead = block % STAGES, (block + 1) % STAGES
        mbarrier.wait(keys_here.index(ahead), ((block + 1) // STAGES) & 1)
        coming = issue_scores(query, keys.index(ahead), ROWS, TILE_K)
        weights, fade, largest, total = weigh(scores, scale, largest, total, SHIFT)
        mbarrier.wait(values_here.index(stage), (block // STAGES) & 1)
        sums = faded(sums, fade, MIXED)
        mixed = issue_mixing(weights, sums, values.index(stage), ROWS, TILE_K, MIXED, True)
        scores = warpgroup_mma_wait(1, deps=[coming]).to(gl.float32)
        sums = warpgroup_mma_wait(0, deps=[mixed])
        mbarrier.arrive(used.index(stage), count=1)
    weights, fade, largest, total = weigh(scores, scale, largest, total, SHIFT)
    stage = (blocks - 1) % STAGES
    mbarrier.wait(values_here.index(stage), ((blocks - 1) // STAGES) & 1)
    sums = faded(sums, fade, MIXED)
    mixed = issue_mixing(weights, sums, values.index(stage), ROWS, TILE_K, MIXED, True)
    return warpgroup_mma_wait(0, deps=[mixed]), total


@gluon.jit
def sum_apart(
    query,
    keys,
    values,
    barriers,
    state,
    blocks,
    ROWS: gl.constexpr,
    TILE_K: gl.constexpr,
    STAGES: gl.constexpr,
    SHIFT: gl.constexpr,
):
    """The same, each block's product added in float32.

    A fade belongs to the sums over the blocks before its own: the next one waits until this block is added.
    """
    _, keys_here, values_here, used = barriers
    scores, scale, no_sums = state
    MIXED: gl.constexpr = no_sums.type.layout
    largest = gl.full([ROWS], float("-inf"), gl.float32, scale.type.layout)
    total = gl.full([ROWS], 0.0, gl.float32, scale.type.layout)
    sums = no_sums
    weights, fade, largest, total = weigh(scores, scale, largest, total, SHIFT)
    for block in range(blocks - 1):
        stage, ahead = block % STAGES, (block + 1) % STAGES
        keys_parity, values_parity = ((block + 1) // STAGES) & 1, (block // STAGES) & 1
        if TILE_K <= OVERLAPPED:
            mbarrier.wait(keys_here.index(ahead), keys_parity)
            coming = issue_scores(query, keys.index(ahead), ROWS, TILE_K)
            mbarrier.wait(values_here.index(stage), values_parity)
            mixed = issue_mixing(weights, no_sums, values.index(stage), ROWS, TILE_K, MIXED, False)
            scores = warpgroup_mma_wait(1, deps=[coming]).to(gl.float32)
            weights, next_fade, largest, total = weigh(scores, scale, largest, total, SHIFT)
            mixed = warpgroup_mma_wait(0, deps=[mixed])
            mbarrier.arrive(used.index(stage), count=1)
            sums = faded(sums, fade, MIXED) + mixed
            fade = next_fade
        else:
            mbarrier.wait(values_here.index(stage), values_parity)
            mixed = issue_mixing(weights, no_sums, values.index(stage), ROWS, TILE_K, MIXED, False)
            mbarrier.wait(keys_here.index(ahead), keys_parity)
            coming = issue_scores(query, keys.index(ahead), ROWS, TILE_K)
            mixed = warpgroup_mma_wait(1, deps=[mixed])
            mbarrier.arrive(used.index(stage), count=1)
            sums = faded(sums, fade, MIXED) + mixed
            scores = warpgroup_mma_wait(0, deps=[coming]).to(gl.float32)
            weights, fade, largest, total = weigh(scores, scale, largest, total, SHIFT)
    stage = (blocks - 1) % STAGES
    mbarrier.wait(values_here.index(stage), ((blocks - 1) // STAGES) & 1)
    mixed = issue_mixing(weights, no_sums, values.index(stage), ROWS, TILE_K, MIXED, False)
    return faded(sums, fade, MIXED) + warpgroup_mma_wait(0, deps=[mixed]), total


@gluon.jit
def attend_rows(
    half,
    buffers,
    barriers,
    problem,
    strides,
    D: gl.constexpr,
    ROWS: gl.constexpr,
    TILE_K: gl.constexpr,
    STAGES: gl.constexpr,
    APART: gl.constexpr,
    SHIFT: gl.constexpr,
):
    """A computing group: one half of the program's queries, over all blocks."""
    query, keys, values = buffers
    query_here, keys_here, _, _ = barriers
    out, query_scale, value_scale, value_mean, head, first, queries, tokens, blocks = problem
    out_head, out_token, heads, out_batch = strides
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [GROUP_WARPS, 1], [16, TILE_K, 32])
    MIXED: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [GROUP_WARPS, 1], [16, D, 32])
    ROW: gl.constexpr = gl.SliceLayout(1, SCORES)
    query = query.index(half)
    rows = first + half * ROWS + gl.arange(0, ROWS, layout=ROW)
    scale = gl.load(query_scale + head.to(gl.int64) * queries + rows, mask=rows < queries, other=1.0)
    no_sums = gl.full([ROWS, D], 0.0, gl.float32, MIXED)

    mbarrier.wait(query_here, 0)
    mbarrier.wait(keys_here.index(0), 0)
    coming = issue_scores(query, keys.index(0), ROWS, TILE_K)
    scores = warpgroup_mma_wait(0, deps=[coming]).to(gl.float32)
    inside = ((blocks - 1) * TILE_K + gl.arange(0, TILE_K, layout=gl.SliceLayout(0, SCORES))) < tokens
    scores = gl.where(inside[None, :], scores, float("-inf"))
    state = (scores, scale, no_sums)
    if APART:
        sums, total = sum_apart(query, keys, values, barriers, state, blocks, ROWS, TILE_K, STAGES, SHIFT)
    else:
        sums, total = sum_joined(query, keys, values, barriers, state, blocks, ROWS, TILE_K, STAGES, SHIFT)

    channels = gl.arange(0, D, layout=gl.SliceLayout(0, MIXED))
    y = sums / gl.convert_layout(total, gl.SliceLayout(1, MIXED))[:, None]
    mean = gl.load(value_mean + head * D + channels)
    y = y * gl.load(value_scale + head * D + channels)[None, :] + mean[None, :]
    rows = gl.convert_layout(rows, gl.SliceLayout(1, MIXED))
    place = (head // heads).to(gl.int64) * out_batch + (head % heads) * out_head
    place = place + rows[:, None].to(gl.int64) * out_token + channels[None, :]
    gl.store(out + place, y.to(out.dtype.element_ty), mask=(rows < queries)[:, None])


@gluon.jit
def specialised_kernel(
    query_desc,
    key_desc,
    value_desc,
    out,
    query_scale,
    value_scale,
    value_mean,
    queries,
    tokens,
    out_head,
    out_token,
    heads,
    out_batch,
    D: gl.constexpr,
    ROWS: gl.constexpr,
    TILE_K: gl.constexpr,
    STAGES: gl.constexpr,
    APART: gl.constexpr,
    SHIFT: gl.constexpr,
):
    """Program (i, h): queries i * 2 * ROWS ... of head h of all batches, as `flash.flash_kernel` has them."""
    head = gl.program_id(1)
    first = gl.program_id(0) * 2 * ROWS
    blocks = gl.cdiv(tokens, TILE_K)
    query = gl.allocate_shared_memory(query_desc.dtype, [2, ROWS, D], query_desc.layout)
    keys = gl.allocate_shared_memory(key_desc.dtype, [STAGES, TILE_K, D], key_desc.layout)
    values = gl.allocate_shared_memory(value_desc.dtype, [STAGES, D, TILE_K], value_desc.layout)
    query_here = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    keys_here = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    values_here = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    used = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    mbarrier.init(query_here, count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(keys_here.index(stage), count=1)
        mbarrier.init(values_here.index(stage), count=1)
        mbarrier.init(used.index(stage), count=2)
    fence_async_shared()
    mbarrier.expect(query_here, 2 * query_desc.block_type.nbytes)
    for half in gl.static_range(2):
        place = head * queries + first + half * ROWS
        async_load(query_desc, [place, 0], query_here, query.index(half))
    buffers = (query, keys, values)
    barriers = (query_here, keys_here, values_here, used)
    problem = (out, query_scale, value_scale, value_mean, head, first, queries, tokens, blocks)
    strides = (out_head, out_token, heads, out_batch)
    copied = (key_desc, value_desc, head * tokens, head * D, blocks, (blocks - 1) * TILE_K)
    gl.warp_specialize(
        [
            (
                attend_rows,
                (0, buffers, barriers, problem, strides, D, ROWS, TILE_K, STAGES, APART, SHIFT),
            ),
            (
                attend_rows,
                (1, buffers, barriers, problem, strides, D, ROWS, TILE_K, STAGES, APART, SHIFT),
            ),
            (copy_blocks, (buffers, barriers, copied, TILE_K, STAGES)),
        ],
        [GROUP_WARPS, 1],
        [COMPUTING_REGISTERS, COPYING_REGISTERS],
    )


def launch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_scale: Tensor,
    value_scale: Tensor | None,
    value_mean: Tensor | None,
    tokens: int,
    out: Tensor,
    tiles: Tiles,
    shift: float,
) -> None:
    """Fills `out`. Operands as `flash.attend` has them after its padding; ValueError for other formats."""
    batch, heads, queries, width = query.shape
    if query.dtype not in SCORE_TYPES or value_scale is None or width not in WIDTHS:
        kinds = f"{query.dtype} queries, {value.dtype} values, heads of {width} channels"
        raise ValueError(f"this kernel takes 8-bit operands and heads of {WIDTHS} channels, got {kinds}")
    rows = tiles.rows // GROUPS
    scores = SCORE_TYPES[query.dtype]
    specialised_kernel[(triton.cdiv(queries, tiles.rows), batch * heads)](
        tiled(query.flatten(0, 2), [rows, width], scores),
        tiled(key.flatten(0, 2), [tiles.columns, width], scores),
        tiled(value.flatten(0, 2), [width, tiles.columns], gl.float8e4nv),
        out,
        query_scale,
        value_scale,
        value_mean,
        queries,
        tokens,
        out.stride(1),
        out.stride(2),
        heads,
        out.stride(0),
        D=width,
        ROWS=rows,
        TILE_K=tiles.columns,
        STAGES=tiles.stages,
        APART=tiles.apart,
        SHIFT=shift,
        num_warps=tiles.warps,
        maxnreg=REGISTERS_AT_START,
    )
