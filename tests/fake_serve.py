"""`worldwire serve` with a fake world: what the viewer's tests start as its server process.

python tests/fake_serve.py --bind tcp://127.0.0.1:5555 [--fail | --fail-late] [--step-seconds 0.1]
"""

import argparse
import sys
import time

from fakes import SceneWorld

from worldwire.errors import ConfigError
from worldwire.viewer.guarded import end_with_stdin
from worldwire_runtime.commands.serve import serve_until_stopped
from worldwire_runtime.server import Server

end_with_stdin()
parser = argparse.ArgumentParser()
parser.add_argument("--bind", required=True)
parser.add_argument("--step-seconds", type=float, default=0.1)
parser.add_argument("--fail", action="store_true", help="end as a server does that cannot load its world")
parser.add_argument("--fail-late", action="store_true", help="end like that while clients wait already")
args = parser.parse_args()


def load() -> SceneWorld:
    if args.fail_late:
        time.sleep(1)
        raise ConfigError("unknown preset", got="'colossal'")
    return SceneWorld(step_s=args.step_seconds)


if args.fail:
    sys.exit("worldwire: unknown preset; got: 'colossal'")
try:
    serve_until_stopped(Server(load, args.bind), None)
except ConfigError as error:
    time.sleep(0.5)  # as a large process takes to end
    sys.exit(f"worldwire: {error}")
