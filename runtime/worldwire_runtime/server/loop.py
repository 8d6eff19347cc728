"""What each message means: the main thread of a server.

    wait -> read messages -> take what the worker made -> give the worker its next job -> drop the silent

It never waits for a world: everything that touches one is a job for the worker.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from worldwire.api import WorldInfo
from worldwire.errors import BusyError, ProtocolError, StateError, WorldwireError
from worldwire.protocol import (
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
from worldwire_runtime.server.pixels import choose_format
from worldwire_runtime.server.router import Router
from worldwire_runtime.server.sessions import Sessions, Slot
from worldwire_runtime.server.worker import Event, Failed, Finished, Picture, ServedWorld, Worker

log = logging.getLogger(__name__)

TURN_MS: Final = 100
SWEEP_S: Final = 0.5

Handler = Callable[[bytes, Client, Any, Any], None]


@dataclass(frozen=True)
class Task:
    """What the worker is doing. message: the request, None for a live step. child: the slot of a branch.

    ends: the session is over afterwards.
    """

    slot: Slot
    message: Any
    child: Slot | None
    ends: bool


class Server:
    """Serves one world to many sessions.

    load: makes the world; runs in the worker's thread after the address is ours.
    plan: the clip plan of sessions that name none. peak_memory_gib: what `status` reports.
    Raises MachineError when the address is taken, or when others can reach it and nobody said `insecure`.
    """

    def __init__(
        self,
        load: Callable[[], ServedWorld],
        address: str,
        *,
        limits: Limits | None = None,
        plan: str | None = None,
        insecure: bool = False,
        peak_memory_gib: Callable[[], float] = lambda: 0.0,
    ):
        self._limits = limits or Limits()
        self._router = Router(address, insecure, self._limits.message_bytes)
        self._load, self._plan, self._peak_memory_gib = load, plan, peak_memory_gib
        self._clients = Clients(self._limits, time.monotonic)
        self._sessions = Sessions(self._limits)
        self._kept = KeptStates(self._limits)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._worker = Worker(self._report)
        self._info: WorldInfo | None = None
        self._jobs: Jobs | None = None
        self._task: Task | None = None
        self._failure: Exception | None = None
        self._stopping = False
        self._born_s = time.monotonic()
        self._next_sweep_s = 0.0
        requests = (Branch, Close, Pause, Reset, Restore, Save, Start, Step)
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
                self._router.wait(TURN_MS)
                self._read()
                self._take_events(on_ready)
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

    # ------------------------------------------------------------------ messages in

    def _read(self) -> None:
        for address, parts in self._router.receive():
            client = self._clients.heard(address)
            if client is None:
                self._complain(address)
                continue
            try:
                message, payload = decode(parts)
                self._handle(address, client, message, payload)
            except Exception as error:  # no message, however odd, may end the server
                if not isinstance(error, WorldwireError):
                    log.exception("a message could not be handled")
                answer = ErrorMessage.of(replies.typed(error), **correlation(parts))
                self._send(address, answer)

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
        else:
            client.greeted = True
            self._send(address, replies.welcome(message.request, self._info, self._limits))

    def _on_open(self, address: bytes, _: Client, message: Open, payload: Any) -> None:
        slot = self._sessions.add(address, choose_format(message.formats), message.jpeg_quality)
        self._sessions.enqueue(slot, message, payload)

    def _on_request(self, address: bytes, _: Client, message: Any, payload: Any) -> None:
        slot = self._sessions.of(address, message.session)
        if isinstance(message, Pause) and not slot.requests:
            slot.pause()  # at once; the answer waits for the step under way
        self._sessions.enqueue(slot, message, payload)

    def _on_input(self, address: bytes, _: Client, message: Input, __: Any) -> None:
        self._sessions.of(address, message.session).inputs.add(message)

    def _on_credit(self, address: bytes, _: Client, message: Credit, __: Any) -> None:
        slot = self._sessions.of(address, message.session)
        slot.grant(message.frames)
        picture = slot.take_waiting()
        if picture is not None:
            self._send_picture(slot, picture, None)

    def _on_status(self, address: bytes, _: Client, message: Status, __: Any) -> None:
        self._send(address, self._status(message.request))

    def _on_ping(self, address: bytes, _: Client, message: Ping, __: Any) -> None:
        self._send(address, Pong(t_ns=message.t_ns, server_t_ns=time.monotonic_ns()))

    def _on_bye(self, address: bytes, _: Client, __: Bye, ___: Any) -> None:
        self._drop(address)

    def _status(self, request: int) -> StatusReport:
        return StatusReport(
            request=request,
            state=STATE_LOADING if self._info is None else STATE_READY,
            version=VERSION,
            sessions=len(self._sessions),
            max_sessions=self._limits.sessions,
            uptime_s=time.monotonic() - self._born_s,
            peak_memory_gib=self._peak_memory_gib(),
        )

    # ------------------------------------------------------------------ jobs out

    def _give_work(self) -> None:
        """Answers what needs no worker, and gives an idle one the next job of the round robin."""
        self._switch_all()
        while self._jobs is not None and self._task is None:
            slot = self._sessions.next()
            if slot is None:
                return
            self._begin(self._jobs, slot, *slot.take_request())
            self._switch_all()

    def _switch_all(self) -> None:
        """Starts and pauses the sessions that ask for it next and that the worker is not at."""
        for slot in self._sessions:
            busy = self._task is not None and self._task.slot is slot
            while not (busy or slot.closing) and isinstance(slot.next_request, (Start, Pause)):
                self._switch(slot, slot.take_request()[0])

    def _switch(self, slot: Slot, message: Start | Pause) -> None:
        try:
            if isinstance(message, Start):
                slot.start(message.window)
            else:
                slot.pause()
        except WorldwireError as error:
            self._send(slot.client, replies.refusal(error, slot, message, fatal=False))
        else:
            self._send(slot.client, replies.done(slot, message.request))

    def _begin(self, jobs: Jobs, slot: Slot, message: Any, payload: Any) -> None:
        child = None
        try:
            job = jobs.of(slot, message, payload)
            if isinstance(message, Branch):
                child = self._sessions.add(slot.client, slot.format, slot.jpeg_quality)
        except WorldwireError as error:
            self._on_failed(Task(slot, message, None, ends=False), error)
            return
        self._task = Task(slot, message, child, ends=slot.closing or isinstance(message, Close))
        self._worker.submit(job)

    # ------------------------------------------------------------------ what the worker made

    def _report(self, event: Event) -> None:
        """Called in the worker's thread."""
        self._events.put(event)
        self._router.wake()

    def _take_events(self, on_ready: Callable[[], None]) -> None:
        while not self._events.empty():
            event, task = self._events.get(), self._task
            if task is None:
                self._on_loaded(event, on_ready)
            elif isinstance(event, Picture):
                self._on_picture(task, event)
            else:
                self._task = None
                self._on_end(task, event)

    def _load_world(self) -> tuple[ServedWorld, WorldInfo]:
        """Runs in the worker's thread; an unknown plan shows here and not when the first session opens."""
        world = self._load()
        return world, world.info_for(self._plan)

    def _on_loaded(self, event: Event, on_ready: Callable[[], None]) -> None:
        if isinstance(event, Finished):
            world, self._info = event.result
            self._jobs = Jobs(world, self._plan, self._kept)
            on_ready()
        elif isinstance(event, Failed):
            self._failure = event.error
            self.stop()

    def _on_picture(self, task: Task, picture: Picture) -> None:
        slot, message = task.slot, task.message
        if isinstance(message, Reset):
            slot.begin_epoch()
        slot.camera = picture.frame.c2w
        if slot.closing:
            return
        if message is not None or slot.spend(picture):
            self._send_picture(slot, picture, message)

    def _on_end(self, task: Task, event: Finished | Failed) -> None:
        """A job is over; a failed one of an ending session ends it too."""
        if task.ends:
            self._sessions.remove(task.slot)
        if isinstance(event, Failed):
            self._on_failed(task, event.error)
        else:
            self._on_finished(task, event.result)

    def _on_finished(self, task: Task, result: Any) -> None:
        slot, message = task.slot, task.message
        match message:
            case None if task.ends:
                log.info("session %d ended", slot.id)
            case None:
                slot.note_step()
            case Close():
                self._send(slot.client, replies.done(slot, message.request))
            case Open():
                slot.attach(result)
                self._send(slot.client, replies.opened(slot, message.request))
            case Branch():
                assert task.child is not None
                task.child.attach(result, parent=slot)
                self._send(slot.client, replies.opened(task.child, message.request))
            case Save():
                self._send_saved(slot, message, result)
            case _:
                if isinstance(message, Restore):
                    slot.begin_epoch()
                slot.note_step()
                self._send(slot.client, replies.done(slot, message.request))

    def _on_failed(self, task: Task, error: Exception) -> None:
        """A typed error refuses a request; any other one, or one of a live step, closes the session."""
        slot, message = task.slot, task.message
        typed = isinstance(error, WorldwireError)
        fatal = not typed or message is None or isinstance(message, Open)
        if not typed:
            log.error("session %d failed and is closed", slot.id, exc_info=error)
        if task.child is not None:
            self._sessions.remove(task.child)
        if not slot.closing:
            answer = replies.refusal(replies.typed(error), slot, message, fatal=fatal)
            self._send(slot.client, answer)
        if fatal:
            slot.closing = True

    # ------------------------------------------------------------------ messages out, and the end

    def _send(self, address: bytes, message: Message, payload: Any = None) -> None:
        if not self._router.send(address, message, payload):
            self._drop(address)

    def _send_picture(self, slot: Slot, picture: Picture, message: Any) -> None:
        request = None if message is None else message.request
        self._send(slot.client, replies.frame(slot, picture, request), picture.payload)

    def _send_saved(self, slot: Slot, message: Save, state: bytes) -> None:
        try:
            answer, payload = replies.saved(slot, message, state, self._kept, self._limits)
        except StateError as error:
            self._send(slot.client, replies.refusal(error, slot, message, fatal=False))
        else:
            self._send(slot.client, answer, payload)

    def _drop(self, address: bytes) -> None:
        """A client is gone: its sessions end."""
        self._clients.forget(address)
        for slot in self._sessions:
            if slot.client == address:
                slot.closing = True

    def _sweep(self) -> None:
        """Gives up the clients that were silent for too long."""
        now_s = time.monotonic()
        if now_s < self._next_sweep_s:
            return
        self._next_sweep_s = now_s + SWEEP_S
        for address in self._clients.silent():
            reason = f"nothing was heard of this client for {self._limits.liveness_s:g} s"
            self._router.send(address, Bye(reason=reason))
            self._drop(address)

    def _shut_down(self) -> None:
        for address in self._clients.greeted():
            self._router.send(address, Bye(reason="the server stops"))
        if self._worker.stop():
            for slot in self._sessions:
                if slot.session is not None:
                    slot.session.close()
        self._router.close()
