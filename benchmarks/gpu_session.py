"""Everything that has to be measured on a GPU, in parts of less than nine minutes.

    python benchmarks/gpu_session.py check --out records        # then: kernels joint cached low-latency ...
    python benchmarks/gpu_session.py all --out records --size smoke     # on a CPU: does it all run
    python benchmarks/gpu_session.py show --out records         # the tables of what is there

Runs in a bare checkout too: the three source roots are put on the path of what it starts. Each part is a list
of steps, commands of their own; one that fails or takes too long costs no other, and what the part has no
time left for is said so. PART.json holds every step's command, seconds, end of output and record; it is whole
after each step.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCES: Final = ("sdk", "runtime", "training")
BUDGET_S: Final = 530.0
LEAST_S: Final = 20.0
"""A step with less time than this is not begun."""
HEARTBEAT_S: Final = 20.0
KEPT_CHARACTERS: Final = 6000
RECORD: Final = "{json}"
"""Stands for the file into which a step writes its record."""

# Names as they run, for a step that is cut off; what cannot be collected costs no other test.
# Most of a test is compiling, which several processes do at once where pytest-xdist is there.
PYTEST: Final = (
    *("-m", "pytest", "-v", "--tb=short", "--continue-on-collection-errors"),
    *("-p", "no:cacheprovider"),
    *(("-n", "6") if importlib.util.find_spec("xdist") else ()),
)
RUNTIME_TESTS: Final = tuple(
    f"tests/test_{name}.py"
    for name in ("graphs", "lane", "rolling", "frustum", "frustum_kernel", "official_parity", "speed")
)
FRUSTUM_TESTS: Final = "tests/test_frustum_kernel.py"  # the kernel that a CPU interprets in a moment
KERNEL_TESTS: Final = ("tests/test_kernels.py", "tests/test_quantize.py")
BENCH: Final = ("-m", "worldwire", "bench", "--json", RECORD)
# Everything of a 720p world but how it is played; on a CPU the shipped world's sizes.
FULL_5B: Final = ("--preset", "5b-720p", "--random-weights", "--vae-pruning", "0.75")
FULL_28B: Final = ("--preset", "28b-moe", "--random-weights", "--vae-pruning", "0.75")
SMOKE: Final = ("--preset", "tiny", "--random-weights", "--device", "cpu")
INT8: Final = ("--precision", "int8")
SMALL_CARD_GIB: Final = 24


@dataclass(frozen=True)
class Step:
    """One command: what `python` is given. limit_s: the most that it may take."""

    name: str
    arguments: tuple[str, ...]
    limit_s: float = BUDGET_S


def check(smoke: bool) -> list[Step]:
    """Parity, and the tests of what plays."""
    device = "cpu" if smoke else "cuda"
    golden = ("models", "parity", "tests/golden", "--device", device, "--json", RECORD)
    plain = ("-k", "not roles and not without_a_gpu")
    return [
        Step("parity", ("-m", "worldwire", *golden), 160),
        *_not_in_smoke(smoke, Step("gpu tests", (*PYTEST, "-m", "gpu", *RUNTIME_TESTS), 250)),
        Step("kernel tests", (*PYTEST, *plain, *((FRUSTUM_TESTS,) if smoke else KERNEL_TESTS)), 120),
    ]


def accuracy(smoke: bool) -> list[Step]:
    """Every form's distance from float32."""
    device = "cpu" if smoke else "cuda"
    return [Step("accuracy", ("benchmarks/accuracy.py", "--device", device, "--json", RECORD))]


def check_more(smoke: bool) -> list[Step]:
    """Kernels with roles for warps, which may hang where they are wrong; everything else marked `gpu`."""
    if smoke:
        return [Step("kernel tests", (*PYTEST, FRUSTUM_TESTS), 180)]
    return [
        Step("specialised kernels", (*PYTEST, "-k", "roles", *KERNEL_TESTS), 120),
        Step("all gpu tests", (*PYTEST, "-m", "gpu", "tests"), 400),
    ]


def kernels(smoke: bool) -> list[Step]:
    """Each kernel and product alone, the memory's choice, the decoder at every pruning."""
    small = ("--small",) if smoke else ()
    own = () if smoke else (Step("kernels", ("benchmarks/kernels.py", "--json", RECORD), 290),)
    device = ("--device", "cpu") if smoke else ()
    return [
        Step("decoder", ("benchmarks/decoder.py", *small, *device, "--json", RECORD), 240),
        Step("retrieval", ("benchmarks/retrieval.py", *device, "--json", RECORD), 90),
        *own,
    ]


def joint(smoke: bool) -> list[Step]:
    """The paper's plan and attention."""
    return _by_arithmetic(smoke, "joint")


def cached(smoke: bool) -> list[Step]:
    """The paper's plan with the context's keys computed once per clip."""
    return _by_arithmetic(smoke, "cached")


