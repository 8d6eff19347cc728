"""With a display: the window. Without one: a scripted walk that is recorded."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame

from worldwire.cli import parse_known, refuse
from worldwire.errors import ConfigError
from worldwire.inputs import Inputs
from worldwire.viewer.headless import record_walk
from worldwire.viewer.hosts import LocalHost, RemoteHost
from worldwire.viewer.link import Host, Start
from worldwire.viewer.local import SERVE_VERB
from worldwire.viewer.script import fit, load_script
from worldwire.viewer.window import Window, WindowOptions

PICTURELESS_DRIVERS: Final = ("dummy", "offscreen", "evdev")
FOR_OTHERS: Final = {
    "bind": "--bind",
    "ready_file": "--ready-file",
    "new_key": "--new-key",
    "key": "--key",
    "clients": "--clients",
}
"""Options of a server that somebody else finds and connects to."""


def play(args: Namespace) -> int:
    """Runs `worldwire play` with its parsed arguments."""
    script = _script(args.script, args.frames) if args.script else []
    host = _host(args)
    start = Start(args.prompt, args.image, args.seed, args.view)
    problem = display_problem()
    with _terminable():
        if problem is not None:
            _say(f"no display ({problem}): recording a scripted walk instead of opening a window")
            files = record_walk(host, start, script or _script("demo", args.frames))
            _say(f"video:         {files.video.resolve()}")
            _say(f"contact sheet: {files.sheet.resolve()}")
        else:
            frames = None if script else args.frames
            options = WindowOptions(args.scale, frames, args.record, script)
            Window(host, start, options).run()
    return 0


def display_problem() -> str | None:
    """Why no window can open here, or None if one can."""
    chosen = os.environ.get("SDL_VIDEODRIVER")
    has_server = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not (chosen or has_server):
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    try:
        pygame.display.init()
    except pygame.error as error:
        return str(error)
    if not chosen and pygame.display.get_driver() in PICTURELESS_DRIVERS:
        return f"SDL found only its driver '{pygame.display.get_driver()}'"
    return None


def _script(source: str, frames: int | None) -> list[Inputs]:
    script = load_script(source)
    return fit(script, frames) if frames else script


def _host(args: Namespace) -> Host:
    """A server of our own gets every option that `play` does not know."""
    if args.connect and args.rest:
        raise ConfigError(
            "these options are for a server that `play` starts itself",
            got=f"{' '.join(args.rest)}, and --connect as well",
            remedy="leave one of them out; `worldwire play --help` has the options of `play`",
        )
    if args.connect:
        return RemoteHost(args.connect, args.server_key, args.client_key)
    if args.server_key or args.client_key:
        raise ConfigError(
            "keys are for a server that runs already", remedy="say where with --connect tcp://HOST:PORT"
        )
    _check_rest(args)
    return LocalHost(args.rest)


def _check_rest(args: Namespace) -> None:
    """What is wrong with the options for the server shows now, not in its log."""
    asked, default = parse_known([SERVE_VERB, *args.rest]), parse_known([SERVE_VERB])
    if asked.rest and not asked.takes_rest:
        refuse(args, asked.rest)
    public = [
        option for name, option in FOR_OTHERS.items() if getattr(asked, name, 0) != getattr(default, name, 0)
    ]
    if public:
        raise ConfigError(
            f"the server of `play` is for this window alone and takes no {' or '.join(public)}",
            remedy="start one that others reach with `worldwire serve`, and play with --connect",
        )


@contextmanager
def _terminable() -> Iterator[None]:
    """Lets SIGTERM unwind like Ctrl-C, so that the server process is not left behind."""

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        pygame.display.quit()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
