"""How near generated frames are to the rendered truth, against two rivals: freezing, and wrong actions.

Rule: per scene the frame shown at 0.5, 2 and 5 world seconds is compared; the figures are means over scenes.
The path is the first part of the policy's walk that has moved away from the start at all of these times
(`walks.moving_part`), so that repeating the first frame is no free win.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldwire_training.evaluation.album import shots
from worldwire_training.evaluation.pixels import Picture, psnr_db, ssim
from worldwire_training.evaluation.setting import Setting, stage_for, view_of
from worldwire_training.evaluation.stages import Stage
from worldwire_training.evaluation.statistics import mean, mean_interval
from worldwire_training.evaluation.walks import mirrored, moving_part

SCORED_S = (0.5, 2.0, 5.0)
SHOWN_S = (0.0, 0.5, 1.0, 2.0, 3.5, 5.0)
POLICY_WALK_S = 20.0

Scores = dict[str, float]
"""By world seconds ('0.5', '2', '5')."""


@dataclass(frozen=True)
class SceneScore:
    """One scene's figures. wrong_actions_db is None where that rival was not played."""

    seed: int
    kind: str
    time_of_day: str
    view: str
    first_frame_db: float
    psnr_db: Scores
    ssim: Scores
    freeze_db: Scores
    wrong_actions_db: Scores | None


def planned_frames(setting: Setting) -> int:
    """Frames to generate."""
    scenes = min(setting.plan.quality_scenes, len(setting.seeds))
    return (scenes + min(setting.plan.wrong_action_scenes, scenes)) * (1 + setting.frame_at(SCORED_S[-1]))


def measure(setting: Setting) -> dict[str, Any]:
    """Plays the scenes and sums up."""
    seeds = setting.seeds[: setting.plan.quality_scenes]
    scores = [_score_scene(setting, index, seed) for index, seed in enumerate(seeds)]
    return _summary(scores)


def _score_scene(setting: Setting, index: int, seed: int) -> SceneScore:
    view = view_of(index)
    stage = stage_for(setting.studio, seed, view)
    frames = [setting.frame_at(second) for second in SHOWN_S]
    walk = moving_part(stage.wander(setting.frame_at(POLICY_WALK_S), view), _scored(setting).values())
    truth = dict(zip(frames, stage.render(walk, frames), strict=True))
    told: dict[str, Any] = {"prompt": stage.prompt(view), "seed": seed}
    made = setting.player.play(walk, truth[0], frames, **told)
    setting.album.short.setdefault(_title(stage, view), shots(SHOWN_S, frames, truth, made, walk.inputs))

    def by_time(rate: Callable[[Picture, Picture], float], pictures: Mapping[int, Picture]) -> Scores:
        return {second: rate(pictures[frame], truth[frame]) for second, frame in _scored(setting).items()}

    wrong_actions_db = None
    if index < setting.plan.wrong_action_scenes:
        wrong = setting.player.play(mirrored(walk, setting.studio.motion), truth[0], frames, **told)
        wrong_actions_db = by_time(psnr_db, wrong)
    return SceneScore(
        seed=seed,
        kind=stage.kind,
        time_of_day=stage.time_of_day,
        view=view,
        first_frame_db=psnr_db(made[0], truth[0]),
        psnr_db=by_time(psnr_db, made),
        ssim=by_time(ssim, made),
        freeze_db=by_time(psnr_db, dict.fromkeys(frames, truth[0])),
        wrong_actions_db=wrong_actions_db,
    )


def _scored(setting: Setting) -> dict[str, int]:
    return {f"{second:g}": setting.frame_at(second) for second in SCORED_S}


def _title(stage: Stage, view: str) -> str:
    return "third person" if view == "third" else f"{stage.kind}, {stage.time_of_day}"


def _summary(scores: Sequence[SceneScore]) -> dict[str, Any]:
    rivals = [score for score in scores if score.wrong_actions_db is not None]
    gain = [_difference(score.psnr_db, score.freeze_db) for score in scores]
    lead = [_difference(score.psnr_db, score.wrong_actions_db or {}) for score in rivals]
    return {
        "psnr_db": _means([score.psnr_db for score in scores]),
        "ssim": _means([score.ssim for score in scores]),
        "psnr_freeze_db": _means([score.freeze_db for score in scores]),
        "psnr_wrong_actions_db": _means([score.wrong_actions_db or {} for score in rivals]),
        "psnr_gain_over_freeze_db": _means(gain),
        "psnr_gain_over_wrong_actions_db": _means(lead),
        "psnr_first_frame_db": mean([score.first_frame_db for score in scores]),
        "psnr_by_group_db": _by_group(scores),
        "intervals_95": {
            "psnr_db": _intervals([score.psnr_db for score in scores]),
            "ssim": _intervals([score.ssim for score in scores]),
            "psnr_gain_over_freeze_db": _intervals(gain),
            "psnr_gain_over_wrong_actions_db": _intervals(lead),
        },
        "counts": {"quality_scenes": len(scores), "wrong_action_scenes": len(rivals)},
    }


def _difference(scores: Scores, rival: Scores) -> Scores:
    return {second: scores[second] - rival[second] for second in rival}


def _means(scores: Sequence[Scores]) -> Scores:
    return {second: mean([score[second] for score in scores]) for second in (scores[0] if scores else {})}


def _intervals(scores: Sequence[Scores]) -> dict[str, list[float]]:
    return {
        second: mean_interval([score[second] for score in scores]) for second in (scores[0] if scores else {})
    }


def _by_group(scores: Sequence[SceneScore]) -> dict[str, dict[str, Scores]]:
    """PSNR and the frozen frame's PSNR for each kind and time of day (first person) and for third person."""
    groups: dict[str, list[SceneScore]] = {}
    for score in scores:
        name = "third_person" if score.view == "third" else f"{score.kind}_{score.time_of_day}"
        groups.setdefault(name, []).append(score)
    return {
        name: {
            "psnr_db": _means([s.psnr_db for s in group]),
            "freeze_db": _means([s.freeze_db for s in group]),
        }
        for name, group in sorted(groups.items())
    }
