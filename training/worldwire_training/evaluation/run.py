"""The main path of `worldwire eval`: each metric in turn, its results into the report at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from worldwire.errors import ConfigError
from worldwire_training.evaluation import direction, endurance, prompts, quality, revisit
from worldwire_training.evaluation.album import Album
from worldwire_training.evaluation.plan import Plan
from worldwire_training.evaluation.play import EvalWorld, Player
from worldwire_training.evaluation.report import Report
from worldwire_training.evaluation.setting import Setting
from worldwire_training.evaluation.stages import FIRST_HELD_OUT_SEED, Studio

RULES = {
    "psnr_db": "mean over scenes of the one frame shown at that world time, at most 60 dB",
    "direction": "hit if the last frame is nearest in PSNR to the render of the command, of three",
    "where_shared": "the same in pixels that show what the first picture showed, where these are a tenth",
    "prompt": "hit if four views' thumbnails are nearest in PSNR to renders of the prompt's class",
    "revisit": "the first view seen again, not shown since it was left, against its render",
    "ratios": "mean gradient and standard deviation of brightness, generated over rendered, same poses",
    "intervals_95": "bootstrap over scenes for means, Wilson for shares",
}


@dataclass(frozen=True)
class Metric:
    """planned_frames: how many frames it will generate. measure: plays, and returns its part of the JSON."""

    planned_frames: Callable[[Setting], int]
    measure: Callable[[Setting], dict[str, Any]]


METRICS = {
    "quality": Metric(quality.planned_frames, quality.measure),
    "turns": Metric(direction.planned_turn_frames, direction.turns),
    "steps": Metric(direction.planned_step_frames, direction.steps),
    "prompts": Metric(prompts.planned_frames, prompts.measure),
    "revisit": Metric(revisit.planned_frames, revisit.measure),
    "endurance": Metric(endurance.planned_frames, endurance.measure),
}


def evaluate(
    world: EvalWorld,
    studio: Studio,
    seeds: Sequence[int],
    plan: Plan,
    *,
    report: Report,
    metrics: Sequence[str] = tuple(METRICS),
) -> Album:
    """Plays the named metrics; the report is whole on disk after each. Returns pictures for the strips."""
    started = time.monotonic()
    with logging_redirect_tqdm(), tqdm(desc="eval", unit="frame", dynamic_ncols=True) as bar:
        setting = Setting(Player(world, bar.update), studio, tuple(seeds), plan, Album())
        bar.reset(sum(METRICS[name].planned_frames(setting) for name in metrics))
        for done, name in enumerate(metrics, start=1):
            bar.set_description(f"eval {name}")
            begun = time.monotonic()
            results = METRICS[name].measure(setting)
            timings = {
                "seconds": round(time.monotonic() - started, 1),
                "seconds_by_metric": {name: round(time.monotonic() - begun, 1)},
                "generated_frames": setting.player.generated_frames,
            }
            report.add(results, timings, {"unfinished": list(metrics[done:])})
        setting.player.close()
    return setting.album


def header(
    world: EvalWorld, seeds: Sequence[int], plan: Plan, metrics: Sequence[str], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """What a reader of the JSON must know of world, scenes and machine. facts: commit, device, ..."""
    return {
        "preset": world.info.name,
        **facts,
        "steps": world.info.extra.get("steps"),
        "clip_plan": world.info.extra.get("clip_plan"),
        "attention": world.info.extra.get("attention"),
        "scenes": len(seeds),
        "scene_seeds": [min(seeds), max(seeds) + 1],
        "held_out": min(seeds) >= FIRST_HELD_OUT_SEED,
        "plan": plan.name,
        "rules": RULES,
        "unfinished": list(metrics),
    }


def check_metrics(only: Sequence[str] | None) -> tuple[str, ...]:
    """The named metrics in their order of play, all for None; ConfigError for an unknown one."""
    unknown = sorted(set(only or ()) - set(METRICS))
    if unknown:
        raise ConfigError("unknown metrics", expected=", ".join(METRICS), got=", ".join(unknown))
    return tuple(name for name in METRICS if only is None or name in only)
