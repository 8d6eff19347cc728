"""Reads what `worldwire_training.data_engine.bulk` wrote: the files of its workers as one row of episodes."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import DataError

ARRAYS = {"keys": "keys", "look": "look_deg", "c2w": "c2w"}


class JoinedFrames:
    """Frames uint8 [F, H, W, 3] by episode number, from several memory maps."""

    def __init__(self, maps: Sequence[NDArray[np.uint8]]) -> None:
        self._maps = list(maps)
        self._ends = list(accumulate(len(frames) for frames in maps))
        self.shape = (self._ends[-1], *maps[0].shape[1:])

    def __getitem__(self, episode: int) -> NDArray[np.uint8]:
        which = bisect_right(self._ends, episode)
        return self._maps[which][episode - self._ends[which]]


@dataclass(frozen=True)
class BulkEpisodes:
    """E episodes of F frames; satisfies `worldwire_training.latents.EpisodeBatches`."""

    frames: JoinedFrames
    keys: NDArray[np.bool_]  # [E, F, 6]
    look_deg: NDArray[np.float32]  # [E, F, 2]
    c2w: NDArray[np.float64]  # [E, F, 4, 4]
    listed: tuple[dict[str, Any], ...]  # prompt, view, kind, time_of_day, scene_seed

    def __len__(self) -> int:
        return len(self.listed)

    @property
    def prompts(self) -> Sequence[str]:
        return [episode["prompt"] for episode in self.listed]

    @classmethod
    def open(cls, folder: Path) -> BulkEpisodes:
        """The episodes of all workers that have finished.

        Raises DataError when there are none, when a file is cut short, or when lengths differ.
        """
        stems = sorted(path.with_suffix("") for path in folder.glob("worker-*.json"))
        if not stems:
            raise DataError(
                f"there are no episodes in {folder}",
                expected="worker-00.json and its arrays",
                remedy="run `python -m worldwire_training.data_engine.bulk --out ...` first",
            )
        try:
            listed = [json.loads(Path(f"{stem}.json").read_text())["episodes"] for stem in stems]
            frames = JoinedFrames([np.load(f"{stem}.frames.npy", mmap_mode="r") for stem in stems])
            arrays = {
                field: np.concatenate([np.load(f"{stem}.{name}.npy") for stem in stems])
                for name, field in ARRAYS.items()
            }
        except (OSError, ValueError, KeyError) as error:
            raise DataError(
                f"the episodes in {folder} cannot be read: {error}", remedy="render them again"
            ) from error
        episodes = cls(frames, listed=tuple(row for rows in listed for row in rows), **arrays)
        lengths = {len(episodes), len(episodes.keys), frames.shape[0]}
        if len(lengths) != 1:
            raise DataError(f"the episodes in {folder} are incomplete", got=f"lengths {sorted(lengths)}")
        return episodes
