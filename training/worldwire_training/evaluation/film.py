"""The scripted walk of the README's moving picture."""

from __future__ import annotations

from worldwire import Inputs
from worldwire_training.evaluation.pixels import Picture
from worldwire_training.evaluation.play import EvalWorld, Player
from worldwire_training.evaluation.setting import start_of
from worldwire_training.evaluation.stages import Studio
from worldwire_training.evaluation.walks import showcase_script

OPEN_GROUND = ((0.0, 3.0), (0.0, 5.0), (1.5, 6.0))


def film(world: EvalWorld, studio: Studio, seed: int) -> tuple[list[Picture], list[Inputs]]:
    """Generated pictures of six seconds in a held-out scene, and the inputs that lead to each of them."""
    stage = studio.stage(seed)
    walk = stage.walk(stage.start(OPEN_GROUND) or start_of(stage), showcase_script(), "first")
    first = stage.render(walk, [0])[0]
    player = Player(world)
    made = player.play(walk, first, range(len(walk)), prompt=stage.prompt("first"), seed=seed)
    player.close()
    return [made[frame] for frame in range(len(walk))], list(walk.inputs)
