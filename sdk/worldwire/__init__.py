"""worldwire: step into a generated world.

import worldwire

with worldwire.connect("tcp://127.0.0.1:5555") as client, client.session() as session:
    session.reset(prompt="a village by day")
    frames = session.step(worldwire.Inputs({"forward"}, yaw_deg=2.0))
"""

from worldwire.api import Frame, SessionLike, WorldInfo
from worldwire.camera import Intrinsics
from worldwire.client import Client, RemoteSession, connect
from worldwire.errors import WorldwireError
from worldwire.inputs import KEYS, Inputs
from worldwire.motion import MotionModel, PlayerPose

__all__ = [
    "KEYS",
    "Client",
    "Frame",
    "Inputs",
    "Intrinsics",
    "MotionModel",
    "PlayerPose",
    "RemoteSession",
    "SessionLike",
    "WorldInfo",
    "WorldwireError",
    "connect",
]
