"""Sizes and switches of the diffusion transformer, read from the official `config.json` keys plus ours.

A size is a configuration, never another class: `tiny`, `5b-720p` and the experts of `28b-moe` differ only
here. Unknown keys, and known keys whose value this implementation does not support, are a `ConfigError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from worldwire.errors import ConfigError

Attention = Literal["joint", "cached", "rolling"]

PATCH = (2, 2)  # rows and columns of latent cells in one token

# Official keys that are no choice of ours: a file may state them, but only with the value that we implement.
DIT_FIXED: dict[str, tuple[Any, ...]] = {
    "_class_name": ("WanModel",),
    "model_type": ("ti2v",),
    "patch_size": ([1, 2, 2],),
    "window_size": ([-1, -1],),
    "qk_norm": (True,),
    "cross_attn_norm": (True,),
    "use_memory": (True,),
    "use_text_crossattn": (True,),
    "is_action_model": (True,),
}
ACTION_FIXED: dict[str, tuple[Any, ...]] = {
    "patch_size": ([1, 2, 2],),
    "qk_norm": (True,),
    "qkv_bias": (False,),
    "enable_mouse": (True,),
    "enable_keyboard": (True,),
}
# Official keys without any influence on the released forward pass.
DIT_IGNORED = frozenset({"_diffusers_version"})
ACTION_IGNORED = frozenset({"local_attn_size"})


@dataclass(frozen=True)
class ActionConfig:
    """Sizes of the action modules (`action_config` of the official file; fact: they sit in `blocks` only)."""

    blocks: tuple[int, ...]
    heads_num: int
    hidden_size: int
    img_hidden_size: int
    keyboard_dim_in: int
    keyboard_hidden_dim: int
    mouse_dim_in: int
    mouse_hidden_dim: int
    rope_dim_list: tuple[int, int, int]
    mouse_qk_dim_list: tuple[int, int, int]
    rope_theta: float = 256.0
    windows_size: int = 3
    vae_time_compression_ratio: int = 4
    # Ours. The released forward never multiplies by its four query/key norm weights, which are stored.
    apply_qk_norm_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("blocks", "rope_dim_list", "mouse_qk_dim_list"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_positive(
            self,
            ("heads_num", "hidden_size", "img_hidden_size", "keyboard_dim_in", "keyboard_hidden_dim"),
            ("mouse_dim_in", "mouse_hidden_dim", "windows_size", "vae_time_compression_ratio"),
        )
        for width, dims in (
            ("keyboard_hidden_dim", self.rope_dim_list),
            ("mouse_hidden_dim", self.mouse_qk_dim_list),
        ):
            _check_heads(width, getattr(self, width), self.heads_num)
            head_dim = getattr(self, width) // self.heads_num
            if sum(dims) != head_dim or dims[0] % 2:
                raise ConfigError(
                    f"the rotary dimensions of {width} do not fill a head",
                    expected=f"three numbers that add up to {head_dim}, the first one even",
                    got=str(list(dims)),
                )

    @property
    def window(self) -> int:
        """Frames of actions that one latent sees."""
        return self.windows_size * self.vae_time_compression_ratio

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**_accepted(cls, values, ACTION_FIXED, ACTION_IGNORED, "action_config"))


@dataclass(frozen=True)
class DiTConfig:
    """Sizes of the transformer (official names), and the switches that are ours."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_dim: int
    out_dim: int
    text_dim: int
    text_len: int
    sigma_theta: float
    freq_dim: int = 256
    eps: float = 1e-6
    action_config: ActionConfig | None = None
    # Ours. `joint`: every token attends to every token. `cached`: memory and past only to themselves, encoded
    # once per clip. `rolling`: their keys and values go on from clip to clip (`worldwire_runtime.rolling`).
    attention: Attention = "joint"
    # Ours. Camera rays per side of a latent cell; the released model has one for each of its 16x16 pixels.
    rays_per_cell: int = 16

    def __post_init__(self) -> None:
        _check_positive(
            self,
            ("dim", "ffn_dim", "num_heads", "num_layers", "in_dim", "out_dim", "text_dim", "text_len"),
            ("freq_dim", "rays_per_cell"),
        )
        _check_heads("dim", self.dim, self.num_heads)
        if self.freq_dim % 2:
            raise ConfigError("freq_dim must be even", expected="an even number", got=str(self.freq_dim))
        if not 0 <= self.sigma_theta < 1:
            raise ConfigError(
                "sigma_theta is out of range", expected="0 <= value < 1", got=str(self.sigma_theta)
            )
        if self.attention not in get_args(Attention):
            raise ConfigError(
                "unknown attention mode", expected=" or ".join(get_args(Attention)), got=repr(self.attention)
            )
        if self.action_config is not None:
            self._check_action(self.action_config)

    def _check_action(self, action: ActionConfig) -> None:
        if action.img_hidden_size != self.dim:
            raise ConfigError(
                "action_config.img_hidden_size must equal dim",
                expected=str(self.dim),
                got=str(action.img_hidden_size),
            )
        if any(not 0 <= index < self.num_layers for index in action.blocks):
            raise ConfigError(
                "action_config.blocks names a block that does not exist",
                expected=f"0 to {self.num_layers - 1}",
                got=str(list(action.blocks)),
            )

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads

    @property
    def plucker_channels(self) -> int:
        """Camera features of one latent cell: six numbers for each of its rays."""
        return 6 * self.rays_per_cell**2

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Reads the keys of the official `config.json` and ours; anything else is a `ConfigError`."""
        accepted = _accepted(cls, values, DIT_FIXED, DIT_IGNORED, "the transformer's config")
        action = accepted.pop("action_config", None)
        return cls(**accepted, action_config=ActionConfig.from_dict(action) if action else None)

    def to_dict(self) -> dict[str, Any]:
        """The mapping that `from_dict` reads back, ready for JSON."""
        return asdict(self)


def _accepted(
    cls: type,
    values: Mapping[str, Any],
    fixed: Mapping[str, tuple[Any, ...]],
    ignored: frozenset[str],
    what: str,
) -> dict[str, Any]:
    """The constructor arguments among `values`, after every key has been accounted for."""
    ours = {item.name: item for item in fields(cls) if item.init}
    required = {
        name for name, item in ours.items() if item.default is MISSING and item.default_factory is MISSING
    }
    _refuse("has unknown keys", what, values.keys() - ours.keys() - fixed.keys() - ignored, sorted(ours))
    _refuse("lacks keys", what, required - values.keys(), sorted(required))
    for name in fixed.keys() & values.keys():
        stated = list(values[name]) if isinstance(values[name], tuple) else values[name]
        if stated not in fixed[name]:
            raise ConfigError(
                f"{what} asks for an unsupported {name}",
                expected=" or ".join(repr(value) for value in fixed[name]),
                got=repr(stated),
            )
    return {name: values[name] for name in ours.keys() & values.keys()}


def _refuse(problem: str, what: str, names: set[str], known: list[str]) -> None:
    if names:
        raise ConfigError(f"{what} {problem}", expected=", ".join(known), got=", ".join(sorted(names)))


def _check_positive(config: object, *groups: tuple[str, ...]) -> None:
    for name in (name for group in groups for name in group):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} is no size", expected="a whole number above 0", got=repr(value))


def _check_heads(name: str, width: int, heads: int) -> None:
    if width % heads or (width // heads) % 2:
        raise ConfigError(
            f"{name} does not split into heads",
            expected=f"a multiple of {2 * heads} (heads of even width)",
            got=str(width),
        )
