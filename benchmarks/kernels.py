"""Times every kernel of `worldwire_runtime.kernels` against the libraries' on one GPU, and checks it.

    PYTHONPATH=runtime python3 benchmarks/kernels.py --json kernels.json            about 3 minutes on an H200
    PYTHONPATH=runtime python3 benchmarks/kernels.py --only attention --json F      a minute
    PYTHONPATH=runtime TRITON_INTERPRET=1 python3 benchmarks/kernels.py --small     on a CPU: does it all run

Shapes are those of the 5B world at 704x1280: width 3072, feed-forward 14336, 880 tokens a latent; 19 latents
in a later clip, 10 of them new; rolling, 1 or 2 latents at a time over 10. Our kernels are timed with each of
their candidates for tiles, beside the libraries'. Random data; medians of device time, each run with a cold
L2 cache. Errors are relative to float64 on some rows. A case that fails is reported as failed and costs no
other case. First of all, Triton compiles, in parallel.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from worldwire_runtime.kernels import attention, flash, gemm, prologue, short
from worldwire_runtime.kernels.linear import linear
from worldwire_runtime.kernels.rows import FP8, INT8, EightBit, Rows, quantise_rows
from worldwire_runtime.kernels.tuning import Tiles, launched_ms
from worldwire_runtime.model.attention import KeyValue
from worldwire_runtime.short_attention import PROMPT_TOKENS as KEPT_TOKENS
from worldwire_runtime.split_keys import attend_to_parts

CHECKED_ROWS: Final = 64
WARM_RUNS, TIMED_RUNS = 2, 9
COMPILE_PROCESSES: Final = 12
COMPILE_ROWS: Final = 256
ATTENTION_FORMS: Final[dict[str, dict[str, Any]]] = {
    "int8": {},
    "fp8 scores": {"scores": "fp8"},
    "16-bit scores": {"scores": "16-bit"},
    "16-bit values": {"fp8_values": False},
}
SIXTEEN_BITS: Final[dict[str, Any]] = {"scores": "16-bit", "fp8_values": False}
PARTS: Final = (2, 4, 5, 8, 10)
MOUSE_HEADS, MOUSE_WIDTH, PROMPT_TOKENS = 16, 64, 512
EPS: Final = 1e-6
TERA: Final = 1e12


@dataclass(frozen=True)
class Sizes:
    """The network's sizes. rows: tokens of a whole later clip, of its new latents, of one and of two."""

    dim: int
    ffn: int
    heads: int
    latents: int
    new: int
    tokens: int
    dtype: torch.dtype

    @property
    def rows(self) -> tuple[int, int, int, int]:
        return tuple(latents * self.tokens for latents in (self.latents, self.new, 1, 2))


FULL = Sizes(dim=3072, ffn=14336, heads=24, latents=19, new=10, tokens=880, dtype=torch.bfloat16)
SMALL = Sizes(dim=32, ffn=48, heads=2, latents=3, new=2, tokens=16, dtype=torch.float16)


@dataclass(frozen=True)
class Ready:
    """A case with its data. run: once. wanted: the exact result's first rows. rows_of: the same of run's."""

    run: Callable[[], Tensor | tuple[Tensor, ...]]
    wanted: Callable[[], Tensor] | None = None
    rows_of: Callable[[Any], Tensor] = lambda result: result[:CHECKED_ROWS]


@dataclass(frozen=True)
class Case:
    """One line of the table. operations: multiplications and additions."""

    group: str
    name: str
    shape: str
    operations: float
    prepare: Callable[[], Ready]


@dataclass(frozen=True)
class Result:
    """What came of a case; failure: why there is no time."""

    group: str
    name: str
    shape: str
    ms: float | None = None
    tera_per_s: float | None = None
    relative_error: float | None = None
    failure: str | None = None


# ---------------------------------------------------------------------------------------------- the cases


