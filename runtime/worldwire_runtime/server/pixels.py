"""Frames to payloads: raw rows, without a copy where the client takes RGB, or JPEG, or H.264."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import ConfigError, ImageError
from worldwire.protocol import (
    FORMAT_BGRA,
    FORMAT_H264,
    FORMAT_JPEG,
    FORMAT_RGB,
    FORMAT_RGBA,
    Reset,
)

Pixels = NDArray[np.uint8]

CHANNELS: Final = {FORMAT_RGBA: (0, 1, 2), FORMAT_BGRA: (2, 1, 0)}
"""Which of R, G, B each of the first three bytes of a pixel holds."""
OPAQUE: Final = 255
H264_OPTIONS: Final = {
    "preset": "ultrafast",
    "tune": "zerolatency",
    "crf": "23",
    "forced-idr": "1",  # a key frame that is asked for starts a new stream, with its parameter sets
    "x264-params": "keyint=infinite:scenecut=0",  # and no other does
}
H264_CLOCK: Final = Fraction(1, 1000)


class Payload(NamedTuple):
    """What is sent of one picture; key: it can be decoded without those before it."""

    data: Any
    key: bool = True


@cache
def our_formats() -> tuple[str, ...]:
    """The formats in which this server can send pictures; some need an extra."""
    found = [FORMAT_RGB, FORMAT_RGBA, FORMAT_BGRA]
    if importlib.util.find_spec("simplejpeg") is not None:
        found.append(FORMAT_JPEG)
    if _has_x264():
        found.append(FORMAT_H264)
    return tuple(found)


def choose_format(offered: Sequence[str], ours: Sequence[str]) -> str:
    """The first format of the client that is one of ours; ConfigError if there is none."""
    for name in offered:
        if name in ours:
            return name
    raise ConfigError(
        "no common frame format",
        expected=" or ".join(ours),
        got=", ".join(offered),
        remedy="offer 'rgb'; others may need an extra of the server",
    )


class PictureEncoder:
    """The pictures of one session in its format; only H.264 has a memory of those before.

    Not thread-safe: one caller at a time.
    """

    def __init__(self, name: str, jpeg_quality: int):
        self.format = name
        self._jpeg_quality = jpeg_quality
        self._stream: H264Stream | None = None

    def copy(self) -> PictureEncoder:
        """One for another session, with nothing before it."""
        return PictureEncoder(self.format, self._jpeg_quality)

    @property
    def is_free(self) -> bool:
        """Whether encoding costs nothing worth another thread."""
        return self.format == FORMAT_RGB

    def encode(self, pixels: Pixels, key: bool = False) -> Payload:
        """The payload of a picture uint8 [height, width, 3]; `key` asks for one that stands alone."""
        if self.format == FORMAT_RGB:
            return Payload(np.ascontiguousarray(pixels).data.cast("B"))
        if self.format == FORMAT_JPEG:
            return Payload(_jpeg(pixels, self._jpeg_quality))
        if self.format == FORMAT_H264:
            if self._stream is None:
                self._stream = H264Stream(*pixels.shape[:2])
            return self._stream.encode(pixels, key)
        return Payload(_four_bytes(pixels, CHANNELS[self.format]))


class H264Stream:
    """One Annex B stream: an access unit for each picture, no B-frames, key frames only when asked for."""

    def __init__(self, height: int, width: int):
        import av

        self._fill = ((0, height % 2), (0, width % 2), (0, 0))  # 4:2:0 halves both sides
        height, width = height + height % 2, width + width % 2
        self._codec: Any = av.CodecContext.create("libx264", "w")
        self._codec.width, self._codec.height = width, height
        self._codec.pix_fmt, self._codec.time_base = "yuv420p", H264_CLOCK
        self._codec.options = H264_OPTIONS
        self._pictures = 0

    def encode(self, pixels: Pixels, key: bool) -> Payload:
        """The access unit of one picture uint8 [height, width, 3]."""
        import av

        if any(map(any, self._fill)):
            pixels = np.pad(pixels, self._fill, "edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p")
        frame.pts, frame.time_base = self._pictures, H264_CLOCK
        key = key or not self._pictures
        if key:
            frame.pict_type = av.video.frame.PictureType.I
        self._pictures += 1
        (packet,) = self._codec.encode(frame)  # zero latency: each picture comes out as it goes in
        return Payload(bytes(packet), bool(packet.is_keyframe))


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    import simplejpeg

    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420", fastdct=True)
    return data


def _four_bytes(pixels: Pixels, channels: Sequence[int]) -> Any:
    """Pixels of four bytes, the last of them opaque. Plane by plane: four times faster than whole pixels."""
    picture = np.empty((*pixels.shape[:2], 4), np.uint8)
    for place, channel in enumerate(channels):
        picture[..., place] = pixels[..., channel]
    picture[..., 3] = OPAQUE
    return picture.data.cast("B")


def _has_x264() -> bool:
    if importlib.util.find_spec("av") is None:
        return False
    import av

    try:
        av.codec.Codec("libx264", "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True


def seed_image(message: Reset, payload: Any) -> Pixels | str | None:
    """The image that a reset starts from, as `SessionLike.reset` takes it; ImageError for a misfit."""
    sides = (message.image_height, message.image_width)
    if payload is None and sides == (None, None):
        return message.image
    height, width = (side or 0 for side in sides)
    size = len(payload) if payload is not None else 0
    if message.image is not None or size != height * width * 3 or not size:
        raise ImageError(
            "a seed image does not fit its message",
            expected="a payload of image_height x image_width x 3 bytes and no `image`",
            got=f"{size} bytes for {height} x {width}, image={message.image!r}",
            remedy="send rows of RGB, top row first",
        )
    return np.frombuffer(payload, np.uint8).reshape(height, width, 3)
