"""Walks: what a player does in a scene, frame by frame, and where the camera is then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from worldwire import Inputs, MotionModel, PlayerPose
from worldwire.camera import invert

Conditioning = Literal["both", "keys", "poses"]

MOVED_M = 0.5
MOVED_DEG = 10.0
OPPOSITE_KEYS = {"forward": "back", "back": "forward", "left": "right", "right": "left"}


@dataclass(frozen=True)
class Walk:
    """F frames of play: the inputs of frame f lead to frame f; frame 0 is the start, its inputs neutral.

    view: 'first' or 'third'. inputs: keys and look of every frame. c2w: cameras in scene coordinates, [F, 4,
    4]. players: what the renderer needs to draw the player in third person, F long.
    """

    view: str
    inputs: tuple[Inputs, ...]
    c2w: NDArray[np.float64]
    players: Any

    def __len__(self) -> int:
        return len(self.inputs)

    def cut(self, first: int, frames: int) -> Walk:
        """The walk that starts at frame `first`."""
        part = slice(first, first + frames)
        inputs = (Inputs(), *self.inputs[part][1:])
        return Walk(self.view, inputs, self.c2w[part], self.players[part])

    def session_c2w(self) -> NDArray[np.float64]:
        """The cameras in the world of a session whose first camera is the walk's, [F, 4, 4]."""
        return np.asarray(invert(self.c2w[0]) @ self.c2w)

    def session_inputs(self, conditioning: Conditioning) -> list[Inputs]:
        """What a session is told, frame by frame: keys and look, camera poses, or both."""
        poses = self.session_c2w()
        if conditioning == "keys":
            return list(self.inputs)
        if conditioning == "poses":
            return [Inputs(c2w=pose) for pose in poses]
        return [replace(told, c2w=pose) for told, pose in zip(self.inputs, poses, strict=True)]

    def movement(self, frame: int) -> float:
        """How far the camera of a frame is from the start: 1 for `MOVED_M` metres or `MOVED_DEG` degrees."""
        pose = invert(self.c2w[0]) @ self.c2w[frame]
        angle_deg = np.degrees(np.arccos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1)))
        return float(max(np.linalg.norm(pose[:3, 3]) / MOVED_M, angle_deg / MOVED_DEG))


def moving_part(walk: Walk, times: Iterable[int], stride: int = 8) -> Walk:
    """The first part of a walk, as long as the last of `times`, that has moved at all of these frames.

    So that *repeat the first frame* is a fair rival. Where no part qualifies, the one that moves most is
    taken.
    """
    wanted = tuple(times)
    frames = max(wanted) + 1
    best, best_movement = walk.cut(0, frames), -1.0
    for first in range(0, len(walk) - frames + 1, stride):
        part = walk.cut(first, frames)
        movement = min(part.movement(frame) for frame in wanted)
        if movement >= 1:
            return part
        if movement > best_movement:
            best, best_movement = part, movement
    return best


def mirrored(walk: Walk, motion: MotionModel) -> Walk:
    """Wrong actions: every key and look reversed, from the same start, without obstacles."""
    inputs = tuple(_reverse(told) for told in walk.inputs)
    player = motion.player(walk.c2w[0], walk.view)
    cameras = [walk.c2w[0]]
    for told in inputs[1:]:
        player = motion.advance(player, told)
        cameras.append(motion.camera(player, walk.view))
    return Walk(walk.view, inputs, np.stack(cameras), walk.players)


def _reverse(told: Inputs) -> Inputs:
    keys = frozenset(OPPOSITE_KEYS.get(key, key) for key in told.keys)
    return Inputs(keys=keys, yaw_deg=-told.yaw_deg, pitch_deg=-told.pitch_deg)


def integrate(motion: MotionModel, start: PlayerPose, inputs: Sequence[Inputs]) -> list[PlayerPose]:
    """The player's poses of every frame without obstacles; the inputs of frame 0 are not looked at."""
    poses = [start]
    for told in inputs[1:]:
        poses.append(motion.advance(poses[-1], told))
    return poses


# ------------------------------------------------------------------------------------------ scripted inputs


def hold(frames: int, *keys: str, yaw_deg: float = 0.0) -> list[Inputs]:
    """The same keys and turn (degrees in all) over some frames."""
    return [Inputs(keys=frozenset(keys), yaw_deg=yaw_deg / frames)] * frames if frames else []


def script(*parts: Sequence[Inputs]) -> tuple[Inputs, ...]:
    """A neutral frame 0, then the parts one after the other."""
    return (Inputs(), *(told for part in parts for told in part))


TURN_FRAMES = 8
TURN_DEG = 24.0
STEP_FRAMES = 16


def turn_script(command: str) -> tuple[Inputs, ...]:
    """'left', 'none' or 'right': 24 degrees in half a second, on the spot."""
    return script(hold(TURN_FRAMES, yaw_deg={"left": -TURN_DEG, "none": 0.0, "right": TURN_DEG}[command]))


def step_script(command: str) -> tuple[Inputs, ...]:
    """'left', 'none' or 'right': one second of side-stepping, the look kept still."""
    return script(hold(STEP_FRAMES, *(() if command == "none" else (command,))))


LOOK_AWAY_FRAMES = 40
SWEEP_FRAMES = 48
SWEEP_DEG = 40.0


def look_away_script(frames: int) -> tuple[Inputs, ...]:
    """Turn round to the right in 2.5 seconds, then look about on that side until `frames`.

    The sweep stays within 40 degrees of straight back, so that (field of view 80) nothing of the first view
    is seen.
    """
    sweep: list[Inputs] = hold(SWEEP_FRAMES // 2, yaw_deg=SWEEP_DEG)
    while len(sweep) < frames:
        sweep += hold(SWEEP_FRAMES, yaw_deg=-2 * SWEEP_DEG) + hold(SWEEP_FRAMES, yaw_deg=2 * SWEEP_DEG)
    return script(hold(LOOK_AWAY_FRAMES, yaw_deg=180.0), sweep)[: frames + 1]


def return_script(away: Sequence[Inputs]) -> tuple[Inputs, ...]:
    """`away`, and then the turn back to the first view, going on to the right, in 2.5 seconds."""
    turned = sum(told.yaw_deg for told in away)
    return (*away, *hold(LOOK_AWAY_FRAMES, yaw_deg=360.0 - turned))


def showcase_script() -> tuple[Inputs, ...]:
    """Six seconds for the moving picture of the README: walk, turn while walking, side-step, look about."""
    return script(
        hold(20, "forward"),
        hold(20, "forward", yaw_deg=45.0),
        hold(12, "forward"),
        hold(12, "right"),
        hold(20, "forward", yaw_deg=-60.0),
        hold(12, "forward"),
    )
