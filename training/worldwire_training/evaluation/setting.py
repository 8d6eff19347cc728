"""What every metric is given to work with."""

from __future__ import annotations

from dataclasses import dataclass

from worldwire_training.evaluation.album import Album
from worldwire_training.evaluation.plan import Plan
from worldwire_training.evaluation.play import Player
from worldwire_training.evaluation.stages import Studio

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
