"""Playing walks in a world: sessions, whole steps, and only the wanted frames kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worldwire import Frame, Inputs, WorldInfo
from worldwire_training.evaluation.pixels import Picture
from worldwire_training.evaluation.walks import Conditioning, Walk

SEED_MODULUS = 2**31


class EvalSession(Protocol):
    """A session in process: `SessionLike`, and what the network is told can be restricted."""

    @property
    def frames_per_step(self) -> int: ...

    def reset(
        self,
        prompt: str | None = None,
        image: NDArray[np.uint8] | str | None = None,
        seed: int = 0,
        view: str = "first",
        conditioning: Conditioning = "both",
    ) -> Frame: ...

    def step(self, inputs: Inputs | Sequence[Inputs]) -> list[Frame]: ...

    def save(self) -> bytes: ...

    def restore(self, state: bytes) -> None: ...

    def close(self) -> None: ...


class EvalWorld(Protocol):
    """What the evaluation needs of `worldwire_runtime.World`."""

    @property
    def info(self) -> WorldInfo: ...

    def session(self, *, memory: bool = True) -> EvalSession: ...


@dataclass
class Journey:
    """A session on its way through the inputs of a walk; `frame` is the newest frame that it has shown."""

    session: EvalSession
    frame: int
    advanced: Callable[[int], None]

    def approach(self, inputs: Sequence[Inputs], last: int) -> None:
        """Whole steps as long as they do not go beyond frame `last`."""
        while self.frame + self.session.frames_per_step <= last:
            self._step(inputs)

    def reach(self, inputs: Sequence[Inputs], keep: Iterable[int]) -> dict[int, Picture]:
        """The pictures at the frames `keep`; a last step that outlasts the walk stands still."""
        wanted = set(keep)
        kept: dict[int, Picture] = {}
        while self.frame < max(wanted):
            kept |= {frame.index: frame.pixels for frame in self._step(inputs) if frame.index in wanted}
        return kept

    def save(self) -> tuple[int, bytes]:
        """Frame and state to come back to."""
        return self.frame, self.session.save()

    def restore(self, saved: tuple[int, bytes]) -> None:
        """Back to where `save` was called."""
        self.frame, state = saved
        self.session.restore(state)

    def _step(self, inputs: Sequence[Inputs]) -> list[Frame]:
        count = self.session.frames_per_step
        told = list(inputs[self.frame + 1 : self.frame + 1 + count])
        told += [Inputs(c2w=inputs[-1].c2w)] * (count - len(told))
        frames = self.session.step(told)
        self.frame += count
        self.advanced(count)
        return frames


class Player:
    """Plays in one world. advanced: called with the number of frames after every step, for a progress bar."""

    def __init__(self, world: EvalWorld, advanced: Callable[[int], None] = lambda _: None):
        self.world, self._advanced = world, advanced
        self.generated_frames = 0
        self._sessions: dict[bool, EvalSession] = {}

    def begin(
        self,
        walk: Walk,
        picture: Picture | None,
        *,
        prompt: str,
        seed: int,
        conditioning: Conditioning = "both",
        memory: bool = True,
    ) -> tuple[Journey, Picture]:
        """A session at frame 0 of a walk, and that frame as shown. No picture: from the prompt alone."""
        if memory not in self._sessions:
            self._sessions[memory] = self.world.session(memory=memory)
        session = self._sessions[memory]
        shown = session.reset(prompt, picture, seed % SEED_MODULUS, walk.view, conditioning)
        self._count(1)
        return Journey(session, 0, self._count), shown.pixels

    def play(
        self,
        walk: Walk,
        picture: Picture,
        keep: Iterable[int],
        *,
        prompt: str,
        seed: int,
        conditioning: Conditioning = "both",
    ) -> dict[int, Picture]:
        """The generated pictures at the frames `keep` of a walk that starts with this picture."""
        journey, first = self.begin(walk, picture, prompt=prompt, seed=seed, conditioning=conditioning)
        later = [frame for frame in keep if frame > 0]
        return {0: first} | journey.reach(walk.session_inputs(conditioning), later)

    def close(self) -> None:
        """Closes the sessions."""
        for session in self._sessions.values():
            session.close()

    def _count(self, frames: int) -> None:
        self.generated_frames += frames
        self._advanced(frames)
