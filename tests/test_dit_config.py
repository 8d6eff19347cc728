"""Configurations of the transformer, and the released network's tensors."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from worldwire.errors import ConfigError
from worldwire_runtime.model.config import DiTConfig
from worldwire_runtime.model.dit import DiT

# What three independent readers of the released `config.json` agree on (fact sheet, section 0).
RELEASED_5B = {
    "model_type": "ti2v",
    "dim": 3072,
    "ffn_dim": 14336,
    "num_heads": 24,
    "num_layers": 30,
    "in_dim": 48,
    "out_dim": 48,
    "freq_dim": 256,
    "text_dim": 4096,
    "text_len": 512,
    "eps": 1e-6,
    "sigma_theta": 0.8,
    "use_text_crossattn": True,
    "is_action_model": True,
    "action_config": {
        "blocks": list(range(15)),
        "heads_num": 16,
        "hidden_size": 128,
        "img_hidden_size": 3072,
        "keyboard_dim_in": 6,
        "keyboard_hidden_dim": 1024,
        "mouse_dim_in": 2,
        "mouse_hidden_dim": 1024,
        "windows_size": 3,
        "vae_time_compression_ratio": 4,
        "rope_dim_list": [8, 28, 28],
        "mouse_qk_dim_list": [8, 28, 28],
        "rope_theta": 256,
        "qk_norm": True,
        "qkv_bias": False,
        "enable_mouse": True,
        "enable_keyboard": True,
        "patch_size": [1, 2, 2],
    },
}
TENSORS = Path(__file__).parent / "data" / "released_5b_tensors.txt"


def released_tensors() -> dict[str, list[int]]:
    """Name -> shape, from lines `NAME SHAPE`, where NAME may hold `{first..last}`."""
    expected = {}
    for line in TENSORS.read_text().splitlines():
        if line.startswith("#"):
            continue
        name, shape = line.split()
        sizes = [int(size) for size in shape.split("x")]
        if "{" not in name:
            expected[name] = sizes
            continue
        before, rest = name.split("{")
        span, after = rest.split("}")
        first, last = map(int, span.split(".."))
        expected |= {f"{before}{index}{after}": sizes for index in range(first, last + 1)}
    return expected


def test_released_5b_has_exactly_the_published_tensors():
    with torch.device("meta"):
        model = DiT(DiTConfig.from_dict(RELEASED_5B))
    ours = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    expected = released_tensors()
    assert len(expected) == 1356
    assert ours == expected
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_469_915_584


def test_a_config_survives_json():
    config = dataclasses.replace(DiTConfig.from_dict(RELEASED_5B), attention="cached", rays_per_cell=1)
    assert DiTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.plucker_channels == 6


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dimm": 3}, "unknown keys.*dimm"),
        ({"num_heads": 23}, "does not split into heads"),
        ({"num_layers": 14}, "names a block that does not exist"),
        ({"num_layers": 0}, "num_layers is no size"),
        ({"model_type": "t2v"}, "unsupported model_type"),
        ({"qk_norm": False}, "unsupported qk_norm"),
        ({"patch_size": [1, 4, 4]}, "unsupported patch_size"),
        ({"attention": "causal"}, "unknown attention mode"),
        ({"sigma_theta": 1.0}, "sigma_theta is out of range"),
        ({"dim": 1536}, "img_hidden_size must equal dim"),
        ({"rays_per_cell": 0}, "rays_per_cell is no size"),
    ],
)
def test_wrong_values_are_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        DiTConfig.from_dict(RELEASED_5B | changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"heds": 3}, "unknown keys.*heds"),
        ({"qkv_bias": True}, "unsupported qkv_bias"),
        ({"rope_dim_list": [8, 28, 27]}, "do not fill a head"),
        ({"heads_num": 7}, "does not split into heads"),
    ],
)
def test_wrong_action_values_are_refused(changes, complaint):
    with pytest.raises(ConfigError, match=complaint):
        DiTConfig.from_dict(RELEASED_5B | {"action_config": RELEASED_5B["action_config"] | changes})


def test_missing_keys_are_named():
    given = {name: value for name, value in RELEASED_5B.items() if name != "ffn_dim"}
    with pytest.raises(ConfigError, match=r"lacks keys.*ffn_dim"):
        DiTConfig.from_dict(given)
