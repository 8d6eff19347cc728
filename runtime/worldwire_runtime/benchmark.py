"""What a player gets: frames per second, milliseconds by stage, latency and start, all over the wire.

`local_server` starts a real server process, `measure` plays in it as a live client does. Nothing is measured
from inside: a frame counts when the client has it. Stages may overlap: on a GPU the frames of one clip are
decoded while the next one is prepared, so that a clip takes less time than the sum of its stages.
"""

from __future__ import annotations

import logging
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, WorldInfo
from worldwire.client import Client, RemoteSession
from worldwire.errors import ConnectionLostError, MachineError, WorldwireError
from worldwire_runtime.gpu_watch import watched

log = logging.getLogger(__name__)

STAGES: Final = ("camera", "memory", "denoise", "decode", "encode", "transport")
TOLD: Final = (
    "threads",
    "attention",
    "precision",
    "speed",
    "vae_pruning",
    "steps",
    "weights",
    "estimated_memory_gib",
)
"""What a record takes from what the server says of its world."""
PERCENTILES: Final = (50, 95, 99)
LEAST_WARM_UP_CLIPS: Final = 8
CACHES: Final = {"WORLDWIRE_CACHE": "", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
"""Where compiled and measured things are kept: variables, and the places under one folder."""
DEFAULT_CLIPS: Final = 20
DEFAULT_SAMPLES: Final = 30
PATIENCE_S: Final = 300.0
"""How long a single frame may take, compilation included."""
START_TIMEOUT_S: Final = 600.0
GUARDED: Final = "worldwire.viewer.guarded"
"""Runs a verb until its standard input ends."""
LAST_WORDS: Final = 3000
"""Characters of a server's log that are shown when something went wrong."""
COMMIT_VARIABLE: Final = "WORLDWIRE_COMMIT"
TOGGLED_KEY: Final = "forward"
PLAYED_YAW_DEG: Final = 1.0

Progress = Callable[[str, int, int], None]


@dataclass
class Measurement:
    """What one run showed. frames_per_second: pictures received a second; stages_ms: mean of a clip.

    first_frame_s: from the wish to play to the first picture. settled_s: from there until clips take the time
    that they go on taking. gpu: means over the timed clips (`gpu_watch`).
    """

    frames_per_second: float = 0.0
    stages_ms: dict[str, float] = field(default_factory=dict)
    action_to_photon_ms: list[float] = field(default_factory=list)
    first_frame_s: float = 0.0
    settled_s: float = 0.0
    gpu: dict[str, float] = field(default_factory=dict)


@contextmanager
def local_server(options: Sequence[str], caches: Path | None = None) -> Iterator[tuple[str, float]]:
    """A `worldwire serve` process with these options: its address, and the seconds until it was ready.

    It ends with this process, however that ends: a killed benchmark leaves no server that holds a GPU.

    caches: a folder for what it compiles and measures (default: the user's).
    Raises MachineError with the last words of a server that did not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready, words = Path(folder) / "ready", Path(folder) / "log"
        command = [sys.executable, "-m", GUARDED, "serve", "--bind", "tcp://127.0.0.1:0"]
        begun = time.monotonic()
        with words.open("w") as written:
            process = subprocess.Popen(
                [*command, "--ready-file", str(ready), *options],
                stdin=subprocess.PIPE,
                stdout=written,
                stderr=written,
                env=dict(os.environ) | _cache_variables(caches),
            )
        try:
            while not ready.exists():
                if process.poll() is not None or time.monotonic() - begun > START_TIMEOUT_S:
                    raise MachineError("the server did not start", got=_end_of(words))
                time.sleep(0.01)
            try:
                yield ready.read_text(), time.monotonic() - begun
            except WorldwireError:
                log.error("the server said last:\n%s", _end_of(words))
                raise
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_of(words: Path) -> str:
    return words.read_text(errors="replace").strip()[-LAST_WORDS:]


def _cache_variables(folder: Path | None) -> dict[str, str]:
    return {} if folder is None else {name: str(folder / place) for name, place in CACHES.items()}


def warm_up_clips(info: WorldInfo) -> int:
    """Clips until past and memory are full and whatever is compiled or recorded has been.

    Under rolling attention a second era has begun by then: the first clip of one is compiled apart.
    """
    plan, era = info.extra.get("clip_plan"), int(info.extra.get("era_latents") or 0)
    latents = era + plan["past"] + plan["memory"] if isinstance(plan, Mapping) else 0
    filling = math.ceil(latents / plan["new"]) if isinstance(plan, Mapping) else 0
    speed = info.extra.get("speed")
    settling = int(speed["settling_clips"]) if isinstance(speed, Mapping) else 0
    return max(LEAST_WARM_UP_CLIPS, filling + 1 + settling)


def measure(
    client: Client,
    *,
    plan: str | None = None,
    clips: int = DEFAULT_CLIPS,
    samples: int = DEFAULT_SAMPLES,
    warm_up: int | None = None,
    gpu: int | None = None,
    progress: Progress = lambda *_: None,
    seed: int = 0,
) -> Measurement:
    """Plays live: first for speed, then toggling a key at moments uniform over a clip for the latency.

    warm_up: clips before that (default: `warm_up_clips`). gpu: the one to watch meanwhile, None: none.
    """
    warm_up = warm_up_clips(client.info) if warm_up is None else warm_up
    wished = time.perf_counter()
    with client.session(plan=plan) as session:
        session.reset(image=None if client.info.seed_images else _picture(client.info), seed=seed)
        first_frame_s = time.perf_counter() - wished
        later = client.info.frames_per_step
        before = [session.frames_per_step] + [later] * (warm_up - 1)  # a first clip may be longer
        session.start()
        _watch(session, before, lambda done: progress("warm-up", done, warm_up))
        with watched(gpu) as seen:
            begun = time.perf_counter()
            frames = _watch(session, [later] * clips, lambda done: progress("speed", done, clips))
            elapsed_s = time.perf_counter() - begun
        result = Measurement(
            frames_per_second=len(frames) / max(elapsed_s, sys.float_info.min),
            stages_ms=stage_means_ms(frames, clips),
            first_frame_s=first_frame_s,
            settled_s=begun - wished - first_frame_s,
            gpu=seen,
        )
        rng, clip_s = random.Random(seed), elapsed_s / max(1, clips)
        for number in range(samples):
            progress("latency", number, samples)
            latency_ms = _toggle(session, rng.uniform(0, clip_s), held=number % 2 == 1)
            result.action_to_photon_ms.append(latency_ms)
        progress("latency", samples, samples)
    return result


def _picture(info: WorldInfo) -> NDArray[np.uint8]:
    """A start picture for a world that ships none: speed does not depend on it."""
    return np.random.default_rng(0).integers(0, 255, (info.height, info.width, 3), dtype=np.uint8)


def _watch(session: RemoteSession, clips: Sequence[int], report: Callable[[int], None]) -> list[Frame]:
    """The frames of clips of so many frames each; the player walks and looks around meanwhile."""
    seen: list[Frame] = []
    for done, wanted in enumerate(clips):
        report(done)
        session.send_input({TOGGLED_KEY}, yaw_deg=PLAYED_YAW_DEG * (-1) ** done)
        clip: list[Frame] = []
        while len(clip) < wanted:
            clip += _poll(session, PATIENCE_S, limit=wanted - len(clip))
        seen += clip
    report(len(clips))
    return seen


def _toggle(session: RemoteSession, wait_s: float, held: bool) -> float:
    """Milliseconds from a change of the key, `wait_s` from now, to the first frame received that shows it."""
    moment = time.perf_counter() + wait_s
    while (left_s := moment - time.perf_counter()) > 0:
        session.poll_frames(timeout_s=left_s)
    pressed = time.perf_counter()
    seq = session.send_input({TOGGLED_KEY} if held else ())
    while not any(frame.ack >= seq for frame in _poll(session, PATIENCE_S)):
        pass
    return (time.perf_counter() - pressed) * 1000


def _poll(session: RemoteSession, timeout_s: float, limit: int | None = None) -> list[Frame]:
    frames = session.poll_frames(timeout_s, limit)
    if not frames:
        raise ConnectionLostError(f"no frame came in {timeout_s:g} s", remedy="look at the server's log")
    return frames


def stage_means_ms(frames: Sequence[Frame], clips: int) -> dict[str, float]:
    """Milliseconds that each stage takes in a clip, on average."""
    sums = {stage: sum(frame.timings_ms.get(stage, 0.0) for frame in frames) for stage in STAGES}
    return {stage: total / max(1, clips) for stage, total in sums.items()}


def start_facts(measurement: Measurement, startup_s: float) -> dict[str, float]:
    """Seconds from the start of the process until the server is ready, shows a picture, and has settled."""
    first = startup_s + measurement.first_frame_s
    return {
        "startup_s": round(startup_s, 2),
        "first_frame_s": round(first, 2),
        "settled_s": round(first + measurement.settled_s, 2),
    }


def report(
    measurement: Measurement,
    info: WorldInfo,
    startup_s: float,
    peak_memory_gib: float,
    preset: str,
    cold: dict[str, float] | None = None,
) -> dict[str, Any]:
    """The JSON of `worldwire bench`. What was not measured, or the server does not tell of itself, is null.

    cold: `start_facts` of a server that found nothing compiled.
    """
    latencies = np.percentile(measurement.action_to_photon_ms or [math.nan], PERCENTILES)
    told = {name: info.extra.get(name) for name in TOLD}
    return {
        "fps": round(measurement.frames_per_second, 3),
        "stages_ms": {stage: round(value, 3) for stage, value in measurement.stages_ms.items()},
        "action_to_photon_ms": {
            f"p{percent}": None if math.isnan(value) else round(float(value), 1)
            for percent, value in zip(PERCENTILES, latencies, strict=True)
        },
        **start_facts(measurement, startup_s),
        "cold": cold,
        "peak_memory_gib": round(peak_memory_gib, 3),
        "device": info.extra.get("device"),
        "gpus": info.extra.get("gpus"),
        "gpu": measurement.gpu or None,
        "preset": preset,
        "resolution": f"{info.height}x{info.width}",
        "clip_plan": info.extra.get("clip_plan"),
        **told,
        "commit": commit(),
    }


def commit() -> str | None:
    """What `$WORLDWIRE_COMMIT` says, else the commit of the checkout that runs ("-dirty": it was changed).

    None outside a checkout.
    """
    if told := os.environ.get(COMMIT_VARIABLE):
        return told
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


def table(result: dict[str, Any]) -> str:
    """The same for people."""
    stages = "  ".join(f"{stage} {value:.1f}" for stage, value in result["stages_ms"].items())
    photon = "  ".join(
        f"{name} {value:.0f}" for name, value in result["action_to_photon_ms"].items() if value is not None
    )
    rows = {
        "preset": f"{result['preset']}, {result['resolution']}, {result['steps']} steps",
        "clip plan, latents": "  ".join(
            f"{name} {count}" for name, count in (result["clip_plan"] or {}).items()
        ),
        "device": f"{result['device']}, {result['precision']}, attention {result['attention']}",
        "frames per second": f"{result['fps']:.2f}",
        "ms per clip": stages,
        "action to photon, ms": photon,
        "start": _start_words(result),
        "peak memory": f"{result['peak_memory_gib']:.2f} GiB",
        "commit": result["commit"] or "not in a checkout",
    }
    if result["gpu"]:
        rows["GPU while timed"] = "  ".join(f"{name} {value:g}" for name, value in result["gpu"].items())
    if result["cold"] is not None:
        rows["start, nothing compiled"] = _start_words(result["cold"])
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()) + "\n"


def _start_words(facts: Mapping[str, Any]) -> str:
    return (
        f"ready {facts['startup_s']:.1f} s  first frame {facts['first_frame_s']:.1f} s  "
        f"settled {facts['settled_s']:.1f} s"
    )
