"""The pygame window: events -> controls -> link -> state -> screen, sixty times a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pygame

from worldwire.api import Frame
from worldwire.inputs import MAX_LOOK_DEG, Inputs
from worldwire.viewer.controls import HELP_LINES, Command, Controls
from worldwire.viewer.hud import AMBER, RED, Card, Hud, HudModel
from worldwire.viewer.images import to_surface
from worldwire.viewer.link import Hold, Host, Link, Pause, Start
from worldwire.viewer.progress import ProgressLine
from worldwire.viewer.recording import Recorder, new_path
from worldwire.viewer.state import Phase, ViewerState

log = logging.getLogger(__name__)

SCREEN_HZ: Final = 60
DEFAULT_SCALE: Final = 3.0
DESKTOP_SHARE: Final = 0.9
"""A window of a size that nobody chose leaves some of the desktop free."""
IDLE_HZ: Final = 10
"""How often the screen is drawn while nothing changes: the world may need the same processor."""
DEFAULT_SIZE: Final = (320, 192)
"""Width and height of a picture until the world has said its own."""
BACKGROUND: Final = (18, 20, 24)
MAX_ERROR_LINES: Final = 8
HINT_S: Final = 12.0
TITLE: Final = "worldwire"


@dataclass(frozen=True)
class WindowOptions:
    """How a window is to behave.

    scale: window pixels per picture pixel; None: three, or what fits the desktop. frames: stop after so many.
    record: from the first frame on. script: walk this instead of listening to the player.
    """

    scale: float | None = None
    frames: int | None = None
    record: bool = False
    script: Sequence[Inputs] = ()


class Window:
    """One window for one player. `run` returns when it is closed, and leaves nothing running."""

    def __init__(self, host: Host, start: Start, options: WindowOptions):
        self._host, self._options = host, options
        self._state, self._controls = ViewerState(start), Controls()
        self._link = Link(host, start, options.script)
        self._progress: ProgressLine | None = ProgressLine("loading the world")
        self._recorder: Recorder | None = None
        self._recorded = False
        self._show_hud, self._show_help, self._open = True, False, True
        self._held: frozenset[str] = frozenset()
        self._opened_s = time.monotonic()
        self._changed, self._drawn_s = True, 0.0
        self._screen = self._make_screen(*DEFAULT_SIZE)
        self._commands: dict[Command, Callable[[float], None]] = {
            Command.PAUSE: lambda _: self._toggle_pause(),
            Command.RESET: lambda _: self._begin(self._state.start),
            Command.NEXT_IMAGE: self._next_image,
            Command.EDIT_PROMPT: lambda _: self._edit_prompt(),
            Command.SUBMIT_PROMPT: lambda _: self._submit_prompt(),
            Command.SWITCH_VIEW: self._switch_view,
            Command.SCREENSHOT: self._screenshot,
            Command.RECORD: self._toggle_recording,
            Command.HELP: lambda _: self._toggle_help(),
            Command.HUD: lambda _: self._toggle_hud(),
            Command.RELEASE_MOUSE: lambda _: self._capture(False),
        }

    def run(self) -> None:
        """Plays until the window is closed.

        Raises what ended the connection if there was nobody to ask what to do about it (a script, `frames`),
        or if the first walk never began.
        """
        clock = pygame.time.Clock()
        last_s = time.monotonic()
        try:
            while self._open:
                now_s = time.monotonic()
                self._read_events(now_s)
                self._send_hold(now_s - last_s, now_s)
                self._follow_link(now_s)
                if self._changed or now_s - self._drawn_s >= 1 / IDLE_HZ:
                    self._draw(now_s)
                last_s = now_s
                clock.tick(SCREEN_HZ)
        finally:
            self._close()

    # -------------------------------------------------------------------------------- from the player

    def _read_events(self, now_s: float) -> None:
        for event in pygame.event.get():
            self._changed = True
            if event.type == pygame.QUIT:
                self._open = False
            elif event.type == pygame.WINDOWFOCUSLOST:
                self._controls.release_all()
                self._capture(False)
            elif event.type == pygame.KEYDOWN:
                self._press(pygame.key.name(event.key), now_s)
            elif event.type == pygame.KEYUP:
                self._controls.release(pygame.key.name(event.key))
            elif event.type == pygame.TEXTINPUT:
                self._controls.type_text(event.text)
            elif event.type == pygame.MOUSEMOTION:
                self._controls.move_mouse(*event.rel)
            elif event.type == pygame.MOUSEBUTTONDOWN and event.button == pygame.BUTTON_LEFT:
                self._click()
            elif event.type == pygame.MOUSEBUTTONUP and event.button == pygame.BUTTON_LEFT:
                self._controls.release("mouse left")

    def _press(self, name: str, now_s: float) -> None:
        if self._state.phase is Phase.LOST:
            if name in ("return", "enter", "keypad enter"):
                self._reconnect()
            elif name == "escape":
                self._open = False
            return
        command = self._controls.press(name)
        if command is not None:
            self._commands[command](now_s)

    def _click(self) -> None:
        if self._controls.mouse_captured:
            self._controls.press("mouse left")
        elif self._state.phase is Phase.PLAYING:
            self._capture(True)

    def _capture(self, captured: bool) -> None:
        self._controls.mouse_captured = captured
        pygame.event.set_grab(captured)
        pygame.mouse.set_visible(not captured)

    def _send_hold(self, elapsed_s: float, now_s: float) -> None:
        """Tells the world what changed since the last picture of the screen."""
        state = self._state
        rate = state.frames_per_second(now_s) or (state.info.frames_per_second if state.info else 0.0)
        look_deg = self._controls.take_look(rate * elapsed_s)  # also when nobody plays: it turns nothing then
        if state.phase is not Phase.PLAYING or state.paused or self._options.script:
            return
        yaw_deg, pitch_deg = (max(-MAX_LOOK_DEG, min(angle, MAX_LOOK_DEG)) for angle in look_deg)
        keys = self._controls.keys
        if keys != self._held or yaw_deg or pitch_deg:
            self._link.put(Hold(keys, yaw_deg, pitch_deg, now_s))
            self._held = keys

    # -------------------------------------------------------------------------------- commands

    def _toggle_pause(self) -> None:
        if self._state.phase is Phase.PLAYING:
            self._state.set_paused(not self._state.paused)
            self._link.put(Pause(self._state.paused))

    def _begin(self, start: Start) -> None:
        if self._state.phase is Phase.PLAYING and not self._options.script:
            self._state.begin(start)
            self._link.put(start)  # what is held stays held

    def _next_image(self, now_s: float) -> None:
        start = self._state.next_image()
        if start is None:
            self._state.toast("this world ships no seed images", now_s)
        else:
            self._begin(start)

    def _switch_view(self, now_s: float) -> None:
        start = self._state.other_view()
        if start is None:
            self._state.toast("this world knows one view only", now_s)
        else:
            self._begin(start)

    def _edit_prompt(self) -> None:
        self._capture(False)
        pygame.key.start_text_input()

    def _submit_prompt(self) -> None:
        pygame.key.stop_text_input()
        prompt = self._controls.take_draft()
        if prompt:
            self._begin(replace(self._state.start, prompt=prompt, image=None))

    def _screenshot(self, now_s: float) -> None:
        path = new_path(".png")
        pygame.image.save(self._screen, path)
        self._report_saved(path, now_s)

    def _toggle_recording(self, now_s: float) -> None:
        if self._recorder is not None:
            self._stop_recording(now_s)
        elif self._state.info is not None:
            self._recorder = Recorder(new_path(".mp4"), self._state.info.frames_per_second)

    def _stop_recording(self, now_s: float) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None and recorder.frames:
            recorder.close()
            self._report_saved(recorder.path, now_s)

    def _report_saved(self, path: Path, now_s: float) -> None:
        log.info("saved %s", path.resolve())
        self._state.toast(f"saved {path}", now_s)

    def _toggle_help(self) -> None:
        self._show_help = not self._show_help

    def _toggle_hud(self) -> None:
        self._show_hud = not self._show_hud

    # -------------------------------------------------------------------------------- from the world

    def _follow_link(self, now_s: float) -> None:
        state = self._state
        for event in self._link.take():
            was = state.phase
            state.handle(event, now_s)
            self._report_progress()
            if state.phase is Phase.LOST and was is not Phase.LOST:
                self._lost(now_s)
        if state.frame is None and state.info is not None:
            self._fit_screen(state.info.width, state.info.height)
        for frame in state.advance(now_s):
            self._changed = True
            self._record(frame, now_s)
        limit = self._options.frames
        if state.done or (limit is not None and state.shown_frames >= limit):
            self._open = False

    def _report_progress(self) -> None:
        """The terminal's line, until the first picture is there."""
        if self._progress is None:
            return
        if self._state.phase is Phase.CONNECTING:
            self._progress.wait(self._state.waiting_for)
        elif self._state.phase is not Phase.STARTING:
            self._progress.finish("ready" if self._state.phase is Phase.PLAYING else "failed")
            self._progress = None

    def _record(self, frame: Frame, now_s: float) -> None:
        if self._options.record and not self._recorded:
            self._recorded = True
            self._toggle_recording(now_s)
        if self._recorder is not None:
            self._recorder.add(frame.pixels)

    def _lost(self, now_s: float) -> None:
        """Asks the player; without one, or before anything was seen, the command fails."""
        self._controls.release_all()
        self._capture(False)
        self._stop_recording(now_s)
        error = self._state.error
        assert error is not None
        if self._state.frame is None or self._options.script or self._options.frames is not None:
            raise error
        log.warning("%s", error)

    def _reconnect(self) -> None:
        self._link.close()
        self._state.reconnect()
        self._held = frozenset()
        self._link = Link(self._host, self._state.start, self._options.script)

    def _close(self) -> None:
        self._capture(False)
        self._stop_recording(time.monotonic())
        pygame.display.quit()  # at once, whatever the connection still waits for
        self._link.close()

    # -------------------------------------------------------------------------------- to the screen

    def _make_screen(self, width: int, height: int) -> pygame.Surface:
        pygame.display.init()
        pygame.display.set_caption(TITLE)
        screen = pygame.display.set_mode(self._window_size(width, height))
        pygame.key.stop_text_input()
        return screen

    def _window_size(self, width: int, height: int) -> tuple[int, int]:
        scale = self._options.scale
        if scale is None:
            desktop_width, desktop_height = pygame.display.get_desktop_sizes()[0]
            room = DESKTOP_SHARE * min(desktop_width / width, desktop_height / height)
            scale = min(DEFAULT_SCALE, room)
        return round(width * scale), round(height * scale)

    def _fit_screen(self, width: int, height: int) -> None:
        if self._screen.get_size() != self._window_size(width, height):
            pygame.display.quit()  # a new window is centred; one that only changes its size is not
            self._screen = self._make_screen(width, height)

    def _draw(self, now_s: float) -> None:
        self._changed, self._drawn_s = False, now_s
        frame = self._state.frame
        if frame is None:
            self._screen.fill(BACKGROUND)
        else:
            picture = to_surface(frame.pixels).convert(self._screen)  # the scaler wants equal formats
            pygame.transform.smoothscale(picture, self._screen.get_size(), self._screen)
        hud = Hud(self._screen)
        if self._show_hud and frame is not None:
            hud.draw(self._hud_model(now_s))
        card = self._card(now_s)
        if card is not None:
            hud.draw_card(card)
        pygame.display.flip()

    def _hud_model(self, now_s: float) -> HudModel:
        state = self._state
        yaw_deg, pitch_deg = state.yaw_pitch_deg
        return HudModel(
            frames_per_second=state.frames_per_second(now_s),
            real_time_factor=state.real_time_factor(now_s),
            latency_ms=state.latency.last_ms,
            keys=state.script_keys if self._options.script else self._controls.keys,
            trained_keys=state.info.trained_keys if state.info else (),
            position_m=state.position_m,
            yaw_deg=yaw_deg,
            pitch_deg=pitch_deg,
            prompt=state.sentence,
            world_seconds=state.world_seconds,
            memory=state.memory,
            badges=self._badges(),
            toast=state.toast_text(now_s),
            hint=self._hint(),
        )

    def _badges(self) -> tuple[tuple[str, tuple[int, int, int]], ...]:
        badges = []
        if self._recorder is not None and self._state.info is not None:
            seconds = int(self._recorder.frames / self._state.info.frames_per_second)
            badges.append((f"REC {seconds // 60}:{seconds % 60:02d}", RED))
        if self._state.paused:
            badges.append(("PAUSED", AMBER))
        if self._state.phase is Phase.STARTING:
            badges.append(("STARTING …", AMBER))
        if self._state.view == "third":
            badges.append(("THIRD PERSON", AMBER))
        return tuple(badges)

    def _hint(self) -> str:
        young = self._state.world_seconds < HINT_S
        if not young or self._options.script or self._state.phase is not Phase.PLAYING:
            return ""
        look = "Esc releases the mouse" if self._controls.mouse_captured else "click to look with the mouse"
        return f"W A S D to walk  ·  {look}  ·  F1 shows all keys"

    def _card(self, now_s: float) -> Card | None:
        state = self._state
        if state.phase is Phase.CONNECTING or state.frame is None:
            waited_s = now_s - self._opened_s
            waiting = (state.waiting_for, f"{waited_s:.0f} s")
            return Card("Loading the world", waiting, footer="close the window to stop", spin=now_s)
        if state.phase is Phase.LOST:
            lines = tuple(str(state.error).replace("; ", "\n").splitlines()[:MAX_ERROR_LINES])
            return Card("The server is gone", lines, footer="Enter starts it again  ·  Esc closes the window")
        if self._controls.draft is not None:
            caret = "|" if int(now_s * 2) % 2 else " "
            footer = "Enter starts this world  ·  Esc goes back"
            return Card("What do you want to see?", (f"{self._controls.draft}{caret}",), footer=footer)
        if self._show_help:
            return Card("Keys", rows=HELP_LINES, footer="F1 closes this")
        return None
