"""Where the time of a clip goes: each function of the denoiser, each stage, and the kernels of a profile.

    python benchmarks/where_time_goes.py --preset 5b-720p --random-weights --plan paper --precision int8
    python benchmarks/where_time_goes.py --preset tiny --device cpu --clips 3       # does it run

In process, without a server. Every call is waited for, so the sum is more than what a player gets;
`overlapped` is a clip whose frames are decoded beside the next one. The figures of a whole path are those of
`worldwire bench`. A kernel's time is a mean over the profiled clips.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldwire.api import Frame
from worldwire.inputs import Inputs
from worldwire_runtime.benchmark import commit
from worldwire_runtime.graphs import Graphed
from worldwire_runtime.session import Session
from worldwire_runtime.speed import Speed
from worldwire_runtime.world import World

FUNCTIONS = ("_clip", "_other", "_clip_after", "_other_after")
PROFILED_CLIPS = 2
KERNELS_SHOWN, HOST_ROWS = 40, 15
NAME_LENGTH = 110


class Watch:
    """Milliseconds of each call of the denoiser's functions and of the decoder, waited for."""

    def __init__(self, world: World) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)
        self._wait = torch.cuda.synchronize if world.device.type == "cuda" else lambda: None
        self._world = world
        self._functions = {name: getattr(world.denoiser, name) for name in FUNCTIONS}
        self.graphs = {name: each for name, each in self._functions.items() if isinstance(each, Graphed)}
        for name in FUNCTIONS:
            setattr(world.denoiser, name, self._timed(name, getattr(world.denoiser, name)))

    def stop(self) -> None:
        """Nothing is waited for any more."""
        for name, function in self._functions.items():
            setattr(self._world.denoiser, name, function)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            self._wait()
            start = time.perf_counter()
            result = function(*args)
            self._wait()
            clean = args[1].shape[2]  # of `rolling`: one more where a memory latent was newly chosen
            self.calls[f"{name.strip('_')}, {clean} clean"].append((time.perf_counter() - start) * 1000)
            return result

        return call


def play(session: Session, clips: int, each: Callable[[int, dict[str, float], float], None]) -> None:
    """Walks and looks around; `each` gets the clip's number, stages and milliseconds."""
    for number in range(clips):
        start = time.perf_counter()
        inputs = Inputs(frozenset({"forward"}), yaw_deg=(-1.0) ** number)
        frames = session.step(inputs)
        each(number, dict(frames[-1].timings_ms), (time.perf_counter() - start) * 1000)


def overlapped_ms(session: Session, clips: int) -> float:
    """Milliseconds of a clip, on average, whose frames another thread takes while the next one runs."""
    shown: list[Future[list[Frame]]] = []
    with ThreadPoolExecutor(1) as shower:
        start = time.perf_counter()
        for number in range(clips):
            begun = session.begin(Inputs(frozenset({"forward"}), yaw_deg=(-1.0) ** number))
            shown.append(shower.submit(list, begun.frames))
            session.finish()
            if number:
                shown[-2].result()
        shown[-1].result()
    return (time.perf_counter() - start) * 1000 / clips


def profiled(session: Session, device: torch.device) -> dict[str, list[dict[str, Any]]]:
    """What takes longest per clip: kernels on the device, and what the host is busy with."""
    if device.type != "cuda":
        return {"kernels": [], "host": []}
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profile:
        play(session, PROFILED_CLIPS, lambda *_: None)
        torch.cuda.synchronize()
    events = list(profile.key_averages())
    return {
        "kernels": _rows(events, "self_device_time_total"),
        "host": _rows(events, "self_cpu_time_total")[:HOST_ROWS],
    }


