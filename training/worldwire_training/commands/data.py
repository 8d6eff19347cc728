"""`worldwire data`: makes and looks at data sets.

worldwire data generate --scenes 64 --out data/village
worldwire data inspect data/village
worldwire data capture --prompt "a village by day" --out data/mine
worldwire data import --video walk.mp4 --poses walk.tum --fov 90 --prompt "a room" --out data/mine
worldwire data pack data/mine --out runs/mine
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from worldwire.cli import Command
from worldwire_training.commands import own_data

if TYPE_CHECKING:
    from worldwire_training.data_engine.episode import Episode

log = logging.getLogger(__name__)
SHOWN_EPISODES = 8


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the actions."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    text = "render episodes into shards; go on where an earlier run stopped"
    _configure_generate(actions.add_parser("generate", help=text, description=text))
    text = "a contact sheet with keys and paths, and statistics"
    _configure_inspect(actions.add_parser("inspect", help=text, description=text))
    text = "record play, in a window or by a script, as training data"
    own_data.configure_capture(actions.add_parser("capture", help=text, description=text))
    text = "make a video with camera poses training data"
    own_data.configure_import(actions.add_parser("import", help=text, description=text))
    text = "cut shards into the arrays that a training run reads"
    own_data.configure_pack(actions.add_parser("pack", help=text, description=text))


def _configure_generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--scenes", type=int, required=True, metavar="N", help="scenes, with one episode each")
    add(
        "--frames",
        type=int,
        default=161,
        metavar="F",
        help="frames of an episode (default: 161, ten seconds)",
    )
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    add("--view", choices=("first", "third"), help="third person is in the village only (default: mixed)")
    add("--kind", choices=("village", "rooms"), help="default: both")
    add("--time-of-day", choices=("day", "dusk"), help="default: both")
    add(
        "--first-seed", type=int, default=0, metavar="S", help="held-out scenes begin at 1000000 (default: 0)"
    )
    add("--size", type=int, nargs=2, default=(192, 320), metavar=("H", "W"), help="pixels (default: 192 320)")
    add("--per-shard", type=int, default=16, metavar="N", help="episodes in a shard (default: 16)")
    add("--workers", type=int, default=1, metavar="K", help="processes (default: 1)")
    add("--resume", action="store_true", default=True, help="keep finished shards (always so)")


def _configure_inspect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, metavar="DIR", help="a folder of shards, or one shard")
    add(
        "--sheet",
        type=Path,
        metavar="PNG",
        help="where the contact sheet goes (default: DIR/contact_sheet.png)",
    )
    add("--episodes", type=int, default=SHOWN_EPISODES, metavar="N", help=f"rows (default: {SHOWN_EPISODES})")


def run(args: argparse.Namespace) -> int:
    """Runs one action."""
    return ACTIONS[args.action](args)


def _generate(args: argparse.Namespace) -> int:
    from worldwire_training.data_engine.generation import GenerationPlan, generate

    plan = GenerationPlan(
        scenes=args.scenes,
        frames=args.frames,
        first_seed=args.first_seed,
        view=args.view,
        kind=args.kind,
        time_of_day=args.time_of_day,
        height=args.size[0],
        width=args.size[1],
        per_shard=args.per_shard,
    )
    made = generate(plan, args.out, args.workers)
    log.info("%d shards made, %d were there", made, len(plan.shards()) - made)
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from worldwire_training.data_engine.inspection import Statistics, contact_sheet
    from worldwire_training.data_engine.shards import read_episodes

    statistics = Statistics()

    def counted() -> Iterator[Episode]:
        for episode in read_episodes(args.source):
            statistics.add(episode)
            yield episode

    episodes = counted()
    sheet = contact_sheet(itertools.islice(episodes, max(args.episodes, 1)))
    for _ in episodes:
        pass
    folder = args.source if args.source.is_dir() else args.source.parent
    path = args.sheet or folder / "contact_sheet.png"
    sheet.save(path)
    sys.stdout.write("\n".join([*statistics.lines(), f"contact sheet: {path}"]) + "\n")
    return 0


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "generate": _generate,
    "inspect": _inspect,
    "capture": own_data.run_capture,
    "import": own_data.run_import,
    "pack": own_data.run_pack,
}

command = Command("make and inspect training data", configure, run)
