"""`worldwire serve` with a fake world: what the viewer's tests start as its server process.

python tests/fake_serve.py --bind tcp://127.0.0.1:5555 [--fail] [--step-seconds 0.1]
"""

import argparse
import sys

from fakes import SceneWorld

from worldwire.viewer.guarded import end_with_stdin
from worldwire_runtime.commands.serve import serve_until_stopped
from worldwire_runtime.server import Server

end_with_stdin()
parser = argparse.ArgumentParser()
parser.add_argument("--bind", required=True)
parser.add_argument("--step-seconds", type=float, default=0.1)
parser.add_argument("--fail", action="store_true", help="end as a server does that cannot load its world")
args = parser.parse_args()
if args.fail:
    sys.exit("worldwire: unknown preset; got: 'colossal'")
serve_until_stopped(Server(lambda: SceneWorld(step_s=args.step_seconds), args.bind), None)
