"""How players explore: behaviours as generators of inputs, and mixtures of them.

A behaviour yields the inputs of one frame and finds the player moved when it goes on. Behaviours that come
back (loops, out-and-back, pans, full turns) are frequent: they are what memory is trained on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldwire.inputs import Inputs
from worldwire_training.data_engine.player import Player

Array = NDArray[np.float64]
Behaviour = Iterator[Inputs]

ARROW_RATE_DEG = 60.0 / 16
MOUSE_RATE_DEG = 90.0 / 16
ARRIVED_M = 0.35
WAY_MARGIN_M = 0.42
THIRD_WAY_MARGIN_M = 1.5
WALK_WHEN_WITHIN_DEG = 40.0
LOOK_AHEAD_M, ROOM_AHEAD_M, TIGHT_M = 1.1, 0.25, 0.1
PATIENCE_FRAMES = 120
DRIFT_SHARE = 0.35
SIDEWAYS_DEG = {"left": -90.0, "right": 90.0, "back": 180.0}
KEYS_BY_OCTANT = tuple(
    frozenset(keys.split("+"))
    for keys in (
        "forward",
        "forward+right",
        "right",
        "back+right",
        "back",
        "back+left",
        "left",
        "forward+left",
    )
)
"""The keys that move in a direction, by its angle to the right of the view in steps of 45 degrees."""


@dataclass
class Hand:
    """How a player handles the controls.

    smooth: mouse-like turns that speed up and slow down; otherwise arrow keys at a constant rate.
    rate_deg: fastest turn in a frame. wobble_deg: unrest of the view while walking.
    """

    rng: np.random.Generator
    smooth: bool
    rate_deg: float
    wobble_deg: float
    margin_m: float
    speed_deg: float = 0.0

    def turn(self, error_deg: float) -> float:
        """The turn of this frame towards an error, degrees."""
        if not self.smooth:
            self.speed_deg = max(-self.rate_deg, min(self.rate_deg, error_deg))
            return self.speed_deg
        wanted = max(-self.rate_deg, min(self.rate_deg, 0.22 * error_deg))
        self.speed_deg += 0.45 * (wanted - self.speed_deg)
        return self.speed_deg

    def wobble(self) -> float:
        """A little unrest."""
        return float(self.rng.normal(0, self.wobble_deg)) if self.smooth and self.wobble_deg else 0.0


def new_hand(rng: np.random.Generator, view: str) -> Hand:
    """A random player's hand."""
    smooth = bool(rng.random() < 0.6)
    rate = rng.uniform(0.35, 1.0) * MOUSE_RATE_DEG if smooth else ARROW_RATE_DEG
    wobble = rng.uniform(0, 0.35) if rng.random() < 0.5 else 0.0
    return Hand(rng, smooth, rate, wobble, WAY_MARGIN_M if view == "first" else THIRD_WAY_MARGIN_M)


def heading_error_deg(player: Player, target: Array) -> float:
    """How far to turn right to look at a place."""
    dx, dz = target - player.place()
    return (math.degrees(math.atan2(dx, dz)) - player.pose.yaw_deg + 180) % 360 - 180


# --- behaviours ---------------------------------------------------------------------------------------------


def turn_by(hand: Hand, angle_deg: float, keys: frozenset[str] = frozenset()) -> Behaviour:
    """Turns by an angle exactly, other keys held."""
    left = angle_deg
    while abs(left) > 1e-6:
        turn = hand.turn(left)
        if abs(turn) < 0.25 or abs(turn) > abs(left):
            turn = left if abs(left) < hand.rate_deg else math.copysign(hand.rate_deg * 0.3, left)
        yield Inputs(keys, yaw_deg=turn)
        left -= turn
    hand.speed_deg = 0.0


def face(player: Player, hand: Hand, target: Array) -> Behaviour:
    """Turns on the spot towards a place."""
    yield from turn_by(hand, heading_error_deg(player, target))


def walk_to(player: Player, hand: Hand, target: Array) -> Behaviour:
    """Walks to a place, turning on the way."""
    for _ in range(PATIENCE_FRAMES):
        if np.hypot(*(target - player.place())) < ARRIVED_M:
            return
        error = heading_error_deg(player, target)
        keys = {"forward"} if abs(error) < WALK_WHEN_WITHIN_DEG else set()
        turn = hand.turn(error) if abs(error) > 1.0 else 0.0
        yield Inputs(frozenset(keys), yaw_deg=turn + (hand.wobble() if keys else 0.0))


