"""Every frame format through the client: the same picture, whatever travelled."""

import builtins
import time

import numpy as np
import pytest
from fake_world import FakeWorld
from server_fixture import serving, wait_until

import worldwire
from worldwire.errors import MissingExtraError, ProtocolError
from worldwire.pictures import StreamDecoder, pixels
from worldwire.protocol import FORMATS, FrameMessage

TURN = worldwire.Inputs(yaw_deg=3.0)
LOSSY = {"jpeg": 6.0, "h264": 10.0}


class PlainWorld(FakeWorld):
    """Smooth pictures, which codecs keep well."""

    def session(self, plan=None):
        session = super().session(plan)
        plain = session._frame

        def smooth(timings_ms=None):
            frame = plain(timings_ms)
            level = np.uint8(40 + 8 * (frame.index % 20))
            return worldwire.Frame(frame.index, np.full_like(frame.pixels, level), frame.c2w)

        session._frame = smooth
        return session


@pytest.fixture(scope="module")
def client():
    with serving(PlainWorld(height=64, width=96)) as server, worldwire.connect(server.endpoint) as connected:
        yield connected


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_pictures_in_every_format(client, name):
    assert name in client.formats
    with client.session() as plain, client.session(formats=[name]) as session:
        assert session.format == name
        pairs = [(plain.reset(seed=3), session.reset(seed=3))]
        for _ in range(2):
            pairs += zip(plain.step(TURN), session.step(TURN), strict=True)
    for truth, frame in pairs:
        assert (frame.index, frame.pixels.shape, frame.pixels.dtype) == (truth.index, (64, 96, 3), np.uint8)
        if name in LOSSY:
            assert np.abs(frame.pixels.astype(int) - truth.pixels).mean() < LOSSY[name]
        else:
            np.testing.assert_array_equal(frame.pixels, truth.pixels)


@pytest.mark.parametrize("name", ["rgb", "rgba", "bgra"])
def test_raw_pictures_are_not_copied(client, name):
    with client.session(formats=[name]) as session:
        assert not session.reset().pixels.flags.owndata


def test_a_stream_survives_frames_that_nobody_looks_at(client, monkeypatch):
    monkeypatch.setattr("worldwire.remote.STALL_S", 0.2)
    with client.session(formats=["h264"]) as session:
        session.reset()
        session.start(window=16)
        wait_until(lambda: len(session._channel._arrivals) == 16)
        time.sleep(0.3)
        (newest,) = session.poll_frames(timeout_s=30)
        expected = 40 + 8 * (newest.index % 20)
        assert abs(newest.pixels.mean() - expected) < 8


def test_a_frame_tells_when_it_was_sent_and_when_it_came(client):
    with client.session() as session:
        before = time.monotonic_ns()
        frame = session.reset()
        assert before <= frame.received_ns <= time.monotonic_ns()
        assert 0 <= frame.received_ns - frame.sent_ns < 30e9
        assert frame.timings_ms["transport"] == (frame.received_ns - frame.sent_ns) / 1e6


def message(name: str, height: int = 2, width: int = 2) -> FrameMessage:
    return FrameMessage(
        session=1,
        epoch=1,
        index=0,
        format=name,
        height=height,
        width=width,
        position_m=(0.0, 0.0, 0.0),
        quaternion_xyzw=(0.0, 0.0, 0.0, 1.0),
        t_ns=0,
    )


@pytest.mark.parametrize("name", ["rgb", "rgba", "bgra", "jpeg", "av2"])
@pytest.mark.parametrize("payload", [None, b"", b"\0" * 5, b"\xff\xd8\xff\xe0 no picture"])
def test_payloads_that_do_not_fit_are_refused(name, payload):
    with pytest.raises(ProtocolError):
        pixels(message(name), payload)


@pytest.mark.parametrize("payload", [None, b"", b"\0" * 5, b"\0\0\0\1\x67 no parameters"])
def test_streams_that_are_none_are_refused(payload):
    with pytest.raises(ProtocolError):
        StreamDecoder().decode(message("h264"), payload)


def test_a_picture_that_is_too_small_is_refused():
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    assert pixels(message("jpeg", 8, 8), stream.getvalue()).shape == (8, 8, 3)
    with pytest.raises(ProtocolError, match="smaller"):
        pixels(message("jpeg", 16, 8), stream.getvalue())


@pytest.mark.parametrize(("name", "package"), [("jpeg", "PIL"), ("h264", "av")])
def test_a_decoder_that_is_not_installed_is_told_before_a_session_opens(client, monkeypatch, name, package):
    honest = builtins.__import__

    def without(wanted, *rest):
        if wanted.split(".")[0] == package:
            raise ModuleNotFoundError(wanted, name=wanted)
        return honest(wanted, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="play"):
        client.session(formats=[name])
