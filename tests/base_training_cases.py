"""A world of a few thousand parameters, and encoded episodes that need no VAE."""

from dataclasses import replace

import torch
from worlds import CHANNELS, HEIGHT, WIDTH, random_config

from worldwire_runtime.config import LATENT_STRIDE_PX, WorldConfig
from worldwire_training.latents import LatentStore, view_overlaps

EPISODES, LATENTS, TEXT_TOKENS = 3, 17, random_config().text.text_len
ROWS, COLUMNS = HEIGHT // LATENT_STRIDE_PX, WIDTH // LATENT_STRIDE_PX
FRAMES = 4 * (LATENTS - 1) + 1


def tiny_world() -> WorldConfig:
    world = random_config()
    return replace(world, text=replace(world.text, vocabulary=("a", "room", "village")))


def make_store() -> LatentStore:
    """Latent k of a video is k everywhere in channel 0, its lone image -k-1; the rest is noise."""
    draw = torch.Generator().manual_seed(7)
    latents = torch.randn(EPISODES, LATENTS, CHANNELS, ROWS, COLUMNS, generator=draw)
    images = latents.clone()
    number = torch.arange(LATENTS, dtype=torch.float32)[:, None, None]
    latents[:, :, 0], images[:, :, 0] = number, -number - 1
    c2w = torch.eye(4, dtype=torch.float64).repeat(EPISODES, LATENTS, 1, 1)
    c2w[:, :, 2, 3] = 0.5 * torch.arange(LATENTS)
    return LatentStore(
        latents=latents.bfloat16(),
        images=images.bfloat16(),
        keyboard=(torch.rand(EPISODES, FRAMES, 6, generator=draw) < 0.5).float(),
        mouse=torch.randn(EPISODES, FRAMES, 2, generator=draw),
        c2w=c2w,
        overlaps=view_overlaps(c2w, tiny_world()),
        prompt_tokens=torch.randint(1, 5, (EPISODES, TEXT_TOKENS), generator=draw),
    )
