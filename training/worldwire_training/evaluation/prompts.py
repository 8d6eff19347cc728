"""Is a prompt without an image obeyed: village or rooms, day or dusk?

The first frame that a prompt gives is compared, averaged down to thumbnails, with a bank of renders of other
held-out scenes of all four classes; it is a hit if the nearest one in PSNR has the prompt's class. The same
judge on rendered first frames instead of generated ones tells how far the judge itself can be trusted
(`prompt_accuracy_of_truth`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire_training.evaluation.pixels import Picture, nearest, shrink
from worldwire_training.evaluation.setting import Setting, start_of
from worldwire_training.evaluation.stages import CLASSES, Stage
from worldwire_training.evaluation.statistics import share_interval
from worldwire_training.evaluation.walks import Walk, hold, script

BANK_SEED_OFFSET = 500_000
PROMPT_SEED_OFFSET = 600_000
THUMBNAIL = (12, 20)
LOOKS = 4
"""Views of each bank scene, a quarter turn apart."""


@dataclass(frozen=True)
class Bank:
    """Thumbnails [n, h, w, 3] of rendered scenes, and the class of each."""

    thumbnails: NDArray[np.uint8]
    classes: tuple[int, ...]

    def class_of(self, picture: Picture) -> int:
        """The class of the nearest render."""
        return self.classes[nearest(shrink(picture, *THUMBNAIL), self.thumbnails)]


def planned_frames(setting: Setting) -> int:
    """Frames to generate."""
    return len(CLASSES) * setting.plan.prompt_trials_per_class


def measure(setting: Setting) -> dict[str, Any]:
    """Generates from prompts alone and asks the bank."""
    bank = _build_bank(setting)
    generated: list[tuple[int, int]] = []
    rendered: list[tuple[int, int]] = []
    for number in range(setting.plan.prompt_trials_per_class):
        for wanted, (kind, time_of_day) in enumerate(CLASSES):
            seed = setting.seeds[0] + PROMPT_SEED_OFFSET + number
            stage = setting.studio.stage(seed, kind, time_of_day)
            walk = _standing(stage)
            _, made = setting.player.begin(walk, None, prompt=stage.prompt("first"), seed=seed)
            generated.append((wanted, bank.class_of(made)))
            rendered.append((wanted, bank.class_of(stage.render(walk, [0])[0])))
    return _summary(generated, rendered, len(bank.classes))


def _standing(stage: Stage) -> Walk:
    return stage.walk(start_of(stage), script(), "first")


def _build_bank(setting: Setting) -> Bank:
    thumbnails, classes = [], []
    for number in range(setting.plan.bank_scenes_per_class):
        for index, (kind, time_of_day) in enumerate(CLASSES):
            stage = setting.studio.stage(setting.seeds[0] + BANK_SEED_OFFSET + number, kind, time_of_day)
            inputs = script(hold(LOOKS - 1, yaw_deg=90.0 * (LOOKS - 1)))
            walk = stage.walk(start_of(stage), inputs, "first")
            thumbnails += [shrink(picture, *THUMBNAIL) for picture in stage.render(walk, range(LOOKS))]
            classes += [index] * LOOKS
    return Bank(np.stack(thumbnails), tuple(classes))


def _summary(
    generated: list[tuple[int, int]], rendered: list[tuple[int, int]], bank_size: int
) -> dict[str, Any]:
    hits = [wanted == seen for wanted, seen in generated]
    names = [f"{kind}_{time_of_day}" for kind, time_of_day in CLASSES]
    table = {name: dict.fromkeys(names, 0) for name in names}
    for wanted, seen in generated:
        table[names[wanted]][names[seen]] += 1
    return {
        "prompt_accuracy": round(sum(hits) / len(hits), 4),
        "prompt_accuracy_of_truth": round(
            sum(wanted == seen for wanted, seen in rendered) / len(rendered), 4
        ),
        "prompt_seen": table,
        "intervals_95": {"prompt_accuracy": share_interval(hits)},
        "counts": {"prompts": len(hits), "prompt_bank_renders": bank_size},
    }
