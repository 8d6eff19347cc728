"""What is left of sharpness and contrast after a minute of walking, relative to the truth at the same poses.

Rule: per scene the mean over four frames of the last quarter second before 10, 30 and 60 s, generated over
rendered; then the mean over scenes. 1 is as sharp (as contrasty) as the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from worldwire_training.evaluation.album import shots
from worldwire_training.evaluation.pixels import Picture, contrast, psnr_db, sharpness
from worldwire_training.evaluation.setting import Setting
from worldwire_training.evaluation.statistics import mean, mean_interval

AVERAGED_FRAMES = 4
Scores = dict[int, list[float]]
"""One value per scene, by seconds."""

RATES: dict[str, Callable[[Picture], float]] = {"sharpness": sharpness, "contrast": contrast}


def planned_frames(setting: Setting) -> int:
    """Frames to generate."""
    return _scenes(setting) * (1 + setting.frame_at(setting.plan.endurance_s[-1]))


def measure(setting: Setting) -> dict[str, Any]:
    """Plays long walks of the policy, in first person."""
    times = setting.plan.endurance_s
    ratios: dict[str, Scores] = {name: {second: [] for second in times} for name in RATES}
    psnr: Scores = {second: [] for second in times}
    for seed in setting.seeds[: _scenes(setting)]:
        truth, made = _play(setting, seed)
        for second in times:
            frames = _frames_before(setting, second)
            for name, rate in RATES.items():
                generated, rendered = ([rate(pictures[f]) for f in frames] for pictures in (made, truth))
                ratios[name][second].append(float(np.mean(generated) / np.mean(rendered)))
            psnr[second].append(float(np.mean([psnr_db(made[f], truth[f]) for f in frames])))
    return _summary(ratios, psnr)


def _scenes(setting: Setting) -> int:
    return min(setting.plan.endurance_scenes, len(setting.seeds))


def _frames_before(setting: Setting, second: float) -> list[int]:
    last = setting.frame_at(second)
    return list(range(last - AVERAGED_FRAMES + 1, last + 1))


def _play(setting: Setting, seed: int) -> tuple[dict[int, Picture], dict[int, Picture]]:
    """Rendered and generated pictures of the compared frames."""
    times = setting.plan.endurance_s
    stage = setting.studio.stage(seed)
    walk = stage.wander(setting.frame_at(times[-1]) + 1, "first")
    frames = [0, *(frame for second in times for frame in _frames_before(setting, second))]
    truth = dict(zip(frames, stage.render(walk, frames), strict=True))
    made = setting.player.play(walk, truth[0], frames, prompt=stage.prompt("first"), seed=seed)
    shown = (0, *times)
    title = f"{stage.kind}, {stage.time_of_day}"
    shown_frames = [setting.frame_at(second) for second in shown]
    setting.album.long.setdefault(title, shots(shown, shown_frames, truth, made, walk.inputs))
    return truth, made


def _summary(ratios: dict[str, Scores], psnr: Scores) -> dict[str, Any]:
    results: dict[str, Any] = {f"{name}_ratio": _means(scores) for name, scores in ratios.items()}
    for name, scores in ratios.items():
        results |= {
            f"{name}_ratio_{second}s": mean(values) for second, values in scores.items() if second == 60
        }
    return results | {
        "endurance_psnr_db": _means(psnr),
        "intervals_95": {
            f"{name}_ratio": {str(second): mean_interval(values) for second, values in scores.items()}
            for name, scores in ratios.items()
        },
        "counts": {"endurance_scenes": len(next(iter(psnr.values())))},
    }


def _means(scores: Scores) -> dict[str, float]:
    return {str(second): mean(values) for second, values in scores.items()}
