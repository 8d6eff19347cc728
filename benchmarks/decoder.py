"""How long the VAE decoder takes for 40 frames of 720p, in its forms, and beside a denoising network.

    python benchmarks/decoder.py --json decoder.json          # on a GPU: within 120 s
    python benchmarks/decoder.py --device cpu --small         # does it run

Random weights in the released shapes; the first line is what a session of the paper's plan runs on a GPU,
the second what one of a low-latency plan does. `at_once`: latents of
one call, of ten in all. `graphs`: replayed as a CUDA graph. `measured`: cuDNN tries its algorithms. `form`:
of the causal convolutions (`worldwire_runtime.convolutions`). `host_ms`: until everything is launched.
`settling_s`: compiling, measuring and recording. `beside`: a matrix product that fills the chip and the
decoder on a stream of high priority, each alone and both at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from worldwire_runtime.benchmark import commit
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.convolutions import PRODUCTS, TAPS, VOLUME, Form
from worldwire_runtime.decoder import MOST_AT_ONCE, Decoder
from worldwire_runtime.graphs import WARM_CALLS
from worldwire_runtime.machine import pick_device
from worldwire_runtime.model.checkpoint import load_into
from worldwire_runtime.model.random_weights import random_tensors
from worldwire_runtime.model.vae import VAE
from worldwire_runtime.sources import CONFIG_FILE, preset_folder

LATENTS = 10
LEAST_WARM_RUNS, TIMED_RUNS = 2, 5
PRODUCT_SIZE, PRODUCTS_RUN = 8192, 60
BUDGET_S = 100.0
"""No line is begun later: the last one has its time, too."""


@dataclass(frozen=True)
class Line:
    """One way of decoding."""

    pruning: float = 0.75
    compiled: bool = True
    graphs: bool = True
    measured: bool = True
    form: Form = PRODUCTS
    at_once: int = 1


LINES = (
    Line(at_once=MOST_AT_ONCE),
    Line(),
    Line(at_once=2),
    Line(at_once=LATENTS),
    Line(graphs=False),
    Line(form=TAPS),
    Line(measured=False),
    Line(form=VOLUME),
    Line(pruning=0.5),
    Line(pruning=0.0),
    Line(form=TAPS, graphs=False, measured=False),
    Line(compiled=False, graphs=False, form=TAPS),
)
"""The most telling first: there may be no time for the others."""
SMALL_LINES = tuple(
    Line(pruning, False, False, False, form) for pruning in (0.75, 0.0) for form in (TAPS, PRODUCTS, VOLUME)
)


def decoder_of(config: WorldConfig, line: Line, device: torch.device) -> Decoder:
    """A decoder with random weights; the encoder stays on no device."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    vae = empty_vae(config, line.pruning)
    load_into(vae, dict(random_tensors(vae, dtype, torch.Generator(device).manual_seed(0))), assign=True)
    vae = vae.to(device, dtype).eval().requires_grad_(False)
    return Decoder(vae, compiled=line.compiled, graphs=line.graphs, measured=line.measured, form=line.form)


def empty_vae(config: WorldConfig, pruning: float) -> VAE:
    """Shapes alone."""
    with torch.device("meta"):
        return VAE(replace(config.vae, pruning_rate=pruning, encoder_pruning_rate=0.0))


def decoding(decoder: Decoder, latents: Tensor, at_once: int) -> Callable[[], None]:
    """Decodes all latents in a stream that has begun."""
    _, cache = decoder.decode(latents[:1], None)

    def run() -> None:
        now = cache
        for part in latents.split(at_once):
            _, now = decoder.decode(part, now)

    return run


def tflop(config: WorldConfig, pruning: float) -> float:
    """Of the convolutions and products of all latents, in a stream that has begun."""
    vae, (rows, columns) = empty_vae(config, pruning), config.latent_hw
    vae.latent_mean, vae.latent_std = vae.latent_mean.to("meta"), vae.latent_std.to("meta")
    latents = torch.empty(1, config.dit.in_dim, 1, rows, columns, device="meta")
    with torch.inference_mode():
        _, cache = vae.decode(latents)
        with FlopCounterMode(display=False) as counter:
            vae.decode(latents, cache)
    return round(counter.get_total_flops() * LATENTS / 1e12, 2)


