"""A scripted walk on a machine without a display: an mp4 and a contact sheet instead of a window."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pygame

from worldwire.api import Frame, WorldInfo
from worldwire.inputs import Inputs
from worldwire.viewer.hud import draw_key_strip
from worldwire.viewer.images import seed_image, to_pixels, to_surface
from worldwire.viewer.link import Host, LiveSession, Start
from worldwire.viewer.progress import ProgressLine
from worldwire.viewer.recording import Recorder, SheetPicture, contact_sheet, new_path, pick_evenly
from worldwire.viewer.script import walk

log = logging.getLogger(__name__)
VIDEO_SCALE = 2


@dataclass(frozen=True)
class WalkFiles:
    """What a scripted walk leaves: an mp4 and a PNG."""

    video: Path
    sheet: Path


def record_walk(host: Host, start: Start, script: list[Inputs]) -> WalkFiles:
    """Opens the world, walks the script and writes the files. Ctrl-C leaves the part that was walked."""
    opening = ProgressLine("loading the world")
    with host.open(opening.wait, lambda: False) as (info, session):
        opening.finish("ready")
        return _record(info, session, start, script)


def _record(info: WorldInfo, session: LiveSession, start: Start, script: list[Inputs]) -> WalkFiles:
    video = new_path(".mp4")
    wanted = set(pick_evenly(len(script) + 1))
    sheet: list[SheetPicture] = []
    progress = ProgressLine("walking")
    with Recorder(video, info.frames_per_second, scale=1) as recorder:
        first = session.reset(start.prompt, seed_image(start.image, info), start.seed, start.view)
        recorder.add(to_pixels(_annotated(first, Inputs(), VIDEO_SCALE)))
        sheet.append(_sheet_picture(first, Inputs(), info))
        for done, (inputs, frame) in enumerate(walk(session, script), 1):
            recorder.add(to_pixels(_annotated(frame, inputs, VIDEO_SCALE)))
            if done in wanted:
                sheet.append(_sheet_picture(frame, inputs, info))
            progress.update(done, len(script))
    picture = video.with_suffix(".png")
    pygame.image.save(contact_sheet(sheet), picture)
    return WalkFiles(video, picture)


def _annotated(frame: Frame, inputs: Inputs, scale: int) -> pygame.Surface:
    """The frame, enlarged, with the keys and the look that led to it."""
    height, width, _ = frame.pixels.shape
    surface = pygame.transform.smoothscale(to_surface(frame.pixels), (width * scale, height * scale))
    draw_key_strip(surface, inputs.keys, inputs.yaw_deg, inputs.pitch_deg)
    return surface


def _sheet_picture(frame: Frame, inputs: Inputs, info: WorldInfo) -> SheetPicture:
    parts = [f"{frame.index / info.frames_per_second:.1f} s", " ".join(sorted(inputs.keys))]
    parts += [
        f"{name} {turn:+g}°" for name, turn in (("yaw", inputs.yaw_deg), ("pitch", inputs.pitch_deg)) if turn
    ]
    return SheetPicture(_annotated(frame, inputs, 1), "  ".join(part for part in parts if part))
