"""A sharded run of some steps on CPUs: torchrun --nproc-per-node 2 sharded_run.py OUT STEPS [resume] [key=N]

Writes no world; the losses are in OUT/scalars.jsonl. The small end of what trains a large network.
fast=N: the clock of rank N runs so fast that a checkpoint is due for it at once, when ranks agree on that
after every second step.
"""

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from base_training_cases import make_store, tiny_world
from test_base_training import config

from worldwire_training import common
from worldwire_training.base_config import OptimizerConfig
from worldwire_training.base_model import NoiseConfig
from worldwire_training.base_training import BaseTrainer
from worldwire_training.common import Ranks

WEIGHTS = "weights.txt"
TIMEOUT_S = 240
MOST_SHOWN = 10_000


def launch(script: Path, processes: int, *words: str) -> None:
    """Runs a script of this folder on so many processes, which must all succeed."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), str(script), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-MOST_SHOWN:]


def run(output: Path, processes: int, steps: int, *words: str) -> None:
    """Some steps with so many processes."""
    launch(Path(__file__), processes, str(output), str(steps), *words)


def train(output: Path, ranks: Ranks, steps: int, resume: bool = False, **changes: object) -> float:
    """Trains until so many steps of 4; the sum of the averaged weights' sizes (on rank 0)."""
    settings = config(
        output,
        parallel="shard",
        recompute=True,
        microbatches=2,
        noise=NoiseConfig(draws=2),
        optimizer=OptimizerConfig(peak_rate=1e-2, warmup_steps=1),
        pause_at=steps / 4,
        checkpoint_minutes=60.0,
    )
    store = make_store()
    store = replace(store, latents=store.latents.float(), images=store.images.float())
    trainer = BaseTrainer(replace(settings, **changes), tiny_world(), store, ranks)
    sums = [0.0]
    trainer.publish = lambda model: sums.append(sum(p.abs().sum().item() for p in model.parameters()))
    trainer.fit(resume)
    return sums[-1]


def main(output: str, steps: str, *words: str) -> None:
    """One process of a sharded run."""
    ranks = Ranks.join("cpu")
    changes = {key: int(number) for key, number in (word.split("=") for word in words if "=" in word)}
    fast = changes.pop("fast", None)
    if fast is not None:
        common.SYNC_EVERY = 2
        if ranks.rank == fast:
            monotonic = time.monotonic
            common.time.monotonic = lambda: 1e6 * monotonic()
    weights = train(Path(output), ranks, int(steps), "resume" in words, **changes)
    if ranks.is_main:
        (Path(output) / WEIGHTS).write_text(repr(weights))
    ranks.barrier()
    ranks.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
