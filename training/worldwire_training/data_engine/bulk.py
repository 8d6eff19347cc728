"""Renders many episodes with several processes into plain arrays, for training beside a graphics card.

    python -m worldwire_training.data_engine.bulk --episodes 4096 --workers 14 --out /dev/shm/episodes

Every worker writes `worker-KK.frames.npy` (u8 [n, F, H, W, 3]), `.keys.npy`, `.look.npy`, `.c2w.npy`, and,
when it has finished, `.json` (prompts, views, kinds, times of day, seeds). `worldwire data generate` writes
the format to keep.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

log = logging.getLogger(__name__)
LISTED = ("prompt", "view", "kind", "time_of_day", "scene_seed", "policy")


@dataclass(frozen=True)
class BulkJob:
    """What one worker renders: the episodes of `seeds`."""

    worker: int
    seeds: range
    frames: int
    height: int
    width: int
    samples: int
    view: str | None
    out: Path


def run_worker(job: BulkJob) -> float:
    """Renders a worker's episodes; returns the seconds that it took after its renderer was up."""
    from worldwire_training.data_engine.episode import record_episode
    from worldwire_training.data_engine.renderer import Renderer

    renderer = Renderer(job.height, job.width, job.samples)
    stem, count, f = job.out / f"worker-{job.worker:02d}", len(job.seeds), job.frames

    def array(name: str, dtype: type, shape: tuple[int, ...]) -> np.memmap:
        return np.lib.format.open_memmap(f"{stem}.{name}.npy", "w+", np.dtype(dtype), (count, f, *shape))

    frames = array("frames", np.uint8, (job.height, job.width, 3))
    keys, look = array("keys", np.bool_, (6,)), array("look", np.float32, (2,))
    c2w = array("c2w", np.float64, (4, 4))
    listed, start = [], time.perf_counter()
    for row, seed in enumerate(job.seeds):
        episode = record_episode(renderer, seed, f, job.view)
        frames[row], keys[row], look[row], c2w[row] = (
            episode.frames,
            episode.keys,
            episode.look_deg,
            episode.c2w,
        )
        listed.append({name: getattr(episode, name) for name in LISTED})
    seconds = time.perf_counter() - start
    Path(f"{stem}.json").write_text(json.dumps({"frames": f, "episodes": listed}))
    return seconds


def generate(
    out: Path,
    episodes: int,
    frames: int,
    workers: int,
    *,
    first_seed: int = 0,
    size: tuple[int, int] = (192, 320),
    samples: int = 4,
    view: str | None = None,
) -> float:
    """Renders the episodes of seeds from first_seed on; returns frames per second overall."""
    out.mkdir(parents=True, exist_ok=True)
    edges = np.linspace(first_seed, first_seed + episodes, workers + 1).astype(int)
    jobs = [
        BulkJob(k, range(a, b), frames, *size, samples, view, out)
        for k, (a, b) in enumerate(itertools.pairwise(edges))
        if b > a
    ]
    start = time.perf_counter()
    # spawn: an OpenGL context or CUDA does not survive a fork
    with multiprocessing.get_context("spawn").Pool(len(jobs)) as pool:
        for seconds, job in zip(pool.imap(run_worker, jobs), jobs, strict=True):
            log.info("worker %d: %.0f frames/s", job.worker, len(job.seeds) * frames / seconds)
    return episodes * frames / (time.perf_counter() - start)


def main() -> None:
    """Command line of the module."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--frames", type=int, default=161)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(192, 320), metavar=("H", "W"))
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--view", choices=("first", "third"))
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rate = generate(
        args.out,
        args.episodes,
        args.frames,
        args.workers,
        first_seed=args.first_seed,
        size=tuple(args.size),
        samples=args.samples,
        view=args.view,
    )
    log.info("%d episodes of %d frames: %.0f frames/s overall", args.episodes, args.frames, rate)


if __name__ == "__main__":
    main()
