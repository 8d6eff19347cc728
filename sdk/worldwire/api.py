"""The small interface of a session, the same in process (`World.session()`) and over the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worldwire.inputs import Inputs


@dataclass(frozen=True)
class Frame:
    """One picture of a session.

    index: frame number in the session; 0 is the first picture.
    pixels: uint8 [height, width, 3], RGB; over the wire a view of 4-byte pixels in a session of format
    `rgba` or `bgra` (`numpy.ascontiguousarray` makes it 3).
    c2w: camera pose of the frame, [4, 4], in the session's world (its first camera is the identity).
    ack: the sequence number of the newest input that this frame shows (over the wire; 0 in process).
    memory_latents: which past latents the memory slots held while the frame was made.
    timings_ms: milliseconds by stage; over the wire with `transport`, from the server's send to our receipt.
    sent_ns, received_ns: when the server sent it and when it came, both on the local `time.monotonic_ns`; the
    server's clock is compared by the quickest ping. 0 in process.
    """

    index: int
    pixels: NDArray[np.uint8]
    c2w: NDArray[np.float64]
    ack: int = 0
    memory_latents: tuple[int, ...] = ()
    timings_ms: dict[str, float] = field(default_factory=dict)
    sent_ns: int = 0
    received_ns: int = 0


@dataclass(frozen=True)
class WorldInfo:
    """What a client may know of a world before it plays.

    trained_keys: the keys that change what is generated; others are accepted and have no effect.
    frames_per_step: frames of one step under the session's clip plan.
    """

    name: str
    height: int
    width: int
    frames_per_second: float
    frames_per_step: int
    horizontal_fov_deg: float
    trained_keys: tuple[str, ...]
    views: tuple[str, ...]
    seed_images: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)


class SessionLike(Protocol):
    """One player's walk through a world."""

    @property
    def frames_per_step(self) -> int:
        """How many frames the next `step` returns."""
        ...

    def reset(
        self,
        prompt: str | None = None,
        image: NDArray[np.uint8] | str | None = None,
        seed: int = 0,
        view: str | None = None,
    ) -> Frame:
        """Starts anew and returns frame 0.

        prompt: one plain sentence. image: uint8 [height, width, 3] RGB, or the name of a shipped seed image.
        With neither, the world's first seed image (of `view`) is used; with a prompt alone the first frame is
        generated. seed: of all randomness; the same seed and inputs give the same frames.
        view: one of the world's `views`; None is the shipped seed image's own view, else the world's first.
        """
        ...

    def step(self, inputs: Inputs | Sequence[Inputs]) -> list[Frame]:
        """Generates the next `frames_per_step` frames under one held `Inputs`, or one for each frame."""
        ...

    def set_prompt(self, prompt: str) -> None:
        """What the world is told from the next step on; picture, place and memory go on as they are."""
        ...

    def save(self) -> bytes:
        """The whole state of the session, memory included."""
        ...

    def restore(self, state: bytes) -> None:
        """Continues from a saved state; on a CPU bit for bit."""
        ...

    def close(self) -> None:
        """Frees what the session holds; closing twice is fine."""
        ...
