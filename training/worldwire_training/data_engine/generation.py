"""Generating a data set: shards by several processes, resumable after a stop at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from worldwire.errors import ConfigError, MachineError
from worldwire_training.data_engine.episode import Episode
from worldwire_training.data_engine.shards import FORMAT_VERSION, write_shard

MANIFEST = "manifest.json"
PARTIAL_GLOB = ".*.partial"


@dataclass(frozen=True)
class GenerationPlan:
    """What a data set holds: the episodes of `scenes` seeds from first_seed on.

    view, kind, time_of_day: drawn for each seed if None. height, width: pixels.
    """

    scenes: int
    frames: int = 161
    first_seed: int = 0
    view: str | None = None
    kind: str | None = None
    time_of_day: str | None = None
    height: int = 192
    width: int = 320
    samples: int = 4
    per_shard: int = 16
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if min(self.scenes, self.frames, self.per_shard) < 1 or self.first_seed < 0:
            raise ConfigError(
                "a data set needs scenes, frames and a shard size of at least 1, and a seed of at least 0",
                got=f"{self.scenes}, {self.frames}, {self.per_shard}, {self.first_seed}",
            )

    def shards(self) -> list[range]:
        """The seeds of every shard."""
        end = self.first_seed + self.scenes
        return [range(a, min(a + self.per_shard, end)) for a in range(self.first_seed, end, self.per_shard)]


def generate(plan: GenerationPlan, out: Path, workers: int = 1) -> int:
    """Makes the shards of a plan that `out` lacks, with a progress bar; returns how many it made.

    A shard that is there is whole and is kept. Raises ConfigError when `out` holds another plan's data, and
    MachineError when a worker dies (what is done stays; run again to go on).
    """
    out.mkdir(parents=True, exist_ok=True)
    _agree(plan, out)
    for stale in out.glob(PARTIAL_GLOB):
        stale.unlink()
    missing = [seeds for seeds in plan.shards() if not shard_path(out, seeds).exists()]
    done = plan.scenes - sum(len(seeds) for seeds in missing)
    with tqdm(total=plan.scenes, initial=done, unit="episode", desc=str(out)) as bar:
        if workers <= 1:
            for seeds in missing:
                _make_shard(plan, out, seeds, bar)
        elif missing:
            _make_in_parallel(plan, out, missing, workers, bar)
    return len(missing)


def shard_path(out: Path, seeds: range) -> Path:
    """The shard of these seeds."""
    return out / f"seeds-{seeds.start:08d}-{seeds.stop:08d}.tar"


def _agree(plan: GenerationPlan, out: Path) -> None:
    """Writes down the plan of a new folder; refuses a folder with another one."""
    path, wanted = out / MANIFEST, asdict(plan)
    if not path.exists():
        scratch = path.with_name(f".{MANIFEST}.{os.getpid()}.partial")
        scratch.write_text(json.dumps(wanted, indent=1))
        os.replace(scratch, path)
        return
    try:
        there = json.loads(path.read_text())
    except ValueError:
        there = {"manifest": "unreadable"}
    other = {name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name)}
    if other:
        raise ConfigError(
            f"{out} holds other data",
            expected=", ".join(f"{name} {there.get(name)}" for name in sorted(other)),
            got=", ".join(f"{name} {wanted.get(name)}" for name in sorted(other)),
            remedy="repeat the options of the first run to go on with it, or choose another --out",
        )


def _make_shard(plan: GenerationPlan, out: Path, seeds: range, bar: tqdm | None = None) -> int:
    write_shard(shard_path(out, seeds), _episodes(plan, seeds, bar))
    return len(seeds)


def _episodes(plan: GenerationPlan, seeds: range, bar: tqdm | None) -> Iterator[tuple[str, Episode]]:
    from worldwire_training.data_engine.episode import record_episode
    from worldwire_training.data_engine.renderer import Renderer

    renderer = Renderer(plan.height, plan.width, plan.samples)
    try:
        for seed in seeds:
            yield (
                f"{seed:08d}",
                record_episode(renderer, seed, plan.frames, plan.view, plan.kind, plan.time_of_day),
            )
            if bar is not None:
                bar.update()
    finally:
        renderer.close()


def _make_in_parallel(plan: GenerationPlan, out: Path, missing: list[range], workers: int, bar: tqdm) -> None:
    # spawn: an OpenGL context does not survive a fork
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
        made = [pool.submit(_make_shard, plan, out, seeds) for seeds in missing]
        try:
            for shard in as_completed(made):
                bar.update(shard.result())
        except BrokenProcessPool as error:
            raise MachineError(
                "a worker process died (out of memory, or killed)",
                remedy="run the same command again: finished shards are kept; use fewer --workers",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)
