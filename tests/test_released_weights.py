"""Weights in files: every format and fault, never two copies in memory, the released names and sizes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from released_trees import in_diffusers_words, random_state, save, small_config
from safetensors.torch import save_file
from torch import nn

from worldwire.errors import CheckpointError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.model.stored import load_stored, open_weights, unwrapped
from worldwire_runtime.model.text import UMT5Config
from worldwire_runtime.model.vae import VAE, wan22_config
from worldwire_runtime.released.names import (
    DECODER_PARTS,
    ENCODER_PARTS,
    select_network,
    select_vae,
    vae_renamer,
)
from worldwire_runtime.released.tree import read_transformer_config
from worldwire_runtime.released.verify import shapes_of, umt5_shapes, vae_shapes
from worldwire_runtime.sources import CONFIG_FILE, PRESETS

SHAPES = json.loads((Path(__file__).parent / "released_shapes.json").read_text())
LISTS = os.environ.get("WORLDWIRE_TENSOR_LISTS")
"""A folder with the published tensor lists, to compare with name by name."""


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 8), nn.Conv2d(4, 6, 3), nn.LayerNorm(8))


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return network()


# ------------------------------------------------------------------ formats


@pytest.mark.parametrize("kind", ["whole", "sharded", "pth", "wrapped", "old_pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_format_fills_a_network(tmp_path, kind, dtype):
    state = {name: tensor.to(dtype) for name, tensor in network().state_dict().items()}
    path = tmp_path / "w.safetensors"
    if kind == "whole":
        save(state, path)
    elif kind == "sharded":
        save(state, path, parts=3)
        path = tmp_path / "w.safetensors.index.json"
    else:
        path = tmp_path / "w.pth"
        content = {"gen_model": {"state_dict": state}, "step": 7} if kind == "wrapped" else state
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old_pth")
    module = on_meta()
    load_stored(module, open_weights(path))
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name])
        assert tensor.dtype == dtype
    load_stored(module := on_meta(), open_weights(path), dtype=torch.float32)
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}


def test_wrappers_may_be_nested_and_what_is_none_stays():
    inner = {"weight": torch.ones(1)}
    assert unwrapped({"state_dict": {"generator": inner}}) is inner
    assert unwrapped({"gen_model": {"state_dict": inner, "epoch": 3}, "discriminator": {}}) is inner
    assert unwrapped(inner) is inner


@pytest.mark.parametrize("keep", [0, 7, 60, -3])
def test_a_cut_file_is_named_by_its_header(tmp_path, keep):
    for name in ("w.safetensors", "w.pth"):
        path = tmp_path / name
        state = dict(network().state_dict())
        save(state, path) if path.suffix != ".pth" else torch.save(state, path)
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match=name):
            open_weights(path)


def test_a_header_that_lies_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    for entry in (
        {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]},
        {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]},
        {"dtype": "F33", "shape": [4], "data_offsets": [0, 16]},
        {"dtype": "F32", "shape": [4], "data_offsets": [16, 32]},
        ["F32"],
    ):
        header = json.dumps({"a": entry}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
        with pytest.raises(CheckpointError, match="cannot be read"):
            open_weights(path)


def test_a_pth_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("ran",))

    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with pytest.raises(CheckpointError, match="tensors only"):
        open_weights(path)


def test_an_index_and_its_parts_must_agree(tmp_path):
    state = dict(network().state_dict())
    save(state, tmp_path / "w.safetensors", parts=2)
    index, part = tmp_path / "w.safetensors.index.json", tmp_path / "w-00001-of-00002.safetensors"
    save_file({"stranger": torch.zeros(1)}, part)
    with pytest.raises(CheckpointError, match="stranger"):
        open_weights(index)
    save_file({}, part)
    with pytest.raises(CheckpointError, match=r"lack.*0\.weight"):
        open_weights(index)
    part.unlink()
    with pytest.raises(CheckpointError, match=part.name):
        open_weights(index)


def test_no_tensor_is_read_when_names_do_not_fit(tmp_path):
    save({"0.weight": torch.zeros(8, 31)}, tmp_path / "w.safetensors")
    stored = open_weights(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").unlink()  # reading would fail otherwise
    with pytest.raises(CheckpointError) as caught:
        load_stored(on_meta(), stored)
    assert "missing: 0.bias, 1.bias" in str(caught.value)
    assert "0.weight [8, 31] instead of [8, 32]" in str(caught.value)


# ------------------------------------------------------------------ memory

MEASURE = """
import sys, torch
from pathlib import Path
from torch import nn
from worldwire_runtime.model.stored import load_stored, open_weights

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

