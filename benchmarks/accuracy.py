"""How far each backend and precision is from float32, on real activations of the shipped world.

    python benchmarks/accuracy.py --json accuracy.json        # on the GPU if there is one

A walk with `tiny` in float32, uncompiled, gives the conditions, the context and the noise of a steady clip.
Every other form computes that clip: `step` compares the velocity of its first step, `clip` the finished
latents, by ||ours - reference|| / ||reference||. A form that fails is reported as failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldwire.inputs import Inputs
from worldwire_runtime.benchmark import commit
from worldwire_runtime.graphs import WARM_CALLS
from worldwire_runtime.machine import pick_device
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.model.sampler import Solver
from worldwire_runtime.parity.common import relative_error
from worldwire_runtime.speed import Speed
from worldwire_runtime.world import World

CLIPS = 10
FIRST_TIMESTEP = 1000.0
PLAIN = Speed(compiled=False, graphs=False)
COMPILED = Speed(compiled=True, graphs=False)


class Clip(NamedTuple):
    """What a clip is computed from: the arguments of `Denoiser.sample`."""

    conditions: ClipConditions
    context: Tensor
    noise: Tensor
    solver: Solver

    def to(self, dtype: torch.dtype) -> Clip:
        """The same told in another type."""
        told = {
            item.name: _cast(getattr(self.conditions, item.name), dtype)
            for item in dataclasses.fields(self.conditions)
        }
        return self._replace(conditions=ClipConditions(**told))


def forms(device: torch.device) -> dict[str, tuple[str, Speed]]:
    """Precision and speed by name."""
    wanted = {
        f"{precision}{', 8-bit attention' * attention_8bit}": (
            precision,
            dataclasses.replace(PLAIN, attention_8bit=attention_8bit),
        )
        for precision in ("bfloat16", "int8-attention", "int8", "fp8")
        for attention_8bit in (False, True)
    }
    wanted["float32, 8-bit attention"] = ("float32", dataclasses.replace(PLAIN, attention_8bit=True))
    if device.type != "cuda":
        return wanted
    # What worlds play with comes first: time may run out.
    played = {"float32, compiled": ("float32", COMPILED)}
    for precision in ("float32", "bfloat16", "int8", "fp8"):
        played[f"{precision}, compiled, graphs"] = (precision, Speed())
    played["int8, 8-bit attention, compiled, graphs"] = ("int8", Speed(attention_8bit=True))
    return played | wanted


def recorded_clip(world: World) -> Clip:
    """The last clip of a short walk."""
    noted: list[Clip] = []
    sample = world.denoiser.sample

    def noting(*args: Any) -> Tensor:
        noted.append(Clip(*args))
        return sample(*args)

    world.denoiser.sample = noting  # type: ignore[method-assign]
    session = world.session()
    session.reset(seed=0)
    for clip in range(CLIPS):
        session.step(Inputs(frozenset({"forward"}), yaw_deg=2.0 * (-1) ** clip))
    world.denoiser.sample = sample  # type: ignore[method-assign]
    return noted[-1]


@torch.inference_mode()
def compute(world: World, clip: Clip) -> tuple[Tensor, Tensor]:
    """The first velocity and the finished latents; what compiles or is recorded has been, afterwards."""
    told = clip.to(world.dtype)
    fast = world.speed.compiled or world.speed.graphs
    for _ in range(WARM_CALLS + 1 if fast else 0):
        world.denoiser.sample(*told)
        world.denoiser.velocity(told.conditions, told.context)
    velocity = world.denoiser.velocity(told.conditions, told.context)(clip.noise, FIRST_TIMESTEP)
    return velocity, world.denoiser.sample(*told)


def compare(
    name: str, form: tuple[str, Speed], device: torch.device, clip: Clip, wanted: tuple[Tensor, Tensor]
) -> dict[str, Any]:
    """One line of the table."""
    try:
        got = compute(World.load("tiny", str(device), form[0], speed=form[1]), clip)
    except Exception as failure:  # one form that cannot run must not lose the others
        return {"form": name, "failed": "".join(traceback.format_exception_only(failure)).strip()[:500]}
    step, whole = (relative_error(ours, theirs) for ours, theirs in zip(got, wanted, strict=True))
    return {"form": name, "step": round(step, 7), "clip": round(whole, 7)}


def main() -> int:
    """Prints the table and writes the JSON; exit status 1 if a form failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="F", help="write the figures there, after every form")
    args = parser.parse_args()
    device = pick_device(args.device)
    reference = World.load("tiny", str(device), "float32", speed=PLAIN)
    clip = recorded_clip(reference)
    wanted, rows = compute(reference, clip), []
    facts = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "world": "tiny",
        "clip": f"{clip.context.shape[2]} latents of context, {clip.noise.shape[2]} new",
        "commit": commit(),
    }
    for name, form in forms(device).items():
        rows.append(compare(name, form, device, clip, wanted))
        sys.stdout.write("  ".join(f"{key} {value}" for key, value in rows[-1].items()) + "\n")
        sys.stdout.flush()
        if args.json is not None:
            args.json.write_text(json.dumps(facts | {"forms": rows}, indent=2) + "\n")
    return 1 if any("failed" in row for row in rows) else 0


def _cast(value: Any, dtype: torch.dtype) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if floating else value


if __name__ == "__main__":
    raise SystemExit(main())
