"""worldwire serve --preset tiny --bind tcp://127.0.0.1:5555: one world for many sessions over ZeroMQ."""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldwire.cli import Command
from worldwire.errors import ConfigError, MachineError
from worldwire.protocol import DEFAULT_ADDRESS, Limits
from worldwire_runtime import test_pattern
from worldwire_runtime.commands.world_options import add_world_options, load_world

if TYPE_CHECKING:
    from worldwire_runtime.server import Server
    from worldwire_runtime.server.worker import ServedWorld

MAX_RATE = 10_000.0
SWITCH_INTERVAL_S = 0.0005
"""How long one Python thread may keep another waiting; the default would show in the latency of frames."""


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `worldwire serve`."""
    add_world_options(parser)
    parser.add_argument(
        "--bind",
        default=DEFAULT_ADDRESS,
        metavar="ADDRESS",
        help="address to listen at; port 0 takes any port",
    )
    parser.add_argument(
        "--sessions", type=int, default=Limits().sessions, help="sessions at once (default %(default)s)"
    )
    parser.add_argument(
        "--ready-file", type=Path, help="write the real address there once the world is loaded"
    )
    parser.add_argument(
        "--rate",
        type=float,
        metavar="FPS",
        help="most frames a second of a live session; 0: as many as its client takes "
        f"(default: 0; {test_pattern.DEFAULT_RATE:g} for the test pattern)",
    )
    _configure_security(parser.add_argument_group("encryption"))
    pattern = parser.add_argument_group("the synthetic world (--preset test-pattern)")
    pattern.add_argument("--size", type=_size, metavar="WIDTHxHEIGHT", help="pixels (default 1280x704)")
    pattern.add_argument("--frames-per-step", type=int, default=1, help="(default %(default)s)")


def _configure_security(group: Any) -> None:
    group.add_argument("--new-key", type=Path, metavar="FILE", help="write FILE and FILE_secret, and end")
    group.add_argument(
        "--key", type=Path, metavar="FILE_secret", help="encrypt; clients need what FILE says as server key"
    )
    group.add_argument(
        "--clients", type=Path, metavar="FOLDER", help="only clients whose public key is in a file there"
    )
    group.add_argument(
        "--insecure", action="store_true", help="allow an address that other machines can reach, unencrypted"
    )


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    from worldwire_runtime.server import Loading, Server
    from worldwire_runtime.server.security import KeyPair
    from worldwire_runtime.usage import peak_memory_gib

    if args.new_key is not None:
        return _make_keys(args.new_key)
    _check(args)
    keys = KeyPair.from_file(args.key) if args.key is not None else None
    loading = Loading()
    server = Server(
        lambda: _load(args, loading.tell),
        args.bind,
        limits=Limits(sessions=args.sessions),
        rate=_rate(args),
        insecure=args.insecure,
        keys=keys,
        clients=args.clients,
        loading=loading,
        peak_memory_gib=peak_memory_gib,
    )
    if keys is not None:
        sys.stdout.write(f"worldwire: the server key is {keys.public.decode()}\n")
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _allow_files()
    serve_until_stopped(server, args.ready_file, f"{args.preset} at ")
    return 0


def _allow_files() -> None:
    """As many open files as the system grants: each connection is one, and 1024 are soon taken."""
    if importlib.util.find_spec("resource") is None:
        return  # Windows has no such limit
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _make_keys(path: Path) -> int:
    from worldwire_runtime.server.security import SECRET_SUFFIX, write_new_keys

    keys = write_new_keys(path)
    sys.stdout.write(
        f"worldwire: {path.name}{SECRET_SUFFIX} stays with the server (--key); "
        f"clients get {path.name}, or this: {keys.public.decode()}\n"
    )
    return 0


def _check(args: argparse.Namespace) -> None:
    """ConfigError for options that make no sense."""
    if args.sessions < 1:
        raise ConfigError("--sessions is too small", expected="1 or more", got=str(args.sessions))
    if args.rate is not None and not 0 <= args.rate <= MAX_RATE:
        raise ConfigError("--rate is no rate", expected=f"0 to {MAX_RATE:g} frames/s", got=str(args.rate))
    if args.clients is not None and args.key is None:
        raise ConfigError(
            "--clients needs encryption", remedy="name the server's keys with --key FILE_secret"
        )
    if args.preset == test_pattern.PRESET:
        test_pattern.check_plan(args.plan)
    if args.size is not None and args.preset != test_pattern.PRESET:
        raise ConfigError("--size is for the test pattern", remedy=f"add --preset {test_pattern.PRESET}")


def _rate(args: argparse.Namespace) -> float:
    default = test_pattern.DEFAULT_RATE if args.preset == test_pattern.PRESET else 0.0
    return default if args.rate is None else float(args.rate)


def _load(args: argparse.Namespace, progress: Callable[[float, str], None]) -> ServedWorld:
    """The world, in the server's worker; torch is imported once the address is ours."""
    if args.preset == test_pattern.PRESET:
        width, height = args.size or (test_pattern.DEFAULT_WIDTH, test_pattern.DEFAULT_HEIGHT)
        return test_pattern.PatternWorld(
            height, width, _rate(args) or test_pattern.DEFAULT_RATE, args.frames_per_step
        )
    progress(0.0, "importing torch")
    return load_world(args, progress)


def _size(text: str) -> tuple[int, int]:
    """Width and height of "1280x704"."""
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"expected WIDTHxHEIGHT such as 1280x704, got {text!r}") from error
    return width, height


def serve_until_stopped(server: Server, ready_file: Path | None, what: str = "") -> None:
    """Runs a server until SIGINT or SIGTERM; says in one line, and in `ready_file`, when it is ready."""

    def announce() -> None:
        sys.stdout.write(f"worldwire serves {what}{server.endpoint}\n")
        sys.stdout.flush()
        if ready_file is not None:
            _write_ready(ready_file, server.endpoint)

    before = {name: signal.signal(name, lambda *_: server.stop()) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(announce)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


def _write_ready(ready_file: Path, endpoint: str) -> None:
    """Writes the address at once and as a whole; MachineError when it cannot be written."""
    part = ready_file.with_name(ready_file.name + ".part")
    try:
        part.write_text(endpoint)
        part.replace(ready_file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise MachineError(
            f"the ready file cannot be written: {error}", remedy="name another --ready-file, or make room"
        ) from error


command = Command("serve a world to clients over ZeroMQ", configure, run)
