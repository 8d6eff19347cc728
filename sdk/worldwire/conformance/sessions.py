"""Sections 4 to 6: states, requests and their answers."""

from __future__ import annotations

from typing import Any

from worldwire.conformance.peer import NotCheckedError, NotKeptError, Peer, expect
from worldwire.conformance.runner import Target, clause, step
from worldwire.protocol import (
    STATE_BUSY,
    STATE_READY,
    VERSION,
    Branch,
    Close,
    Control,
    Done,
    ErrorMessage,
    Input,
    Open,
    Opened,
    Pause,
    Ping,
    Pong,
    Prompt,
    Reset,
    Restore,
    Save,
    Saved,
    Start,
    Status,
    StatusReport,
    Step,
)

MAX_FILLED_SESSIONS = 64
NO_SESSION = 2**52


def of(peer: Peer, opened: Opened) -> dict[str, Any]:
    """`request` and `session` of a new request."""
    return {"request": peer.next_id(), "session": opened.session}


# ---------------------------------------------------------------------------------------- 4, 5 states


@clause("4", "every request gets exactly one last answer; those of a session are done in their order")
def one_answer_each(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        requests: list[Any] = [
            Reset(**of(peer, opened)),
            step(peer, opened.session, opened.frames_per_step),
            Pause(**of(peer, opened)),
            Save(**of(peer, opened), keep=True),
            Close(**of(peer, opened)),
        ]
        for message in requests:
            peer.say(message)
        sent = [message.request for message in requests]
        answers = peer.answers(sent)
        refused = [answer.last for answer in answers.values() if isinstance(answer.last, ErrorMessage)]
        expect(not refused, f"a request was refused: {refused[:1]}")
        expect(list(answers) == sent, f"{sent} were answered in the order {list(answers)}")
        expect(peer.hear(0.2) is None, "something came after the last answer")


@clause("4", "frames of a `reset` or `step` come before its answer and carry its request")
def frames_before_the_answer(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        first = peer.ask(Reset(**of(peer, opened)))
        peer.checked(Done, first)
        expect([frame.index for frame in first.frames] == [0], "a reset has one frame, of index 0")
        answer = peer.ask(step(peer, opened.session, opened.frames_per_step))
        done = peer.checked(Done, answer)
        indices = [frame.index for frame in answer.frames]
        expect(indices == list(range(1, opened.frames_per_step + 1)), f"frames {indices} of the first step")
        expect(done.epoch == answer.frames[0].epoch == 1, "the first epoch is 1")
        expect(not peer.strays, "frames of a request came without it")


@clause("5.1", "a new connection takes `hello`, `status`, `ping`, `bye`; anything else is `bad_state`")
def before_hello(target: Target) -> None:
    with target.peer(greet=False) as peer:
        peer.get(StatusReport, Status(request=peer.next_id()))
        peer.say(Ping(t_ns=7))
        peer.await_message(Pong, lambda pong: pong.t_ns == 7)
        peer.refused("bad_state", Open(request=peer.next_id()))
        peer.refused("bad_state", Reset(request=peer.next_id(), session=1))
        peer.hello()
        peer.open()


@clause("5.1", "`hello` may be said again: welcomed with a fresh token, and the sessions stay")
def hello_again(target: Target) -> None:
    with target.peer(greet=False) as peer:
        first = peer.hello()
        opened = peer.begin()
        second = peer.hello()
        expect(not first.token or first.token != second.token, "the token is the same")
        expect([item.session for item in second.resumed] == [opened.session], "`resumed` lists its sessions")
        peer.get(Done, step(peer, opened.session, opened.frames_per_step))


@clause("5.2", "a full server says `busy`, welcomes and refuses `open`; a session that is closed makes room")
def full_server(target: Target) -> None:
    limit = target.limits.sessions
    if limit > MAX_FILLED_SESSIONS or target.sessions():
        raise NotCheckedError(f"for an idle server of at most {MAX_FILLED_SESSIONS} sessions")
    with target.peer() as peer:
        expect(_state(peer) == STATE_READY, f"an idle server is {_state(peer)!r}")
        opened = [peer.open() for _ in range(limit)]
        expect(_state(peer) == STATE_BUSY, f"a full server is {_state(peer)!r}")
        with target.peer() as other:
            other.refused("busy", Open(request=other.next_id()))
        peer.get(Done, Close(**of(peer, opened[0])))
        peer.open()


def _state(peer: Peer) -> str:
    return peer.get(StatusReport, Status(request=peer.next_id())).state


@clause("5.3", "an empty session takes `pause` and `input`; `step`, `start` and `prompt` are `bad_state`")
def empty_session(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        peer.refused("bad_state", step(peer, opened.session, opened.frames_per_step))
        peer.refused("bad_state", Start(**of(peer, opened), window=8))
        peer.refused("bad_state", Prompt(**of(peer, opened), prompt="rain"))
        peer.get(Done, Pause(**of(peer, opened)))
        peer.input(opened.session, 1, keys=("forward",))
        expect(not peer.errors(quiet_s=0.2), "an input was refused")
        peer.get(Done, Reset(**of(peer, opened)))


@clause("5.3", "a live session takes everything but `step`; `reset` keeps it live")
def live_session(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.get(Done, Start(**of(peer, opened), window=4096))
        peer.refused("bad_state", step(peer, opened.session, opened.frames_per_step))
        peer.get(Saved, Save(**of(peer, opened), keep=True))
        peer.get(Done, Start(**of(peer, opened), window=64))
        done = peer.get(Done, Reset(**of(peer, opened)))
        frames = peer.live_frames(opened.session, target.quiet_s, most=1000)
        expect(any(frame.epoch == done.epoch for frame in frames), "no live frame after the reset")
        expect(max(frame.epoch for frame in frames) == done.epoch, "a frame of a future epoch")


@clause("5.3", "`pause` is answered after the frames of the step under way; then `step` works again")
def pausing(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.get(Done, Start(**of(peer, opened), window=4096))
        peer.live_frames(opened.session, target.quiet_s, most=1)
        done = peer.get(Done, Pause(**of(peer, opened)))
        newest = max((frame.index for frame in peer.live_frames(opened.session, 0.0)), default=0)
        expect(not peer.live_frames(opened.session, target.quiet_s), "frames after the answer to `pause`")
        answer = peer.ask(step(peer, opened.session, done.frames_per_step))
        peer.checked(Done, answer)
        expect(answer.frames[0].index > newest, "the step did not go on where live play ended")


@clause("5.3", "`epoch` counts resets and restores; numbers of sessions are not used again")
def epochs_and_numbers(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        kept = None
        for epoch in (1, 2):
            done = peer.get(Done, Reset(**of(peer, opened)))
            expect(done.epoch == epoch, f"epoch {done.epoch} after {epoch} resets")
            kept = peer.get(Saved, Save(**of(peer, opened), keep=True)).state
        done = peer.get(Done, Restore(**of(peer, opened), state=kept))
        expect(done.epoch == 3, f"epoch {done.epoch} after two resets and a restore")
        peer.get(Done, Close(**of(peer, opened)))
        expect(peer.open().session != opened.session, "the number of a closed session came again")


@clause("5.3", "a session does not exist for other connections, nor after `close`: `bad_state`")
def sessions_belong(target: Target) -> None:
    with target.peer() as owner, target.peer() as thief:
        opened = owner.begin()
        for request in (Reset, Pause, Save, Branch, Close):
            thief.refused("bad_state", request(**of(thief, opened)))
        thief.input(opened.session, 1)
        error = thief.await_message(ErrorMessage)
        expect((error.code, error.session, error.seq) == ("bad_state", opened.session, 1), f"{error.code!r}")
        owner.get(Done, Close(**of(owner, opened)))
        owner.refused("bad_state", Reset(**of(owner, opened)))
        owner.refused("bad_state", Reset(request=owner.next_id(), session=NO_SESSION))


# ---------------------------------------------------------------------------------------- 6 messages


@clause("6.1", "`open` of an unknown plan, or with no common format, is `bad_config`")
def bad_open(target: Target) -> None:
    with target.peer() as peer:
        error = peer.refused("bad_config", Open(request=peer.next_id(), formats=("smell-o-vision",)))
        expect("rgb" in f"{error.expected} {error.problem}", "the formats that there are are not named")
        peer.get(ErrorMessage, Open(request=peer.next_id(), plan="no such plan"))
        expect(peer.open().format == "rgb", "the format of an `open` without any")


@clause("6.1", "`reset`: an unknown view or image is `bad_config`, an image that does not fit `bad_image`")
def bad_reset(target: Target) -> None:
    height, width = target.world.height, target.world.width
    sides: dict[str, Any] = {"image_height": height, "image_width": width}
    picture = bytes(height * width * 3)
    with target.peer() as peer:
        opened = peer.begin()
        peer.refused("bad_config", Reset(**of(peer, opened), view="no such view"))
        peer.refused("bad_config", Reset(**of(peer, opened), image="no such image"))
        peer.refused("bad_image", Reset(**of(peer, opened), **sides), picture[:-3])
        peer.refused("bad_image", Reset(**of(peer, opened), **sides))
        peer.refused("bad_image", Reset(**of(peer, opened)), picture)
        peer.refused("bad_image", Reset(**of(peer, opened), image="any", **sides), picture)
        taller = Reset(**of(peer, opened), image_height=height + 16, image_width=width)
        peer.refused("bad_image", taller, bytes((height + 16) * width * 3))
        done = peer.get(Done, Pause(**of(peer, opened)))
        expect(done.epoch == 1, "a refused reset changed the epoch")
        answer = peer.ask(Reset(**of(peer, opened), **sides), picture)
        peer.checked(Done, answer)
        expect(len(answer.frames) == 1, "a reset from a payload has one frame")


@clause("6.1", "each shipped seed image and each view begins a world")
def seed_images(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.open()
        for name in target.world.seed_images[:2]:
            peer.get(Done, Reset(**of(peer, opened), image=name))
        for view in target.world.views:
            peer.get(Done, Reset(**of(peer, opened), view=view))


@clause(
    "6.1", "`step` takes exactly `frames_per_step` usable controls; `bad_input` leaves the session as it was"
)
def bad_steps(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        count = opened.frames_per_step
        wrong: list[tuple[Control, ...]] = [
            (Control(),) * (count + 1),
            (Control(keys=("fly",)),) * count,
            (Control(look_deg=(181.0, 0.0)),) * count,
            (Control(position_m=(0.0, 0.0, 0.0)),) * count,
            (Control(position_m=(0.0, 0.0, 0.0), quaternion_xyzw=(0.0, 0.0, 0.0, 0.0)),) * count,
        ]
        if count > 1:
            wrong.append((Control(),) * (count - 1))
        for inputs in wrong:
            peer.refused("bad_input", Step(**of(peer, opened), inputs=inputs))
        answer = peer.ask(step(peer, opened.session, count))
        peer.checked(Done, answer)
        expect(answer.frames[0].index == 1, "a refused step moved the session on")


@clause("6.1", "a pose wins over keys and look, and is the pose of its frame")
def poses(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        turn = (0.0, 0.17364817766693033, 0.0, 0.984807753012208)  # 20 degrees to the right
        pose = {"position_m": (0.25, -0.125, 0.5), "quaternion_xyzw": turn}
        control = {"keys": ("forward",), "look_deg": (90.0, 0.0), **pose}
        answer = peer.ask(step(peer, opened.session, opened.frames_per_step, **control))
        peer.checked(Done, answer)
        for frame in answer.frames:
            away = max(abs(a - b) for a, b in zip(frame.position_m, pose["position_m"], strict=True))
            turned = abs(sum(a * b for a, b in zip(frame.quaternion_xyzw, turn, strict=True)))
            expect(away < 1e-6 and turned > 1 - 1e-9, f"frame {frame.index} has another pose")


@clause("6.1", "`prompt` changes what the world is told and nothing else: epoch and index go on")
def prompting(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.get(Done, step(peer, opened.session, opened.frames_per_step))
        last = peer.ask(Prompt(**of(peer, opened), prompt="it begins to snow")).last
        if isinstance(last, ErrorMessage) and last.code == "bad_config":
            raise NotCheckedError("this world takes no prompt")
        if not isinstance(last, Done):
            raise NotKeptError(f"answered with {last.kind!r}")
        expect(last.epoch == 1, f"epoch {last.epoch}")
        answer = peer.ask(step(peer, opened.session, last.frames_per_step))
        peer.checked(Done, answer)
        expect(answer.frames[0].index == opened.frames_per_step + 1, "the session did not go on")
        peer.get(Done, Start(**of(peer, opened), window=4096))
        peer.get(Done, Prompt(**of(peer, opened), prompt="and night falls"))


@clause("6.1", "`save` gives the state as a payload or keeps it; `restore` goes on from it, in any session")
def saving(target: Target) -> None:
    with target.peer() as peer, target.peer() as other:
        opened = peer.begin()
        done = peer.get(Done, step(peer, opened.session, opened.frames_per_step))
        kept = peer.get(Saved, Save(**of(peer, opened), keep=True))
        expect(bool(kept.state) and kept.size > 0, "a kept state has a name and a size")
        expected = opened.frames_per_step + 1
        sent = peer.ask(Save(**of(peer, opened)))
        borrower = other.open()
        for request, payload in (
            (Restore(**of(other, borrower), state=kept.state), None),
            *_by_payload(sent, of(other, borrower)),
        ):
            restored = other.get(Done, request, payload)
            expect(restored.frames_per_step == done.frames_per_step, "another number of frames a step")
            answer = other.ask(step(other, borrower.session, restored.frames_per_step))
            other.checked(Done, answer)
            expect(answer.frames[0].index == expected, f"frame {answer.frames[0].index}, not {expected}")


def _by_payload(sent: Any, address: dict[str, Any]) -> list[tuple[Restore, bytes]]:
    """The restore of a state that travelled; nothing if it is larger than messages may be."""
    if isinstance(sent.last, ErrorMessage) and sent.last.code == "bad_state":
        return []
    saved = Peer.checked(Saved, sent)
    state = sent.payload or b""
    expect(saved.state is None, "a state that travels has no name")
    expect(len(state) == saved.size, f"{len(state)} bytes, and `size` says {saved.size}")
    return [(Restore(**address), state)]


@clause("6.1", "`restore` of garbage, of nothing or of an unknown name is `bad_state` and changes nothing")
def bad_restore(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        peer.get(Done, step(peer, opened.session, opened.frames_per_step))
        peer.refused("bad_state", Restore(**of(peer, opened)), b"garbage")
        peer.refused("bad_state", Restore(**of(peer, opened)))
        peer.refused("bad_state", Restore(**of(peer, opened), state="no such state"))
        done = peer.get(Done, Pause(**of(peer, opened)))
        expect(done.epoch == 1, f"epoch {done.epoch} after refused restores")
        answer = peer.ask(step(peer, opened.session, done.frames_per_step))
        peer.checked(Done, answer)
        expect(answer.frames[0].index == opened.frames_per_step + 1, "the session did not go on as it was")


@clause("6.1", "`branch` opens a second session that goes on from here, at epoch 1, of the same format")
def branching(target: Target) -> None:
    if target.limits.sessions - target.sessions() < 2:
        raise NotCheckedError("for a server with room for two sessions")
    with target.peer() as peer:
        opened = peer.begin(formats=("bgra", "rgb"))
        peer.get(Done, step(peer, opened.session, opened.frames_per_step))
        child = peer.get(Opened, Branch(**of(peer, opened)))
        expect(child.session != opened.session and child.format == opened.format, "not a session of its own")
        for each in (child, opened):
            answer = peer.ask(step(peer, each.session, child.frames_per_step))
            done = peer.checked(Done, answer)
            expect(done.epoch == 1, f"epoch {done.epoch}")
            expect(answer.frames[0].index == opened.frames_per_step + 1, "it goes on somewhere else")


@clause("6.1", "`ping` comes back unchanged, at once, with a clock that goes forward")
def pinging(target: Target) -> None:
    with target.peer(greet=False) as peer:
        clocks = []
        for t_ns in (0, 2**63 - 1, 5):
            peer.say(Ping(t_ns=t_ns))
            pong = peer.await_message(Pong)
            expect(pong.t_ns == t_ns, f"{t_ns} came back as {pong.t_ns}")
            clocks.append(pong.server_t_ns)
        expect(clocks == sorted(clocks), "the server's clock went back")


@clause("6.1", "`bye` of a client ends its sessions")
def goodbye(target: Target) -> None:
    peer = target.connect()
    token = peer.hello().token
    peer.begin()
    peer.leave()
    later = target.connect(resume=token or None)
    try:
        expect(not later.hello().resumed, "a session outlived `bye`")
    finally:
        later.leave()


@clause("6.2", "`welcome` describes the world, the limits, the formats, and has a token of its own")
def welcome_fields(target: Target) -> None:
    with target.peer(greet=False) as peer:
        welcome = peer.hello()
    world, limits = welcome.world, welcome.limits
    expect(welcome.version == VERSION or welcome.version[0] == VERSION[0], f"version {welcome.version}")
    expect(bool(world.name) and world.frames_per_second > 0, "a world has a name and a rate")
    expect(1 <= world.frames_per_step <= 4096, f"frames_per_step {world.frames_per_step}")
    expect(0 < world.horizontal_fov_deg < 180, f"horizontal_fov_deg {world.horizontal_fov_deg}")
    expect(0 < limits.heartbeat_s < limits.liveness_s, "heartbeat_s is not below liveness_s")
    expect(min(limits.sessions, limits.queued_requests, limits.messages_per_second) > 0, "a limit of 0")
    expect(bool(welcome.token) and welcome.token != target.welcome.token, "no fresh token")
    expect(not welcome.resumed, "a new client has sessions already")


@clause("6.2", "`status_report` counts sessions and time")
def status_fields(target: Target) -> None:
    with target.peer() as peer:
        first = peer.get(StatusReport, Status(request=peer.next_id()))
        peer.open()
        second = peer.get(StatusReport, Status(request=peer.next_id()))
    expect(second.sessions >= 1 and second.max_sessions == target.limits.sessions, "wrong counts")
    expect(0 <= first.uptime_s <= second.uptime_s, "the uptime went back")
    expect(first.version[0] == VERSION[0], f"version {first.version}")
    expect(second.progress is None or 0 <= second.progress <= 1, f"progress {second.progress}")


@clause("6.2", "an `input` is not answered unless it is wrong")
def silent_inputs(target: Target) -> None:
    with target.peer() as peer:
        opened = peer.begin()
        for seq in range(1, 20):
            peer.say(Input(session=opened.session, seq=seq, look_deg=(1.0, 0.0)))
        expect(peer.hear(0.3) is None and not peer.strays, "something came")
