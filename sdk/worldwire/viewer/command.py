"""The verb `worldwire play`."""

from __future__ import annotations

import argparse
from typing import TypeVar

from worldwire.cli import Command
from worldwire.motion import VIEWS
from worldwire.viewer.script import FORMAT_HELP

Number = TypeVar("Number", int, float)


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Starts a server of its own unless --connect names one. Options that are not listed here go to it:\n"
        "--preset, --device, --precision, --plan, --threads and all others of `worldwire serve --help`\n"
        "but those of its address and keys.\n"
        "F1 in the window lists the keys.\n"
        "Without a display it records a scripted walk into recordings/ (an mp4 and a contact sheet)."
    )
    parser.add_argument(
        "--connect", metavar="ADDR", help="a running server, for example tcp://127.0.0.1:5555"
    )
    parser.add_argument(
        "--server-key", metavar="KEY|FILE", help="the public key of a server of --connect that encrypts"
    )
    parser.add_argument(
        "--client-key",
        metavar="FILE",
        help="the secret file of a key of our own, if that server lists clients",
    )
    parser.add_argument("--image", metavar="NAME|FILE", help="a shipped seed image, or any picture")
    parser.add_argument(
        "--prompt", help="one sentence; without an image the first picture is generated from it"
    )
    parser.add_argument("--seed", type=_seed, default=0, help="of all randomness (default: 0)")
    parser.add_argument("--view", choices=VIEWS, help="first or third person (default: the seed image's own)")
    parser.add_argument("--record", action="store_true", help="record an mp4 into recordings/ from the start")
    parser.add_argument(
        "--script", metavar="FILE|demo", help=f"walk by itself: {FORMAT_HELP}".replace("%", "%%")
    )
    parser.add_argument("--frames", type=_positive, metavar="N", help="stop after N frames")
    parser.add_argument(
        "--scale", type=_scale, help="window pixels per picture pixel (default: 3, or what fits)"
    )


def _run(args: argparse.Namespace) -> int:
    from worldwire.viewer.play import play

    return play(args)


def _number(kind: type[Number], text: str) -> Number:
    try:
        return kind(text)
    except ValueError as error:
        sort = "a whole number" if kind is int else "a number"
        raise argparse.ArgumentTypeError(f"{text!r} is not {sort}") from error


def _positive(text: str) -> int:
    value = _number(int, text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return value


def _seed(text: str) -> int:
    value = _number(int, text)
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{value} is not within 0 .. 2^63 - 1")
    return value


def _scale(text: str) -> float:
    value = _number(float, text)
    if not 0.5 <= value <= 16:
        raise argparse.ArgumentTypeError(f"{value} is not within 0.5 .. 16")
    return value


command = Command(
    "walk through a world in a window, or record a scripted walk", _configure, _run, takes_rest=True
)
