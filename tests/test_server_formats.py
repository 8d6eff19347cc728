"""Frame formats over a real server: what comes out is what was drawn, also when frames were left out."""

import time

import numpy as np
import pytest
import simplejpeg
import zmq
from server_fixture import PATIENCE_S, RawPeer, serving
from test_server import open_raw

av = pytest.importorskip("av", reason="the extra 'training' is not installed")

from worldwire.protocol import (  # noqa: E402
    FORMATS,
    Control,
    Credit,
    Done,
    ErrorMessage,
    FrameMessage,
    Open,
    Opened,
    Pause,
    Prompt,
    Reset,
    Start,
    Step,
    decode,
)
from worldwire_runtime.server import pixels as pixels_module  # noqa: E402
from worldwire_runtime.server.pixels import PictureEncoder, our_formats  # noqa: E402
from worldwire_runtime.test_pattern import PatternWorld, prompt_crc, read_pattern  # noqa: E402

HEIGHT, WIDTH = 96, 160


@pytest.fixture
def server():
    with serving(PatternWorld(HEIGHT, WIDTH, frames_per_step=4)) as running:
        yield running


class Player(RawPeer):
    """Keeps payloads: `take` returns header and payload of the next message."""

    def take(self, timeout_s: float = PATIENCE_S):
        if not self._socket.poll(int(timeout_s * 1000), zmq.POLLIN):
            return None
        return decode(self._socket.recv_multipart())

    def frames(self, count: int) -> list:
        """The next `count` frames with their payloads; what else comes is left out."""
        found = []
        while len(found) < count:
            taken = self.take()
            assert taken is not None, f"{count} frames must come, and {len(found)} came"
            found += [taken] if isinstance(taken[0], FrameMessage) else []
        return found

    def open(self, name: str) -> int:
        self.send(Open(request=2, formats=(name,)))
        opened = self.receive()
        assert isinstance(opened, Opened)
        assert opened.format == name
        return opened.session


class Viewer:
    """Turns payloads of one session into RGB."""

    def __init__(self, name: str):
        self.name = name
        self._codec = av.CodecContext.create("h264", "r") if name == "h264" else None

    def rgb(self, payload: bytes) -> np.ndarray:
        if self.name == "jpeg":
            return simplejpeg.decode_jpeg(payload)
        if self._codec is not None:
            (picture,) = [*self._codec.decode(av.Packet(payload))]
            return picture.to_ndarray(format="rgb24")
        channels = 3 if self.name == "rgb" else 4
        picture = np.frombuffer(payload, np.uint8).reshape(HEIGHT, WIDTH, channels)
        if channels == 4:
            assert (picture[..., 3] == 255).all()
        return picture[..., 2::-1] if self.name == "bgra" else picture[..., :3]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_shows_the_same_pictures(server, name):
    with Player(server.endpoint) as peer:
        assert set(peer.welcome.formats) == set(FORMATS)
        session, viewer = peer.open(name), Viewer(name)
        peer.send(Reset(request=3, session=session, prompt="a"))
        peer.send(Step(request=4, session=session, inputs=[Control(keys=("jump",))] * 4))
        expected = PatternWorld(HEIGHT, WIDTH).session()
        drawn = expected.reset(prompt="a").pixels
        for number in range(5):
            header, payload = peer.take() if number != 1 else (peer.take(), peer.take())[1]  # after `done`
            assert (header.format, header.index) == (name, number)
            assert header.key == (name != "h264" or number == 0)
            assert "encode" in header.timings_ms
            shown = viewer.rgb(payload)
            assert read_pattern(shown).frame == number
            if number == 0:
                error = np.abs(shown.astype(int) - drawn).mean()
                assert error <= (0 if name in ("rgb", "rgba", "bgra") else 8)
        assert isinstance(peer.take()[0], Done)


def test_done_stays_behind_the_frames_that_are_encoded():
    with serving(PatternWorld(704, 1280, frames_per_step=8)) as server, Player(server.endpoint) as peer:
        session = peer.open("jpeg")
        peer.send(Reset(request=3, session=session))
        peer.send(Step(request=4, session=session, inputs=[Control()] * 8))
        kinds = [type(peer.take()[0]).__name__ for _ in range(11)]
    assert kinds == ["FrameMessage", "Done"] + ["FrameMessage"] * 8 + ["Done"]


def test_a_stream_goes_on_over_frames_that_are_left_out(server):
    with Player(server.endpoint) as peer:
        session, viewer = peer.open("h264"), Viewer("h264")
        peer.send(Reset(request=3, session=session))
        viewer.rgb(peer.take()[1])
        peer.take()
        peer.send(Start(request=4, session=session, window=1))
        shown = []
        for _ in range(8):  # a window of 1: of four frames the newest
            ((header, payload),) = peer.frames(1)
            assert read_pattern(viewer.rgb(payload)).frame == header.index
            shown.append(header)
            assert peer.take(0.1) is None
            peer.send(Credit(session=session, frames=1))
    assert [header.key for header in shown] == [True] + [False] * (len(shown) - 1)
    assert max(header.dropped for header in shown) >= 2


