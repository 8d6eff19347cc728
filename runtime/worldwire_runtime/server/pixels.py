"""Frames to payloads: raw rows without a copy, or JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldwire.errors import ConfigError, ImageError
from worldwire.protocol import FORMAT_JPEG, FORMATS, Reset


def choose_format(offered: Sequence[str]) -> str:
    """The first format of the client that we have."""
    for name in offered:
        if name in FORMATS:
            return name
    raise ConfigError(
        "no common frame format", expected=" or ".join(FORMATS), got=", ".join(offered), remedy="offer 'rgb'"
    )


def encode_pixels(pixels: NDArray[np.uint8], name: str, jpeg_quality: int) -> Any:
    """The payload of one picture uint8 [height, width, 3]: any object with the buffer protocol."""
    if name != FORMAT_JPEG:
        return np.ascontiguousarray(pixels).data.cast("B")
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=jpeg_quality)
    return stream.getvalue()


def seed_image(message: Reset, payload: Any) -> NDArray[np.uint8] | str | None:
    """The image that a reset starts from, as `SessionLike.reset` takes it."""
    if payload is None:
        return message.image
    height, width = message.image_height or 0, message.image_width or 0
    if message.image is not None or len(payload) != height * width * 3 or not len(payload):
        raise ImageError(
            "a seed image does not fit its message",
            expected="a payload of image_height x image_width x 3 bytes and no `image`",
            got=f"{len(payload)} bytes for {height} x {width}, image={message.image!r}",
            remedy="send rows of RGB, top row first",
        )
    return np.frombuffer(payload, np.uint8).reshape(height, width, 3)
