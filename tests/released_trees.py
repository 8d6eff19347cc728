"""Small random trees like the released one: the same folders, names and wrappers, sizes of toys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from worlds import write_seed_images

from worldwire_runtime.config import ClipPlan, SamplerConfig, WorldConfig
from worldwire_runtime.model.config import ActionConfig, DiTConfig
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.text import UMT5Config, UMT5Encoder
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.released.tree import TEXT_ENCODER, TOKENIZER
from worldwire_runtime.sources import CONFIG_FILE, PRESETS, RELEASED_PRESET

STEM = "diffusion_pytorch_model"
WORDS = ("<pad>", "</s>", "<unk>", "a", "village", "by", "day", "night")
# What the official file says beside the sizes.
OFFICIAL_KEYS = {
    "_class_name": "WanModel",
    "_diffusers_version": "0.33.0",
    "model_type": "ti2v",
    "use_text_crossattn": True,
    "is_action_model": True,
}
OFFICIAL_ACTION_KEYS = {"enable_mouse": True, "enable_keyboard": True, "qk_norm": True, "qkv_bias": False}


def small_config() -> WorldConfig:
    """The conventions of the released model at 32x64 pixels."""
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
        in_dim=48,
        out_dim=48,
        text_dim=16,
        text_len=12,
        sigma_theta=0.8,
        freq_dim=16,
        action_config=action,
    )
    return WorldConfig(
        name="small-release",
        height=32,
        width=64,
        frames_per_second=16,
        horizontal_fov_deg=90,
        vertical_fov_deg=90,
        dit=dit,
        vae=VAEConfig(
            dim=8,
            dec_dim=16,
            num_res_blocks=1,
            decoder_res_blocks=1,
            pruning_rate=0.75,
            encoder_pruning_rate=0.0,
        ),
        text=UMT5Config(vocab=16, dim=16, dim_attn=16, dim_ffn=24, num_heads=2, num_layers=2),
        plans={"paper": ClipPlan(15, 4, 10, 5)},
        default_plan="paper",
        sampler=SamplerConfig(steps=3, shift=5.0, solver="unipc"),
        motion=WorldConfig.from_file(PRESETS / RELEASED_PRESET / CONFIG_FILE).motion,
        memory_selection="official",
        memory_far_m=30.0,
        conventions="released",
        views=("first",),
    )


def write_tree(folder: Path, config: WorldConfig | None = None) -> Path:
    """A tree with every file: shards and bf16, wrappers and another library's names, each somewhere."""
    config = config or small_config()
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config.to_json())
    write_transformer(folder / "base_distilled_model", config.dit, torch.float32)
    write_transformer(folder / "base_model", config.dit, torch.bfloat16, parts=3)
    write_vaes(folder, config.vae)
    write_text(folder, config)
    write_seed_images(folder / "seeds")
    return folder


def write_transformer(folder: Path, config: DiTConfig, dtype: torch.dtype, parts: int = 1) -> None:
    """config.json and one file, or an index and its parts."""
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = config.to_dict() | OFFICIAL_KEYS
    values["action_config"] |= OFFICIAL_ACTION_KEYS
    del values["attention"], values["rays_per_cell"], values["action_config"]["apply_qk_norm_weights"]
    (folder / CONFIG_FILE).write_text(json.dumps(values))
    save(random_state(DiT(config), dtype), folder / f"{STEM}.safetensors", parts)


def write_vaes(folder: Path, config: VAEConfig) -> None:
    """The full VAE plainly; the light ones with what training leaves around them."""
    full = random_state(VAE(replace(config, pruning_rate=0.0)))
    half, quarter = (random_state(VAE(replace(config, pruning_rate=rate))) for rate in (0.5, 0.75))
    torch.save(full, folder / "Wan2.2_VAE.pth")
    extra = {"dynamic_feature_projection_heads.0.weight": torch.zeros(2)}
    torch.save(
        {"gen_model": {"state_dict": half | extra}, "optimizer": {"step": 3}}, folder / "MG-LightVAE.pth"
    )
    torch.save({"generator": in_diffusers_words(quarter)}, folder / "MG-LightVAE_v2.pth")


def write_text(folder: Path, config: WorldConfig) -> None:
    """The umT5 encoder under its official names, and a tokenizer of a few words."""
    encoder = UMT5Encoder(config.text)
    state = encoder.model.state_dict()
    official = {name: state[ours].bfloat16().clone() for name, ours in encoder.official_names().items()}
    torch.save(official, folder / f"{TEXT_ENCODER}.pth")
    write_tokenizer(folder / TOKENIZER)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def random_state(module: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The module's tensors, none of them zero: branches that start at zero would hide what inputs do."""
    return {
        name: (tensor + 0.05 * torch.randn_like(tensor)).to(dtype)
        for name, tensor in module.state_dict().items()
    }


def save(state: Mapping[str, Tensor], path: Path, parts: int = 1) -> None:
    """A safetensors file, or an index and so many parts."""
    if parts == 1:
        save_file(dict(state), path)
        return
    names, where = list(state), {}
    for part in range(parts):
        file = f"{path.stem}-{part + 1:05}-of-{parts:05}.safetensors"
        save_file({name: state[name] for name in names[part::parts]}, path.parent / file)
        where |= dict.fromkeys(names[part::parts], file)
    index = {"metadata": {"total_size": 0}, "weight_map": where}
    path.with_name(path.name + ".index.json").write_text(json.dumps(index))


def in_diffusers_words(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of `diffusers`."""
    return {_diffusers_word(name): tensor for name, tensor in state.items()}


def _diffusers_word(name: str) -> str:
    """Original to `diffusers`, for the layout of `small_config` (one residual block per stage)."""
    parts = name.split(".")
    if parts[0] in ("conv1", "conv2"):
        return ".".join([{"conv1": "quant_conv", "conv2": "post_quant_conv"}[parts[0]], *parts[1:]])
    side, part, *rest = parts
    if part == "conv1":
        return ".".join([side, "conv_in", *rest])
    if part == "head":
        return ".".join([side, {"0": "norm_out", "2": "conv_out"}[rest[0]], *rest[1:]])
    if part == "middle":
        block = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}[rest[0]]
        return ".".join([side, "mid_block", block, *_resnet_words(rest[1:])])
    stage, _, index, *inner = rest
    blocks = "down_blocks" if side == "encoder" else "up_blocks"
    if index == "1":
        sampler = "downsampler" if side == "encoder" else "upsampler"
        return ".".join([side, blocks, stage, sampler, *inner])
    return ".".join([side, blocks, stage, "resnets", index, *_resnet_words(inner)])


def _resnet_words(parts: list[str]) -> list[str]:
    if parts[0] == "residual":
        return [{"0": "norm1", "2": "conv1", "3": "norm2", "6": "conv2"}[parts[1]], *parts[2:]]
    return ["conv_shortcut", *parts[1:]] if parts[0] == "shortcut" else parts
