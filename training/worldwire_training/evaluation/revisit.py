"""Does the world remember what it showed? The first view is left, and seen again after 5, 15 and 45 s.

One long walk turns round and looks about on the far side, where nothing of the first view is in sight. For
each delay a branch of it (session saved, restored afterwards) turns back and arrives at the first view at
that time: so nothing of that view was shown since it was left, at any delay. Played with memory and, on the
same weights and seeds, without.
"""

from __future__ import annotations

from typing import Any

from worldwire_training.evaluation.pixels import Picture, psnr_db, ssim
from worldwire_training.evaluation.setting import Setting, start_of
from worldwire_training.evaluation.stages import Stage
from worldwire_training.evaluation.statistics import mean, mean_interval
from worldwire_training.evaluation.walks import LOOK_AWAY_FRAMES, Walk, look_away_script, return_script

ARMS = {"memory": True, "no_memory": False}
Scores = dict[int, list[float]]
"""One value per scene, by seconds away."""


def planned_frames(setting: Setting) -> int:
    """Frames to generate."""
    wanted = setting.plan.revisit_scenes
    frames = 0
    for index in range(min(max(wanted.values()), len(setting.seeds))):
        delays = _delays(setting, index)
        frames += 1 + setting.frame_at(max(delays)) + LOOK_AWAY_FRAMES * (len(delays) - 1)
    return frames * len(ARMS)


def measure(setting: Setting) -> dict[str, Any]:
    """Plays both arms on the same scenes."""
    psnr = {arm: {delay: [] for delay in setting.plan.revisit_scenes} for arm in ARMS}  # type: dict[str, Scores]
    similarity = {arm: {delay: [] for delay in setting.plan.revisit_scenes} for arm in ARMS}  # type: dict[str, Scores]
    for index in range(min(max(setting.plan.revisit_scenes.values()), len(setting.seeds))):
        stage = setting.studio.stage(setting.seeds[index])
        walks = {delay: _walk(setting, stage, delay) for delay in _delays(setting, index)}
        truth = {delay: stage.render(walk, [0, len(walk) - 1]) for delay, walk in walks.items()}
        for arm, memory in ARMS.items():
            for delay, picture in _play(setting, stage, walks, truth[min(walks)][0], memory).items():
                psnr[arm][delay].append(psnr_db(picture, truth[delay][1]))
                similarity[arm][delay].append(ssim(picture, truth[delay][1]))
    return _summary(psnr, similarity)


def _delays(setting: Setting, index: int) -> list[int]:
    """The delays that are played on the scene of this index, shortest first."""
    return sorted(delay for delay, scenes in setting.plan.revisit_scenes.items() if index < scenes)


def _walk(setting: Setting, stage: Stage, delay: int) -> Walk:
    away = look_away_script(setting.frame_at(delay) - LOOK_AWAY_FRAMES)
    return stage.walk(start_of(stage), return_script(away), "first")


def _play(
    setting: Setting, stage: Stage, walks: dict[int, Walk], first: Picture, memory: bool
) -> dict[int, Picture]:
    """The pictures of the first view when it is seen again. All walks are the same until each turns back."""
    told: dict[str, Any] = {"prompt": stage.prompt("first"), "seed": stage.seed, "memory": memory}
    journey, _ = setting.player.begin(walks[min(walks)], first, **told)
    pictures = {}
    for delay, walk in walks.items():
        inputs, arrival = walk.session_inputs("both"), len(walk) - 1
        journey.approach(inputs, arrival - LOOK_AWAY_FRAMES)
        before_turning_back = journey.save()
        pictures[delay] = journey.reach(inputs, [arrival])[arrival]
        if delay != max(walks):
            journey.restore(before_turning_back)
    return pictures


def _summary(psnr: dict[str, Scores], similarity: dict[str, Scores]) -> dict[str, Any]:
    gain = {
        delay: [a - b for a, b in zip(psnr["memory"][delay], psnr["no_memory"][delay], strict=True)]
        for delay in psnr["memory"]
    }
    return {
        "revisit_psnr_db": {arm: _means(scores) for arm, scores in psnr.items()},
        "revisit_ssim": {arm: _means(scores) for arm, scores in similarity.items()},
        "revisit_memory_gain_db": _means(gain),
        "intervals_95": {
            "revisit_memory_gain_db": {str(delay): mean_interval(values) for delay, values in gain.items()}
        },
        "counts": {"revisit_scenes": {str(delay): len(values) for delay, values in gain.items()}},
    }


def _means(scores: Scores) -> dict[str, float]:
    return {str(delay): mean(values) for delay, values in scores.items()}
