"""How long a memory takes to choose: five queries against 200 to 20,000 past cameras, and how exact that is.

    python benchmarks/retrieval.py --json retrieval.json        # on the GPU if there is one

A walk of that many cameras is put into a `Memory`; `select` is timed whole, as a session calls it: overlaps
on the device, the choice, and the wait for its few numbers. `error` compares shares with the exact ones, over
random pairs of cameras.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from worldwire.camera import Intrinsics, make_c2w, rotation_from_yaw_pitch
from worldwire_runtime.benchmark import commit
from worldwire_runtime.camera.frustum import FAR_M, NEAR_M, exact_overlap, overlap, sample_frustum
from worldwire_runtime.memory import CAPACITY, POINTS, Memory
from worldwire_runtime.world import pick_device

POOLS, QUERIES, SLOTS, REPEATS, PAIRS = (200, 1_000, 4_000, 20_000), 5, 5, 50, 300
CAMERA = Intrinsics.from_fov(704, 1280, 90.0)


def walk(cameras: int) -> torch.Tensor:
    """Cameras [n, 4, 4] of a walk with turns, a quarter of a metre apart."""
    rng, yaw, position, made = np.random.default_rng(0), 0.0, np.zeros(3), []
    for _ in range(cameras):
        yaw += rng.normal(0, 8)
        position = position + 0.25 * rotation_from_yaw_pitch(yaw, 0)[:, 2]
        made.append(make_c2w(rotation_from_yaw_pitch(yaw, 0), position))
    return torch.from_numpy(np.stack(made))


def time_choice(device: torch.device, pool: int) -> dict[str, float]:
    """Milliseconds of one `select`, median and 99th percentile."""
    cameras = walk(pool + QUERIES).to(device)
    memory = Memory(CAMERA, capacity=max(CAPACITY, pool + QUERIES), device=device)
    memory.add(torch.zeros(len(cameras), 1, 1, 1), cameras)
    queries, times_ms = cameras[-QUERIES:], []
    for _ in range(REPEATS):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        memory.select(queries, SLOTS, pool)
        times_ms.append((time.perf_counter() - start) * 1000)
    times_ms = times_ms[5:]
    return {
        "cameras": pool,
        "median_ms": round(statistics.median(times_ms), 3),
        "p99_ms": round(float(np.percentile(times_ms, 99)), 3),
    }


def sampling_error(device: torch.device) -> dict[str, float]:
    """Estimated against exact shares of pairs that overlap."""
    rng, errors = np.random.default_rng(1), []
    points = sample_frustum(CAMERA, NEAR_M, FAR_M, POINTS, torch.Generator().manual_seed(0)).to(device)
    for _ in tqdm(range(PAIRS), desc="exact overlaps", unit="pair"):
        turned = rotation_from_yaw_pitch(rng.uniform(-60, 60), rng.uniform(-20, 20))
        pair = np.stack([np.eye(4), make_c2w(turned, rng.normal(0, 2, 3))])
        c2w = torch.from_numpy(pair).to(device)
        share = overlap(c2w[:1], c2w[1:], points, CAMERA, NEAR_M, FAR_M).item()
        errors.append(share - exact_overlap(pair[0], pair[1], CAMERA, NEAR_M, FAR_M))
    return {
        "points": POINTS,
        "rms": round(float(np.std(errors)), 4),
        "worst": round(float(np.abs(errors).max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures there")
    args = parser.parse_args()
    device = pick_device(args.device)
    result = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "queries": QUERIES,
        "choices": [time_choice(device, pool) for pool in POOLS],
        "error": sampling_error(device),
        "commit": commit(),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
