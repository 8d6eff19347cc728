"""The command `worldwire`: finds its verbs among the entry points of the group `worldwire.commands`.

A checkout that nobody installed has no entry points; `python -m worldwire` reads them in its pyproject.toml.
"""

from __future__ import annotations

import argparse
import logging
import os
import select
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any, NoReturn

from worldwire.errors import MissingExtraError, WorldwireError

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # what a shell says of a program that SIGPIPE ended
GROUP = "worldwire.commands"
PROJECT_FILE = Path(__file__).parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class Command:
    """One verb: its help line, what it adds to a parser, and what it does (returns the exit status).

    takes_rest: what its parser does not know is no error; `args.rest` has it for whomever it goes to.
    Modules that hold a Command import torch, moderngl or pygame inside `run`, so that the help stays quick.
    """

    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    takes_rest: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Errors of ours become one message on stderr and exit status 2; Ctrl-C gives 130.

    A reader of our output that leaves early, as `head` does, ends it quietly with 141.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        status = guarded(lambda: _run_verb(argv))
        sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        return EXIT_PIPE
    return status


def _run_verb(argv: Sequence[str] | None) -> int:
    args = parse(argv)
    return int(args.run(args))


def guarded(work: Callable[[], int | None]) -> int:
    """A program's exit status: its own, 2 after an error of ours (one line on stderr), 130 after Ctrl-C."""
    try:
        return work() or 0
    except WorldwireError as error:
        sys.stderr.write(f"worldwire: {error}\n")
        return EXIT_USAGE
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return EXIT_INTERRUPTED


def _nobody_reads() -> bool:
    """Whether standard output is a pipe without a reader; what is still to be written goes nowhere then."""
    if not hasattr(select, "poll"):  # Windows
        return False
    place, pipes = sys.stdout.fileno(), select.poll()
    pipes.register(place, 0)
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in pipes.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), place)
    return True


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of a verb, and in `run` what does it; exits with its usage for what it does not take."""
    args = parse_known(argv)
    if args.rest and not args.takes_rest:
        refuse(args, args.rest)
    return args


def parse_known(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """As `parse`; what the verb does not take is left in `rest`."""
    args, rest = _parser().parse_known_args(argv)
    args.rest = rest
    return args


def refuse(args: argparse.Namespace, words: Sequence[str]) -> NoReturn:
    """Exits with the usage of the verb that `args` are for: it does not take these words."""
    args.fail(f"unrecognized arguments: {' '.join(words)}")
    raise SystemExit(EXIT_USAGE)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="worldwire", description="Step into a generated world.")
    parser.add_argument("--version", action="version", version=f"worldwire {_version()}")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for entry in sorted(_entries(), key=lambda entry: entry.name):
        command = _load(entry)
        verb = verbs.add_parser(
            entry.name, help=command.help, description=command.help, allow_abbrev=not command.takes_rest
        )
        verb.set_defaults(takes_rest=command.takes_rest, fail=verb.error)
        command.configure(verb)
        verb.set_defaults(run=_needs_extra(entry, command.run))
    return parser


def _version() -> str:
    try:
        return version("worldwire")
    except PackageNotFoundError:
        return f"{_project()['version']} (not installed)"


def _entries() -> Iterable[EntryPoint]:
    found = entry_points(group=GROUP)
    if found or not PROJECT_FILE.is_file():
        return found
    named: dict[str, str] = _project()["entry-points"][GROUP]
    return [EntryPoint(name, value, GROUP) for name, value in named.items()]


def _project() -> Any:
    return tomllib.loads(PROJECT_FILE.read_text())["project"]


def _load(entry: EntryPoint) -> Command:
    """The verb, or a stand-in that says which extra brings it."""
    try:
        command = entry.load()
    except ModuleNotFoundError as error:
        extra = _extra(entry)
        if extra is None:
            raise
        return _absent(entry.name, extra, error)
    if not isinstance(command, Command):
        raise TypeError(f"{entry.value} is no worldwire.cli.Command")
    return command


def _absent(name: str, extra: str, error: ModuleNotFoundError) -> Command:
    def refuse(_: argparse.Namespace) -> int:
        raise MissingExtraError(f"worldwire {name}", extra) from error

    return Command(f"(needs the extra '{extra}')", lambda _: None, refuse, takes_rest=True)


def _needs_extra(
    entry: EntryPoint, run: Callable[[argparse.Namespace], int]
) -> Callable[[argparse.Namespace], int]:
    """Turns a package that is not there into the name of the extra that brings it."""

    def guarded(args: argparse.Namespace) -> int:
        try:
            return run(args)
        except ModuleNotFoundError as error:
            extra = _extra(entry)
            if extra is None or (error.name or "").split(".")[0].startswith("worldwire"):
                raise
            raise MissingExtraError(
                f"worldwire {entry.name} ({error.name} is not installed)", extra
            ) from error

    return guarded


def _extra(entry: EntryPoint) -> str | None:
    return entry.extras[0] if entry.extras else None
