"""Is a prompt without an image obeyed: village or rooms, day or dusk?

The world is generated from the prompt alone and looks a quarter turn to the right; the four views on the way,
averaged down to thumbnails, are compared with a bank of renders. It is a hit if the renders that are nearest,
in PSNR averaged over the views, have the prompt's class. The bank shows the scenes of the prompts themselves,
each seed as all four classes (same wall colours, roofs and season), so that only kind and time of day decide.
Thumbnails are tiny because places and things are free: only the layout of light and colour can agree. The
same judge on rendered quarter turns that are not in the bank tells how far it can be trusted
(`prompt_accuracy_of_truth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire_training.evaluation.pixels import Picture, psnr_db, shrink
from worldwire_training.evaluation.setting import Setting
from worldwire_training.evaluation.stages import CLASSES, Stage
from worldwire_training.evaluation.statistics import share_interval
from worldwire_training.evaluation.walks import Walk, hold, script

SEED_OFFSET = 500_000
"""From the first scene seed to the seeds of the prompts' scenes: none of them is played elsewhere."""

THUMBNAIL = (3, 5)
BANK_FRAMES = range(0, 640, 20)
CONTROL_FRAME = 720
"""Frames of the policy's walk: the control looks about five seconds after the last bank view."""

LOOK_FRAMES = 24
LOOK_DEG = 90.0
VIEWS = range(0, LOOK_FRAMES + 1, 8)


@dataclass(frozen=True)
class Bank:
    """Thumbnails [n, h, w, 3] of rendered scenes, and the class of each."""

    thumbnails: NDArray[np.uint8]
    classes: NDArray[np.intp]

    def class_of(self, views: Sequence[Picture]) -> int:
        """The class whose nearest renders are nearest to the views on average."""
        nearness = [self._nearest_by_class(shrink(view, *THUMBNAIL)) for view in views]
        return int(np.mean(nearness, axis=0).argmax())

    def _nearest_by_class(self, thumbnail: Picture) -> list[float]:
        """The best PSNR among each class's renders."""
        ratings = np.array([psnr_db(render, thumbnail) for render in self.thumbnails])
        return [float(ratings[self.classes == index].max()) for index in range(len(CLASSES))]


@dataclass(frozen=True)
class Prompted:
    """A prompt of a class: views of what it generated, and rendered views of its scene, not in the bank."""

    wanted: int
    generated: Sequence[Picture]
    rendered: Sequence[Picture]


def planned_frames(setting: Setting) -> int:
    """Frames to generate."""
    return len(CLASSES) * setting.plan.prompt_trials_per_class * (1 + LOOK_FRAMES)


def measure(setting: Setting) -> dict[str, Any]:
    """Generates from prompts alone and asks the bank."""
    prompted: list[Prompted] = []
    thumbnails: list[Picture] = []
    classes: list[int] = []
    for number in range(setting.plan.prompt_trials_per_class):
        for wanted, (kind, time_of_day) in enumerate(CLASSES):
            stage = setting.studio.stage(setting.seeds[0] + SEED_OFFSET + number, kind, time_of_day)
            walk = stage.wander(CONTROL_FRAME + 1, "first")
            views = [shrink(picture, *THUMBNAIL) for picture in stage.render(walk, BANK_FRAMES)]
            thumbnails += views
            classes += [wanted] * len(views)
            prompted.append(_prompt(setting, stage, walk, wanted))
    return _summary(prompted, Bank(np.stack(thumbnails), np.array(classes)))


def _prompt(setting: Setting, stage: Stage, walk: Walk, wanted: int) -> Prompted:
    motion = setting.studio.motion
    look = stage.walk(
        motion.player(walk.c2w[CONTROL_FRAME], "first"), script(hold(LOOK_FRAMES, yaw_deg=LOOK_DEG)), "first"
    )
    journey, first = setting.player.begin(look, None, prompt=stage.prompt("first"), seed=stage.seed)
    generated = {0: first} | journey.reach(look.session_inputs("both"), VIEWS[1:])
    return Prompted(wanted, [generated[frame] for frame in VIEWS], list(stage.render(look, VIEWS)))


def _summary(prompted: Sequence[Prompted], bank: Bank) -> dict[str, Any]:
    seen = [(prompt.wanted, bank.class_of(prompt.generated)) for prompt in prompted]
    hits = [wanted == found for wanted, found in seen]
    truth = [prompt.wanted == bank.class_of(prompt.rendered) for prompt in prompted]
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
