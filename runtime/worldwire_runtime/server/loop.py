"""What each message means: the main thread of a server.

    wait -> read messages -> take what the workers made -> give them their next jobs -> drop the silent

It never waits for a world: everything that touches one is a job for the worker.
"""

from __future__ import annotations

import logging
import math
import queue
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from worldwire.api import Frame, WorldInfo
from worldwire.errors import BusyError, ProtocolError, StateError, WorldwireError
from worldwire.protocol import (
    STATE_BUSY,
    STATE_LOADING,
    STATE_READY,
    VERSION,
    Branch,
    Bye,
    Close,
    Credit,
    ErrorMessage,
    Hello,
    Input,
    Limits,
    Open,
    Pause,
    Ping,
    Pong,
    Prompt,
    Reset,
    Restore,
    Save,
    Start,
    Status,
    StatusReport,
    Step,
    correlation,
    decode,
)
from worldwire.schema import Message
from worldwire_runtime.server import replies
from worldwire_runtime.server.clients import Client, Clients
from worldwire_runtime.server.jobs import Jobs
from worldwire_runtime.server.kept import KeptStates
from worldwire_runtime.server.outbox import Outbox
from worldwire_runtime.server.pixels import PictureEncoder, choose_format, our_formats
from worldwire_runtime.server.router import QUEUED_MESSAGES, Router
from worldwire_runtime.server.security import KeyPair
from worldwire_runtime.server.sessions import NO_CLIENT, Sessions, Show, Slot, no_session
from worldwire_runtime.server.worker import (
    Emit,
    Event,
    Failed,
    Finished,
    Imagined,
    Job,
    ServedWorld,
    Worker,
)

log = logging.getLogger(__name__)

TURN_MS: Final = 100
SWEEP_S: Final = 0.5
BACKLOG_BYTES: Final = 2**28
BYTES_PER_PIXEL: Final = 4
MOST_AT_A_TIME: Final = 4
"""Quick steps that the worker gets ahead: so old may an input be, in steps, when it is played."""

Handler = Callable[[bytes, Client, Any, Any], None]


@dataclass
class Loading:
    """How far the loading of a world is; whoever loads it says so, from any thread.

    part: 0 to 1. stage: for people; later, what keeps sessions waiting, if anything does.
    """

    part: float = 0.0
    stage: str = "starting"

    def tell(self, part: float, stage: str) -> None:
        """Notes the progress."""
        self.part, self.stage = part, stage


@dataclass(frozen=True)
class Task:
    """What the worker does. message: the request, None for a live step. child: the slot of a branch.

    client: who asked; if the session has another owner when it is done, nobody gets the answer.
    ends: the session is over afterwards. quick: a live step that takes no time to speak of.
    """

    slot: Slot
    client: bytes
    message: Any
    child: Slot | None
    ends: bool
    quick: bool = False