with torch.device("meta"):
    module = nn.Sequential(*(nn.Linear(1024, 1024, bias=False) for _ in range(40)))
before, peaks = resident("RssAnon"), []
dtype = getattr(torch, sys.argv[2]) if sys.argv[2] != "stored" else None
load_stored(module, open_weights(Path(sys.argv[1])), dtype=dtype,
            progress=lambda *_: peaks.append(resident("RssAnon")))
print(max(peaks) - before)
"""
MB = 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize(
    ("name", "dtype", "copy_mb"),
    [
        ("w.safetensors", "bfloat16", 80),
        ("w.safetensors", "stored", 160),
        ("w.pth", "bfloat16", 80),
        ("w.pth", "stored", 0),
    ],
)
def test_loading_takes_one_copy_and_one_tensor(tmp_path, name, dtype, copy_mb):
    """160 MB of float32 in a file; a mapped `.pth` in its own type takes no memory at all."""
    state = {f"{index}.weight": torch.zeros(1024, 1024) for index in range(40)}
    path = tmp_path / name
    save(state, path) if path.suffix != ".pth" else torch.save(state, path)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), dtype], capture_output=True, text=True, check=True
    )
    taken = int(ran.stdout)
    assert taken < (copy_mb + 24) * MB
    assert taken > (copy_mb - 24) * MB


# ------------------------------------------------------------------ names and sizes of the release


def digest(shapes: dict[str, tuple[int, ...]]) -> dict[str, object]:
    """What the repository keeps of a list of tensors: number, size, a hash of names and shapes."""
    lines = [f"{name} {'x'.join(map(str, shape))}" for name, shape in sorted(shapes.items())]
    return {
        "tensors": len(shapes),
        "parameters": sum(torch.Size(shape).numel() for shape in shapes.values()),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def released_shapes(name: str) -> dict[str, tuple[int, ...]]:
    if name == "umt5-xxl":
        return umt5_shapes(UMT5Config())
    if name.startswith("vae"):
        return vae_shapes(wan22_config(float(name.removeprefix("vae-"))), (*ENCODER_PARTS, *DECODER_PARTS))
    with torch.device("meta"):
        return shapes_of(DiT(WorldConfig.from_file(PRESETS / name / CONFIG_FILE).dit))


@pytest.mark.parametrize("name", SHAPES)
def test_full_size_networks_have_the_released_tensors(name):
    assert digest(released_shapes(name)) == SHAPES[name]


def test_the_released_config_file_gives_the_sizes_of_the_preset(tmp_path):
    """What is published of `base_model/config.json`: it need not state the width of the text."""
    action = {
        "blocks": list(range(15)),
        "enable_keyboard": True,
        "enable_mouse": True,
        "heads_num": 16,
        "hidden_size": 128,
        "img_hidden_size": 3072,
        "keyboard_dim_in": 6,
        "keyboard_hidden_dim": 1024,
        "mouse_dim_in": 2,
        "mouse_hidden_dim": 1024,
        "mouse_qk_dim_list": [8, 28, 28],
        "patch_size": [1, 2, 2],
        "qk_norm": True,
        "qkv_bias": False,
        "rope_dim_list": [8, 28, 28],
        "rope_theta": 256,
        "vae_time_compression_ratio": 4,
        "windows_size": 3,
    }
    values = {
        "_class_name": "WanModel",
        "_diffusers_version": "0.33.0",
        "model_type": "ti2v",
        "dim": 3072,
        "ffn_dim": 14336,
        "freq_dim": 256,
        "in_dim": 48,
        "out_dim": 48,
        "text_len": 512,
        "num_heads": 24,
        "num_layers": 30,
        "eps": 1e-6,
        "sigma_theta": 0.8,
        "use_text_crossattn": True,
        "is_action_model": True,
        "action_config": action,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = read_transformer_config(tmp_path / "diffusion_pytorch_model.safetensors")
    assert config == WorldConfig.from_file(PRESETS / "5b-720p" / CONFIG_FILE).dit


def test_the_sizes_are_those_of_the_released_files():
    assert SHAPES["5b-720p"]["parameters"] * 2 == 12_939_831_168  # base_model, bfloat16
    assert SHAPES["umt5-xxl"]["parameters"] == 5_680_910_336
    assert SHAPES["vae-0.0"]["parameters"] == 704_688_668


@pytest.mark.skipif(LISTS is None, reason="WORLDWIRE_TENSOR_LISTS names no folder of tensor lists")
@pytest.mark.parametrize(
    ("name", "file", "column"),
    [
        ("5b-720p", "matrix_game_3_5b_tensors.txt", 1),
        ("vae-0.0", "matrix_game_3_vae_tensors.txt", 1),
        ("vae-0.5", "matrix_game_3_vae_tensors.txt", 2),
        ("vae-0.75", "matrix_game_3_vae_tensors.txt", 3),
    ],
)
def test_names_and_shapes_are_those_of_the_published_lists(name, file, column):
    rows = [line.split("\t") for line in (Path(LISTS) / file).read_text().splitlines() if line[:1] not in "#"]
    listed = {
        row[0]: tuple(int(size) for size in row[column].split("x")) for row in rows if len(row) > column
    }
    assert released_shapes(name) == listed


# ------------------------------------------------------------------ other words for them


# One name of each kind, for the released depth: 2 residual blocks per stage, 3 in the decoder.
WORDS = (
    ("quant_conv.weight", "conv1.weight"),
    ("post_quant_conv.bias", "conv2.bias"),
    ("encoder.conv_in.weight", "encoder.conv1.weight"),
    ("decoder.mid_block.resnets.1.norm1.gamma", "decoder.middle.2.residual.0.gamma"),
    ("decoder.mid_block.attentions.0.to_qkv.weight", "decoder.middle.1.to_qkv.weight"),
    (
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
        "encoder.downsamples.1.downsamples.0.shortcut.weight",
    ),
    (
        "encoder.down_blocks.2.downsampler.time_conv.weight",
        "encoder.downsamples.2.downsamples.2.time_conv.weight",
    ),
    ("decoder.up_blocks.0.resnets.2.conv2.bias", "decoder.upsamples.0.upsamples.2.residual.6.bias"),
    (
        "decoder.up_blocks.1.upsampler.resample.1.weight",
        "decoder.upsamples.1.upsamples.3.resample.1.weight",
    ),
    ("decoder.norm_out.gamma", "decoder.head.0.gamma"),
    ("decoder.conv_out.weight", "decoder.head.2.weight"),
)


def test_the_words_of_diffusers_are_undone_at_full_size():
    rename = vae_renamer((2, 3))
    for theirs, ours in WORDS:
        assert rename(theirs) == ours
    for name in released_shapes("vae-0.0"):
        assert rename(name) == name


def test_every_name_of_a_vae_comes_back_from_the_words_of_diffusers(tmp_path):
    config = small_config().vae
    state = random_state(VAE(config))
    torch.save(in_diffusers_words(state), tmp_path / "w.pth")
    selection = select_vae(open_weights(tmp_path / "w.pth"), (*ENCODER_PARTS, *DECODER_PARTS), (1, 1))
    assert selection.stored.keys() == state.keys()
    assert selection.set_aside == []


@pytest.mark.parametrize("prefix", ["", "generator.", "model."])
def test_a_network_is_found_beside_its_companions(tmp_path, prefix):
    state = dict(network().state_dict())
    both = {prefix + name: tensor for name, tensor in state.items()}
    both |= {"critic." + name: tensor.clone() for name, tensor in state.items()} | {"step": torch.tensor(3)}
    save(both, tmp_path / "w.safetensors")
    selection = select_network(open_weights(tmp_path / "w.safetensors"), state.keys())
    assert state.keys() <= selection.stored.keys()
    assert {"critic." + name for name in state} <= set(selection.set_aside)


def test_several_networks_without_a_known_name_are_refused(tmp_path):
    state = dict(network().state_dict())
    both = {
        f"{prefix}.{name}": tensor.clone() for prefix in ("left", "right") for name, tensor in state.items()
    }
    save(both, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="left, right"):
        select_network(open_weights(tmp_path / "w.safetensors"), state.keys())
