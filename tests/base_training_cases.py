"""A world of a few thousand parameters, and encoded episodes that need no VAE."""

import torch

from worldwire_runtime.config import ClipPlan, SamplerConfig, WorldConfig
from worldwire_runtime.model.config import ActionConfig, DiTConfig
from worldwire_runtime.model.text import TinyTextConfig
from worldwire_runtime.model.vae import VAEConfig
from worldwire_training.latents import LatentStore, view_overlaps

EPISODES, LATENTS, CHANNELS, ROWS, COLUMNS = 3, 17, 4, 2, 4
FRAMES = 4 * (LATENTS - 1) + 1


def tiny_world() -> WorldConfig:
    action = ActionConfig(
        blocks=(0,),
        heads_num=2,
        hidden_size=4,
        img_hidden_size=16,
        keyboard_dim_in=6,
        keyboard_hidden_dim=16,
        mouse_dim_in=2,
        mouse_hidden_dim=16,
        rope_dim_list=(4, 2, 2),
        mouse_qk_dim_list=(4, 2, 2),
    )
    return WorldConfig(
        name="test",
        height=16 * ROWS,
        width=16 * COLUMNS,
        frames_per_second=16.0,
        horizontal_fov_deg=80.0,
        dit=DiTConfig(
            dim=16,
            ffn_dim=32,
            num_heads=2,
            num_layers=2,
            in_dim=CHANNELS,
            out_dim=CHANNELS,
            text_dim=8,
            text_len=6,
            sigma_theta=0.8,
            freq_dim=16,
            action_config=action,
            attention="cached",
            rays_per_cell=1,
        ),
        vae=VAEConfig(dim=4, dec_dim=4, z_dim=CHANNELS, num_res_blocks=1, decoder_res_blocks=1),
        text=TinyTextConfig(("a", "room", "village"), text_len=6, text_dim=8, heads=2, ffn_dim=8),
        plans={"low_latency": ClipPlan(first=3, past=4, new=2, memory=5)},
        default_plan="low_latency",
        sampler=SamplerConfig(steps=2),
    )


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
        prompt_tokens=torch.randint(1, 5, (EPISODES, 6), generator=draw),
    )
