"""Small random worlds on disk, like the shipped presets, for tests of everything above the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from worldwire_runtime.config import ClipPlan, SamplerConfig, WorldConfig
from worldwire_runtime.model.checkpoint import save_compact
from worldwire_runtime.model.config import ActionConfig, DiTConfig
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.text import TinyTextConfig, TinyTextEncoder
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.world import CONFIG_FILE, DIT_FILE, TEXT_FILE, VAE_FILE

HEIGHT, WIDTH, CHANNELS = 32, 64, 4


def random_config(attention: str = "cached") -> WorldConfig:
    """A world of 32x64 pixels whose clips take milliseconds."""
    action = ActionConfig(
        blocks=(0,),
        heads_num=2,
        hidden_size=8,
        img_hidden_size=32,
        keyboard_dim_in=6,
        keyboard_hidden_dim=16,
        mouse_dim_in=2,
        mouse_hidden_dim=16,
        rope_dim_list=(4, 2, 2),
        mouse_qk_dim_list=(4, 2, 2),
    )
    dit = DiTConfig(
        dim=32,
        ffn_dim=48,
        num_heads=2,
        num_layers=2,
        in_dim=CHANNELS,
        out_dim=CHANNELS,
        text_dim=16,
        text_len=8,
        sigma_theta=0.8,
        freq_dim=16,
        action_config=action,
        attention=attention,
        rays_per_cell=1,
    )
    return WorldConfig(
        name="random",
        height=HEIGHT,
        width=WIDTH,
        frames_per_second=16,
        horizontal_fov_deg=80,
        dit=dit,
        vae=VAEConfig(dim=4, dec_dim=4, z_dim=CHANNELS, num_res_blocks=1, decoder_res_blocks=1),
        text=TinyTextConfig(("a", "village", "by", "day"), text_len=8, text_dim=16, heads=2, ffn_dim=16),
        plans={"low-latency": ClipPlan(3, 4, 2, 5), "paper": ClipPlan(15, 4, 10, 5)},
        default_plan="low-latency",
        sampler=SamplerConfig(steps=2, first_picture_steps=2),
        trained_keys=("forward", "back", "left", "right"),
    )


def write_random_world(folder: Path, attention: str = "cached", seed: int = 0) -> Path:
    """Writes a preset folder with random weights and two seed images; returns it."""
    torch.manual_seed(seed)
    config = random_config(attention)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config.to_json())
    dit = DiT(config.dit)
    for parameter in dit.parameters():  # zero-initialised branches would hide what the inputs do
        parameter.data += 0.05 * torch.randn_like(parameter)
    save_compact(dit.state_dict(), folder / DIT_FILE)
    save_compact(VAE(config.vae).state_dict(), folder / VAE_FILE)
    save_compact(TinyTextEncoder(config.text).state_dict(), folder / TEXT_FILE)
    write_seed_images(folder / "seeds")
    return folder


def write_seed_images(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    index = {
        "meadow": {"prompt": "a village by day", "view": "first"},
        "hall": {"prompt": "a village", "view": "third"},
    }
    for name in index:
        pixels = rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "seeds.json").write_text(json.dumps(index))
