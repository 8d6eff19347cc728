"""Does the world turn and step the way it was told, judged from pixels alone?

A trial: from one start the truth is rendered for *left*, *none* and *right*; one of them is commanded, and
the last generated frame counts as a hit if, in PSNR, it is nearest to the render of the command. Chance is
one in three. Commands take turns, so that each is drawn equally often and a scene gets another one when it
comes round again.

A step aside may lead behind a tree, or past a door into another room, where nobody who has only seen the
first picture can know what is there. So trials are judged a second time (`..._where_shared`), each candidate
in the pixels that show what the first picture showed; candidates that share less than `LEAST_SHARED` with it
are left out, and so are trials that command one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire import Inputs, PlayerPose
from worldwire.errors import DataError
from worldwire_training.evaluation.pixels import Picture, nearest, nearest_where
from worldwire_training.evaluation.setting import Setting, stage_for
from worldwire_training.evaluation.stages import Offset
from worldwire_training.evaluation.statistics import share_interval
from worldwire_training.evaluation.walks import (
    STEP_FRAMES,
    TURN_FRAMES,
    Conditioning,
    step_script,
    turn_script,
)

COMMANDS = ("left", "none", "right")
CONDITIONING: dict[str, Conditioning] = {
    "both": "both",
    "keys": "keys",
    "poses": "poses",
    "third_person": "both",
}
"""What of the inputs the network is told, by mode."""

MODES_BY_VIEW = {"first": ("both", "keys", "poses"), "third": ("third_person",)}
BOOM_ROOM_M = 2.8
LEAST_SHARED = 0.1


@dataclass(frozen=True)
class Action:
    """What is commanded: its script, its length, and the free ways that it needs about a start."""

    name: str
    script: Callable[[str], tuple[Inputs, ...]]
    frames: int
    reach: tuple[Offset, ...]
    behind: tuple[Offset, ...]
    """Ways that the camera of third person needs besides."""


TURN = Action(
    "turn",
    turn_script,
    TURN_FRAMES,
    reach=((0.0, 3.0),),
    behind=((0.0, -BOOM_ROOM_M), (1.2, -2.5), (-1.2, -2.5)),
)
STEP = Action(
    "step",
    step_script,
    STEP_FRAMES,
    reach=((-2.1, 0.0), (2.1, 0.0), (0.0, 2.0)),
    behind=((0.0, -BOOM_ROOM_M), (2.1, -BOOM_ROOM_M), (-2.1, -BOOM_ROOM_M)),
)


@dataclass(frozen=True)
class Corner:
    """A place in a scene with room for the action."""

    seed: int
    view: str
    start: PlayerPose


@dataclass(frozen=True)
class Trial:
    """One trial's place in the plan. scene: its index among those with room."""

    mode: str
    scene: int
    command: str


@dataclass(frozen=True)
class Seen:
    """What a trial looked like: to which command's render its last frame is nearest.

    shared: the same where the first picture shows what is there; None where that is too little to tell.
    """

    trial: Trial
    command: str
    shared: str | None


def planned_turn_frames(setting: Setting) -> int:
    """Frames to generate for `turns`."""
    return sum(setting.plan.turn_trials.values()) * (1 + TURN_FRAMES)


def planned_step_frames(setting: Setting) -> int:
    """Frames to generate for `steps`."""
    return sum(setting.plan.step_trials.values()) * (1 + STEP_FRAMES)


def turns(setting: Setting) -> dict[str, Any]:
    """24 degrees in half a second."""
    return _measure(setting, TURN, setting.plan.turn_trials)


def steps(setting: Setting) -> dict[str, Any]:
    """A second of side-stepping."""
    return _measure(setting, STEP, setting.plan.step_trials)


def _measure(setting: Setting, action: Action, counts: dict[str, int]) -> dict[str, Any]:
    seen: list[Seen] = []
    for view, modes in MODES_BY_VIEW.items():
        wanted = {mode: counts[mode] for mode in modes}
        corners = _corners(setting, action, view, max(wanted.values()))
        trials = plan_trials(wanted, len(corners))
        for number, corner in enumerate(corners):  # scene by scene: a scene is built and rendered once
            chosen = [trial for trial in trials if trial.scene == number]
            if chosen:
                seen += _play_trials(setting, action, corner, chosen)
    return _summary(action, seen)


