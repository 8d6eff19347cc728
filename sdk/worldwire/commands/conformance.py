"""worldwire conformance tcp://HOST:5555: does a server keep the protocol? One line a clause."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from worldwire.cli import Command
from worldwire.protocol import DEFAULT_ADDRESS, VERSION

if TYPE_CHECKING:
    from worldwire.conformance import Result

EXIT_FAILED: Final = 1
PATIENCE_S: Final = 60.0


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `worldwire conformance`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "The clauses are those of sdk/PROTOCOL.md. Run it against an idle server that you may disturb.\n"
        "Exit status: 0 all kept, 1 a clause failed, 2 the server cannot be reached."
    )
    parser.add_argument(
        "address", nargs="?", default=DEFAULT_ADDRESS, metavar="ADDR", help="default: %(default)s"
    )
    parser.add_argument(
        "--quick", action="store_true", help="leave out what waits for time-outs of the server"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    parser.add_argument("--only", metavar="SECTION", help="the clauses of a section, for example 7 or 7.1")
    parser.add_argument("--list", action="store_true", help="name the clauses and check none")
    parser.add_argument("--server-key", metavar="KEY|FILE", help="the public key of a server that encrypts")
    parser.add_argument("--client-key", metavar="FILE", help="the secret file of a key of our own")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE_S,
        metavar="SECONDS",
        help="how long an answer may take, a generated step included (default: %(default)g)",
    )


def run(args: argparse.Namespace) -> int:
    """Prints a line a clause; 1 if one failed."""
    from worldwire.conformance import Outcome, Target, clauses
    from worldwire.conformance import run as check
    from worldwire.keys import ClientKeys

    chosen = [item for item in clauses() if _within(item.section, args.only)]
    if args.list:
        for item in chosen:
            sys.stdout.write(f"§{item.section}  {item.text}{'  (slow)' if item.slow else ''}\n")
        return 0
    keys = ClientKeys.of(args.server_key, args.client_key)
    target = Target(args.address, keys, args.patience, args.quick)
    counts = dict.fromkeys(Outcome, 0)
    for result in check(target, chosen):
        counts[result.outcome] += 1
        sys.stdout.write((_as_json(result) if args.json else _as_text(result)) + "\n")
        sys.stdout.flush()
    if not args.json:
        numbers = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        sys.stdout.write(f"protocol {VERSION[0]}.{VERSION[1]}, {args.address}: {numbers}\n")
    return EXIT_FAILED if counts[Outcome.FAIL] else 0


def _within(section: str, wanted: str | None) -> bool:
    return wanted is None or section == wanted or section.startswith(f"{wanted}.")


def _as_text(result: Result) -> str:
    line = f"{result.outcome}  §{result.clause.section}  {result.clause.text}"
    return f"{line}\n      {result.detail}" if result.detail else line


def _as_json(result: Result) -> str:
    values = {"section": result.clause.section, "text": result.clause.text} | {
        name: value for name, value in asdict(result).items() if name != "clause"
    }
    return json.dumps(values | {"seconds": round(result.seconds, 3)}, ensure_ascii=False)


command = Command("check a server against the protocol, clause by clause", configure, run)
