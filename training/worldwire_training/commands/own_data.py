"""The actions `capture`, `import` and `pack` of `worldwire data`: data of one's own (docs/own_data.md)."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldwire.motion import VIEWS

if TYPE_CHECKING:
    from worldwire.api import WorldInfo
    from worldwire.viewer.link import Host
    from worldwire_training.own_data.video import Target

log = logging.getLogger(__name__)

DEFAULT_FRAMES = 161
FINE_TUNING_FRAMES = 81


def configure_capture(parser: argparse.ArgumentParser) -> None:
    """Options of `worldwire data capture`."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    add("--connect", metavar="ADDR", help="a running server; without one, a local server is started")
    add("--preset", help="the world of the local server (default: tiny)")
    add("--prompt", required=True, help="one sentence that says what is there")
    add("--image", metavar="NAME|FILE", help="the first picture")
    add("--seed", type=int, default=0)
    add("--view", choices=VIEWS)
    add("--script", metavar="FILE|demo", help="walk by itself; without it a window opens and you play")
    add("--frames", type=int, default=DEFAULT_FRAMES, metavar="F", help="longest episode (default: 161)")


def configure_import(parser: argparse.ArgumentParser) -> None:
    """Options of `worldwire data import`."""
    add = parser.add_argument
    add("--video", type=Path, required=True, metavar="FILE", help="any video, without lens distortion")
    add("--poses", type=Path, required=True, metavar="FILE", help=".tum, .csv, .json or .jsonl, same clock")
    add("--axes", metavar="NAME", help="what the poses are in: wire, unity, unreal, ros, opengl, ...")
    add("--fov", type=float, required=True, metavar="DEG", help="the video's horizontal field of view")
    add("--prompt", required=True, help="one sentence that says what is there")
    add("--actions", type=Path, metavar="CSV", help="frame,keys,yaw_deg,pitch_deg at the world's rate")
    add("--view", choices=VIEWS, default="first")
    add("--world", default="tiny", help="the preset or folder that it is for (default: tiny)")
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")


def configure_pack(parser: argparse.ArgumentParser) -> None:
    """Options of `worldwire data pack`."""
    add = parser.add_argument
    add("source", type=Path, metavar="DIR", help="a folder of shards")
    add("--out", type=Path, required=True, metavar="DIR", help="gets episodes/ and held_out/")
    add("--world", default="tiny", help="the preset or folder that it is for (default: tiny)")
    add(
        "--frames", type=int, default=FINE_TUNING_FRAMES, metavar="F", help="of a piece, 1 + 4n (default: 81)"
    )
    add("--held-out", type=int, default=1, metavar="N", help="pieces for validation (default: 1)")


def run_capture(args: argparse.Namespace) -> int:
    """Plays, in a window or by a script, and records."""
    from worldwire.viewer.hosts import LocalHost, RemoteHost
    from worldwire.viewer.link import Start

    preset = ["--preset", args.preset] if args.preset else []
    host: Host = RemoteHost(args.connect) if args.connect else LocalHost(preset)
    recording = CapturingHost(host, args.out, args.prompt, args.frames)
    start = Start(args.prompt if args.image is None else None, args.image, args.seed, args.view)
    if args.script:
        _walk(recording, start, args.script)
    else:
        from worldwire.viewer.window import Window, WindowOptions

        Window(recording, start, WindowOptions()).run()
    return 0


class CapturingHost:
    """A host whose session is recorded."""

    def __init__(self, host: Host, out: Path, prompt: str, frames: int) -> None:
        self._host, self._out, self._prompt, self._frames = host, out, prompt, frames

    def open(
        self, report: Callable[[str], None], cancelled: Callable[[], bool]
    ) -> AbstractContextManager[tuple[WorldInfo, Any]]:
        """See `worldwire.viewer.link.Host`."""
        return self._open(report, cancelled)

    @contextmanager
    def _open(
        self, report: Callable[[str], None], cancelled: Callable[[], bool]
    ) -> Iterator[tuple[WorldInfo, Any]]:
        from worldwire_training.own_data.capture import capture

        with (
            self._host.open(report, cancelled) as (info, session),
            capture(session, info, self._out, prompt=self._prompt, frames=self._frames) as played,
        ):
            yield info, played


def _walk(host: CapturingHost, start: Any, source: str) -> None:
    from worldwire.viewer.images import seed_image
    from worldwire.viewer.script import load_script, walk

    script = load_script(source)
    last_line = ""

    def report(line: str) -> None:
        nonlocal last_line
        if line != last_line:  # reports come several times a second
            log.info("%s", line)
        last_line = line

    with host.open(report, lambda: False) as (info, session):
        session.reset(start.prompt, seed_image(start.image, info), start.seed, start.view)
        for _ in walk(session, script):
            pass


def run_import(args: argparse.Namespace) -> int:
    """A video with poses becomes a shard."""
    from worldwire.axes import by_name
    from worldwire.trajectory import read_trajectory
    from worldwire_training.data_engine.shards import write_shard
    from worldwire_training.own_data.video import read_footage, to_episode

    poses = read_trajectory(args.poses, by_name(args.axes) if args.axes else None)
    footage = read_footage(args.video, args.fov)
    episode = to_episode(footage, poses, _target(args.world), args.prompt, args.view, args.actions)
    args.out.mkdir(parents=True, exist_ok=True)
    key = "".join(letter if letter.isalnum() else "-" for letter in args.video.stem)
    write_shard(args.out / f"import-{key}.tar", [(key, episode)])
    log.info("wrote %s: %d frames", args.out / f"import-{key}.tar", len(episode.frames))
    return 0


def run_pack(args: argparse.Namespace) -> int:
    """Shards become the arrays of a training run."""
    from worldwire.errors import ConfigError
    from worldwire_training.own_data.pack import pack

    if args.frames < 9 or args.frames % 4 != 1 or args.held_out < 0:
        raise ConfigError(
            "pieces do not fill latents", expected="--frames 1 + 4n, at least 9", got=str(args.frames)
        )
    made = pack(args.source, args.out, _target(args.world).intrinsics, args.frames, args.held_out)
    log.info("%d pieces to train on, %d held out", made.training, made.held_out)
    return 0


def _target(name: str) -> Target:
    """The camera and rate of a world."""
    from worldwire_runtime.config import WorldConfig
    from worldwire_runtime.world import CONFIG_FILE, preset_folder
    from worldwire_training.own_data.video import Target

    config = WorldConfig.from_file(preset_folder(name) / CONFIG_FILE)
    return Target(config.height, config.width, config.horizontal_fov_deg, config.frames_per_second)