class Server:
    """Serves one world to many sessions.

    load: makes the world; runs in the worker's thread after the address is ours, and tells `loading`.
    peak_memory_gib: what `status` reports.
    rate: frames a second that a live session gets at most; 0: as many as its client takes.
    keys: encrypt with CURVE. clients: a folder with the public keys of the clients that may come; None: all.
    Raises MachineError when the address is taken, or when others can reach it and there are no `keys` and
    nobody said `insecure`; ConfigError for a folder that holds no keys.
    """

    def __init__(
        self,
        load: Callable[[], ServedWorld],
        address: str,
        *,
        limits: Limits | None = None,
        rate: float = 0.0,
        insecure: bool = False,
        keys: KeyPair | None = None,
        clients: Path | None = None,
        loading: Loading | None = None,
        peak_memory_gib: Callable[[], float] = lambda: 0.0,
    ):
        self._limits = limits or Limits()
        self._router = Router(
            address, self._limits.message_bytes, insecure=insecure, keys=keys, clients=clients
        )
        self._rate, self._loading = rate, loading or Loading()
        self._load, self._peak_memory_gib = load, peak_memory_gib
        self._clients = Clients(self._limits, time.monotonic)
        self._sessions = Sessions(self._limits)
        self._kept = KeptStates(self._limits)
        self._events: queue.SimpleQueue[tuple[bool, Event]] = queue.SimpleQueue()
        self._worker = Worker(self._report)
        self._shower = Worker(self._report_shown, "worldwire-shower")
        self._outbox = Outbox(self._send, self._on_unencoded, self._router.wake)
        self._info: WorldInfo | None = None
        self._jobs: Jobs | None = None
        self._tasks: deque[Task] = deque()
        self._shows: deque[tuple[Slot, Show]] = deque()
        self._late_hellos: list[tuple[bytes, Hello]] = []
        self._failure: Exception | None = None
        self._stopping = False
        self._born_s = time.monotonic()
        self._next_sweep_s = 0.0
        requests = (Branch, Close, Pause, Prompt, Reset, Restore, Save, Start, Step)
        self._handlers: dict[type[Message], Handler] = {
            Hello: self._on_hello,
            Open: self._on_open,
            Input: self._on_input,
            Credit: self._on_credit,
            Status: self._on_status,
            Ping: self._on_ping,
            Bye: self._on_bye,
            **dict.fromkeys(requests, self._on_request),
        }

    @property
    def endpoint(self) -> str:
        """Where clients connect; the real port for port 0."""
        return self._router.endpoint

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serves until `stop`; calls `on_ready` once the world is loaded, raises what its loading raised."""
        self._worker.submit(lambda _: self._load_world())
        try:
            while not self._stopping:
                self._router.wait(self._patience_ms())
                self._read()
                self._take_events(on_ready)
                self._outbox.flush()
                self._sessions.forget_silent()
                self._give_work()
                self._sweep()
        finally:
            self._shut_down()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Ends `run` soon; from a signal handler or another thread."""
        self._stopping = True
        self._router.wake()

    def _patience_ms(self) -> int:
        """How long the loop may sleep: until the next live step is due, if the worker could begin it."""
        if self._tasks or not self._rate:
            return TURN_MS
        wait_s = min(self._sessions.next_due_s(self._router.crowded()) - time.monotonic(), TURN_MS / 1000)
        return max(0, math.ceil(wait_s * 1000))

    # ------------------------------------------------------------------ messages in

    def _read(self) -> None:
        for address, parts in self._router.receive():
            client = self._clients.heard(address)
            if client is None:
                self._complain(address)
                continue
            start_s = time.thread_time()
            try:
                message, payload = decode(parts)
                self._handle(address, client, message, payload)
            except Exception as error:  # no message, however odd, may end the server
                if not isinstance(error, WorldwireError):
                    log.exception("a message could not be handled")
                answer = ErrorMessage.of(replies.typed(error), **correlation(parts))
                self._send(address, answer)
            self._clients.charge(client, time.thread_time() - start_s)

    def _handle(self, address: bytes, client: Client, message: Message, payload: Any) -> None:
        handler = self._handlers.get(type(message))
        if handler is None:
            raise ProtocolError(f"a server does not take {message.kind!r}")
        if not client.greeted and not isinstance(message, (Hello, Status, Ping, Bye)):
            raise StateError(
                f"{message.kind!r} came before `hello`",
                expected="`hello`, then `welcome`",
                remedy="connect again: the server may be a new one, or has given this client up",
            )
        handler(address, client, message, payload)

    def _complain(self, address: bytes) -> None:
        """Tells a client now and then that it sends too much."""
        if self._clients.may_complain(address):
            error = BusyError(
                "too many messages; some were dropped",
                expected=f"at most {self._limits.messages_per_second} a second",
                remedy="send inputs when they change, not in a loop",
            )
            self._send(address, ErrorMessage.of(error))

    def _on_hello(self, address: bytes, client: Client, message: Hello, _: Any) -> None:
        if self._info is None:
            self._send(address, self._status(message.request))
            return
        tokens = client.tokens
        if message.resume and message.resume not in tokens:
            self._end_older(message.resume)
            if any(message.resume in slot.tokens for slot in self._sessions if slot.busy or slot.shows):
                self._late_hellos.append((address, message))  # what runs for these sessions is finished first
                return
            tokens = (*tokens, *self._sessions.adopt(message.resume, address))
        elif message.resume:
            tokens = tokens[tokens.index(message.resume) :]
        token, sessions = client.add_token(tokens), self._sessions.of_client(address)
        welcome = replies.welcome(message.request, self._info, self._limits, token, sessions, our_formats())
        self._send(address, welcome)

    def _end_older(self, token: str) -> None:
        """A connection that still stands gives its sessions to the one that names its token."""
        older = self._clients.with_token(token)
        if older is not None:
            self._give_work()  # what it asked for just before it broke is under way, too
            self._router.send(older, Bye(reason="another connection has taken over its sessions"))
            self._lose(older)

    def _greet_late(self) -> None:
        """Answers those who waited for a job to end."""
        waiting, self._late_hellos = self._late_hellos, []
        for address, message in waiting:
            client = self._clients.get(address)
            if client is not None:
                self._on_hello(address, client, message, None)

    def _on_open(self, address: bytes, _: Client, message: Open, __: Any) -> None:
        name = choose_format(message.formats, our_formats())
        slot = self._sessions.add(address, PictureEncoder(name, message.jpeg_quality))
        self._sessions.enqueue(slot, message, None)

    def _on_request(self, address: bytes, _: Client, message: Any, payload: Any) -> None:
        slot = self._sessions.of(address, message.session)
        if slot.closing:
            self._refuse_ended(slot, message)
            return
        if isinstance(message, Pause) and not slot.requests:
            slot.pause()  # at once; the answer waits for the step under way
        self._sessions.enqueue(slot, message, payload if isinstance(message, (Reset, Restore)) else None)

    def _refuse_ended(self, slot: Slot, message: Any) -> None:
        """A request of a session that is over: behind the error that ended it, if that is on its way."""
        refused = replies.refusal(no_session(slot.id), slot, message, fatal=False)
        self._outbox.answer(slot, slot.client, refused)

    def _refuse_waiting(self, slot: Slot) -> None:
        """Every request gets an answer, also those that waited when their session ended."""
        for message, _ in slot.take_requests():
            if slot.client != NO_CLIENT:
                self._refuse_ended(slot, message)

    def _on_input(self, address: bytes, _: Client, message: Input, __: Any) -> None:
        slot = self._sessions.of(address, message.session)
        if not slot.closing:  # else its end and this message have crossed
            slot.inputs.add(message)

    def _on_credit(self, address: bytes, _: Client, message: Credit, __: Any) -> None:
        slot = self._sessions.of(address, message.session)
        if slot.closing:
            return
        slot.grant(message.frames)
        picture = slot.take_waiting()
        if picture is not None:
            self._outbox.picture(slot, picture, None)

    def _on_status(self, address: bytes, _: Client, message: Status, __: Any) -> None:
        self._send(address, self._status(message.request))

    def _on_ping(self, address: bytes, _: Client, message: Ping, __: Any) -> None:
        self._send(address, Pong(t_ns=message.t_ns, server_t_ns=time.monotonic_ns()))

    def _on_bye(self, address: bytes, _: Client, __: Bye, ___: Any) -> None:
        self._clients.leave(address)
        for slot in self._sessions.of_client(address):
            self._sessions.end(slot)

    def _status(self, request: int) -> StatusReport:
        loading = self._info is None
        ready = STATE_BUSY if self._sessions.are_full else STATE_READY
        return StatusReport(
            request=request,
            state=STATE_LOADING if loading else ready,
            version=VERSION,
            sessions=len(self._sessions),
            max_sessions=self._limits.sessions,
            uptime_s=time.monotonic() - self._born_s,
            peak_memory_gib=self._peak_memory_gib(),
            progress=self._loading.part if loading else None,
            stage=self._loading.stage or None,
            queue=self._sessions.queued,
        )

    # ------------------------------------------------------------------ jobs out

    def _give_work(self) -> None:
        """Answers what needs no worker, and gives an idle one the next job of the round robin.

        Steps that are quick go to it several at a time: handing each over would take longer than the step.
        """
        self._give_shows()
        self._switch_all()
        while self._jobs is not None and self._may_begin():
            slot = self._sessions.next(time.monotonic(), bool(self._tasks), self._router.crowded())
            if slot is None:
                return
            self._begin(self._jobs, slot, *slot.take_request())
            self._switch_all()

    def _give_shows(self) -> None:
        """Has frames decoded that their clients can take, or that something else waits for."""
        crowded = self._router.crowded()
        for slot in self._sessions:
            if slot.closing:
                slot.drop_shows()
            if slot.may_show and slot.client not in crowded:
                show = slot.begin_show()
                self._shows.append((slot, show))
                self._shower.submit(_showing(show))

    def _may_begin(self) -> bool:
        return len(self._tasks) < MOST_AT_A_TIME and all(task.quick for task in self._tasks)

    def _switch_all(self) -> None:
        """Starts and pauses the sessions that ask for it next and that the worker is not at."""
        for slot in self._sessions:
            while slot.requests and not (slot.busy or slot.shows or slot.closing):
                if not isinstance(slot.next_request, (Start, Pause)):
                    break
                self._switch(slot, slot.take_request()[0])

    def _switch(self, slot: Slot, message: Start | Pause) -> None:
        try:
            if isinstance(message, Start):
                slot.start(min(message.window, self._most_under_way()))
            else:
                slot.pause()
        except WorldwireError as error:
            self._outbox.answer(slot, slot.client, replies.refusal(error, slot, message, fatal=False))
        else:
            self._outbox.answer(slot, slot.client, replies.done(slot, message.request))

    def _most_under_way(self) -> int:
        """Frames that a session may have under way: what a client that reads nothing keeps in our memory."""
        assert self._info is not None
        fitting = BACKLOG_BYTES // (self._info.height * self._info.width * BYTES_PER_PIXEL)
        return max(1, min(fitting, QUEUED_MESSAGES // 2))

    def _begin(self, jobs: Jobs, slot: Slot, message: Any, payload: Any) -> None:
        child = None
        try:
            job = jobs.of(slot, message, payload)
            if isinstance(message, Branch):
                child = self._sessions.add(slot.client, slot.encoder.copy())
                child.busy = True  # it ends when its session is there, and not before
        except Exception as error:
            self._on_failed(Task(slot, slot.client, message, None, ends=False), error)
            return
        if message is None:
            slot.schedule(time.monotonic(), self._rate)
        ends = slot.closing or isinstance(message, Close)
        quick = message is None and slot.is_quick
        slot.busy = True
        self._tasks.append(Task(slot, slot.client, message, child, ends, quick))
        self._worker.submit(job)

    # ------------------------------------------------------------------ what the worker made

    def _report(self, event: Event) -> None:
        """Called in the worker's thread."""
        self._events.put((False, event))
        self._router.wake()

    def _report_shown(self, event: Event) -> None:
        """Called in the shower's thread."""
        self._events.put((True, event))
        self._router.wake()

    def _take_events(self, on_ready: Callable[[], None]) -> None:
        while not self._events.empty():
            is_shown, event = self._events.get()
            if is_shown:
                self._on_shown(*self._shows[0], event)
            elif not self._tasks:
                self._on_loaded(event, on_ready)
            elif isinstance(event, Frame):
                self._on_picture(self._tasks[0], event)
            elif isinstance(event, Imagined):
                self._on_imagined(self._tasks[0], event)
            else:
                task = self._tasks.popleft()
                task.slot.busy = False
                if task.child is not None:
                    task.child.busy = False
                self._on_end(task, event)
                self._greet_late()

    def _load_world(self) -> tuple[ServedWorld, WorldInfo]:
        """Runs in the worker's thread."""
        world = self._load()
        our_formats()  # looks for encoders now, not while a client waits
        return world, world.info

    def _on_loaded(self, event: Event, on_ready: Callable[[], None]) -> None:
        if isinstance(event, Finished):
            world, self._info = event.result
            self._jobs = Jobs(world, self._kept)
            self._loading.stage = ""
            on_ready()
        elif isinstance(event, Failed):
            self._failure = event.error
            self.stop()

    def _on_picture(self, task: Task, picture: Frame) -> None:
        slot, message = task.slot, task.message
        if isinstance(message, Reset):
            slot.begin_epoch()
        slot.camera = picture.c2w
        if slot.client != task.client:
            return
        if message is not None or slot.spend(picture):
            self._outbox.picture(slot, picture, None if message is None else message.request)

    def _on_imagined(self, task: Task, imagined: Imagined) -> None:
        """A live step has its latents: the next one may begin when the worker says so."""
        task.slot.camera = imagined.camera
        task.slot.shows.append(Show(imagined, task.client))

    def _on_shown(self, slot: Slot, show: Show, event: Event) -> None:
        """A frame of an earlier step is decoded, or all are, or decoding failed.

        What failed meanwhile is said behind the frames of the steps before it.
        """
        if isinstance(event, Frame):
            if slot.client == show.client and slot.spend(event):
                self._outbox.picture(slot, event, None)
            return
        self._shows.popleft()
        slot.end_show()
        if isinstance(event, Failed):
            slot.drop_shows()  # they go on from where the decoder failed
            slot.failure = slot.failure or event.error
        if slot.failure is not None and not slot.shows:
            self._on_failed(Task(slot, show.client, None, None, ends=False), slot.failure)
        self._greet_late()

    def _on_end(self, task: Task, event: Finished | Failed) -> None:
        """A job is over; a failed one of an ending session ends it too."""
        if task.ends:
            self._sessions.remove(task.slot)
        if isinstance(event, Failed):
            self._on_failed(task, event.error)
        else:
            if task.message is None:
                task.slot.step_s = event.seconds
            try:
                self._on_finished(task, event.result)
            except Exception as error:  # such as a session that cannot tell how long its next step is
                self._on_failed(task, error)
        if task.ends:
            self._refuse_waiting(task.slot)

    def _on_finished(self, task: Task, result: Any) -> None:
        slot, message = task.slot, task.message
        match message:
            case None if task.ends:
                log.info("session %d ended", slot.id)
            case None:
                slot.note_step()
            case Close():
                self._answer(task, replies.done(slot, message.request))
            case Open():
                slot.attach(result)
                self._answer(task, replies.opened(slot, message.request))
            case Branch():
                assert task.child is not None
                task.child.attach(result, parent=slot)
                self._answer(task, replies.opened(task.child, message.request))
            case Save():
                self._answer_saved(task, message, result)
            case _:
                if isinstance(message, Restore):
                    slot.begin_epoch()
                slot.note_step()
                self._answer(task, replies.done(slot, message.request))

    def _on_failed(self, task: Task, error: Exception) -> None:
        """A typed error refuses a request; any other one, or one of a live step, closes the session."""
        slot, message = task.slot, task.message
        if slot.shows:  # the frames before it were made from inputs that the client sent: they come first
            slot.failure = error
            return
        typed = isinstance(error, WorldwireError)
        fatal = not typed or message is None or isinstance(message, Open)
        if not typed:
            log.error("session %d failed and is closed", slot.id, exc_info=error)
        if task.child is not None:
            self._sessions.remove(task.child)
        if not slot.closing:
            self._answer(task, replies.refusal(replies.typed(error), slot, message, fatal=fatal))
        if fatal:
            slot.closing = True
            self._refuse_waiting(slot)

    def _on_unencoded(self, slot: Slot, request: int | None, error: Exception) -> None:
        """A picture could not be encoded: the session ends, and its client hears no more of it."""
        log.error("a picture of session %d could not be encoded; it is closed", slot.id, exc_info=error)
        answer = ErrorMessage.of(replies.typed(error), request=request, session=slot.id, fatal=True)
        self._send(slot.client, answer)
        for message, _ in slot.take_requests():
            self._send(slot.client, replies.refusal(no_session(slot.id), slot, message, fatal=False))
        slot.client, slot.closing = NO_CLIENT, True

    # ------------------------------------------------------------------ messages out, and the end

    def _send(self, address: bytes, message: Message, payload: Any = None) -> None:
        if not self._router.send(address, message, payload):
            self._lose(address)

    def _answer(self, task: Task, message: Message, payload: Any = None) -> None:
        """The answer to a request, behind the pictures of its session; nobody's if the client was lost."""
        if task.slot.client == task.client:
            self._outbox.answer(task.slot, task.client, message, payload)

    def _answer_saved(self, task: Task, message: Save, state: bytes) -> None:
        try:
            answer, payload = replies.saved(task.slot, message, state, self._kept, self._limits)
        except StateError as error:
            self._answer(task, replies.refusal(error, task.slot, message, fatal=False))
        else:
            self._answer(task, answer, payload)

    def _lose(self, address: bytes) -> None:
        """A connection is lost or silent: its sessions wait for their client for a while."""
        tokens = self._clients.leave(address)
        for slot in self._sessions.of_client(address):
            slot.orphan(tokens, time.monotonic())
            if slot.closing:
                self._sessions.end(slot)

    def _sweep(self) -> None:
        """Gives up the clients that were silent for too long, and the sessions that none came back for."""
        now_s = time.monotonic()
        if now_s < self._next_sweep_s:
            return
        self._next_sweep_s = now_s + SWEEP_S
        for address in self._clients.silent():
            reason = f"nothing was heard of this client for {self._limits.liveness_s:g} s"
            self._router.send(address, Bye(reason=reason, resume=True))
            self._lose(address)
            self._clients.forget(address)
        self._sessions.end_orphans(now_s - self._limits.resume_s)

    def _shut_down(self) -> None:
        for address in self._clients.greeted():
            self._router.send(address, Bye(reason="the server stops"))
        self._outbox.stop()
        have_ended = [self._shower.stop(), self._worker.stop()]
        if all(have_ended):
            for slot in self._sessions:
                if slot.session is not None:
                    slot.session.close()
        self._router.close()


def _showing(show: Show) -> Job:
    def job(emit: Emit) -> None:
        for picture in show.imagined.pictures:
            emit(picture)

    return job