def _by_arithmetic(smoke: bool, attention: str) -> list[Step]:
    plan = () if smoke else ("--samples", "0")  # forty frames at a time are not played for their latency
    base = (*BENCH, *_world(smoke), *_plan(smoke, "paper"), *plan, "--attention", attention, *INT8)
    return [
        Step(f"{attention} int8", base, 300),
        *_not_in_smoke(smoke, Step(f"{attention} int8, 8-bit attention", (*base, "--attention-8bit"), 300)),
    ]


def low_latency(smoke: bool) -> list[Step]:
    """One new latent at a time, keys and values rolling on; and two."""
    base = (*BENCH, *_world(smoke), "--attention", "rolling", *INT8)
    return [
        Step("rolling, 1 latent", (*base, *_plan(smoke, "low-latency")), 300),
        *_not_in_smoke(
            smoke,
            Step("rolling, 2 latents", (*base, "--plan", "low-latency-2"), 300),
        ),
    ]


def ablate(smoke: bool) -> list[Step]:
    """What the paper takes away."""
    return _ablation(smoke, "no-8bit-linears", "full-vae", "cpu-retrieval")


def ablate_more(smoke: bool) -> list[Step]:
    """What we have beyond the paper."""
    return _ablation(smoke, "no-graphs", "no-overlap", "no-compile", "joint", "16-bit-attention")


def _ablation(smoke: bool, *variants: str) -> list[Step]:
    best = (*_world(smoke), *_plan(smoke, "paper"), "--attention", "cached", *INT8)
    if not smoke:
        best = (*best, "--attention-8bit")
    return [Step("ablation", (*BENCH, "--ablate", *best, "--only", *variants))]


def cold(smoke: bool) -> list[Step]:
    """How long a first start takes, with nothing compiled, and a second one."""
    base = (*BENCH, *_world(smoke), "--plan", "low-latency", "--attention", "rolling", *INT8)
    return [Step("cold and warm start", (*base, "--cold", "--samples", "0"))]


def moe(smoke: bool) -> list[Step]:
    """A 720p clip of the 28B mixture of experts, all on one GPU."""
    return [Step("28B", _moe(smoke), 500)]


def moe_offload(smoke: bool) -> list[Step]:
    """The same with the resting expert away; pinning its weights alone takes a while."""
    return [Step("28B, experts offloaded", (*_moe(smoke), *(() if smoke else ("--offload",))), 520)]


def _moe(smoke: bool) -> tuple[str, ...]:
    return (*BENCH, *(SMOKE if smoke else FULL_28B), *INT8, *_plan(smoke, "paper"), "--samples", "0")


def small_card(smoke: bool) -> list[Step]:
    """The 5B world in the memory of a small card, the text encoder in the main memory."""
    limit = () if smoke else ("--text-on", "cpu", "--gpu-memory", str(SMALL_CARD_GIB))
    base = (*BENCH, *_world(smoke), *INT8, "--plan", "low-latency", "--attention", "rolling", *limit)
    return [Step(f"{SMALL_CARD_GIB} GiB", (*base, "--samples", "0"), 400)]


PARTS: Final[dict[str, Callable[[bool], list[Step]]]] = {
    "check": check,
    "check-more": check_more,
    "accuracy": accuracy,
    "joint": joint,
    "cached": cached,
    "low-latency": low_latency,
    "ablate": ablate,
    "ablate-more": ablate_more,
    "kernels": kernels,
    "moe": moe,
    "moe-offload": moe_offload,
    "small-card": small_card,
    "cold": cold,
}


def _world(smoke: bool) -> tuple[str, ...]:
    return SMOKE if smoke else FULL_5B


def _plan(smoke: bool, name: str) -> tuple[str, ...]:
    return ("--plan", "low-latency", "--samples", "0") if smoke else ("--plan", name)


def _not_in_smoke(smoke: bool, *steps: Step) -> tuple[Step, ...]:
    """On a CPU, where the arithmetic of GPUs is spelt out slowly, one step of a kind is enough."""
    return () if smoke else steps


# ---------------------------------------------------------------------- running


def run_part(name: str, steps: list[Step], out: Path, budget_s: float) -> bool:
    """Runs the steps one after another; True if all went well."""
    begun, results = time.monotonic(), []
    for step in steps:
        left_s = budget_s - (time.monotonic() - begun)
        say(f"\n=== {name}: {step.name} ({left_s:.0f} s left)")
        if left_s < LEAST_S:
            results.append({"step": step.name, "status": "no time left", "command": line_of(step)})
        else:
            results.append(run_step(step, min(step.limit_s, left_s)))
        say(f"=== {name}: {step.name}: {results[-1]['status']}")
        (out / f"{name}.json").write_text(json.dumps({"part": name, "steps": results}, indent=1) + "\n")
    return all(result["status"] == "ok" for result in results)