def gemm_cases(sizes: Sizes, device: str) -> Iterator[Case]:
    """Every product of a block, by the libraries and by our kernel."""
    for rows in sizes.rows:
        for inputs, outputs in layers(sizes):
            yield from product_cases(sizes, device, rows, inputs, outputs)


def layers(sizes: Sizes) -> list[tuple[int, int]]:
    """Inputs and outputs of a block's linear layers."""
    dim, ffn = sizes.dim, sizes.ffn
    return sorted({(dim, dim), (dim, 3 * dim), (dim, ffn), (ffn, dim)})


def product_cases(sizes: Sizes, device: str, M: int, K: int, N: int) -> Iterator[Case]:
    """One shape."""
    dtype = sizes.dtype

    def floats() -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        x, weight = (
            torch.randn(M, K, device=device, dtype=dtype),
            torch.randn(N, K, device=device, dtype=dtype),
        )
        return x, weight / K**0.5, torch.randn(N, device=device, dtype=dtype)

    def plain() -> Ready:
        x, weight, bias = floats()

        def run(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            y = F.linear(x, weight, bias)
            return F.gelu(y, approximate="tanh") if gelu else y

        return Ready(
            lambda: run(x, weight, bias),
            lambda: run(x[:CHECKED_ROWS].double(), weight.double(), bias.double()),
        )

    def eight(kind: EightBit, by: Callable[[Rows, Rows, Tensor], Tensor]) -> Ready:
        x, weight, bias = floats()
        rows, weights = quantise_rows(x, kind), quantise_rows(weight, kind)
        del x, weight

        def wanted() -> Tensor:
            first = rows.values[:CHECKED_ROWS].float().double() * rows.scale[:CHECKED_ROWS].double()
            y = F.linear(first, weights.values.float().double() * weights.scale.double(), bias.double())
            return F.gelu(y, approximate="tanh") if gelu else y

        return Ready(lambda: by(rows, weights, bias), wanted)

    def ours(tiles: Tiles) -> Callable[[Rows, Rows, Tensor], Tensor]:
        return lambda x, w, bias: gemm.product(*x, *w, bias, dtype, gelu=gelu, tiles=tiles)

    def library(x: Rows, w: Rows, bias: Tensor) -> Tensor:
        return linear(x, w, bias, dtype, gelu=gelu)

    def case(name: str, prepare: Callable[[], Ready]) -> Case:
        return Case("gemm", name, f"{M}x{K}x{N}{' GELU' * gelu}", 2.0 * M * K * N, prepare)

    gelu = sizes.ffn == N
    choice = gemm.candidates(M, dtype, False) if device == "cuda" else (gemm.SMALL,)
    yield case("16-bit, library", plain)
    yield case("fp8, torch._scaled_mm", lambda: eight(FP8, library))
    for tiles in choice:
        yield case(f"int8, ours {label(tiles)}", lambda tiles=tiles: eight(INT8, ours(tiles)))


def label(tiles: Tiles) -> str:
    """Tiles in few letters."""
    depth = f"x{tiles.depth}" if tiles.depth else ""
    flags = " persistent" * tiles.persistent + " apart" * tiles.apart + " specialised" * tiles.specialised
    return f"{tiles.rows}x{tiles.columns}{depth} w{tiles.warps} s{tiles.stages}{flags}"


def attention_cases(sizes: Sizes, device: str) -> Iterator[Case]:
    """Self-attention of a whole clip, of its new latents, and rolling: of one and of two new latents."""
    for queries, tokens in attention_shapes(sizes):
        yield from attending_cases(sizes, device, queries, tokens)


def attention_shapes(sizes: Sizes) -> tuple[tuple[int, int], ...]:
    """Queries and keys."""
    whole, new, one, two = sizes.rows
    return (whole, whole), (new, whole), (one, new), (two, new)


def attending_cases(sizes: Sizes, device: str, queries: int, tokens: int) -> Iterator[Case]:
    """One shape. Keys have an offset per channel, as keys of real networks do."""
    width = sizes.dim // sizes.heads
    checked, few = min(queries, CHECKED_ROWS), queries <= 2 * sizes.tokens < tokens

    def inputs() -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(0)
        query, key, value = (
            torch.randn(1, sizes.heads, length, width, device=device, dtype=sizes.dtype)
            for length in (queries, tokens, tokens)
        )
        return query, key + 2 * torch.randn(1, sizes.heads, 1, width, device=device, dtype=sizes.dtype), value

    def ready(by: Callable[[Tensor, Tensor, Tensor], Callable[[], Tensor]]) -> Ready:
        query, key, value = inputs()

        def wanted() -> Tensor:
            scores = query[:, :, :checked].double() @ key.double().transpose(-1, -2) / width**0.5
            return scores.softmax(-1) @ value.double()

        return Ready(by(query, key, value), wanted, lambda result: result[:, :, :checked])

    def sdpa(backend: SDPBackend) -> Callable[[Tensor, Tensor, Tensor], Callable[[], Tensor]]:
        def by(query: Tensor, key: Tensor, value: Tensor) -> Callable[[], Tensor]:
            def run() -> Tensor:
                with sdpa_kernel(backend):
                    return F.scaled_dot_product_attention(query, key, value)

            return run

        return by

    def kernel(tiles: Tiles, **formats: Any) -> Callable[[Tensor, Tensor, Tensor], Callable[[], Tensor]]:
        def by(query: Tensor, key: Tensor, value: Tensor) -> Callable[[], Tensor]:
            operands = attention.prepare(query, key, value, **formats)
            return lambda: flash.attend(*operands, tokens, sizes.dtype, tiles=tiles)

        return by

    def with_preparation(query: Tensor, key: Tensor, value: Tensor) -> Callable[[], Tensor]:
        prepare = torch.compile(attention.prepare, dynamic=False)
        return lambda: flash.attend(*prepare(query, key, value), tokens, sizes.dtype, tiles=choice[0])

    def in_parts(parts: int) -> Callable[[Tensor, Tensor, Tensor], Callable[[], Tensor]]:
        def by(query: Tensor, key: Tensor, value: Tensor) -> Callable[[], Tensor]:
            torch._dynamo.reset()  # beyond eight forms of a function the rest would run uncompiled
            compiled = torch.compile(partial(attend_to_parts, parts=parts), dynamic=False)
            return lambda: compiled(query, KeyValue(key, value))

        return by

    choice = flash.candidates(tokens, FP8.dtype) if device == "cuda" else (flash.SMALL,)
    methods = {
        "16-bit, cuDNN": sdpa(SDPBackend.CUDNN_ATTENTION),
        **{f"16-bit, cuDNN, keys in {parts} parts": in_parts(parts) for parts in PARTS if few},
        **{f"ours {label(tiles)}": kernel(tiles) for tiles in choice},
        **{f"ours {label(tiles)}, scores of e4m3": kernel(tiles, scores="fp8") for tiles in choice[:3]},
        **{f"ours {label(tiles)}, scores of 16 bits": kernel(tiles, scores="16-bit") for tiles in choice[:1]},
        **{f"ours {label(tiles)}, 16-bit values": kernel(tiles, fp8_values=False) for tiles in choice[:1]},
        **{f"ours {label(tiles)}, all in 16 bits": kernel(tiles, **SIXTEEN_BITS) for tiles in choice},
    }
    if queries == tokens:
        methods[f"ours {label(choice[0])}, with preparation"] = with_preparation
    operations = 4.0 * sizes.dim * queries * tokens
    for name, by in methods.items():
        yield Case("attention", name, f"{queries}x{tokens}", operations, lambda by=by: ready(by))


def prologue_cases(sizes: Sizes, device: str) -> Iterator[Case]:
    """Norm, modulation and quantisation, of a float32 residual stream."""
    rows = sizes.rows[0]
    compiled = torch.compile(prologue.reference, dynamic=False)

    def ready(by: Callable[..., tuple[Tensor, Tensor]], kind: str) -> Ready:
        torch.manual_seed(0)
        x = torch.randn(rows, sizes.dim, device=device)
        six = torch.randn(sizes.latents, 6, sizes.dim, device=device)
        args = (x, six[:, 0], six[:, 1], EPS, None, kind)

        def wanted() -> Tensor:
            return prologue.reference(*args).dequantised()[:CHECKED_ROWS]

        return Ready(partial(by, *args), wanted, lambda result: Rows(*result).dequantised()[:CHECKED_ROWS])

    for kind in ("int8", "fp8"):
        for name, by in (
            ("torch.compile", compiled),
            ("ours", prologue.norm_modulate_quantise),
        ):
            yield Case(
                "prologue",
                f"{kind}, {name}",
                f"{rows}x{sizes.dim}",
                0.0,
                lambda by=by, kind=kind: ready(by, kind),
            )


def short_cases(sizes: Sizes, device: str) -> Iterator[Case]:
    """What replaces the library for the mouse's attention and for that to a prompt, each beside it."""

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, device=device, dtype=sizes.dtype)

    def ready(by: Callable[..., Tensor], query: Tensor, key: Tensor, value: Tensor) -> Ready:
        exact = partial(F.scaled_dot_product_attention, *(part.double() for part in (query, key, value)))
        return Ready(partial(by, query, key, value), exact, lambda result: result)

    def mouse(by: Callable[..., Tensor], new: int, seen: int) -> Ready:
        torch.manual_seed(0)
        lengths = (new, seen, seen)
        parts = (random(length, sizes.tokens, MOUSE_HEADS, MOUSE_WIDTH) for length in lengths)
        return ready(by, *(part.permute(1, 2, 0, 3) for part in parts))

    def prompt(by: Callable[..., Tensor], rows: int) -> Ready:
        torch.manual_seed(0)
        width = sizes.dim // sizes.heads
        query, key, value = (
            random(1, length, sizes.heads, width).transpose(1, 2)
            for length in (rows, PROMPT_TOKENS, PROMPT_TOKENS)
        )
        for padded in (key, value):  # as behind a prompt of a few words
            padded[:, :, PROMPT_TOKENS // 8 :] = padded[:, :, -1:].clone()
        return ready(by, query, key, value)

    def counted(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return short.counted_attention(query, key[:, :, :KEPT_TOKENS], value[:, :, :KEPT_TOKENS], times)

    words = PROMPT_TOKENS // 8
    times = torch.full((KEPT_TOKENS,), -torch.inf, device=device)
    times[:words], times[words] = 0, math.log(PROMPT_TOKENS - words)
    library = F.scaled_dot_product_attention
    for new, seen in ((sizes.new, sizes.latents), (sizes.latents, sizes.latents), (1, sizes.new)):
        for name, by in (("library", library), ("ours", short.short_attention)):
            shape = f"{sizes.tokens} of {new}x{seen}"
            yield Case("mouse", name, shape, 0.0, partial(mouse, by, new, seen))
    for rows in sizes.rows[:3]:
        for name, by in (("library", library), (f"ours, {KEPT_TOKENS} counted", counted)):
            yield Case("prompt", name, f"{rows}x{PROMPT_TOKENS}", 0.0, partial(prompt, by, rows))


def block_cases(sizes: Sizes, device: str) -> Iterator[Case]:
    """Norm, modulation, and the feed-forward in 8 bits, as torch.compile and a CUDA graph make it."""
    rows, dim = sizes.rows[0], sizes.dim
    operations = 4.0 * rows * dim * sizes.ffn

    def data() -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        x = torch.randn(rows, dim, device=device)
        shift, scale = torch.randn(2, rows // sizes.tokens, dim, device=device).unbind()
        up = torch.randn(sizes.ffn, dim, device=device, dtype=sizes.dtype) / dim**0.5
        down = torch.randn(dim, sizes.ffn, device=device, dtype=sizes.dtype) / sizes.ffn**0.5
        return x, shift, scale, up, down

    def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        shift, scale = (part.repeat_interleave(sizes.tokens, 0) for part in (shift, scale))
        return (F.layer_norm(x, (dim,), eps=EPS) * (1 + scale) + shift).to(sizes.dtype)

    def wanted(x: Tensor, shift: Tensor, scale: Tensor, up: Tensor, down: Tensor) -> Tensor:
        y = modulated(x, shift, scale)[:CHECKED_ROWS].double()
        return F.linear(F.gelu(F.linear(y, up.double()), approximate="tanh"), down.double())

    def ready(kind: EightBit | None, graph: bool) -> Ready:
        x, shift, scale, up, down = data()
        weights = (quantise_rows(up, kind), quantise_rows(down, kind)) if kind else None

        def forward() -> Tensor:
            y = modulated(x, shift, scale)
            if weights is None:
                return F.linear(F.gelu(F.linear(y, up), approximate="tanh"), down)
            hidden = linear(quantise_rows(y, kind), weights[0], None, sizes.dtype, gelu=True)
            return linear(quantise_rows(hidden, kind), weights[1], None, sizes.dtype)

        run = torch.compile(forward, dynamic=False)
        run()
        return Ready(recorded(run) if graph else run, lambda: wanted(x, shift, scale, up, down))

    for name, kind in (("16-bit", None), ("int8", INT8), ("fp8", FP8)):
        for graph in (False, True):
            yield Case(
                "feed-forward",
                f"{name}, compiled{', CUDA graph' * graph}",
                f"{rows}x{dim}x{sizes.ffn}",
                operations,
                lambda kind=kind, graph=graph: ready(kind, graph),
            )


def recorded(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A call as a CUDA graph: shows that kernels may be captured, tuning included."""
    for _ in range(WARM_RUNS):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


GROUPS: Final = {
    "attention": attention_cases,
    "gemm": gemm_cases,
    "prologue": prologue_cases,
    "short": short_cases,
    "feed-forward": block_cases,
}


# ---------------------------------------------------------------------------------------------- measuring


def measure(case: Case, device: str) -> Result:
    """Prepares, checks and times one case; whatever goes wrong becomes its failure."""
    line = (case.group, case.name, case.shape)
    try:
        ready = case.prepare()
        result = ready.run()
        error = None
        if ready.wanted is not None:
            got, wanted = ready.rows_of(result).double(), ready.wanted()
            error = float((got - wanted).norm() / wanted.norm())
        ms = median_ms(ready.run, device)
        rate = case.operations / ms * 1e3 / TERA if case.operations else None
        return Result(*line, ms=ms, tera_per_s=rate, relative_error=error)
    except Exception as failure:  # one kernel that does not compile must not lose the others
        return Result(*line, failure="".join(traceback.format_exception_only(failure)).strip()[:500])
    finally:
        if device == "cuda":
            torch.cuda.empty_cache()


def median_ms(run: Callable[[], object], device: str) -> float:
    """Of `TIMED_RUNS` runs after some warm ones."""
    for _ in range(WARM_RUNS):
        run()
    if device == "cuda":
        return statistics.median(launched_ms(run, TIMED_RUNS))
    return statistics.median(wall_ms(run) for _ in range(TIMED_RUNS))


def wall_ms(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return (time.perf_counter() - begun) * 1e3


# ---------------------------------------------------------------------------------- compiling in parallel


def compile_one(group: str, tiles: Tiles, option: str) -> str:
    """Compiles one form of a kernel into Triton's cache on disk, by running it on few rows."""
    sizes, device = FULL, "cuda"
    if group == "attention":
        query, key, value = (
            torch.randn(
                1, sizes.heads, COMPILE_ROWS, sizes.dim // sizes.heads, device=device, dtype=sizes.dtype
            )
            for _ in range(3)
        )
        operands = attention.prepare(query, key, value, **ATTENTION_FORMS[option])
        flash.attend(*operands, COMPILE_ROWS, sizes.dtype, tiles=tiles)
    else:
        x, weight = (
            quantise_rows(torch.randn(COMPILE_ROWS, sizes.dim, device=device), INT8) for _ in range(2)
        )
        bias = torch.randn(COMPILE_ROWS, device=device, dtype=sizes.dtype)
        gemm.product(*x, *weight, bias, sizes.dtype, gelu=option == "gelu", tiles=tiles)
    torch.cuda.synchronize()
    return f"{group} {option} {tiles}"


def compile_all(groups: Sequence[str]) -> list[str]:
    """The kernels in every form, by some processes at once; returns failures: they only cost candidates."""
    jobs = [("attention", tiles, "int8") for tiles in flash.CANDIDATES]
    jobs += [("attention", tiles, "fp8 scores") for tiles in flash.CANDIDATES[:3]]
    jobs += [("attention", flash.CANDIDATES[0], option) for option in ("16-bit scores", "16-bit values")]
    every_gemm = dict.fromkeys((*gemm.CANDIDATES, *gemm.FEW_ROWS_CANDIDATES))
    jobs += [("gemm", tiles, option) for tiles in every_gemm for option in ("int8", "gelu")]
    jobs = [job for job in jobs if job[0] in groups]
    failures = []
    workers = min(COMPILE_PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(compile_one, *job): job for job in jobs}
        for done in as_completed(running):
            failure = done.exception()
            if failure is not None:
                failures.append(f"{running[done]}: {str(failure)[:200]}")
    return failures


def main() -> int:
    """Prints a table as it goes and writes the JSON after every case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="F", help="the results; whole after every case")
    parser.add_argument("--only", nargs="*", choices=tuple(GROUPS), default=tuple(GROUPS), metavar="GROUP")
    parser.add_argument("--small", action="store_true", help="tiny sizes, on a CPU too: does it run at all")
    args = parser.parse_args()
    device, sizes = "cuda" if torch.cuda.is_available() else "cpu", SMALL if args.small else FULL
    logging.basicConfig(format="%(message)s")
    logging.getLogger("worldwire_runtime.kernels.tuning").setLevel(logging.DEBUG)
    begun = time.monotonic()
    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": str(torch.__version__),
        "sizes": {name: str(value) for name, value in asdict(sizes).items()},
    }
    if device == "cuda" and not args.small:
        facts["not_compiled"] = compile_all(args.only)
        say(f"compiled in {time.monotonic() - begun:.0f} s, {len(facts['not_compiled'])} forms failed")
    results: list[dict[str, Any]] = []
    for group in args.only:
        for case in GROUPS[group](sizes, device):
            result = measure(case, device)
            results.append(asdict(result))
            say(line_of(result))
            if args.json is not None:
                facts["seconds"] = round(time.monotonic() - begun, 1)
                args.json.write_text(json.dumps(facts | {"results": results}, indent=1) + "\n")
    return 0


def line_of(result: Result) -> str:
    """One result for people."""
    start = f"{result.group:<13}{result.shape:<20}{result.name:<48}"
    if result.ms is None:
        return f"{start}failed: {(result.failure or '').splitlines()[0][:120]}"
    rate = "" if result.tera_per_s is None else f"{result.tera_per_s:8.0f} T/s"
    error = "" if result.relative_error is None else f"   error {100 * result.relative_error:.3f} %"
    return f"{start}{result.ms:8.3f} ms{rate}{error}"


def say(text: str) -> None:
    """Progress for people."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
