"""The examples run against a server with a fake world."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldwire.viewer.local import LocalServer

pytest.importorskip("pygame", reason="the extra 'play' is not installed")
pytest.importorskip("worldwire_runtime.server", reason="the extra 'runtime' is not installed")

EXAMPLES = Path(__file__).parents[1] / "examples"
FAKE_SERVE = (sys.executable, str(Path(__file__).with_name("fake_serve.py")), "--step-seconds", "0")
QUIT_SOON = """
import runpy, sys, threading, time, pygame
def leave():
    while not str(pygame.display.get_caption()).startswith("('frame"):
        time.sleep(0.1)
    pygame.event.post(pygame.event.Event(pygame.QUIT))
threading.Thread(target=leave, daemon=True).start()
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


def test_quickstart_is_short_and_runs(tmp_path):
    assert len((EXAMPLES / "quickstart.py").read_text().splitlines()) <= 30
    with LocalServer((), FAKE_SERVE) as server:
        command = [sys.executable, str(EXAMPLES / "quickstart.py"), server.address]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert "frame 160:" in said.stdout
    assert (tmp_path / "walk.png").stat().st_size > 1000


def test_the_embedded_loop_plays_until_it_is_closed(tmp_path):
    with LocalServer((), FAKE_SERVE) as server:
        command = [sys.executable, "-c", QUIT_SOON, str(EXAMPLES / "play_pygame.py"), server.address]
        environment = os.environ | {"SDL_VIDEODRIVER": "dummy"}
        subprocess.run(command, cwd=tmp_path, env=environment, timeout=120, check=True)
