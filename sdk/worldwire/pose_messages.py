"""Pose messages of ROS and OpenXR as plain numbers; neither needs to be installed.

A message may be the real thing (`geometry_msgs.msg.PoseStamped` of rclpy, an `XrPosef` of a binding) or a
dictionary of the same layout, as rosbridge, `ros2 topic echo` and bag exports give it. The numbers keep their
own axes; `worldwire.axes` turns them (ROS or ROS_OPTICAL, OPENXR).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worldwire.axes import OPENXR, Axes
from worldwire.camera import Intrinsics
from worldwire.errors import InputError

Array = NDArray[np.float64]

NANOSECONDS: Final = 1_000_000_000
XR_POSE: Final = struct.Struct("=7f")
"""XrPosef in memory: orientation x, y, z, w, then position x, y, z; 28 bytes."""


@dataclass(frozen=True)
class TimedPose:
    """A camera on the wire at a time: t_ns nanoseconds of any clock, c2w [4, 4] in wire axes."""

    t_ns: int
    c2w: Array


def from_pose_stamped(message: Any, axes: Axes) -> TimedPose:
    """The camera of a geometry_msgs/PoseStamped, whose pose is in `axes`; InputError for a wrong layout."""
    stamp, pose = _get(message, "header", "stamp"), _get(message, "pose")
    position, quaternion = _numbers(pose, "position", "xyz"), _numbers(pose, "orientation", "xyzw")
    t_ns = int(_get(stamp, "sec")) * NANOSECONDS + int(_get(stamp, "nanosec"))
    return TimedPose(t_ns, axes.pose_to_c2w(position, quaternion))


def to_pose_stamped(pose: TimedPose, axes: Axes, frame_id: str = "map") -> dict[str, Any]:
    """The dictionary of a geometry_msgs/PoseStamped, its pose in `axes`."""
    position, quaternion = axes.pose_from_c2w(pose.c2w)
    sec, nanosec = divmod(pose.t_ns, NANOSECONDS)
    return {
        "header": {"stamp": {"sec": sec, "nanosec": nanosec}, "frame_id": frame_id},
        "pose": _layout(position=(position, "xyz"), orientation=(quaternion, "xyzw")),
    }


def from_xr_pose(pose: Any) -> Array:
    """The camera [4, 4] on the wire of an XrPosef: an object, a dictionary or its 28 bytes."""
    if isinstance(pose, (bytes, bytearray, memoryview)):
        numbers = _unpacked(bytes(pose))
        return OPENXR.pose_to_c2w(numbers[4:], numbers[:4])
    return OPENXR.pose_to_c2w(_numbers(pose, "position", "xyz"), _numbers(pose, "orientation", "xyzw"))


def to_xr_pose(c2w: Array) -> dict[str, dict[str, float]]:
    """The dictionary of an XrPosef."""
    position, quaternion = OPENXR.pose_from_c2w(c2w)
    return _layout(orientation=(quaternion, "xyzw"), position=(position, "xyz"))


def pack_xr_pose(c2w: Array) -> bytes:
    """The 28 bytes of an XrPosef in this machine's byte order."""
    position, quaternion = OPENXR.pose_from_c2w(c2w)
    return XR_POSE.pack(*quaternion, *position)


def from_xr_fov(fov: Any, height: int, width: int) -> Intrinsics:
    """The camera of an XrFovf: angleLeft, angleRight, angleUp, angleDown in radians, left, down below 0."""
    names = ("angleLeft", "angleRight", "angleUp", "angleDown")
    left, right, up, down = (math.tan(float(_get(fov, name))) for name in names)
    if not (left < right and down < up):
        raise InputError(
            "a field of view is empty",
            expected="radians, angleLeft < angleRight and angleDown < angleUp",
            got=str([float(_get(fov, name)) for name in names]),
        )
    fx, fy = width / (right - left), height / (up - down)
    return Intrinsics(fx, fy, -left * fx, up * fy, height, width)


def _get(message: Any, *path: str) -> Any:
    """A field by its path, of an object with attributes or of a dictionary."""
    value = message
    for name in path:
        try:
            value = value[name] if isinstance(value, dict) else getattr(value, name)
        except (KeyError, AttributeError) as error:
            raise InputError(
                "a pose message has another layout",
                expected=f"the field {'.'.join(path)} (geometry_msgs/PoseStamped or XrPosef)",
                got=f"{type(message).__name__} without it",
            ) from error
    return value


def _numbers(message: Any, part: str, names: str) -> list[float]:
    values = _get(message, part)
    try:
        return [float(_get(values, name)) for name in names]
    except (TypeError, ValueError) as error:
        raise InputError(f"{part} of a pose message holds no numbers", got=repr(values)) from error


def _layout(**parts: tuple[Array, str]) -> dict[str, dict[str, float]]:
    return {part: dict(zip(names, values.tolist(), strict=True)) for part, (values, names) in parts.items()}


def _unpacked(data: bytes) -> tuple[float, ...]:
    if len(data) != XR_POSE.size:
        raise InputError(
            "bytes are no XrPosef", expected=f"{XR_POSE.size} bytes, seven float32", got=str(len(data))
        )
    return XR_POSE.unpack(data)
