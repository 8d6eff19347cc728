"""What every metric is given to work with."""

from __future__ import annotations

from dataclasses import dataclass

from worldwire import PlayerPose
from worldwire_training.evaluation.album import Album
from worldwire_training.evaluation.plan import Plan
from worldwire_training.evaluation.play import Player
from worldwire_training.evaluation.stages import Stage, Studio

THIRD_PERSON_EVERY = 4


@dataclass(frozen=True)
class Setting:
    """A world to play in, a studio that renders the truth, held-out scenes, and how much to play."""

    player: Player
    studio: Studio
    seeds: tuple[int, ...]
    plan: Plan
    album: Album

    def frame_at(self, seconds: float) -> int:
        """The frame that the world shows at a world time."""
        return round(seconds * self.player.world.info.frames_per_second)


def view_of(index: int) -> str:
    """Every fourth scene is played in third person."""
    return "third" if index % THIRD_PERSON_EVERY == THIRD_PERSON_EVERY - 1 else "first"


def start_of(stage: Stage, ahead_m: float = 3.0) -> PlayerPose:
    """A start with a free view ahead, or any start where all are narrow."""
    return stage.start([(0.0, ahead_m)]) or stage.start() or PlayerPose()


def stage_for(studio: Studio, seed: int, view: str) -> Stage:
    """The scene of a seed; for third person as a village, because rooms are too small for its camera."""
    return studio.stage(seed, "village" if view == "third" else None)