def run_step(step: Step, limit_s: float) -> dict[str, Any]:
    """Runs one command, its output passed on as it comes; what it wrote, and how it ended."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "record.json"
        arguments = [str(record) if word == RECORD else word for word in step.arguments]
        say(f"$ {line_of(step)}")
        status, words = passed_on([sys.executable, *arguments], limit_s)
        found = _whole(record)
    return {
        "step": step.name,
        "status": status,
        "seconds": round(time.monotonic() - begun, 1),
        "command": line_of(step),
        "record": found,
        "output": words[-KEPT_CHARACTERS:],
    }


def _whole(record: Path) -> Any:
    """What a step wrote; None where there is nothing, or half of it as its process was ended."""
    try:
        return json.loads(record.read_text())
    except (OSError, ValueError):
        return None


def passed_on(command: list[str], limit_s: float) -> tuple[str, str]:
    """How a command ended, and what it said; prints that, and a sign of life in its silences."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(process, limit_s, over, lines), daemon=True)
    watch.start()
    for line in process.stdout:
        lines.append(line)
        sys.stdout.write(line)
        sys.stdout.flush()
    code = process.wait()
    late = over.is_set()
    over.set()
    watch.join()
    status = f"took more than {limit_s:.0f} s" if late else "ok" if code == 0 else f"exit status {code}"
    return status, "".join(lines)


def _watch(process: subprocess.Popen[str], limit_s: float, over: threading.Event, lines: list[str]) -> None:
    """Ends a process that takes too long, and the servers that it had started."""
    begun, heard, said = time.monotonic(), 0, time.monotonic()
    while process.poll() is None and not over.wait(0.5):
        now = time.monotonic()
        if now - begun > limit_s:
            over.set()
            os.killpg(process.pid, signal.SIGKILL)
        elif len(lines) > heard:
            heard, said = len(lines), now
        elif now - said > HEARTBEAT_S:
            said = now
            say(f"    ... {now - begun:.0f} s")


def environment() -> dict[str, str]:
    """Ours, with the checkout's packages to be found."""
    paths = [str(ROOT / source) for source in SOURCES] + [str(ROOT / "benchmarks")]
    before = os.environ.get("PYTHONPATH")
    joined = os.pathsep.join(paths + ([before] if before else []))
    return dict(os.environ) | {"PYTHONPATH": joined, "PYTHONUNBUFFERED": "1"}


def line_of(step: Step) -> str:
    """The exact line to run it alone."""
    words = ["record.json" if word == RECORD else word for word in step.arguments]
    return " ".join(["python3", *(f"'{word}'" if " " in word else word for word in words)])


# ---------------------------------------------------------------------- showing


def show(out: Path) -> None:
    """One line per step that has a record of `worldwire bench`; the tables of the others are their output."""
    say(f"{'part':<12} {'step':<42} {'frames/s':>8} {'p95 ms':>7} {'GiB':>6}  status")
    for path in sorted(out.glob("*.json")):
        found = json.loads(path.read_text())
        if "part" not in found:  # a record of its own, made by hand
            continue
        for result in found["steps"]:
            record = result.get("record") or {}
            fps = record.get("fps")
            p95 = (record.get("action_to_photon_ms") or {}).get("p95")
            cells = [f"{value:.2f}" if value is not None else "" for value in (fps, p95)]
            gib = f"{record['peak_memory_gib']:.1f}" if "peak_memory_gib" in record else ""
            figures = f"{cells[0]:>8} {cells[1]:>7} {gib:>6}"
            say(f"{path.stem:<12} {result['step']:<42} {figures}  {result['status']}")


def say(text: str) -> None:
    """Progress for people."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Exit status 1 if a step failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=(*PARTS, "all", "show"), metavar="PART", help=_names())
    parser.add_argument("--out", type=Path, required=True, help="folder for the records")
    parser.add_argument("--size", choices=("full", "smoke"), default="full", help="smoke: on a CPU, small")
    parser.add_argument("--budget", type=float, default=BUDGET_S, metavar="S", help="for all parts together")
    parser.add_argument("--dry-run", action="store_true", help="print the exact commands and end")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.parts == ["show"]:
        show(args.out)
        return 0
    smoke, good = args.size == "smoke", True
    begun = time.monotonic()
    for name in PARTS if "all" in args.parts else args.parts:
        steps = PARTS[name](smoke)
        if args.dry_run:
            say("\n".join([f"# {name}", *map(line_of, steps)]))
            continue
        good &= run_part(name, steps, args.out, args.budget - (time.monotonic() - begun))
    if not args.dry_run:
        show(args.out)
    return 0 if good else 1


def _names() -> str:
    return ", ".join((*PARTS, "all", "show"))


if __name__ == "__main__":
    raise SystemExit(main())