def timed(run: Callable[[], None], device: torch.device, warm_runs: int = LEAST_WARM_RUNS) -> dict[str, Any]:
    """Milliseconds, a median of some runs after warm ones, and of them until the host was done."""
    whole, host = [], []
    for _ in range(warm_runs + TIMED_RUNS):
        _wait(device)
        start = time.perf_counter()
        run()
        host.append((time.perf_counter() - start) * 1000)
        _wait(device)
        whole.append((time.perf_counter() - start) * 1000)
    return {
        "ms": round(statistics.median(whole[warm_runs:]), 3),
        "host_ms": round(statistics.median(host[warm_runs:]), 3),
        "settling_s": round(sum(whole[:warm_runs]) / 1000, 1),
    }


def measure(config: WorldConfig, device: torch.device, line: Line) -> dict[str, Any]:
    """What one way of decoding takes."""
    facts: dict[str, Any] = asdict(line) | {"tflop": tflop(config, line.pruning)}
    rows, columns = config.latent_hw
    latents = torch.randn(LATENTS, config.dit.in_dim, rows, columns, device=device)
    calls_of_a_run = -(-LATENTS // line.at_once)
    warm_runs = max(LEAST_WARM_RUNS, -(-(WARM_CALLS + 2) // calls_of_a_run))
    try:
        decoder = decoder_of(config, line, device)
        facts |= timed(decoding(decoder, latents, line.at_once), device, warm_runs)
    except Exception as failure:  # one decoder that does not fit must not lose the others
        facts["failed"] = "".join(traceback.format_exception_only(failure)).strip()[:500]
    return facts


def beside(config: WorldConfig, device: torch.device) -> dict[str, Any]:
    """Milliseconds of products alone, of the decoder alone, of both at once, and of the decoder in that."""
    rows, columns = config.latent_hw
    latents = torch.randn(LATENTS, config.dit.in_dim, rows, columns, device=device)
    decoder = decoder_of(config, LINES[0], device)
    assert decoder.lane is not None
    decode, lane = decoding(decoder, latents, LINES[0].at_once), decoder.lane.stream
    left, right = (
        torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device, dtype=torch.bfloat16) for _ in range(2)
    )
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def products() -> None:
        for _ in range(PRODUCTS_RUN):
            left @ right

    def both() -> None:
        lane.wait_stream(torch.cuda.current_stream(device))
        products()
        with torch.cuda.stream(lane):
            start.record()
            decode()
            end.record()
        torch.cuda.current_stream(device).wait_stream(lane)

    facts = {"decoder_ms": timed(decode, device)["ms"], "products_ms": timed(products, device)["ms"]}
    return facts | {
        "both_ms": timed(both, device)["ms"],
        "decoder_in_both_ms": round(start.elapsed_time(end), 3),
    }


def main() -> int:
    """Prints each line as it is measured and writes the JSON after it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--small", action="store_true", help="the shipped world's sizes, uncompiled")
    parser.add_argument("--budget-s", type=float, default=BUDGET_S, help="begin no line later (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures there")
    args = parser.parse_args()
    begun = time.perf_counter()
    device = pick_device(args.device)
    config = WorldConfig.from_file(preset_folder("tiny" if args.small else "5b-720p") / CONFIG_FILE)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "frames": 4 * LATENTS,
        "resolution": f"{config.height}x{config.width}",
        "commit": commit(),
        "decoders": [],
    }

    def note(line: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        if args.json is not None:
            args.json.write_text(json.dumps(result, indent=2) + "\n")

    for number, line in enumerate(SMALL_LINES if args.small else LINES):
        if time.perf_counter() - begun > args.budget_s:
            result["decoders"].append(asdict(line) | {"left_out": "no time left"})
        else:
            result["decoders"].append(measure(config, device, line))
        note(result["decoders"][-1])
        if number == 0 and device.type == "cuda":
            result["beside"] = beside(config, device)
            note(result["beside"])
    return 1 if any("failed" in line for line in result["decoders"]) else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    raise SystemExit(main())