def test_a_stream_begins_anew_where_a_player_may_come_in(server):
    with Player(server.endpoint) as peer:
        session = peer.open("h264")
        peer.send(Reset(request=3, session=session))
        assert peer.take()[0].key
        for _ in range(2):
            peer.take()
            peer.send(Start(request=4, session=session, window=4))
            headers = [header for header, _ in peer.frames(4)]
            assert [header.key for header in headers] == [True, False, False, False]
            assert peer.take(0.2) is None
            peer.send(Pause(request=5, session=session))


def test_a_picture_that_cannot_be_encoded_ends_the_session(server, monkeypatch):
    def broken(*_):
        raise RuntimeError("no encoder today")

    monkeypatch.setattr(pixels_module, "_jpeg", broken)
    with Player(server.endpoint) as peer:
        session = peer.open("jpeg")
        peer.send(Reset(request=3, session=session))
        error = peer.take()[0]
        assert isinstance(error, ErrorMessage)
        assert (error.request, error.session, error.fatal) == (3, session, True)
        other = peer.open("rgb")
        peer.send(Reset(request=4, session=other))
        assert peer.frames(1)


def test_a_branch_has_its_own_stream(server):
    from worldwire.protocol import Branch

    with Player(server.endpoint) as peer:
        session = peer.open("h264")
        peer.send(Reset(request=3, session=session))
        peer.frames(1)
        assert isinstance(peer.take()[0], Done)
        peer.send(Branch(request=4, session=session))
        child = peer.take()[0].session
        peer.send(Step(request=5, session=child, inputs=[Control()] * 4))
        viewer = Viewer("h264")
        headers = [
            (header.key, read_pattern(viewer.rgb(payload)).frame) for header, payload in peer.frames(4)
        ]
    assert headers == [(True, 1), (False, 2), (False, 3), (False, 4)]


def test_what_this_machine_cannot_encode_is_not_offered(monkeypatch):
    monkeypatch.setattr(pixels_module.importlib.util, "find_spec", lambda _: None)
    our_formats.cache_clear()
    assert our_formats() == ("rgb", "rgba", "bgra")
    our_formats.cache_clear()


def test_h264_takes_odd_sides():
    encoder, viewer = PictureEncoder("h264", 90), Viewer("h264")
    picture = np.full((95, 161, 3), 200, np.uint8)
    payload = encoder.encode(picture)
    shown = viewer.rgb(payload.data)
    assert payload.key
    assert shown.shape == (96, 162, 3)
    assert np.abs(shown.astype(int) - 200).max() < 6


def test_rgb_is_not_copied():
    picture = np.zeros((4, 4, 3), np.uint8)
    payload = PictureEncoder("rgb", 90).encode(picture)
    picture[0, 0, 0] = 7
    assert payload.data[0] == 7


def test_a_new_prompt_shows_while_everything_goes_on(server):
    with Player(server.endpoint) as peer:
        session = open_raw(peer, window=4)
        before = [header for header, _ in peer.frames(4)]
        peer.send(Prompt(request=50, session=session, prompt="rain"))
        done = peer.take()[0]
        assert isinstance(done, Done)
        assert (done.request, done.epoch) == (50, before[-1].epoch)
        peer.send(Credit(session=session, frames=4))
        ((header, payload),) = peer.frames(1)
        assert header.index == before[-1].index + 1
        assert read_pattern(Viewer("rgb").rgb(payload)).prompt_crc == prompt_crc("rain")


def test_a_prompt_before_the_start_is_refused(server):
    with Player(server.endpoint) as peer:
        peer.send(Prompt(request=9, session=peer.open("rgb"), prompt="x"))
        error = peer.take()[0]
        assert isinstance(error, ErrorMessage)
        assert (error.code, error.request) == ("bad_state", 9)


def test_a_rate_is_kept_and_lost_time_is_not_made_up():
    with serving(PatternWorld(HEIGHT, WIDTH), rate=100) as server, Player(server.endpoint) as peer:
        session = open_raw(peer)
        start_ns = time.monotonic_ns()
        peer.send(Start(request=12, session=session, window=64))
        for _ in range(100):
            ((header, _),) = peer.frames(1)
            peer.send(Credit(session=session, frames=1))
        assert 0.98 <= (header.t_ns - start_ns) / 1e9 < 5
        peer.frames(64)
        assert peer.take(0.5) is None  # the credit has run out
        start_ns = time.monotonic_ns()
        peer.send(Credit(session=session, frames=64))
        header, _ = peer.frames(30)[-1]
        assert (header.t_ns - start_ns) / 1e9 > 0.2
