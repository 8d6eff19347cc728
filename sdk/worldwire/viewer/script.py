"""Scripted walks: what a player would do, written down.

As text, one line for each stretch: the number of frames, the held keys, and the turn in each frame.

    # frames  keys          degrees per frame
    24        forward
    30        forward       yaw=3
    16        left back     yaw=-1.5 pitch=0.5
    8

As JSON, a list of objects: {"frames": 24, "keys": ["forward"], "yaw_deg": 3, "pitch_deg": 0}.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from worldwire.api import Frame, SessionLike
from worldwire.errors import ConfigError, InputError
from worldwire.inputs import Inputs

DEMO: Final = """
40 forward
30 forward yaw=3
24 forward
40 yaw=4.5            # turn around
24 forward            # and walk back
30 forward yaw=-3
16 back left
16 right pitch=0.5
"""
MAX_FRAMES: Final = 1_000_000
FORMAT_HELP: Final = (
    "a file of lines 'FRAMES [KEY ...] [yaw=DEG] [pitch=DEG]' (degrees per frame, # starts a comment), "
    'or JSON: [{"frames": 24, "keys": ["forward"], "yaw_deg": 3, "pitch_deg": 0}, ...]'
)


def load_script(source: str) -> list[Inputs]:
    """One `Inputs` per frame of a script file, or of the built-in walk named `demo`.

    Raises ConfigError, which names the file and line, for anything that the format does not know.
    """
    if source == "demo":
        return parse_script(DEMO, "demo")
    try:
        text = Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "the script cannot be read", expected="a text or JSON file, or 'demo'", got=f"{source}: {error}"
        ) from error
    return parse_script(text, source)


def parse_script(text: str, name: str = "script") -> list[Inputs]:
    """One `Inputs` per frame; `name` is used in errors."""
    stretches = _json_stretches(text, name) if text.lstrip().startswith("[") else _text_stretches(text, name)
    frames = [inputs for count, inputs in stretches for _ in range(count)]
    if not frames:
        raise ConfigError(f"{name}: the script has no frames", expected=FORMAT_HELP)
    return frames


def fit(script: list[Inputs], frames: int) -> list[Inputs]:
    """The script cut, or played over and over, to a number of frames."""
    return list(islice(cycle(script), frames))


def walk(session: SessionLike, script: list[Inputs]) -> Iterator[tuple[Inputs, Frame]]:
    """Each input of the script with the frame that it led to; the last input fills up the last step."""
    done = 0
    while done < len(script):
        count = session.frames_per_step
        chunk = script[done : done + count]
        frames = session.step(chunk + chunk[-1:] * (count - len(chunk)))
        yield from zip(chunk, frames, strict=False)
        done += len(chunk)


def _text_stretches(text: str, name: str) -> Iterable[tuple[int, Inputs]]:
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if words:
            fields: dict[str, Any] = {"frames": words[0], "keys": []}
            for word in words[1:]:
                key, equals, value = word.partition("=")
                if equals:
                    fields[f"{key}_deg"] = value
                else:
                    fields["keys"].append(key)
            yield _stretch(fields, f"{name}, line {number}")


def _json_stretches(text: str, name: str) -> Iterable[tuple[int, Inputs]]:
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}: the script is no JSON", expected=FORMAT_HELP, got=str(error)) from error
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise ConfigError(f"{name}, item {number}", expected="an object", got=repr(item))
        yield _stretch(item, f"{name}, item {number}")


def _stretch(fields: dict[str, Any], where: str) -> tuple[int, Inputs]:
    unknown = sorted(fields.keys() - {"frames", "keys", "yaw_deg", "pitch_deg"})
    if unknown:
        raise ConfigError(f"{where}: unknown fields", expected=FORMAT_HELP, got=", ".join(unknown))
    try:
        count = int(fields.get("frames", ""))
        yaw_deg, pitch_deg = (float(fields.get(key, 0)) for key in ("yaw_deg", "pitch_deg"))
        inputs = Inputs(frozenset(fields.get("keys", ())), yaw_deg, pitch_deg)
    except (ValueError, TypeError, InputError) as error:
        raise ConfigError(f"{where}: {error}", expected=FORMAT_HELP, got=repr(fields)) from error
    if not 0 < count <= MAX_FRAMES:
        raise ConfigError(f"{where}: the number of frames", expected=f"1 to {MAX_FRAMES}", got=str(count))
    return count, inputs
