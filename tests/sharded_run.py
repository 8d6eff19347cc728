"""A sharded run of some steps on CPUs: torchrun --nproc-per-node 2 sharded_run.py OUT STEPS [resume]

Writes no world; the losses are in OUT/scalars.jsonl. The small end of what trains a large network.
"""

import sys
from dataclasses import replace
from pathlib import Path

from base_training_cases import make_store, tiny_world
from test_base_training import config

from worldwire_training.base_config import OptimizerConfig
from worldwire_training.base_model import NoiseConfig
from worldwire_training.base_training import BaseTrainer
from worldwire_training.common import Ranks

WEIGHTS = "weights.txt"


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
    )
    store = make_store()
    store = replace(store, latents=store.latents.float(), images=store.images.float())
    trainer = BaseTrainer(replace(settings, **changes), tiny_world(), store, ranks)
    sums = [0.0]
    trainer.publish = lambda model: sums.append(sum(p.abs().sum().item() for p in model.parameters()))
    trainer.fit(resume)
    return sums[-1]


def main(output: str, steps: str, resume: bool) -> None:
    """One process of a sharded run."""
    ranks = Ranks.join("cpu")
    weights = train(Path(output), ranks, int(steps), resume)
    if ranks.is_main:
        (Path(output) / WEIGHTS).write_text(repr(weights))
    ranks.leave()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] == ["resume"])
