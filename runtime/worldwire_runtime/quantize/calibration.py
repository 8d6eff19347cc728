"""What the layers of a network really see: their inputs in real walks through a world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from worldwire.inputs import Inputs
from worldwire_runtime.config import ClipPlan
from worldwire_runtime.world import World

ROWS_PER_CALL = 16
"""How many tokens of one call are kept; a few hundred calls make a sample."""
# A walk with every motion that the data has: ahead, turning both ways, sideways, back, standing still.
WALK = (
    Inputs(keys=frozenset({"forward"})),
    Inputs(keys=frozenset({"forward"}), yaw_deg=3.0),
    Inputs(keys=frozenset({"left"}), yaw_deg=-3.0),
    Inputs(yaw_deg=4.0, pitch_deg=0.5),
    Inputs(keys=frozenset({"back", "right"})),
    Inputs(),
)


@dataclass
class Samples:
    """Inputs of one layer. largest [K]: of each channel's magnitude, over everything that was seen."""

    kept: list[Tensor]
    largest: Tensor

    @property
    def rows(self) -> Tensor:
        """Some of the rows [R, K] in float32, drawn evenly from all calls."""
        return torch.cat(self.kept)


@contextmanager
def recorded(layers: dict[str, nn.Module], seed: int = 0) -> Iterator[dict[str, Samples]]:
    """Fills the mapping with the inputs of these layers while the block runs."""
    samples: dict[str, Samples] = {}
    generator = torch.Generator().manual_seed(seed)
    handles: list[RemovableHandle] = [
        layer.register_forward_pre_hook(partial(_note, samples, name, generator))
        for name, layer in layers.items()
    ]
    try:
        yield samples
    finally:
        for handle in handles:
            handle.remove()


def _note(
    samples: dict[str, Samples],
    name: str,
    generator: torch.Generator,
    _: nn.Module,
    inputs: tuple[Tensor, ...],
) -> None:
    rows = inputs[0].detach().flatten(0, -2)
    largest = rows.abs().amax(dim=0).float()
    chosen = torch.randint(len(rows), (min(ROWS_PER_CALL, len(rows)),), generator=generator)
    kept = rows[chosen.to(rows.device)].float()
    if name in samples:
        samples[name].kept.append(kept)
        samples[name].largest = torch.maximum(samples[name].largest, largest)
    else:
        samples[name] = Samples([kept], largest)


def walk_through(
    world: World,
    *,
    images: int,
    plan: ClipPlan | None = None,
    seed: int = 0,
    advanced: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Plays the walk from up to `images` seed images, one motion per step. advanced: (steps done, of all)."""
    names: Sequence[str | None] = world.seed_images.names[:images] or (None,)
    with world.session(plan) as session:
        for start, name in enumerate(names):
            session.reset(image=name, prompt=None if name else "", seed=seed + start)
            for step, inputs in enumerate(WALK, start=1):
                session.step([inputs] * session.frames_per_step)
                advanced(start * len(WALK) + step, len(names) * len(WALK))
