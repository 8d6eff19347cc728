"""worldwire serve --preset tiny --bind tcp://127.0.0.1:5555: one world for many sessions over ZeroMQ."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldwire.cli import Command
from worldwire.errors import ConfigError
from worldwire.protocol import DEFAULT_ADDRESS, Limits

if TYPE_CHECKING:
    from worldwire_runtime.server import Server

DEFAULT_PRESET = "tiny"


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of `worldwire serve`."""
    parser.add_argument("--preset", default=DEFAULT_PRESET, help="name of a preset, or a folder with a model")
    parser.add_argument(
        "--bind",
        default=DEFAULT_ADDRESS,
        metavar="ADDRESS",
        help="address to listen at; port 0 takes any port",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", help="auto, float32 or bfloat16")
    parser.add_argument(
        "--compile", action="store_true", help="fuse the networks: a slow first start, then faster frames"
    )
    parser.add_argument("--plan", help="clip plan of sessions that name none: low-latency or paper")
    parser.add_argument(
        "--sessions", type=int, default=Limits().sessions, help="sessions at once (default %(default)s)"
    )
    parser.add_argument(
        "--ready-file", type=Path, help="write the real address there once the world is loaded"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="allow an address that other machines can reach, unencrypted"
    )


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    from worldwire_runtime.server import Server
    from worldwire_runtime.usage import peak_memory_gib

    if args.sessions < 1:
        raise ConfigError("--sessions is too small", expected="1 or more", got=str(args.sessions))

    def load() -> Any:
        from worldwire_runtime.world import World  # takes seconds: only once the address is ours

        return World.load(args.preset, args.device, args.precision, compiled=args.compile)

    server = Server(
        load,
        args.bind,
        limits=Limits(sessions=args.sessions),
        plan=args.plan,
        insecure=args.insecure,
        peak_memory_gib=peak_memory_gib,
    )
    serve_until_stopped(server, args.ready_file, f"{args.preset} at ")
    return 0


def serve_until_stopped(server: Server, ready_file: Path | None, what: str = "") -> None:
    """Runs a server until SIGINT or SIGTERM; says in one line, and in `ready_file`, when it is ready."""

    def announce() -> None:
        sys.stdout.write(f"worldwire serves {what}{server.endpoint}\n")
        sys.stdout.flush()
        if ready_file is not None:
            part = ready_file.with_name(ready_file.name + ".part")
            part.write_text(server.endpoint)
            part.replace(ready_file)

    before = {name: signal.signal(name, lambda *_: server.stop()) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(announce)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        if ready_file is not None:
            ready_file.unlink(missing_ok=True)


command = Command("serve a world to clients over ZeroMQ", configure, run)
