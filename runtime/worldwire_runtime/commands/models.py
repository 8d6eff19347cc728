"""`worldwire models list | verify DIR | parity DIR --json F | build-engine`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from worldwire.cli import Command
from worldwire_runtime.commands import build_engine

if TYPE_CHECKING:
    from worldwire_runtime.parity import Result

EXIT_DIFFERENT = 1
EVERY_EXPERT = 3  # one for low noise, one for high noise and each view
BYTES_PER_MB = 1_000_000
NAME_WIDTH = 36


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    listing = verbs.add_parser("list", help="the presets of this installation, their sizes and folders")
    listing.set_defaults(action=list_presets)
    verify = verbs.add_parser("verify", help="is every tensor of a released tree there, in its shape")
    verify.add_argument("folder", type=Path, metavar="DIR", help="folder with the released files")
    verify.add_argument("--full", action="store_true", help="read every number and hash every file")
    verify.add_argument("--json", type=Path, metavar="F", help="write the whole report to F")
    verify.set_defaults(action=run_verify)
    build = verbs.add_parser("build-engine", help=build_engine.HELP)
    build_engine.configure(build)
    build.set_defaults(action=build_engine.run)
    parity = verbs.add_parser("parity", help="compare with recorded outputs of the official implementation")
    parity.add_argument("folder", type=Path, metavar="DIR", help="folder with cases.json and its tensors")
    parity.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N: where the networks run (cpu)")
    parity.add_argument("--json", type=Path, metavar="F", help="write {case/output: relative error} to F")
    parity.set_defaults(action=run_parity)


def run(args: argparse.Namespace) -> int:
    return int(args.action(args))


def list_presets(_: argparse.Namespace) -> int:
    """One line per preset: name, size on disk, what it needs to play, folder."""
    from worldwire_runtime.config import WorldConfig
    from worldwire_runtime.footprint import Resident, memory_estimate
    from worldwire_runtime.sources import CONFIG_FILE, preset_folder, preset_names
    from worldwire_runtime.usage import GIB

    for name in preset_names():
        folder = preset_folder(name)
        config = WorldConfig.from_file(folder / CONFIG_FILE)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        weights = f"{size / BYTES_PER_MB:.1f} MB" if size else "weights apart"
        needs = memory_estimate(config, Resident(text=False, experts=EVERY_EXPERT)).device_bytes / GIB
        sys.stdout.write(
            f"{name:<12} {config.height}x{config.width}  {weights:>14}  plays in about {needs:>5.1f} GiB"
            f" (bfloat16)  {folder}\n"
        )
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Prints a report; exit status 1 if anything is missing, extra, mis-shaped or unreadable."""
    from worldwire_runtime.commands.progress import Bar
    from worldwire_runtime.released.verify import as_json, table, verify_tree

    with Bar(unit="B") as bar:
        report = verify_tree(args.folder, args.full, bar.show)
    sys.stdout.write(table(report))
    if args.json is not None:
        args.json.write_text(json.dumps(as_json(report), indent=1) + "\n")
    return 0 if report.good else EXIT_DIFFERENT


def run_parity(args: argparse.Namespace) -> int:
    """Prints each output's relative error; exit status 1 if one is larger than its tolerance."""
    from worldwire_runtime.parity import run_folder

    def show(results: list[Result]) -> None:
        """As they come: on a GPU a network is compiled first, which takes a while."""
        sys.stdout.writelines(f"{parity_line(result)}\n" for result in results)
        sys.stdout.flush()

    sys.stdout.write(f"{'case/output':<{NAME_WIDTH}}  {'error':>9}  {'allowed':>9}\n")
    results = run_folder(args.folder, args.device, show)
    failed = sum(not result.passed for result in results)
    sys.stdout.write(f"{len(results)} outputs compared, {failed} beyond their tolerance\n")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({result.name: result.error for result in results}, indent=1) + "\n")
    return EXIT_DIFFERENT if failed else 0


def parity_line(result: Result) -> str:
    """A result as a line of text."""
    verdict = "ok" if result.passed else "DIFFERENT"
    return f"{result.name:<{NAME_WIDTH}}  {result.error:>9.2e}  {result.tolerance:>9.0e}  {verdict}"


command = Command(
    "list the models of this installation; verify released ones; compare with the official implementation",
    configure,
    run,
)
