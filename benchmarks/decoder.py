"""How long the VAE decoder takes for 40 frames of 720p at each pruning, and beside a denoising network.

    python benchmarks/decoder.py --json decoder.json          # on the GPU if there is one
    python benchmarks/decoder.py --device cpu --small         # does it run

Random weights in the released shapes. `one`: ten calls of one latent, as a session decodes; `ten`: one call.
`beside` is what decoding on a second stream could win: a matrix product that fills the chip and the decoder,
each alone and both at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldwire_runtime.benchmark import commit
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.decoder import Decoder
from worldwire_runtime.machine import pick_device
from worldwire_runtime.model.checkpoint import load_into
from worldwire_runtime.model.random_weights import random_tensors
from worldwire_runtime.model.vae import VAE
from worldwire_runtime.sources import CONFIG_FILE, preset_folder

PRUNINGS = (0.75, 0.5, 0.0)
LATENTS = 10
WARM_RUNS, TIMED_RUNS = 4, 5
PRODUCT_SIZE, PRODUCTS = 8192, 60


def decoder_of(config: WorldConfig, pruning: float, device: torch.device, compiled: bool) -> Decoder:
    """A decoder with random weights; the encoder stays on no device."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device("meta"):
        vae = VAE(replace(config.vae, pruning_rate=pruning, encoder_pruning_rate=0.0))
    load_into(vae, dict(random_tensors(vae, dtype, torch.Generator(device).manual_seed(0))), assign=True)
    return Decoder(vae.to(device, dtype).eval().requires_grad_(False), compiled=compiled)


def decoding(decoder: Decoder, latents: Tensor, at_once: int) -> Callable[[], None]:
    """Decodes all latents in a stream that has begun."""
    _, cache = decoder.decode(latents[:1], None)

    def run() -> None:
        now = cache
        for part in latents.split(at_once):
            _, now = decoder.decode(part, now)

    return run


def median_ms(run: Callable[[], None], device: torch.device) -> float:
    """Of some runs after warm ones, the device's work included."""
    times = []
    for _ in range(WARM_RUNS + TIMED_RUNS):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append((time.perf_counter() - start) * 1000)
    return round(statistics.median(times[WARM_RUNS:]), 3)


def measure(config: WorldConfig, device: torch.device, pruning: float, compiled: bool) -> dict[str, Any]:
    """Milliseconds of one decoder in both ways of calling."""
    facts: dict[str, Any] = {"pruning": pruning, "compiled": compiled}
    rows, columns = config.latent_hw
    latents = torch.randn(LATENTS, config.dit.in_dim, rows, columns, device=device)
    try:
        for name, at_once in (("one_ms", 1), ("ten_ms", LATENTS)):
            decoder = decoder_of(config, pruning, device, compiled)
            facts[name] = median_ms(decoding(decoder, latents, at_once), device)
    except Exception as failure:  # one decoder that does not fit must not lose the others
        facts["failed"] = "".join(traceback.format_exception_only(failure)).strip()[:500]
    return facts


def beside(config: WorldConfig, device: torch.device) -> dict[str, Any]:
    """Milliseconds of products alone, of the 75 % decoder alone, and of both on two streams of a GPU."""
    rows, columns = config.latent_hw
    latents = torch.randn(LATENTS, config.dit.in_dim, rows, columns, device=device)
    decode = decoding(decoder_of(config, PRUNINGS[0], device, compiled=True), latents, 1)
    left, right = (
        torch.randn(PRODUCT_SIZE, PRODUCT_SIZE, device=device, dtype=torch.bfloat16) for _ in range(2)
    )
    second = torch.cuda.Stream(device)

    def products() -> None:
        for _ in range(PRODUCTS):
            left @ right

    def both() -> None:
        second.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(second):
            decode()
        products()
        torch.cuda.current_stream(device).wait_stream(second)

    alone = {"products_ms": median_ms(products, device), "decoder_ms": median_ms(decode, device)}
    return alone | {"both_ms": median_ms(both, device)}


def main() -> int:
    """Prints each line as it is measured and writes the JSON after it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--small", action="store_true", help="the shipped world's sizes, uncompiled")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures there")
    args = parser.parse_args()
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

    for pruning in PRUNINGS:
        for compiled in (False,) if args.small else (False, True):
            result["decoders"].append(measure(config, device, pruning, compiled))
            note(result["decoders"][-1])
    if device.type == "cuda":
        result["beside"] = beside(config, device)
        note(result["beside"])
    return 1 if any("failed" in line for line in result["decoders"]) else 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    raise SystemExit(main())
