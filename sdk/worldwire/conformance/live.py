"""Section 7: credit, inputs, receipts."""

from __future__ import annotations

import math
from typing import Any, Final

from worldwire.conformance.peer import NotCheckedError, Peer, expect
from worldwire.conformance.runner import Target, clause
from worldwire.conformance.sessions import of
from worldwire.protocol import Done, ErrorMessage, FrameMessage, Opened, Reset, Start

WIDE: Final = 4096
WAITING_EDGES: Final = 256
YAW_DEG: Final = 30.0
ANGLE_DEG: Final = 0.05
LENGTH_M: Final = 1e-6


def start(peer: Peer, opened: Opened, window: int) -> None:
    """Makes a session live."""
    peer.get(Done, Start(**of(peer, opened), window=window))


def one_step(target: Target, peer: Peer, opened: Opened) -> list[FrameMessage]:
    """The frames of the first live step."""
    start(peer, opened, opened.frames_per_step)
    frames = peer.live_frames(opened.session, target.quiet_s, most=opened.frames_per_step)
    expect(len(frames) == opened.frames_per_step, f"{len(frames)} frames of {opened.frames_per_step}")
    return frames


# ---------------------------------------------------------------------------------------- 7.1 credit


@clause("7.1", "without credit no more than `window` frames come, in order, each one once")
def never_more_than_the_window(target: Target) -> None:
    frames = target.world.frames_per_step
    with target.peer() as peer:
        for window in sorted({1, frames, frames + 4, 3 * frames}):
            opened = peer.begin()
            start(peer, opened, window)
            came = peer.live_frames(opened.session, target.quiet_s)
            indices = [frame.index for frame in came]
            expect(0 < len(came) <= window, f"{len(came)} frames with a window of {window}")
            expect(indices == sorted(set(indices)), f"frames {indices}")
            peer.say({"type": "close", **of(peer, opened)})


