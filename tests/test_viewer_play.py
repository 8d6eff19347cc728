"""`worldwire play` as a whole: its server process, the headless walk, the window (under a dummy driver)."""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from worldwire import Inputs, cli
from worldwire.errors import ConfigError, ConnectionLostError, ImageError
from worldwire.viewer.hosts import LocalHost, RemoteHost
from worldwire.viewer.link import Start
from worldwire.viewer.local import LocalServer, free_port
from worldwire.viewer.script import load_script

pygame = pytest.importorskip("pygame", reason="the extra 'play' is not installed")
av = pytest.importorskip("av", reason="the extra 'play' is not installed")
pytest.importorskip("worldwire_runtime.server", reason="the extra 'runtime' is not installed")

FAKE_SERVE = (sys.executable, str(Path(__file__).with_name("fake_serve.py")))


def is_running(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def read_video(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working directory and no display."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def dummy_window(workplace, monkeypatch):
    """A window that nobody sees."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    pygame.display.quit()
    pygame.display.init()
    yield workplace
    pygame.display.quit()
    assert server_pids() == []


class TestLocalServer:
    def test_stops_with_its_context(self):
        with LocalServer((), FAKE_SERVE) as server:
            server.check()
            assert is_running(server.pid)
        assert not is_running(server.pid)

    def test_ends_when_the_viewer_was_killed(self):
        viewer = (
            "import sys, time; from worldwire.viewer.local import LocalServer;"
            "server = LocalServer((), sys.argv[1:]); print(server.pid, flush=True); time.sleep(60)"
        )
        command = [sys.executable, "-c", viewer, *FAKE_SERVE]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            pid = int(process.stdout.readline())
            assert is_running(pid)
            process.kill()
        wait_until(lambda: not is_running(pid))

    def test_keeps_its_address_whatever_it_is_handed(self):
        taken = f"tcp://127.0.0.1:{free_port()}"
        host = LocalHost(("--bind", taken, "--step-seconds", "0"), FAKE_SERVE)
        with host.open(lambda _: None, lambda: False) as (info, _):
            assert info.seed_images

    @pytest.mark.parametrize("when", ["--fail", "--fail-late"])
    def test_an_end_is_reported_with_the_last_lines(self, when):
        host = LocalHost((when,), FAKE_SERVE)
        with pytest.raises(ConnectionLostError, match="colossal"), host.open(lambda _: None, lambda: False):
            pass

    def test_nobody_at_the_address(self, monkeypatch):
        monkeypatch.setattr("worldwire.viewer.hosts.REMOTE_TIMEOUT_S", 0.5)
        host = RemoteHost(f"tcp://127.0.0.1:{free_port()}")
        with pytest.raises(ConnectionLostError, match="no server"), host.open(lambda _: None, lambda: False):
            pass


class TestOptions:
    """What `play` hands on to the server that it starts."""

    def hosted(self, arguments: list[str]) -> LocalHost | RemoteHost:
        from worldwire.viewer import play

        return play._host(parse(arguments))

    def test_every_option_of_the_server_gets_there(self):
        from worldwire_runtime.commands import serve

        parser = argparse.ArgumentParser()
        serve.configure(parser)
        values = {"size": "640x480", "text_on": "cpu", "choose_on": "cpu"}
        for option in parser._actions:
            if option.dest in {"help", "bind", "ready_file", "new_key", "key", "clients"}:
                continue
            value = [] if option.nargs == 0 else [values.get(option.dest, "1")]
            words = [option.option_strings[-1], *value]
            assert self.hosted(["--view", "third", *words, "--record"]) == LocalHost(words)

    def test_its_own_are_kept(self):
        args = parse(["--seed", "3", "--device", "cpu", "--frames", "8", "--no-compile"])
        assert (args.seed, args.frames) == (3, 8)
        assert args.rest == ["--device", "cpu", "--no-compile"]
        assert self.hosted([]) == LocalHost([])

    def test_what_nobody_knows_is_refused_at_once(self, capsys):
        with pytest.raises(SystemExit) as ended:
            self.hosted(["--scrpt", "demo"])
        assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "usage: worldwire play" in said
        assert "worldwire play: error: unrecognized arguments: --scrpt demo" in said

    @pytest.mark.parametrize(
        "words",
        [
            "--bind tcp://0.0.0.0:1",
            "--ready-file there",
            "--new-key mine",
            "--key=my_secret",
            "--clients all",
        ],
    )
    def test_its_server_is_for_nobody_else(self, words):
        with pytest.raises(ConfigError, match=words.replace("=", " ").split()[0]):
            self.hosted(["--device", "cpu", *words.split()])

    @pytest.mark.parametrize("words", ["--frames=few", "--seed=1.5", "--scale=big"])
    def test_a_number_that_is_none_is_said_so(self, words, capsys):
        with pytest.raises(SystemExit):
            parse([words])
        assert re.search(r"is not a (whole )?number", capsys.readouterr().err)

    def test_a_server_that_runs_already_takes_none(self):
        with pytest.raises(ConfigError, match=r"--device cpu, and --connect as well"):
            self.hosted(["--connect", "tcp://127.0.0.1:5555", "--device", "cpu"])
        assert self.hosted(["--connect", "tcp://127.0.0.1:5555"]) == RemoteHost("tcp://127.0.0.1:5555")

    def test_a_world_of_another_size_is_walked(self, workplace, capsys):
        words = ["--preset", "test-pattern", "--size", "320x192", "--script", "demo", "--frames", "8"]
        assert cli.main(["play", *words]) == 0
        (video,) = re.findall(r"video: +(\S+\.mp4)", capsys.readouterr().out)
        assert read_video(Path(video)).shape == (9, 2 * 192, 2 * 320, 3)


class TestHeadless:
    def test_records_the_demo(self, workplace):
        from worldwire.viewer.headless import record_walk

        script = load_script("demo")[:110]
        files = record_walk(LocalHost(("--step-seconds", "0"), FAKE_SERVE), Start(), script)
        video = read_video(workplace / files.video)
        assert len(video) == 111
        changes = np.abs(np.diff(video.astype(np.int16), axis=0)).mean((1, 2, 3))
        assert (changes > 0.1).mean() > 0.85
        sheet = pygame.image.load(workplace / files.sheet)
        assert sheet.get_width() > 6 * 80

    def test_an_unknown_image_is_an_error(self, workplace):
        from worldwire.viewer.headless import record_walk

        with pytest.raises(ImageError, match="meadow"):
            record_walk(LocalHost((), FAKE_SERVE), Start(image="ocean"), [Inputs()])

    def test_says_in_one_line_that_there_is_no_display(self, workplace, capsys):
        from worldwire.viewer import play

        with LocalServer(("--step-seconds", "0"), FAKE_SERVE) as server:
            status = play.play(parse(["--connect", server.address, "--script", "demo", "--frames", "20"]))
        out = capsys.readouterr().out
        assert status == 0
        assert out.startswith("no display (")
        (video,) = re.findall(r"video: +(\S+\.mp4)", out)
        assert len(read_video(Path(video))) == 21


class TestWindow:
    def test_walks_a_script_and_records(self, dummy_window):
        from worldwire.viewer.window import Window, WindowOptions

        options = WindowOptions(scale=2, record=True, script=load_script("demo")[:24])
        Window(LocalHost(("--step-seconds", "0.1"), FAKE_SERVE), Start(), options).run()
        (video,) = (dummy_window / "recordings").glob("*.mp4")
        assert len(read_video(video)) == 25

    def test_plays_live_until_so_many_frames(self, dummy_window):
        window = live_window(frames=30)
        post(pygame.KEYDOWN, key=pygame.K_w)
        window.run()
        assert window._state.position_m[2] > 0.5
        assert window._state.latency.last_ms < 10_000

    def test_losing_focus_stops_the_walk(self, dummy_window):
        window = live_window()

        def meddle() -> None:
            state = window._state
            wait_until(lambda: state.shown_frames > 4)
            post(pygame.KEYDOWN, key=pygame.K_w)
            wait_until(lambda: state.position_m[2] > 0.5)
            post(pygame.WINDOWFOCUSLOST)
            index = state.frame.index
            wait_until(lambda: state.frame.index > index + 32)
            stopped_m = state.position_m
            wait_until(lambda: state.frame.index > index + 48)
            assert state.position_m == stopped_m
            post(pygame.QUIT)

        run_beside(window, meddle)

    def test_keys_of_the_viewer(self, dummy_window):
        window = live_window()

        def meddle() -> None:
            state = window._state
            wait_until(lambda: state.shown_frames > 4)
            post(pygame.KEYDOWN, key=pygame.K_n)
            wait_until(lambda: state.start.image == "desert" and state.frame.index == 0)
            post(pygame.KEYDOWN, key=pygame.K_v)
            wait_until(lambda: state.start.view == "third" and state.frame.c2w[2, 3] < -2)
            post(pygame.KEYDOWN, key=pygame.K_p)
            wait_until(lambda: state.paused)
            index = state.frame.index
            time.sleep(0.5)
            assert state.frame.index == index
            post(pygame.KEYDOWN, key=pygame.K_p)
            wait_until(lambda: state.frame.index > index)
            post(pygame.KEYDOWN, key=pygame.K_F12)
            wait_until(lambda: list((dummy_window / "recordings").glob("*.png")))
            post(pygame.KEYDOWN, key=pygame.K_t)
            post(pygame.TEXTINPUT, text="rooms at dusk")
            post(pygame.KEYDOWN, key=pygame.K_RETURN)
            wait_until(lambda: state.start.prompt == "rooms at dusk")
            post(pygame.QUIT)

        run_beside(window, meddle)

    def test_a_killed_server_is_reported_and_can_be_started_again(self, dummy_window):
        window = live_window()

        def meddle() -> None:
            state = window._state
            wait_until(lambda: state.shown_frames > 10)
            (pid,) = server_pids()
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: state.error is not None, timeout_s=20)
            shown = state.shown_frames
            post(pygame.KEYDOWN, key=pygame.K_RETURN)
            wait_until(lambda: state.error is None and state.shown_frames > shown + 10)
            assert server_pids() != [pid]
            post(pygame.QUIT)

        run_beside(window, meddle)
        assert server_pids() == []

    def test_closing_while_the_server_loads(self, dummy_window):
        window = live_window(host=LocalHost((), (sys.executable, "-c", "import time; time.sleep(60)")))
        threading.Timer(1.0, lambda: post(pygame.QUIT)).start()
        started_s = time.monotonic()
        window.run()
        assert time.monotonic() - started_s < 30

    def test_a_server_that_cannot_load_ends_the_command(self, dummy_window):
        with pytest.raises(ConnectionLostError, match="colossal"):
            live_window(host=LocalHost(("--fail",), FAKE_SERVE)).run()


def parse(arguments: list[str]):
    return cli.parse(["play", *arguments])


def live_window(host=None, frames=None):
    from worldwire.viewer.window import Window, WindowOptions

    host = host or LocalHost(("--step-seconds", "0.1"), FAKE_SERVE)
    return Window(host, Start(), WindowOptions(scale=2, frames=frames))


def post(kind: int, **fields) -> None:
    pygame.event.post(pygame.event.Event(kind, **fields))


def wait_until(condition, timeout_s: float = 60.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.02)


def run_beside(window, meddle) -> None:
    """Runs the window while `meddle` plays with it in a thread; its failures are raised here."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            meddle()
        except BaseException as error:
            failures.append(error)
            post(pygame.QUIT)

    thread = threading.Thread(target=guarded)
    thread.start()
    window.run()
    thread.join()
    if failures:
        raise failures[0]


def server_pids() -> list[int]:
    """Server processes that this test process has started and that run."""
    command = ["ps", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if "fake_serve" in line]
