"""The data format: tar shards of Video-Pose-Action-Prompt quadruplets (docs/data_format.md specifies it).

An episode is three neighbouring members of a tar file: KEY.mp4, KEY.npz and KEY.json. A shard appears
under its name only when it is whole.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import DataError
from worldwire.inputs import KEYS
from worldwire_training.data_engine.checks import check_episode
from worldwire_training.data_engine.episode import Episode
from worldwire_training.data_engine.video import decode_video, encode_video

FORMAT_NAME: Final = "worldwire-episode"
FORMAT_VERSION: Final = 1
SUFFIXES: Final = (".mp4", ".npz", ".json")
ARRAYS: Final = ("keys", "look_deg", "c2w", "intrinsics")
OPTIONAL_ARRAYS: Final = ("player",)
SHARD_GLOB: Final = "*.tar"
TAR_END_BYTES: Final = 1024


def write_shard(path: Path, episodes: Iterable[tuple[str, Episode]]) -> None:
    """Writes (key, episode) pairs as one shard, whole or not at all.

    Keys are unique in the shard and hold no dot or slash. Raises DataError for an episode that a reader would
    refuse.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
                for key, episode in episodes:
                    _add_episode(tar, key, episode)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_episodes(source: Path | str) -> Iterator[Episode]:
    """The episodes of a folder of shards (in the order of their names) or of one shard, one at a time.

    Raises DataError, naming the shard and the member, for a shard cut short, missing or wrong fields, and
    poses that are not finite, not rigid or that jump.
    """
    for path in shard_paths(Path(source)):
        for _, episode in read_shard(path):
            yield episode


def shard_paths(source: Path) -> list[Path]:
    """The shards of a folder, or the file itself. Raises DataError when there is none."""
    paths = [source] if source.is_file() else sorted(source.glob(SHARD_GLOB))
    if not paths:
        raise DataError(
            f"{source} holds no data",
            expected="a .tar shard, or a folder of them",
            remedy="worldwire data generate --scenes 8 --out " + str(source),
        )
    return paths


def read_shard(path: Path) -> Iterator[tuple[str, Episode]]:
    """(key, episode) pairs of one shard."""
    for key, members in _groups(path):
        place = f"{path}: {key}"
        missing = [suffix for suffix in SUFFIXES if suffix not in members]
        if missing:
            raise DataError(
                f"{place} is incomplete",
                expected=f"{', '.join(key + suffix for suffix in SUFFIXES)} next to one another",
                got=f"no {', '.join(missing)}",
                remedy=_regenerate(path),
            )
        yield key, _episode(place, members)


def _add_episode(tar: tarfile.TarFile, key: str, episode: Episode) -> None:
    if not key or "." in key or "/" in key:
        raise DataError(
            "an episode's key is unusable", expected="a name without dots and slashes", got=repr(key)
        )
    check_episode(key, episode)
    arrays = {name: getattr(episode, name) for name in (*ARRAYS, *OPTIONAL_ARRAYS)}
    packed = io.BytesIO()
    np.savez(packed, **{name: array for name, array in arrays.items() if array is not None})
    members = {
        ".mp4": encode_video(episode.frames, episode.frames_per_second),
        ".npz": packed.getvalue(),
        ".json": json.dumps(_described(episode), indent=1).encode(),
    }
    for suffix, data in members.items():
        info = tarfile.TarInfo(key + suffix)
        info.size, info.mode = len(data), 0o644
        tar.addfile(info, io.BytesIO(data))


def _described(episode: Episode) -> dict[str, Any]:
    """The JSON part of an episode: all that is no array, and the sizes."""
    count, height, width, _ = episode.frames.shape
    text = {
        field.name: getattr(episode, field.name)
        for field in fields(Episode)
        if field.name not in ("frames", *ARRAYS, *OPTIONAL_ARRAYS)
    }
    return {
        "format": FORMAT_NAME,
        "version": FORMAT_VERSION,
        "frames": count,
        "height": height,
        "width": width,
        "key_names": list(KEYS),
        **{name: value for name, value in text.items() if value is not None},
    }