@clause("7.1", "a client that stalled gets the newest frame of the step next; `dropped` counts the others")
def newest_after_a_stall(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        start(peer, opened, 1)
        (first,) = peer.live_frames(opened.session, target.quiet_s)
        peer.credit(opened.session, 1)
        (newest,) = peer.live_frames(opened.session, target.quiet_s)
        last_of_step = max(opened.frames_per_step, 2)
        expect(newest.index == last_of_step, f"frame {newest.index}, not {last_of_step}")
        left_out = newest.index - first.index - 1
        expect(newest.dropped == left_out, f"`dropped` is {newest.dropped}, not {left_out}")


@clause("7.1", "each credit lets one more frame come; what exceeds the window is void")
def credit_counts(target: Target) -> None:
    window = target.world.frames_per_step + 4
    with target.peer() as peer:
        opened = peer.begin()
        peer.credit(opened.session, WIDE)  # not live: void
        start(peer, opened, window)
        expect(
            len(peer.live_frames(opened.session, target.quiet_s)) <= window, "credit counted before `start`"
        )
        peer.credit(opened.session, WIDE)
        came = peer.live_frames(opened.session, target.quiet_s)
        expect(0 < len(came) <= window, f"{len(came)} frames for a whole window of {window}")


@clause("7.1", "with credit for each frame play goes on without a gap")
def steady_play(target: Target) -> None:
    steps = 4
    with target.peer() as peer:
        opened = peer.begin()
        start(peer, opened, opened.frames_per_step + 4)
        indices: list[int] = []
        while len(indices) < steps * opened.frames_per_step:
            (frame,) = peer.live_frames(opened.session, target.quiet_s, most=1) or (None,)
            expect(frame is not None, f"play stopped after {len(indices)} frames")
            assert frame is not None
            expect(frame.dropped == 0, "frames were left out although there was credit")
            indices.append(frame.index)
            peer.credit(opened.session, 1)
        expect(indices == list(range(1, len(indices) + 1)), f"frames {indices}")


@clause("7.1", "`reset` and `start` make the credit whole")
def whole_credit(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        start(peer, opened, opened.frames_per_step)
        expect(bool(peer.live_frames(opened.session, target.quiet_s)), "no live frame")
        done = peer.get(Done, Reset(**of(peer, opened)))
        after = peer.live_frames(opened.session, target.quiet_s)
        expect(any(frame.epoch == done.epoch for frame in after), "no live frame after a reset")
        expect(len(after) <= opened.frames_per_step, f"{len(after)} frames after a reset")
        start(peer, opened, opened.frames_per_step)
        expect(bool(peer.live_frames(opened.session, target.quiet_s)), "no live frame after `start`")


@clause("7.1", "a session that stalls stops itself and no other")
def stalled_neighbour(target: Target) -> None:
    if target.limits.sessions - target.sessions() < 2:
        raise NotCheckedError("for a server with room for two sessions")
    with target.peer() as stalled, target.peer() as peer:
        start(stalled, stalled.begin(), 1)
        opened = peer.begin()
        start(peer, opened, WIDE)
        wanted = 3 * opened.frames_per_step
        came = peer.live_frames(opened.session, target.quiet_s, most=wanted)
        expect(len(came) == wanted, f"{len(came)} frames of {wanted}")


# ---------------------------------------------------------------------------------------- 7.2 inputs


@clause("7.2", "every press and release takes effect in a frame of its own, in order, over steps if need be")
def edges(target: Target) -> None:
    taps = target.world.frames_per_step + 2
    with target.peer() as peer:
        opened = peer.begin()
        for seq in range(1, taps + 1):
            peer.input(opened.session, seq, keys=("forward",) if seq % 2 else ())
        start(peer, opened, 3 * opened.frames_per_step)
        frames = peer.live_frames(opened.session, target.quiet_s, most=3 * opened.frames_per_step)
        acks = [frame.ack for frame in frames]
        expected = [min(number, taps) for number in range(1, len(acks) + 1)]
        expect(acks == expected, f"{taps} edges of one key gave the receipts {acks}")


@clause("7.2", "256 edges of a key may wait; more are refused with `busy`")
def too_many_edges(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        for seq in range(1, WAITING_EDGES + 20):
            peer.input(opened.session, seq, keys=("forward",) if seq % 2 else ())
        errors = peer.errors(quiet_s=0.3)
        expect(bool(errors), "none was refused")
        expect({error.code for error in errors} == {"busy"}, f"the error {errors[0].code!r}")
        first = min(error.seq or 0 for error in errors)
        expect(first == WAITING_EDGES + 1, f"the first that was refused is {first}")


@clause("7.2", "the look since the last step is spread evenly over the frames of the next")
def look(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.input(opened.session, 1, look_deg=(YAW_DEG / 2, 0.0))
        peer.input(opened.session, 2, look_deg=(YAW_DEG / 2, 0.0))
        frames = one_step(target, peer, opened)
        for number, frame in enumerate(frames, 1):
            wanted = YAW_DEG * number / len(frames)
            expect(
                abs(yaw_deg(frame) - wanted) < ANGLE_DEG, f"{yaw_deg(frame):.2f} degrees, not {wanted:.2f}"
            )


@clause("7.2", "the camera goes evenly to the newest pose and stays there until an `input` has none")
def pose_path(target: Target) -> None:
    goal = (0.5, -0.25, 1.0)
    pose: dict[str, Any] = {"position_m": goal, "quaternion_xyzw": (0.0, 0.0, 0.0, 1.0)}
    with target.peer() as peer:
        opened = peer.begin()
        (origin,) = peer.ask(Reset(**of(peer, opened))).frames
        peer.input(opened.session, 1, **pose)
        frames = one_step(target, peer, opened)
        for number, frame in enumerate(frames, 1):
            part = number / len(frames)
            wanted = [a + (b - a) * part for a, b in zip(origin.position_m, goal, strict=True)]
            away = math.dist(frame.position_m, wanted)
            expect(away < LENGTH_M, f"frame {frame.index} is {away:.3g} m off the way to the pose")
        peer.credit(opened.session, opened.frames_per_step)
        stay = peer.live_frames(opened.session, target.quiet_s, most=opened.frames_per_step)
        expect(math.dist(stay[-1].position_m, goal) < LENGTH_M, "the camera did not stay at the pose")


@clause("7.2", "a `reset` keeps what is held")
def held_keys_survive(target: Target) -> None:
    if "forward" not in target.world.trained_keys:
        raise NotCheckedError("`forward` does nothing in this world")
    with target.peer() as peer:
        opened = peer.begin()
        peer.input(opened.session, 1, keys=("forward",))
        (origin,) = peer.ask(Reset(**of(peer, opened))).frames
        frames = one_step(target, peer, opened)
        expect(math.dist(frames[-1].position_m, origin.position_m) > LENGTH_M, "the camera stands still")


# ---------------------------------------------------------------------------------------- 7.3 receipts


@clause("7.3", "the first frame with `ack` of n or more shows input n; `ack` never goes down")
def receipts(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.input(opened.session, 3, look_deg=(1.0, 0.0))
        peer.input(opened.session, 900, look_deg=(1.0, 0.0))
        start(peer, opened, opened.frames_per_step)
        first = peer.live_frames(opened.session, target.quiet_s)
        expect({frame.ack for frame in first} == {900}, f"receipts {[frame.ack for frame in first]}")
        peer.input(opened.session, 901, keys=("left",))
        peer.credit(opened.session, opened.frames_per_step)
        second = peer.live_frames(opened.session, target.quiet_s)
        acks = [frame.ack for frame in first + second]
        expect(acks == sorted(acks) and acks[-1] == 901, f"receipts {acks}")


@clause("7.3", "an old `seq` is `bad_message`, unusable values are `bad_input`; neither counts")
def refused_inputs(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.input(opened.session, 5, look_deg=(1.0, 0.0))
        wrong: list[tuple[str, int, dict[str, Any]]] = [
            ("bad_message", 5, {}),
            ("bad_message", 4, {}),
            ("bad_input", 6, {"keys": ("fly",)}),
            ("bad_input", 6, {"look_deg": (0.0, 181.0)}),
            ("bad_input", 6, {"position_m": (0.0, 0.0, 0.0)}),
        ]
        for code, seq, fields in wrong:
            peer.input(opened.session, seq, **fields)
            error = peer.await_message(ErrorMessage)
            told = (error.code, error.session, error.seq, error.request)
            expect(told == (code, opened.session, seq, None), f"{told} for seq {seq} with {fields}")
        peer.input(opened.session, 6, look_deg=(YAW_DEG - 1.0, 0.0))
        frames = one_step(target, peer, opened)
        expect(frames[-1].ack == 6, f"receipt {frames[-1].ack}")
        expect(abs(yaw_deg(frames[-1]) - YAW_DEG) < ANGLE_DEG, "a refused input turned the camera")


@clause("7.3", "in lockstep `ack` is 0")
def lockstep_receipts(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        frames = peer.ask(Reset(**of(peer, opened))).frames
        expect([frame.ack for frame in frames] == [0], "a receipt in lockstep")


def yaw_deg(frame: FrameMessage) -> float:
    """Where a camera looks, to the right of the first one."""
    x, y, z, w = frame.quaternion_xyzw
    return math.degrees(math.atan2(2 * (x * z + w * y), 1 - 2 * (x * x + y * y)))
