"""The window on a real X display (Xvfb) with real key and mouse events (xdotool), as a player has it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worldwire.viewer.local import LocalServer

pygame = pytest.importorskip("pygame", reason="the extra 'play' is not installed")
pytest.importorskip("worldwire_runtime.server", reason="the extra 'runtime' is not installed")

MISSING = [tool for tool in ("Xvfb", "xdotool") if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.display,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
FAKE_SERVE = (sys.executable, str(Path(__file__).with_name("fake_serve.py")))
PLAY = "import sys; from worldwire.cli import main; sys.exit(main(['play', *sys.argv[1:]]))"


@pytest.fixture
def display(monkeypatch):
    """The name of an X display of our own."""
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL) as server:
        os.close(write_end)
        with os.fdopen(read_end) as numbers:
            name = f":{numbers.readline().strip()}"
        monkeypatch.setenv("DISPLAY", name)
        yield name
        server.terminate()


class Player:
    """`worldwire play` in a window, and the hands that play it."""

    def __init__(self, address: str, folder: Path):
        command = [sys.executable, "-c", PLAY, "--connect", address, "--scale", "4"]
        self.folder = folder
        environment = {name: value for name, value in os.environ.items() if name != "SDL_VIDEODRIVER"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
        )

    def do(self, *arguments: str) -> None:
        subprocess.run(["xdotool", *arguments], check=True, capture_output=True)

    def screenshot(self):
        """What F12 saves, as pixels [height, width, 3]."""
        from worldwire.viewer.images import to_pixels

        before = set(self.folder.glob("recordings/*.png"))
        self.do("key", "F12")
        deadline_s = time.monotonic() + 30
        while not (new := set(self.folder.glob("recordings/*.png")) - before):
            assert time.monotonic() < deadline_s, self.stop()
            time.sleep(0.05)
        return to_pixels(load_when_written(new.pop()))

    def screenshot_when(self, holds, within_s: float = 30):
        """The first screenshot of which `holds`: a busy machine draws what a key asked for seconds later."""
        deadline_s = time.monotonic() + within_s
        while not holds(picture := self.screenshot()):
            assert time.monotonic() < deadline_s, "the window never showed it"
        return picture

    def screenshot_at_rest(self):
        """A screenshot that the next one repeats half a second later: what was asked for has been played."""
        pictures = [self.screenshot()]

        def rests(picture) -> bool:
            time.sleep(0.5)
            pictures.append(picture)
            return (pictures[-2] == picture).all()

        return self.screenshot_when(rests)

    def wait_for_window(self) -> None:
        """Until the window answers a key and shows a walk."""
        self.do("mousemove", "320", "240")  # the middle of the screen, where the window is
        deadline_s = time.monotonic() + 30
        while not list(self.folder.glob("recordings/*.png")):
            assert time.monotonic() < deadline_s, self.stop()
            self.do("key", "F12")
            time.sleep(0.3)
        time.sleep(2)

    def stop(self) -> str:
        """Ends the window; what the command said. No Ctrl-C: a background job's children ignore it."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.communicate(timeout=10)[1]
        self._process.kill()
        return "killed: " + self._process.communicate()[1]


def test_walking_looking_and_the_hud_with_real_events(display, tmp_path):
    with LocalServer(("--step-seconds", "0.1"), FAKE_SERVE) as server:
        player = Player(server.address, tmp_path)
        try:
            player.wait_for_window()
            player.do("key", "h")  # without the HUD only the world can change
            still = player.screenshot_at_rest()

            player.do("keydown", "w")
            player.screenshot_when(lambda picture: (picture != still).any(-1).mean() > 0.1)
            player.do("keyup", "w")
            walked = player.screenshot_at_rest()
            assert (walked != still).any(-1).mean() > 0.1

            player.do("click", "1")
            time.sleep(0.3)
            player.do("mousemove_relative", "100", "0")
            player.screenshot_when(lambda picture: (picture != walked).any(-1).mean() > 0.3)

            player.do("key", "h")
            player.do("keydown", "a")
            player.screenshot_when(_key_cap_is_lit)
            player.do("keyup", "a")
            player.screenshot_when(lambda picture: not _key_cap_is_lit(picture))
        finally:
            said = player.stop()
    assert re.search(r"saved .*\.png", said), said
    assert player._process.returncode != -signal.SIGKILL


def load_when_written(file: Path):
    """A picture that another process may still be at."""
    deadline_s = time.monotonic() + 30
    while True:
        time.sleep(0.1)
        try:
            return pygame.image.load(file)
        except pygame.error:
            assert time.monotonic() < deadline_s, f"{file} is no picture"


def _key_cap_is_lit(picture) -> bool:
    """Whether the cap of A has the HUD's accent; further right the memory's thumbnails are framed in it."""
    return (picture[-60:, :50] == (98, 208, 170)).all(-1).sum() > 50