def _rows(events: list[Any], time_us: str) -> list[dict[str, Any]]:
    """Names, calls and milliseconds per clip, the longest first."""
    busy = sorted((e for e in events if getattr(e, time_us) > 0), key=lambda e: -getattr(e, time_us))
    return [
        {
            "name": event.key[:NAME_LENGTH],
            "calls": event.count / PROFILED_CLIPS,
            "ms": round(getattr(event, time_us) / 1000 / PROFILED_CLIPS, 3),
        }
        for event in busy
    ]


def main() -> int:
    """Prints the three tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--preset", default="5b-720p")
    add("--device", default="auto")
    add("--random-weights", action="store_true")
    add("--vae-pruning", type=float)
    add("--plan")
    add("--attention")
    add("--precision", default="auto")
    add("--attention-8bit", action="store_true")
    add("--clips", type=int, default=6, help="timed clips after everything has settled (default: 6)")
    add("--json", type=Path)
    args = parser.parse_args()
    begun = time.perf_counter()
    world = World.load(
        args.preset,
        args.device,
        args.precision,
        speed=Speed(attention_8bit=args.attention_8bit),
        weights="random" if args.random_weights else None,
        attention=args.attention,
        vae_pruning=args.vae_pruning,
    )
    result = measure(world, args.plan, args.clips, begun)
    result |= {"arguments": vars(args) | {"json": None}, "commit": commit()}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    show(result)
    return 0


def measure(world: World, plan: str | None, clips: int, begun: float) -> dict[str, Any]:
    """Plays until everything has settled, then a few clips, then some in a profile."""
    chosen = world.config.plan(plan)
    settling = Speed().on(world.device).facts["settling_clips"]
    era = world.config.rolling_latents if world.config.dit.attention == "rolling" else 0
    warm = -(-(chosen.past + chosen.memory + era) // chosen.new) + 1 + settling
    pixels = np.random.default_rng(0).integers(0, 255, (world.config.height, world.config.width, 3), np.uint8)
    session = world.session(plan)
    loaded_s = time.perf_counter() - begun
    session.reset(image=pixels)
    watch, stages, whole, settling_ms = Watch(world), defaultdict(list), [], []
    play(session, warm, lambda _, __, ms: settling_ms.append(round(ms, 1)))
    watch.calls.clear()

    def note(_: int, timings_ms: dict[str, float], clip_ms: float) -> None:
        whole.append(round(clip_ms, 2))
        for stage, ms in timings_ms.items():
            stages[stage].append(round(ms, 2))

    play(session, clips, note)
    watch.stop()
    return {
        "loaded_s": round(loaded_s, 1),
        "settling_ms": settling_ms,
        "clips_ms": whole,
        "overlapped_ms": round(overlapped_ms(session, clips), 2),
        "stages_ms": dict(stages),
        "functions_ms": {name: [round(ms, 2) for ms in times] for name, times in watch.calls.items()},
        "recordings": {name: each.recordings for name, each in watch.graphs.items()},
        **profiled(session, world.device),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if world.device.type == "cuda"
        else None,
    }


def show(result: dict[str, Any]) -> None:
    """For people."""
    out = sys.stdout
    out.write(
        f"loaded {result['loaded_s']} s, settling {result['settling_ms']}\nclips {result['clips_ms']}\n"
        f"overlapped {result['overlapped_ms']} ms a clip\n"
    )
    for name, times in (result["stages_ms"] | result["functions_ms"]).items():
        out.write(f"{name:<24} {len(times):>4} calls, mean {sum(times) / len(times):8.2f} ms  {times[:8]}\n")
    out.write(f"recorded as graphs: {result['recordings']}\n")
    total = sum(row["ms"] for row in result["kernels"])
    out.write(f"kernels {total:.1f} ms per clip, peak {result['peak_memory_gib']} GiB\n")
    for row in [*result["host"], *result["kernels"][:KERNELS_SHOWN]]:
        out.write(f"{row['ms']:9.3f} ms {row['calls']:7.1f} x  {row['name']}\n")


if __name__ == "__main__":
    raise SystemExit(main())
