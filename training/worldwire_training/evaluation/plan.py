"""How much each metric plays."""

from __future__ import annotations

from dataclasses import dataclass

MODES = ("both", "keys", "poses", "third_person")
"""How a session is steered in the direction tests; third person is steered by both."""


@dataclass(frozen=True)
class Plan:
    """Scenes and trials of each metric; there are never more scenes than seeds.

    turn_trials, step_trials: by mode. revisit_scenes: by seconds away. endurance_s: when the pictures of long
    walks are compared; the walks are as long as the last of these.
    """

    name: str
    quality_scenes: int
    wrong_action_scenes: int
    turn_trials: dict[str, int]
    step_trials: dict[str, int]
    prompt_trials_per_class: int
    revisit_scenes: dict[int, int]
    endurance_scenes: int
    endurance_s: tuple[int, ...] = (10, 30, 60)


def _trials(both: int, others: int) -> dict[str, int]:
    return {mode: both if mode == "both" else others for mode in MODES}


ALL_SCENES = 10**9

DEFAULT = Plan(
    "default",
    quality_scenes=ALL_SCENES,
    wrong_action_scenes=8,
    turn_trials=_trials(48, 18),
    step_trials=_trials(18, 12),
    prompt_trials_per_class=8,
    revisit_scenes={5: 3, 15: 2, 45: 2},
    endurance_scenes=2,
)
"""With 32 scenes about 11,000 generated frames: under 20 minutes at the 12 frames a second of 2 CPU cores."""

QUICK = Plan(
    "quick",
    quality_scenes=4,
    wrong_action_scenes=2,
    turn_trials=_trials(6, 3),
    step_trials=_trials(3, 3),
    prompt_trials_per_class=2,
    revisit_scenes={5: 1, 15: 1},
    endurance_scenes=1,
    endurance_s=(10,),
)
"""A look in two or three minutes; too few scenes to quote."""

ABLATION = Plan(
    "ablation",
    quality_scenes=16,
    wrong_action_scenes=0,
    turn_trials=_trials(0, 0),
    step_trials=_trials(0, 0),
    prompt_trials_per_class=0,
    revisit_scenes={5: 6, 15: 6, 45: 4},
    endurance_scenes=12,
)
"""For `recipes.ablations`: pictures, revisits and a minute of play, about 22,000 frames for each world."""

THOROUGH = Plan(
    "thorough",
    quality_scenes=ALL_SCENES,
    wrong_action_scenes=ALL_SCENES,
    turn_trials=_trials(192, 96),
    step_trials=_trials(96, 96),
    prompt_trials_per_class=32,
    revisit_scenes={5: 16, 15: 16, 45: 16},
    endurance_scenes=12,
)
"""For a GPU: narrower intervals."""

PLANS = {plan.name: plan for plan in (DEFAULT, QUICK, ABLATION, THOROUGH)}
