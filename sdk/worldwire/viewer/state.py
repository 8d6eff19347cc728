"""What the viewer knows: fed with the link's events and the clock, asked for what to show. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worldwire.api import Frame, WorldInfo
from worldwire.camera import yaw_pitch_from_rotation
from worldwire.pacing import Playback
from worldwire.viewer.link import (
    Arrived,
    Event,
    Finished,
    Lost,
    Opened,
    Opening,
    Refused,
    Sent,
    Start,
    Started,
)
from worldwire.viewer.meters import LatencyMeter, RateMeter

FRAMES_PER_LATENT: Final = 4
THUMBNAIL_STRIDE: Final = 8
"""Thumbnails keep every so many-th pixel in both directions."""
MAX_THUMBNAILS: Final = 20_000
"""About an hour and a half of walking at 16 frames per second, some 60 MB at 320 x 192."""
TOAST_S: Final = 3.0


class Phase(Enum):
    """Where the viewer is in its life."""

    CONNECTING = auto()
    STARTING = auto()
    PLAYING = auto()
    LOST = auto()


@dataclass(frozen=True)
class MemorySlot:
    """One used memory slot: how old its latent is in world seconds, and its picture if it is still known."""

    age_s: float
    thumbnail: NDArray[np.uint8] | None


class ViewerState:
    """The one place that changes when events arrive."""

    def __init__(self, start: Start):
        self.start = start
        self.phase = Phase.CONNECTING
        self.paused = False
        self.finished = False
        self.waiting_for = "connecting"
        self.info: WorldInfo | None = None
        self.frame: Frame | None = None
        self.shown_frames = 0
        self.script_keys: frozenset[str] = frozenset()
        self.error: Exception | None = None
        self.latency = LatencyMeter()
        self._rate = RateMeter()
        self._playback = Playback(initial_rate=16.0)
        self._walked: dict[int, frozenset[str]] = {}
        self._thumbnails: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()
        self._toast, self._toast_until_s = "", 0.0

    # -------------------------------------------------------------------------------- what happens

    def handle(self, event: Event, now_s: float) -> None:
        """Takes in one event of the link."""
        match event:
            case Opening(text):
                self.waiting_for = text
            case Opened(info):
                self.info, self.phase = info, Phase.STARTING
                self._playback = Playback(info.frames_per_second)
            case Started(start, frame):
                self._started(start, frame, now_s)
            case Arrived(frames, inputs):
                self._playback.push(list(frames), now_s)
                self._rate.add(len(frames), now_s)
                if inputs is not None:
                    self._walked |= {frame.index: inputs.keys for frame in frames}
            case Sent(seq, at_s):
                self.latency.sent(seq, at_s)
            case Refused(error):
                self.error = error if self.frame is None else None
                self.phase = Phase.PLAYING if self.frame is not None else Phase.LOST
                self.toast(str(error), now_s)
            case Lost(failure):
                self.error, self.phase = failure, Phase.LOST
            case Finished():
                self.finished = True

    def advance(self, now_s: float) -> list[Frame]:
        """The frames whose time on the screen has come; the last one is shown from now on."""
        if self.paused or self.phase is Phase.LOST:
            return []
        due = self._playback.due(now_s)
        for frame in due:
            self._remember(frame)
        if due:
            self.frame = due[-1]
            self.shown_frames += len(due)
            self.script_keys = self._walked.pop(self.frame.index, frozenset())
            self.latency.shown(self.frame.ack, now_s)
        return due

    def begin(self, start: Start) -> None:
        """The player asked for another walk; until it starts the last picture stays."""
        self.start, self.phase = start, Phase.STARTING

    def set_paused(self, paused: bool) -> None:
        """Stops or goes on; what was measured before does not count after."""
        self.paused = paused
        self._rate.clear()
        self.latency.clear()
        self._playback.forget_rate()

    def reconnect(self) -> None:
        """The player asked for a new connection after the last one was lost."""
        self.phase, self.error, self.waiting_for = Phase.CONNECTING, None, "connecting"

    def toast(self, text: str, now_s: float) -> None:
        """Shows a line for a few seconds."""
        self._toast, self._toast_until_s = text, now_s + TOAST_S

    # -------------------------------------------------------------------------------- what to show

    def toast_text(self, now_s: float) -> str:
        """The line that is to be shown, or nothing."""
        return self._toast if now_s < self._toast_until_s else ""

    @property
    def done(self) -> bool:
        """Whether the script has been walked and shown to its end."""
        return self.finished and self._playback.backlog == 0

    @property
    def backlog(self) -> int:
        """Frames that came and were not shown yet."""
        return self._playback.backlog

    def frames_per_second(self, now_s: float) -> float:
        """Frames that come, per second."""
        return self._rate.rate(now_s)

    def real_time_factor(self, now_s: float) -> float:
        """World seconds per second."""
        return self.frames_per_second(now_s) / self.info.frames_per_second if self.info else 0.0

    @property
    def world_seconds(self) -> float:
        """How far into the walk the shown frame is."""
        return self.frame.index / self.info.frames_per_second if self.frame and self.info else 0.0

    @property
    def position_m(self) -> tuple[float, float, float]:
        """Where the camera of the shown frame is; y is down."""
        x, y, z = self.frame.c2w[:3, 3] if self.frame else (0.0, 0.0, 0.0)
        return float(x), float(y), float(z)

    @property
    def yaw_pitch_deg(self) -> tuple[float, float]:
        """Where it looks."""
        return yaw_pitch_from_rotation(self.frame.c2w[:3, :3]) if self.frame else (0.0, 0.0)

    @property
    def view(self) -> str:
        """First or third person: as asked for, else as the seed image was taken."""
        own = self.start.view or self._seed_fact(self._seed_name, "view")
        views = self.info.views if self.info else ()
        return own if own in views or not views else views[0]

    @property
    def sentence(self) -> str:
        """What the walk began with: the prompt, the seed image's own sentence, or its name."""
        name = self._seed_name
        return self.start.prompt or self._seed_fact(name, "prompt") or name

    @property
    def memory(self) -> tuple[MemorySlot, ...]:
        """The memory slots that the shown frame was made with."""
        if not (self.frame and self.info):
            return ()
        rate = self.info.frames_per_second
        return tuple(
            MemorySlot((self.frame.index - FRAMES_PER_LATENT * latent) / rate, self._thumbnails.get(latent))
            for latent in self.frame.memory_latents
        )

    def next_image(self) -> Start | None:
        """The walk that starts from the next shipped seed image, if the world has any."""
        names = self.info.seed_images if self.info else ()
        if not names:
            return None
        current = names.index(self.start.image) if self.start.image in names else 0
        return replace(self.start, image=names[(current + 1) % len(names)], prompt=None, view=None)

    def other_view(self) -> Start | None:
        """A walk in the next view that the world knows, if there is one; from a seed image that fits."""
        views = self.info.views if self.info else ()
        if len(views) < 2:
            return None
        view = views[(views.index(self.view) + 1) % len(views)]
        image = self.start.image
        if self.info and image in self.info.seed_images:
            fitting = (name for name in self.info.seed_images if self._seed_fact(name, "view") == view)
            image = next(fitting, image)
        return replace(self.start, image=image, view=view)

    # -------------------------------------------------------------------------------- internals

    @property
    def _seed_name(self) -> str:
        """The image that the walk began with; without image and prompt it is the world's first one."""
        default = self.info.seed_images[0] if self.info and self.info.seed_images else ""
        return self.start.image or ("" if self.start.prompt else default)

    def _seed_fact(self, name: str, fact: str) -> str:
        """What the world tells of a seed image ("prompt" or "view"), as far as it does."""
        seeds = self.info.extra.get("seeds") if self.info else None
        facts = seeds.get(name) if isinstance(seeds, dict) else None
        return str(facts.get(fact, "")) if isinstance(facts, dict) else ""

    def _started(self, start: Start, frame: Frame, now_s: float) -> None:
        self.start, self.phase, self.paused = start, Phase.PLAYING, False
        self._playback.clear()
        self._thumbnails.clear()
        self._walked.clear()
        self._rate.clear()
        self.latency.clear()
        self._rate.add(1, now_s)
        self._playback.push([frame], now_s)

    def _remember(self, frame: Frame) -> None:
        """Keeps a small picture of each latent's last frame."""
        if frame.index % FRAMES_PER_LATENT == 0:
            self._thumbnails[frame.index // FRAMES_PER_LATENT] = frame.pixels[
                ::THUMBNAIL_STRIDE, ::THUMBNAIL_STRIDE
            ].copy()
            if len(self._thumbnails) > MAX_THUMBNAILS:
                self._thumbnails.popitem(last=False)