def drift_to(player: Player, hand: Hand, target: Array) -> Behaviour:
    """Goes to a place with whatever keys lead there while the view turns on its own: strafing, diagonals."""
    frames = int(hand.rng.integers(16, 40))
    rate = hand.rng.choice([0.0, 0.3, 0.7]) * hand.rate_deg * hand.rng.choice([-1.0, 1.0])
    for frame in range(PATIENCE_FRAMES):
        if np.hypot(*(target - player.place())) < ARRIVED_M:
            return
        octant = round(heading_error_deg(player, target) / 45) % 8
        turn = (
            rate * math.cos(math.pi * frame / frames)
            if hand.smooth
            else rate * (1 - 2 * (frame // frames % 2))
        )
        yield Inputs(KEYS_BY_OCTANT[octant], yaw_deg=float(turn))


def walk_ahead(frames: int, keys: frozenset[str], turn_deg: float = 0.0) -> Behaviour:
    """Holds keys at a constant turn."""
    for _ in range(frames):
        yield Inputs(keys, yaw_deg=turn_deg)


def idle(hand: Hand) -> Behaviour:
    """Stands for a moment."""
    for _ in range(int(hand.rng.integers(3, 10))):
        yield Inputs()


def glance(hand: Hand, keys: frozenset[str] = frozenset()) -> Behaviour:
    """Looks up or down and back."""
    pitch = hand.rng.uniform(8, 24) * (1 if hand.rng.random() < 0.5 else -1)
    frames = int(hand.rng.integers(6, 14))
    for direction in (1, -1):
        for _ in range(frames):
            yield Inputs(keys, pitch_deg=direction * pitch / frames)


def pan(hand: Hand) -> Behaviour:
    """Looks aside and back, perhaps to the other side too."""
    angle = hand.rng.uniform(25, 110) * (1 if hand.rng.random() < 0.5 else -1)
    yield from turn_by(hand, angle)
    if hand.rng.random() < 0.5:
        yield from turn_by(hand, -2 * angle)
        yield from turn_by(hand, angle)
    else:
        yield from turn_by(hand, -angle)


def full_turn(hand: Hand) -> Behaviour:
    """Once round on the spot."""
    yield from turn_by(hand, 360.0 if hand.rng.random() < 0.5 else -360.0)


def strafe(hand: Hand) -> Behaviour:
    """Sideways and back."""
    side, other = ("left", "right") if hand.rng.random() < 0.5 else ("right", "left")
    frames = int(hand.rng.integers(8, 32))
    for key in (side, other):
        yield from walk_ahead(frames, frozenset({key}))


def reverse(hand: Hand) -> Behaviour:
    """Backwards and forwards again."""
    frames = int(hand.rng.integers(8, 28))
    for key in ("back", "forward"):
        yield from walk_ahead(frames, frozenset({key}))


def circle(hand: Hand) -> Behaviour:
    """A round walk at a constant turn that ends where it began."""
    frames = int(hand.rng.integers(100, 150))
    turn = 360.0 / frames * (1 if hand.rng.random() < 0.5 else -1)
    yield from walk_ahead(frames, frozenset({"forward"}), turn)


def out_and_back(hand: Hand) -> Behaviour:
    """Walks out along a bend, turns round, and walks the same bend back to where it began."""
    frames, turn = int(hand.rng.integers(16, 50)), hand.rng.uniform(-1.2, 1.2)
    if hand.rng.random() < 0.4:
        turn = 0.0
    about = 180.0 if hand.rng.random() < 0.5 else -180.0
    forward = frozenset({"forward"})
    yield from walk_ahead(frames, forward, turn)
    yield from turn_by(hand, about)
    yield from walk_ahead(frames, forward, -turn)
    if hand.rng.random() < 0.6:
        yield from turn_by(hand, -about)


def route(player: Player, hand: Hand, count: int, come_back: bool) -> Behaviour:
    """Through some meeting points in sight of one another, perhaps the same way back."""
    passed = [player.place()]
    drifting = hand.rng.random() < DRIFT_SHARE
    for _ in range(count):
        target = next_point(player, hand, passed)
        if target is None:
            break
        yield from (drift_to if drifting else walk_to)(player, hand, target)
        passed.append(target)
    for target in reversed(passed[:-1]) if come_back else ():
        if not drifting:
            yield from face(player, hand, target)
        yield from (drift_to if drifting else walk_to)(player, hand, target)


def next_point(player: Player, hand: Hand, passed: list[Array]) -> Array | None:
    """A meeting point that can be reached straight, rather ahead than behind, and not one just left."""
    here, points = player.place(), player.scene.meeting_points
    away = np.hypot(*(points - here).T)
    near = np.flatnonzero((away > 1.2) & (away < 16))
    weights = []
    for index in near:
        fresh = min(float(np.hypot(*(points[index] - old))) for old in passed[-3:])
        weights.append(
            hand.rng.random() + 0.6 * (abs(heading_error_deg(player, points[index])) < 75) + 0.4 * (fresh > 1)
        )
    for k in np.argsort(weights)[::-1][:14]:
        target = np.asarray(points[near[int(k)]])
        if player.scene.solids.free_line(here, target, hand.margin_m):
            return target
    return None


def free_play(player: Player, hand: Hand, frames: int) -> Behaviour:
    """Keys held for a while, the view drifting, walls avoided: the way people play."""
    rng, keys, drift, hold = hand.rng, frozenset({"forward"}), 0.0, 0
    choices = [{"forward"}, {"forward", "left"}, {"forward", "right"}, {"left"}, {"right"}, {"back"}, set()]
    for _ in range(frames):
        if hold <= 0:
            hold = int(rng.integers(8, 36))
            keys = frozenset(choices[int(rng.choice(7, p=[0.42, 0.12, 0.12, 0.11, 0.11, 0.09, 0.03]))])
            goal = rng.choice([0.0, rng.normal(0, 0.4), rng.normal(0, 0.8)]) * hand.rate_deg
        hold -= 1
        drift += 0.2 * (max(-hand.rate_deg, min(hand.rate_deg, goal)) - drift)
        side, stop = avoid(player)
        held = keys - {"forward"} if stop else keys
        yield Inputs(unblocked(player, held), yaw_deg=side * hand.rate_deg if side else drift)


def unblocked(player: Player, keys: frozenset[str]) -> frozenset[str]:
    """The keys without those that push sideways or backwards into something."""
    free = player.scene.solids.clearance_m
    return keys - {
        key for key, aside in SIDEWAYS_DEG.items() if key in keys and free(player.ahead(0.6, aside)) < TIGHT_M
    }


def avoid(player: Player) -> tuple[float, bool]:
    """Which way to turn (-1 left, +1 right, 0: the way ahead is free), and whether one must stop as well."""
    solids = player.scene.solids
    if solids.clearance_m(player.ahead(LOOK_AHEAD_M)) > ROOM_AHEAD_M:
        return 0.0, False
    left, right = (float(solids.clearance_m(player.ahead(LOOK_AHEAD_M, aside))) for aside in (-50.0, 50.0))
    return (1.0 if right >= left else -1.0), bool(solids.clearance_m(player.ahead(0.5)) < TIGHT_M)


# --- mixtures -----------------------------------------------------------------------------------------------


def wander(player: Player, hand: Hand) -> Behaviour:
    """Routes, with a look round now and then."""
    while True:
        yield from route(player, hand, int(hand.rng.integers(1, 4)), come_back=False)
        yield from _aside(player, hand)


def come_and_go(player: Player, hand: Hand) -> Behaviour:
    """Routes out and the same way back, or a bend out and back."""
    while True:
        if hand.rng.random() < 0.45:
            yield from out_and_back(hand)
        else:
            yield from route(player, hand, int(hand.rng.integers(1, 3)), come_back=True)


def look_round(_: Player, hand: Hand) -> Behaviour:
    """Stands and turns: pans and full turns, a few steps between."""
    acts: tuple[Callable[[Hand], Behaviour], ...] = (pan, full_turn, pan, reverse, strafe, glance)
    while True:
        yield from acts[int(hand.rng.integers(len(acts)))](hand)


def rounds(_: Player, hand: Hand) -> Behaviour:
    """Round walks."""
    while True:
        yield from circle(hand)


def keys_only(_: Player, hand: Hand) -> Behaviour:
    """No turning at all."""
    acts: tuple[Callable[[Hand], Behaviour], ...] = (strafe, strafe, reverse)
    while True:
        if hand.rng.random() < 0.5:
            yield from walk_ahead(int(hand.rng.integers(10, 30)), frozenset({"forward"}))
        yield from acts[int(hand.rng.integers(len(acts)))](hand)


def play(player: Player, hand: Hand) -> Behaviour:
    """Free play."""
    while True:
        yield from free_play(player, hand, 200)


def _aside(player: Player, hand: Hand) -> Behaviour:
    """Something short between two routes."""
    acts: tuple[Callable[[Hand], Behaviour], ...] = (pan, strafe, idle, glance, reverse, pan, strafe)
    if hand.rng.random() < 0.5:
        yield from acts[int(hand.rng.integers(len(acts)))](hand)
    elif next_point(player, hand, [player.place()]) is None:
        yield from turn_by(hand, float(hand.rng.uniform(60, 180)))


MIXTURES: dict[str, tuple[Callable[[Player, Hand], Behaviour], float]] = {
    "wander": (wander, 0.26),
    "come_and_go": (come_and_go, 0.20),
    "play": (play, 0.20),
    "look_round": (look_round, 0.11),
    "rounds": (rounds, 0.09),
    "keys_only": (keys_only, 0.14),
}


def draw_mixture(rng: np.random.Generator) -> str:
    """The name of a mixture."""
    return str(rng.choice(list(MIXTURES), p=[share for _, share in MIXTURES.values()]))
