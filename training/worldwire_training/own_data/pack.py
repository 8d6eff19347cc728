"""Shards of the data format as the plain arrays that training reads (`bulk_episodes`), cut to one length."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from worldwire.camera import Intrinsics
from worldwire.errors import DataError
from worldwire_training.data_engine.bulk import LISTED
from worldwire_training.data_engine.episode import Episode
from worldwire_training.data_engine.shards import read_episodes

log = logging.getLogger(__name__)

FOCAL_TOLERANCE = 0.02
"""Share by which a focal length may differ from the world's: a few pixels at the border."""


@dataclass(frozen=True)
class Packed:
    """How many pieces went where."""

    training: int
    held_out: int


def pack(source: Path, out: Path, camera: Intrinsics, frames: int, held_out: int) -> Packed:
    """Write `out`/episodes and `out`/held_out; the last `held_out` pieces are held out.

    frames: 1 + 4n, the length of every piece; episodes are cut into pieces that share their border frame,
    what is left over is dropped. Raises DataError for other cameras, and when too little is left.
    """
    pieces = [piece for episode in read_episodes(source) for piece in cut(checked(episode, camera), frames)]
    if len(pieces) <= held_out:
        raise DataError(
            f"{source} holds too little",
            expected=f"more than {held_out} pieces of {frames} frames",
            got=str(len(pieces)),
            remedy="record more, or ask for shorter pieces with --frames",
        )
    split = len(pieces) - held_out
    write_worker(out / "episodes", pieces[:split])
    if held_out:
        write_worker(out / "held_out", pieces[split:])
    return Packed(split, held_out)


def cut(episode: Episode, frames: int) -> Iterator[Episode]:
    """Pieces of so many frames; the first action of each is neutral."""
    for start in range(0, len(episode.frames) - frames + 1, frames - 1):
        part = slice(start, start + frames)
        keys, look = episode.keys[part].copy(), episode.look_deg[part].copy()
        keys[0], look[0] = False, 0.0
        player = None if episode.player is None else episode.player[part]
        yield replace(
            episode,
            frames=episode.frames[part],
            keys=keys,
            look_deg=look,
            c2w=episode.c2w[part],
            player=player,
        )


def checked(episode: Episode, camera: Intrinsics) -> Episode:
    """The episode, or DataError when the world's camera is another one."""
    height, width = episode.frames.shape[1:3]
    fx, fy, cx, cy = episode.intrinsics
    focal = max(abs(fx / camera.fx - 1), abs(fy / camera.fy - 1))
    centre = max(abs(cx - camera.cx) / camera.width, abs(cy - camera.cy) / camera.height)
    if (height, width) != (camera.height, camera.width) or max(focal, centre) > FOCAL_TOLERANCE:
        raise DataError(
            "an episode was seen by another camera than the world's",
            expected=f"{camera.height}x{camera.width}, f {camera.fx:.1f}, centre {camera.cx:g} {camera.cy:g}",
            got=f"{height}x{width}, f {fx:.1f}, centre {cx:g} {cy:g}",
            remedy="worldwire data import fits pictures to a world",
        )
    if not episode.actions_known:
        raise DataError(
            "an episode has no actions",
            expected="keys and look for every frame",
            remedy="import it anew: look and keys are inferred from poses",
        )
    return episode


def write_worker(folder: Path, pieces: Sequence[Episode]) -> None:
    """The files of one worker of `data_engine.bulk`."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / "worker-00"
    arrays = {"frames": "frames", "keys": "keys", "look": "look_deg", "c2w": "c2w"}
    for name, field in arrays.items():
        np.save(f"{stem}.{name}.npy", np.stack([getattr(piece, field) for piece in pieces]))
    listed = [{name: getattr(piece, name) for name in LISTED} for piece in pieces]
    facts = {"frames": len(pieces[0].frames), "episodes": listed}
    Path(f"{stem}.json").write_text(json.dumps(facts), encoding="utf-8")
    log.info("wrote %d pieces into %s", len(pieces), folder)
