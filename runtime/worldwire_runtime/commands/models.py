"""`worldwire models list` and `worldwire models parity DIR --json F`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from worldwire.cli import Command

if TYPE_CHECKING:
    from worldwire_runtime.parity import Result

EXIT_DIFFERENT = 1
BYTES_PER_MB = 1_000_000


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the presets of this installation, their sizes and folders")
    listing.set_defaults(action=list_presets)
    parity = verbs.add_parser("parity", help="compare with recorded outputs of the official implementation")
    parity.add_argument("folder", type=Path, metavar="DIR", help="folder with cases.json and its tensors")
    parity.add_argument("--json", type=Path, metavar="F", help="write {case/output: relative error} to F")
    parity.set_defaults(action=run_parity)


def run(args: argparse.Namespace) -> int:
    return int(args.action(args))


def list_presets(_: argparse.Namespace) -> int:
    """One line per preset: name, size on disk, folder."""
    from worldwire_runtime.world import preset_folder, preset_names

    names = preset_names()
    if not names:
        sys.stdout.write("no presets are installed\n")
    for name in names:
        folder = preset_folder(name)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        sys.stdout.write(f"{name:<12} {size / BYTES_PER_MB:>9.1f} MB  {folder}\n")
    return 0


def run_parity(args: argparse.Namespace) -> int:
    """Prints each output's relative error; exit status 1 if one is larger than its tolerance."""
    from worldwire_runtime.parity import run_folder

    results = run_folder(args.folder)
    sys.stdout.write(table(results))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({result.name: result.error for result in results}, indent=1) + "\n")
    return 0 if all(result.passed for result in results) else EXIT_DIFFERENT


def table(results: list[Result]) -> str:
    """The results as lines of text."""
    width = max((len(result.name) for result in results), default=0)
    lines = [f"{'case/output':<{width}}  {'error':>9}  {'allowed':>9}"]
    lines += [
        f"{result.name:<{width}}  {result.error:>9.2e}  {result.tolerance:>9.0e}"
        f"  {'ok' if result.passed else 'DIFFERENT'}"
        for result in results
    ]
    failed = sum(not result.passed for result in results)
    lines.append(f"{len(results)} outputs compared, {failed} beyond their tolerance")
    return "\n".join(lines) + "\n"


command = Command(
    "list the models of this installation; compare them with the official implementation", configure, run
)
