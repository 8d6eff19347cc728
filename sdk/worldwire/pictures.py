"""Payloads of frames to pixels, for every format of the protocol (`sdk/PROTOCOL.md`, section 8)."""

from __future__ import annotations

import io
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import MissingExtraError, ProtocolError
from worldwire.protocol import (
    FORMAT_BGRA,
    FORMAT_H264,
    FORMAT_JPEG,
    RAW_CHANNELS,
    FrameMessage,
)

EXTRA: Final = "play"


def pixels(message: FrameMessage, payload: Any) -> NDArray[np.uint8]:
    """uint8 [height, width, 3], RGB.

    Raw formats are views of the payload, not copied: of `rgba` and `bgra` the view leaves out alpha
    and turns the channels round, so it is not contiguous. A payload of `h264` comes from a `StreamDecoder`.
    Raises ProtocolError for a payload that does not fit, MissingExtraError without the decoder.
    """
    if message.format == FORMAT_H264:
        return _cut(payload.to_ndarray(format="rgb24"), message)
    if message.format == FORMAT_JPEG:
        return _decode_jpeg(message, payload)
    return _raw(message, payload)


def check_decodable(formats: tuple[str, ...]) -> None:
    """MissingExtraError for a compressed format that this installation cannot decode."""
    if FORMAT_JPEG in formats:
        _pillow()
    if FORMAT_H264 in formats:
        _av()


class StreamDecoder:
    """Decodes the `h264` frames of one session; each of them, in their order."""

    def __init__(self) -> None:
        self._codec: Any = None

    def decode(self, message: FrameMessage, payload: Any) -> Any:
        """A picture that is not yet RGB. Begins anew at every key frame. ProtocolError if there is none."""
        av = _av()
        if message.key or self._codec is None:
            self._codec = av.CodecContext.create("h264", "r")
            self._codec.thread_count = 1  # further threads would hold pictures back
            self._codec.flags |= av.codec.context.Flags.low_delay
        try:
            made = self._codec.decode(av.Packet(bytes(payload or b"")))
        except av.FFmpegError as error:
            raise ProtocolError(f"a frame is no H.264: {error}", got=_size(payload)) from error
        if len(made) != 1:
            raise ProtocolError(
                "an H.264 payload holds one picture", got=f"{len(made)} from {_size(payload)}"
            )
        return made[0]


def _raw(message: FrameMessage, payload: Any) -> NDArray[np.uint8]:
    channels = RAW_CHANNELS.get(message.format)
    if channels is None:
        raise ProtocolError(
            "a frame has an unknown format", expected="one of those offered", got=message.format
        )
    shape = (message.height, message.width, channels)
    size = message.height * message.width * channels
    if payload is None or len(payload) != size:
        raise ProtocolError(
            "a frame's payload has the wrong length",
            expected=f"{size} bytes, {message.height} x {message.width} {message.format}",
            got=_size(payload),
        )
    picture = np.frombuffer(payload, np.uint8).reshape(shape)
    return picture[..., 2::-1] if message.format == FORMAT_BGRA else picture[..., :3]


def _decode_jpeg(message: FrameMessage, payload: Any) -> NDArray[np.uint8]:
    image = _pillow()
    try:
        picture = image.open(io.BytesIO(payload or b""), formats=["JPEG"]).convert("RGB")
    except (OSError, ValueError) as error:
        raise ProtocolError(f"a frame is no JPEG: {error}", got=_size(payload)) from error
    return _cut(np.asarray(picture, dtype=np.uint8), message)


def _cut(picture: NDArray[np.uint8], message: FrameMessage) -> NDArray[np.uint8]:
    """The picture that the message speaks of: H.264 has even sides only."""
    if picture.shape[0] < message.height or picture.shape[1] < message.width:
        raise ProtocolError(
            "a picture is smaller than its message says",
            expected=f"{message.height} x {message.width}",
            got=" x ".join(map(str, picture.shape[:2])),
        )
    return picture[: message.height, : message.width]


def _size(payload: Any) -> str:
    return f"{0 if payload is None else len(payload)} bytes"


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading JPEG frames", EXTRA) from error
    return Image


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingExtraError("reading H.264 frames", EXTRA) from error
    return av