def _corners(setting: Setting, action: Action, view: str, most: int) -> list[Corner]:
    """The first scenes that have room for the action."""
    reach = action.reach + (action.behind if view == "third" else ())
    found = ((seed, stage_for(setting.studio, seed, view).start(reach)) for seed in setting.seeds)
    corners = list(islice((Corner(seed, view, start) for seed, start in found if start is not None), most))
    if not corners:
        raise DataError(f"no scene has room for a {action.name}", remedy="give more --scene-seeds")
    return corners


def plan_trials(counts: dict[str, int], scenes: int) -> list[Trial]:
    """Which scene and which command each trial has."""
    return [
        Trial(mode, number % scenes, COMMANDS[(number % scenes + number // scenes) % len(COMMANDS)])
        for mode, count in counts.items()
        for number in range(count)
    ]


def _play_trials(setting: Setting, action: Action, corner: Corner, trials: list[Trial]) -> list[Seen]:
    stage = stage_for(setting.studio, corner.seed, corner.view)
    walks = {command: stage.walk(corner.start, action.script(command), corner.view) for command in COMMANDS}
    first = stage.render(walks["none"], [0])[0]
    truths = [stage.render(walk, [action.frames])[0] for walk in walks.values()]
    shared = [stage.shared(walk, action.frames) for walk in walks.values()]
    seen = []
    for trial in trials:
        made = setting.player.play(
            walks[trial.command],
            first,
            [action.frames],
            prompt=stage.prompt(corner.view),
            seed=corner.seed,
            conditioning=CONDITIONING[trial.mode],
        )
        last = made[action.frames]
        command = COMMANDS[nearest(last, truths)]
        seen.append(Seen(trial, command, _nearest_shared(trial.command, last, truths, shared)))
    return seen


def _nearest_shared(
    command: str, picture: Picture, truths: Sequence[Picture], shared: Sequence[NDArray[np.bool_]]
) -> str | None:
    """The command whose render the picture is nearest to where that shows what the first picture showed."""
    can_tell = [number for number, mask in enumerate(shared) if mask.mean() >= LEAST_SHARED]
    if COMMANDS.index(command) not in can_tell:
        return None
    best = nearest_where(picture, [truths[n] for n in can_tell], [shared[n] for n in can_tell])
    return COMMANDS[can_tell[best]]


def _summary(action: Action, seen: list[Seen]) -> dict[str, Any]:
    modes = dict.fromkeys(each.trial.mode for each in seen)
    hits = {mode: [each.trial.command == each.command for each in _of(mode, seen)] for mode in modes}
    told = {mode: [each for each in _of(mode, seen) if each.shared is not None] for mode in modes}
    shared = {mode: [each.trial.command == each.shared for each in told[mode]] for mode in modes}
    name, trials = f"{action.name}_direction_accuracy", f"{action.name}_trials"
    return {
        name: _shares(hits),
        f"{name}_where_shared": _shares(shared),
        f"{action.name}_direction_seen": {mode: _confusion(_of(mode, seen)) for mode in modes},
        "intervals_95": {
            name: {mode: share_interval(hit) for mode, hit in hits.items()},
            f"{name}_where_shared": {mode: share_interval(hit) for mode, hit in shared.items() if hit},
        },
        "counts": {
            trials: {mode: len(hit) for mode, hit in hits.items()},
            f"{trials}_where_shared": {mode: len(hit) for mode, hit in shared.items()},
        },
    }


def _of(mode: str, seen: list[Seen]) -> list[Seen]:
    return [each for each in seen if each.trial.mode == mode]


def _shares(hits: dict[str, list[bool]]) -> dict[str, float]:
    return {mode: round(sum(hit) / len(hit), 4) for mode, hit in hits.items() if hit}


def _confusion(seen: list[Seen]) -> dict[str, dict[str, int]]:
    """How often each command looked like which."""
    table = {command: dict.fromkeys(COMMANDS, 0) for command in COMMANDS}
    for each in seen:
        table[each.trial.command][each.command] += 1
    return table
