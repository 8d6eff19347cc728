"""Drives a world from Python: ten seconds of walking, in process or over the wire, into walk.png.

python examples/quickstart.py                          # in process
python examples/quickstart.py tcp://127.0.0.1:5555     # a server: `worldwire serve`
"""

import sys
from contextlib import ExitStack

import numpy as np
from PIL import Image

import worldwire
from worldwire import Inputs

with ExitStack() as stack:
    if len(sys.argv) > 1:
        session = stack.enter_context(stack.enter_context(worldwire.connect(sys.argv[1])).session())
    else:
        from worldwire_runtime.world import World

        session = stack.enter_context(World.load("tiny").session())
    frames = [session.reset(seed=0)]
    while frames[-1].index < 160:
        frames += session.step(Inputs({"forward"}, yaw_deg=1.5))
        print(f"frame {frames[-1].index}: camera at {frames[-1].c2w[:3, 3].round(1)} m")
    Image.fromarray(np.hstack([frame.pixels for frame in frames[::32]])).save("walk.png")