def _groups(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Neighbouring members that share a key, as {suffix: bytes}."""
    key, members = None, dict[str, bytes]()
    for name, data in _members(path):
        stem, dot, suffix = name.rpartition(".")
        if stem != key and members:
            yield str(key), members
            members = {}
        key = stem
        members[dot + suffix] = data
    if members:
        yield str(key), members


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the files in a tar, read once from front to back; DataError if it stops too soon."""
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                reader = tar.extractfile(info)
                if reader is not None:
                    data = reader.read()
                    if len(data) != info.size:
                        raise _cut_short(path, f"{info.name} has {len(data)} of {info.size} bytes")
                    yield info.name, data
            _check_end(path, file, tar)
    except (tarfile.TarError, EOFError) as error:
        raise _cut_short(path, str(error)) from error


def _check_end(path: Path, file: IO[bytes], tar: tarfile.TarFile) -> None:
    """A tar ends with two blocks of zeros; one cut between two members does not."""
    members = tar.getmembers()
    end = max(
        (m.offset_data + -(-m.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for m in members), default=0
    )
    file.seek(end)
    if len(file.read(TAR_END_BYTES)) < TAR_END_BYTES:
        raise _cut_short(path, f"{path.stat().st_size} bytes without an end mark")


def _cut_short(path: Path, detail: str) -> DataError:
    return DataError(
        f"the shard {path} is cut short or no tar file",
        expected="a whole tar file",
        got=detail,
        remedy=_regenerate(path),
    )


def _regenerate(path: Path) -> str:
    return f"delete {path}; the same `worldwire data generate` again makes what is missing; or copy it anew"


def _episode(place: str, members: dict[str, bytes]) -> Episode:
    described = _load_json(place, members[".json"])
    arrays = _load_arrays(place, members[".npz"])
    names = {field.name for field in fields(Episode)}
    text = {name: value for name, value in described.items() if name in names and name != "frames"}
    try:
        episode = Episode(frames=decode_video(place, members[".mp4"]), **{"player": None, **arrays, **text})
    except TypeError as error:
        raise DataError(
            f"{place} lacks fields",
            expected="prompt, view, kind, time_of_day and frames_per_second in the .json",
            got=", ".join(sorted(text)),
            remedy="write them; docs/data_format.md lists every field",
        ) from error
    if described.get("frames") != len(episode.frames):
        raise DataError(
            f"{place}: the video is not as long as stated",
            expected=f"{described.get('frames')} frames",
            got=f"{len(episode.frames)}",
            remedy="encode one picture for each entry of the arrays, without dropped or doubled frames",
        )
    check_episode(place, episode)
    return episode


def _load_json(place: str, data: bytes) -> dict[str, Any]:
    try:
        described = json.loads(data)
    except ValueError as error:
        raise DataError(f"{place}.json is no JSON", expected="an object", got=str(error)) from error
    if not isinstance(described, dict) or described.get("format") != FORMAT_NAME:
        raise DataError(
            f"{place}.json is of another kind", expected=f"format {FORMAT_NAME!r}", got=repr(described)[:80]
        )
    if described.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{place} has another version of the format",
            expected=str(FORMAT_VERSION),
            got=repr(described.get("version")),
            remedy="generate the data again with this release, or read it with the one that wrote it",
        )
    names = tuple(described.get("key_names", KEYS))
    if names != KEYS:
        raise DataError(f"{place} has other keys", expected=", ".join(KEYS), got=", ".join(map(str, names)))
    return described


def _load_arrays(place: str, data: bytes) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{place}.npz cannot be read", expected="a NumPy .npz", got=str(error)) from error
    missing = sorted(set(ARRAYS) - set(arrays))
    unknown = sorted(set(arrays) - set(ARRAYS) - set(OPTIONAL_ARRAYS))
    if missing or unknown:
        raise DataError(
            f"{place}.npz has other fields",
            expected=f"{', '.join(ARRAYS)} (optional: {', '.join(OPTIONAL_ARRAYS)})",
            got=f"missing {missing}, unknown {unknown}",
            remedy="docs/data_format.md lists every field",
        )
    return arrays
