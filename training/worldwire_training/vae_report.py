"""What a trained VAE can do: PSNR on held-out episodes, a contact sheet, statistics of its latents."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from worldwire_runtime.model.vae import VAE
from worldwire_training.common import Ranks
from worldwire_training.vae_data import FrameSource, MemoryFrames, to_video
from worldwire_training.vae_losses import psnr_db

SHEET_IMAGES = 6
SHEET_SCALE = 0.75


@dataclass(frozen=True)
class Quality:
    """Mean over frames of the PSNR in dB: single images, and clips decoded as a stream."""

    images_db: float
    clips_db: float


def reconstruct(vae: VAE, video: Tensor, latents_per_pass: int | None = None) -> Tensor:
    """Encode and decode [B, 3, T, H, W] in [-1, 1], as a session does."""
    return vae.decode(vae.encode(video, latents_per_pass))[0].float()


def frame_psnr_db(ours: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each frame of [B, 3, T, H, W] in [-1, 1]: [B, T]."""
    return psnr_db((ours - truth).square().mean(dim=(1, 3, 4)))


@torch.no_grad()
def measure(
    vae: VAE, held_out: MemoryFrames, clip_frames: int, most_episodes: int, batch: int = 4
) -> Quality:
    """PSNR over the beginnings of up to `most_episodes` episodes, and over 1 in 8 of their frames alone."""
    episodes = held_out.episodes[:most_episodes]
    clips, images = [], []
    for part in episodes.split(batch):
        video = to_video(part[:, :clip_frames])
        clips.append(frame_psnr_db(reconstruct(vae, video), video))
        alone = to_video(part[:, ::8].flatten(0, 1))
        images.append(frame_psnr_db(reconstruct(vae, alone), alone))
    return Quality(float(torch.cat(images).mean()), float(torch.cat(clips).mean()))


@torch.no_grad()
def latent_statistics(
    vae: VAE, frames: FrameSource, ranks: Ranks, *, clip_frames: int, batch: int, batches: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each latent channel over random training clips of all ranks."""
    moments = []
    for _ in range(batches):
        mean, _ = vae.encode_distribution(to_video(frames.sample_clips(batch, clip_frames)))
        values = mean.double().transpose(0, 1).flatten(1)
        moments.append(torch.stack((values.mean(dim=1), values.square().mean(dim=1))))
    first, second = ranks.mean(torch.stack(moments).mean(dim=0))
    std = (second - first.square()).clamp(min=1e-12).sqrt()
    return tuple(round(float(v), 6) for v in first), tuple(round(float(v), 6) for v in std)


@torch.no_grad()
def contact_sheet(vae: VAE, held_out: MemoryFrames, clip_frames: int) -> Tensor:
    """Images, then frames of one clip: each row of inputs has its reconstructions below. u8 [H, W, 3]."""
    episodes = held_out.episodes
    spread = torch.linspace(0, len(held_out) - 1, SHEET_IMAGES).round().long().to(episodes.device)
    alone = to_video(episodes[spread, episodes.shape[1] // 2])
    clip = to_video(episodes[:1, :clip_frames])
    times = torch.linspace(0, clip.shape[2] - 1, SHEET_IMAGES).round().long().to(clip.device)
    rows = (
        alone[:, :, 0],
        reconstruct(vae, alone)[:, :, 0],
        clip[0, :, times].transpose(0, 1),
        reconstruct(vae, clip)[0, :, times].transpose(0, 1),
    )
    sheet = torch.cat([torch.cat(list(row.unbind(0)), dim=2) for row in rows], dim=1)
    small = F.interpolate(sheet.unsqueeze(0), scale_factor=SHEET_SCALE, mode="bilinear", antialias=True)[0]
    return to_pixels(small.movedim(0, -1))


def to_pixels(values: Tensor) -> Tensor:
    """[-1, 1] to uint8."""
    return ((values.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


def write_png(path: Path, pixels: Tensor) -> None:
    """Write u8 [H, W, 3] as a PNG; by hand, since a training machine may have no imaging library."""
    height, width, _ = pixels.shape
    rows = torch.cat([torch.zeros(height, 1, dtype=torch.uint8), pixels.cpu().reshape(height, -1)], dim=1)
    chunks: Sequence[tuple[bytes, bytes]] = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.contiguous().numpy().tobytes(), 6)),
        (b"IEND", b""),
    )
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
