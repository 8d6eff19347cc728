"""Is a prompt without an image obeyed: village or rooms, day or dusk?

The first frame that a prompt gives is averaged down to a thumbnail and compared with a bank of renders; it is
a hit if the nearest one in PSNR has the prompt's class. The bank shows the scenes of the prompts themselves,
each seed as all four classes (same wall colours, roofs and season), so that only kind and time of day decide.
Thumbnails are tiny because places and things are free: only the layout of light and colour can agree. The
same judge on rendered views that are not in the bank tells how far it can be trusted
(`prompt_accuracy_of_truth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire_training.evaluation.pixels import Picture, nearest, shrink
from worldwire_training.evaluation.setting import Setting
from worldwire_training.evaluation.stages import CLASSES, Stage
from worldwire_training.evaluation.statistics import share_interval
from worldwire_training.evaluation.walks import Walk

SEED_OFFSET = 500_000
"""From the first scene seed to the seeds of the prompts' scenes: none of them is played elsewhere."""

THUMBNAIL = (3, 5)
BANK_FRAMES = range(0, 640, 20)
TRUTH_FRAMES = range(720, 801, 40)
"""Frames of the policy's walk: every bank view is seconds away from every view of the control."""


@dataclass(frozen=True)
class Bank:
    """Thumbnails [n, h, w, 3] of rendered scenes, and the class of each."""

    thumbnails: NDArray[np.uint8]
    classes: tuple[int, ...]

    def class_of(self, picture: Picture) -> int:
        """The class of the nearest render."""
        return self.classes[nearest(shrink(picture, *THUMBNAIL), self.thumbnails)]


@dataclass(frozen=True)
class Prompted:
    """One prompt of a class: what it generated, and rendered views of its scene that are not in the bank."""

    wanted: int
    generated: Picture
    rendered: Sequence[Picture]


def planned_frames(setting: Setting) -> int:
    """Frames to generate."""
    return len(CLASSES) * setting.plan.prompt_trials_per_class


def measure(setting: Setting) -> dict[str, Any]:
    """Generates from prompts alone and asks the bank."""
    prompted: list[Prompted] = []
    thumbnails: list[Picture] = []
    classes: list[int] = []
    for number in range(setting.plan.prompt_trials_per_class):
        for wanted, (kind, time_of_day) in enumerate(CLASSES):
            stage = setting.studio.stage(setting.seeds[0] + SEED_OFFSET + number, kind, time_of_day)
            walk = stage.wander(TRUTH_FRAMES[-1] + 1, "first")
            views = [shrink(picture, *THUMBNAIL) for picture in stage.render(walk, BANK_FRAMES)]
            thumbnails += views
            classes += [wanted] * len(views)
            prompted.append(_prompt(setting, stage, walk, wanted))
    return _summary(prompted, Bank(np.stack(thumbnails), tuple(classes)))


def _prompt(setting: Setting, stage: Stage, walk: Walk, wanted: int) -> Prompted:
    _, generated = setting.player.begin(walk, None, prompt=stage.prompt("first"), seed=stage.seed)
    return Prompted(wanted, generated, list(stage.render(walk, TRUTH_FRAMES)))


def _summary(prompted: Sequence[Prompted], bank: Bank) -> dict[str, Any]:
    seen = [(prompt.wanted, bank.class_of(prompt.generated)) for prompt in prompted]
    hits = [wanted == found for wanted, found in seen]
    truth = [prompt.wanted == bank.class_of(view) for prompt in prompted for view in prompt.rendered]
    return {
        "prompt_accuracy": round(sum(hits) / len(hits), 4),
        "prompt_accuracy_of_truth": round(sum(truth) / len(truth), 4),
        "prompt_seen": _confusion(seen),
        "intervals_95": {"prompt_accuracy": share_interval(hits)},
        "counts": {"prompts": len(hits), "prompt_bank_renders": len(bank.classes)},
    }


def _confusion(seen: Iterable[tuple[int, int]]) -> dict[str, dict[str, int]]:
    """How often each class looked like which."""
    names = [f"{kind}_{time_of_day}" for kind, time_of_day in CLASSES]
    table = {name: dict.fromkeys(names, 0) for name in names}
    for wanted, found in seen:
        table[names[wanted]][names[found]] += 1
    return table
