"""What the window tells the world while walks begin and pause; the link is a fake that notes it."""

import pytest
from fake_world import FakeWorld

pytest.importorskip("pygame", reason="the extra 'play' is not installed")

import pygame

from worldwire.inputs import MAX_LOOK_DEG
from worldwire.viewer import window as window_module
from worldwire.viewer.link import Hold, Opened, Start, Started
from worldwire.viewer.window import Window, WindowOptions


class FakeLink:
    """Notes requests; the test says what comes."""

    def __init__(self, *_):
        self.requests, self.events = [], []

    def put(self, request):
        self.requests.append(request)

    def take(self):
        events, self.events = self.events, []
        return events

    def close(self):
        pass


@pytest.fixture
def playing(monkeypatch):
    """A window that plays, and a function that lets it turn once."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(window_module, "Link", FakeLink)
    pygame.display.quit()
    pygame.display.init()
    pygame.event.clear()
    world = FakeWorld()
    window = Window(None, Start(), WindowOptions())
    clock = iter(range(1, 10_000))

    def turn() -> None:
        now_s = next(clock) / 60
        window._read_events(now_s)
        window._send_hold(1 / 60, now_s)
        window._follow_link(now_s)

    window._link.events = [Opened(world.info), Started(Start(), world.session().reset())]
    turn()
    yield window, turn
    pygame.display.quit()


def press(key: int, down: bool = True) -> None:
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN if down else pygame.KEYUP, key=key))


def holds(window: Window) -> list[Hold]:
    return [request for request in window._link.requests if isinstance(request, Hold)]


def test_a_key_that_is_released_while_a_walk_begins_is_not_held_in_it(playing):
    window, turn = playing
    press(pygame.K_w)
    turn()
    press(pygame.K_r)
    press(pygame.K_r, down=False)
    turn()
    press(pygame.K_w, down=False)
    turn()  # the walk has not begun: nothing is sent
    window._link.events = [Started(Start(), FakeWorld().session().reset())]
    for _ in range(3):
        turn()
    assert [hold.keys for hold in holds(window)] == [frozenset({"forward"}), frozenset()]


def test_what_the_mouse_does_in_a_pause_turns_nothing(playing):
    window, turn = playing
    window._capture(True)
    for _ in range(2):
        press(pygame.K_p)
        press(pygame.K_p, down=False)
        turn()
        window._controls.move_mouse(3000, 0)
        turn()
    (hold,) = holds(window)  # what was moved after the pause, and no more than an input may say
    assert hold.yaw_deg == MAX_LOOK_DEG
