"""Compiles the Triton kernels for Hopper (sm_90a), which takes no GPU, and prints what came of it as JSON.

    PYTHONPATH=runtime python tests/hopper_compile.py [--all]        --all: every candidate for tiles

A program of its own: Triton's interpreter, which the tests of the kernels switch on, is for a whole process.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

from worldwire_runtime.kernels import flash, gemm, gemm_specialised, prologue, short, turned
from worldwire_runtime.kernels.tuning import two_tiles

HOPPER = GPUTarget("cuda", 90, 32)
GLUON_TYPES = {"i8": gl.int8, "fp8e4nv": gl.float8e4nv, "bf16": gl.bfloat16}
HEAD, NARROW_HEAD = 128, 16
MANY_ROWS = 16_720
HEADS, TIMED = 24, 44  # of the 5B world, and columns of a head that turn with time
RESULTS = {"bf16": (torch.bfloat16, tl.bfloat16), "fp32": (torch.float32, tl.float32)}
ALIGNED = (
    "M",
    "N",
    "K",
    "queries",
    "tokens",
    "gate_stride",
    "out_head",
    "out_token",
    "out_batch",
    "width",
    "modulation_stride",
    "query_stride",
    "key_stride",
    "time_stride",
)


def compiled(kernel, types, constants, tiles=None, **options):
    """One kernel: shared memory, matrix instructions, registers of a thread and spilled bytes."""
    types = dict.fromkeys(constants, "constexpr") | types
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    aligned = [name for name in signature if signature[name].startswith("*") or name in ALIGNED]
    source = (GluonASTSource if kernel.is_gluon() else ASTSource)(
        fn=kernel,
        signature=signature,
        constexprs={places[name]: value for name, value in constants.items()},
        attrs={places[name]: [["tt.divisibility", 16]] for name in aligned if name not in constants},
    )
    if tiles:
        options |= {"num_warps": tiles.warps, "num_stages": tiles.stages}
    built = triton.compile(source, target=HOPPER, options=options)
    ptx = built.asm["ptx"]
    return {
        "shared": built.metadata.shared,
        "wgmma": ptx.count("wgmma.mma_async"),
        "copies": ptx.count("cp.async.bulk.tensor"),
        **assembled(ptx),
    }


def assembled(ptx: str) -> dict[str, int]:
    """The assembler's report: a thread's registers, spilled bytes, whether it serialised matrix products."""
    assembler = get_ptxas(HOPPER.arch).path  # the one that fits what this Triton writes
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(ptx)
        done = subprocess.run(
            [assembler, "-v", "-arch=sm_90a", source, "-o", Path(folder) / "kernel"],
            capture_output=True,
            text=True,
            check=True,
        )
    found = {
        name: int(re.search(rf"(\d+) {words}", done.stderr)[1])
        for name, words in (("registers", "registers"), ("spilled", "bytes spill stores"))
    }
    return found | {"serialised": int("instructions are serialized" in done.stderr)}


def product(kind, result="bf16", gated=False, tiles=None):
    """With these tiles, or those that run unmeasured."""
    dtype, stored = RESULTS[result]
    tiles = tiles or gemm.candidates(MANY_ROWS, dtype, gated)[0]
    types = {
        "x_desc": f"tensordesc<{kind}[{tiles.rows}, {tiles.depth}]>",
        "w_desc": f"tensordesc<{kind}[{tiles.columns}, {tiles.depth}]>",
        "y_desc": f"tensordesc<{result}[{tiles.rows}, {tiles.columns}]>",
        "bias": "*bf16",
    } | dict.fromkeys(("x_scale", "w_scale"), "*fp32")
    constants = {
        "TILE_M": tiles.rows,
        "TILE_N": tiles.columns,
        "TILE_K": tiles.depth,
        "GROUP": gemm.GROUP_ROWS,
        "INTEGER": kind == "i8",
        "HAS_BIAS": True,
        "GELU": not gated,
        "GATED": gated,
        "FLATTEN": tiles.persistent,
        "OUT": stored,
    }
    if gated:
        types |= dict.fromkeys(("residual", "gate"), "*fp32")
    else:
        constants |= {"residual": None, "gate": None, "tokens": 1, "gate_stride": 0}
    return compiled(gemm.gemm_kernel, types, constants, tiles)


def attention(tiles, head):
    width = flash.kernel_width(head)
    types = {
        "query_desc": f"tensordesc<i8[{tiles.rows}, {width}]>",
        "key_desc": f"tensordesc<i8[{tiles.columns}, {width}]>",
        "value_desc": f"tensordesc<fp8e4nv[{width}, {tiles.columns}]>",
        "out": "*bf16",
    } | dict.fromkeys(("query_scale", "value_scale", "value_mean"), "*fp32")
    constants = {
        "D": width,
        "TILE_Q": tiles.rows,
        "TILE_K": tiles.columns,
        "INTEGER": True,
        "FP8_VALUES": True,
        "APART": tiles.apart,
        "SHIFT": flash.SHIFT,
        "OUT": tl.bfloat16,
    }
    return compiled(flash.flash_kernel, types, constants, tiles)


def described(kind, block):
    """The type of a descriptor as Gluon names it."""
    layout = gl.NVMMASharedLayout.get_default_for(block, GLUON_TYPES[kind])
    return f"tensordesc<{kind}{block},{layout!r}>"


def specialised_product(tiles):
    rows = tiles.rows // gemm_specialised.GROUPS
    types = {
        "x_desc": described("i8", [rows, tiles.depth]),
        "w_desc": described("i8", [tiles.columns, tiles.depth]),
        "y_desc": described("bf16", [rows, tiles.columns]),
        "bias": "*bf16",
    } | dict.fromkeys(("x_scale", "w_scale"), "*fp32")
    constants = {
        "ROWS": rows,
        "COLUMNS": tiles.columns,
        "DEPTH": tiles.depth,
        "STAGES": tiles.stages,
        "GROUP": gemm.GROUP_ROWS,
        "INTEGER": True,
        "HAS_BIAS": True,
        "GELU": True,
    }
    kernel, limit = gemm_specialised.specialised_kernel, gemm_specialised.REGISTERS_AT_START
    return compiled(kernel, types, constants, tiles, maxnreg=limit)


def norm():
    types = dict.fromkeys(("x", "shift", "scale", "row_scale"), "*fp32") | {"values": "*i8", "eps": "fp32"}
    constants = {
        "gain": None,
        "FIRST": 2048,
        "REST": 1024,
        "HAS_GAIN": False,
        "INTEGER": True,
        "LARGEST": 127.0,
        "LEAST": 1e-12,
        "OUT": tl.int8,
    }
    return compiled(prologue.prologue_kernel, types, constants)


def short_sequences():
    types = dict.fromkeys(("query", "key", "value", "out"), "*bf16")
    constants = {"SCALE": 0.18, "D": 64, "TILE_Q": 32, "TILE_K": 32}
    return compiled(short.short_kernel, types, constants, num_warps=1)


def prompt():
    types = dict.fromkeys(("query", "key", "value", "out"), "*bf16") | {"times": "*fp32"}
    constants = {"SCALE": 0.13, "TO_BASE_2": 1.44, "D": HEAD, "TILE_Q": short.QUERIES, "TILE_K": short.KEYS}
    strides = [name for name in short.counted_kernel.arg_names if name.endswith(("_head", "_token"))]
    assert strides
    return compiled(short.counted_kernel, types, constants, num_warps=short.WARPS, num_stages=short.STAGES)


def turning():
    """Norms and rotation."""
    tables = ("time_cos", "time_sin", "space_cos", "space_sin")
    rows = ("query", "key", "query_weight", "key_weight", "turned_query", "turned_key")
    types = dict.fromkeys(tables, "*fp32") | dict.fromkeys(rows, "*bf16") | {"eps": "fp32"}
    first, rest = two_tiles(HEADS)
    constants = {
        "TIMED": TIMED,
        "HEADS": HEADS,
        "TABLES": HEADS,
        "D": HEAD,
        "FIRST": first,
        "REST": rest,
        "LATENTS": turned.LATENTS,
    }
    return compiled(turned.turned_kernel, types, constants, num_warps=turned.WARPS)


def every_candidate():
    """Name and report of each, int8."""
    for tiles in dict.fromkeys((*gemm.CANDIDATES, *gemm.FEW_ROWS_CANDIDATES)):
        yield f"int8 and GELU, {tiles}", product("i8", tiles=tiles)
    for tiles in gemm.SPECIALISED:
        yield f"int8 and GELU, {tiles}", specialised_product(tiles)
    for tiles in gemm.GATED_CANDIDATES:
        yield f"gated, {tiles}", product("i8", "fp32", gated=True, tiles=tiles)
    for tiles in flash.CANDIDATES:
        yield f"attention, {tiles}", attention(tiles, HEAD)


if __name__ == "__main__":
    found = {
        "int8": product("i8"),
        "int8, few rows": product("i8", tiles=gemm.FEW_ROWS_CANDIDATES[0]),
        "int8 to float32": product("i8", "fp32"),
        "fp8": product("fp8e4nv"),
        "gated": product("i8", "fp32", gated=True),
        "attention": attention(flash.CANDIDATES[0], HEAD),
        "attention, sums in the tensor cores": attention(flash.CANDIDATES[-1], HEAD),
        "attention of narrow heads": attention(flash.CANDIDATES[0], NARROW_HEAD),
        "int8, specialised": specialised_product(gemm.SPECIALISED[0]),
        "norm": norm(),
        "short": short_sequences(),
        "short prompt": prompt(),
        "norms and rotation": turning(),
    }
    if "--all" in sys.argv:
        found |= dict(every_candidate())
    sys.stdout.write(json.dumps(found, indent=1))
