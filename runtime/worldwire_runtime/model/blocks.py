"""The transformer block: self-attention, camera, text cross-attention, actions, feed-forward.

Shapes: B batch, F latents, N tokens of one latent, d width, H heads, D head width. Hidden states are
[B, F, N, d] and keep the data type of the latents that `DiT` was given (float32 for the released model);
matrix products run in the type of the prepared clip. Norms and modulation are float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire_runtime.model.action import ActionCache, ActionClip, ActionModule, ActionWindows, HeldActions
from worldwire_runtime.model.attention import (
    ALL_TOKENS,
    Context,
    Counted,
    Held,
    KeyValue,
    RMSNorm,
    Rows,
    attend,
    attend_counted,
    attend_in_turn,
    layer_norm,
)
from worldwire_runtime.model.config import DiTConfig
from worldwire_runtime.model.rope import Rotary, TrunkRotary, rotate

MODULATIONS = 6  # shift, scale and gate of the attention; shift, scale and gate of the feed-forward


class BlockClip(NamedTuple):
    """What a block needs to know about a clip, the same for every denoising step."""

    camera_scale: Tensor  # [B, F, N, d]
    camera_shift: Tensor  # [B, F, N, d]
    text: KeyValue | Counted
    action: ActionClip | None

    def part(self, start: int, stop: int) -> BlockClip:
        """The latents start ... stop - 1."""
        scale, shift = self.camera_scale[:, start:stop], self.camera_shift[:, start:stop]
        action = self.action.part(start, stop) if self.action else None
        return BlockClip(scale, shift, self.text, action)


class BlockCache(NamedTuple):
    """Keys and values that context tokens offer to the new tokens in one block."""

    attention: KeyValue
    action: ActionCache | None

    def apart(self) -> BlockCache:
        """The same without the tensor of queries, keys and values that it may be a part of, to be kept."""
        key, value = self.attention
        dense = value.transpose(1, 2).is_contiguous()  # as one layer for values alone leaves them
        return self if dense else self._replace(attention=KeyValue(key, value.contiguous()))


class HeldBlock(NamedTuple):
    """Room for what latents offer to later ones in one block, at places of their own."""

    attention: Held
    action: HeldActions | None


class Attention(nn.Module):
    """Projections and query/key norms (over the full width, before the heads) of one attention layer."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.num_heads
        self.q = nn.Linear(config.dim, config.dim)
        self.k = nn.Linear(config.dim, config.dim)
        self.v = nn.Linear(config.dim, config.dim)
        self.o = nn.Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)
        self.attend = attend  # other arithmetic is put here from outside

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def _merge(self, attended: Tensor, latents: int) -> Tensor:
        """[B, H, F * N, D] through the output projection to [B, F, N, d]."""
        return self.o(attended.transpose(1, 2).flatten(-2).unflatten(1, (latents, -1)))


class SelfAttention(Attention):
    """Attention among the tokens of all latents, turned by their places in time, row and column."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        self.joined: nn.Module | None = None  # q, k and v as one layer are put here from outside
        self.turn = turn  # as is other arithmetic

    def hold(self, places: int, tokens: int, like: Tensor) -> Held:
        """Room for the keys and values of so many latents of `tokens` tokens."""
        shape = (like.shape[0], places, tokens, self.heads, len(self.norm_k.weight) // self.heads)
        return Held(like.new_zeros(shape), like.new_zeros(shape))

    def keys(self, y: Tensor, rotary: TrunkRotary) -> KeyValue:
        """Keys and values [B, H, F * N, D] of tokens [B, F, N, d]."""
        key, value = self.k(y), self.v(y)
        key = turned(key, self.norm_k, rotary.joined(), value.dtype)
        return KeyValue(*map(ALL_TOKENS.split, (key, self._heads(value))))

    def forward(
        self, y: Tensor, rotary: TrunkRotary, context: int, past: KeyValue | None, alone: bool = False
    ) -> tuple[Tensor, KeyValue]:
        """Output [B, F, N, d], and the keys and values of these tokens (without those of `past`)."""
        own, offered = self._turned(y, rotary)
        query, keys = ALL_TOKENS.split(own), KeyValue(*map(ALL_TOKENS.split, offered))
        if alone:
            each = (y.shape[1], -1)  # every latent is a sequence of its own
            latents = KeyValue(*(part.unflatten(2, each) for part in keys))
            return self._merge(attend(query.unflatten(2, each), latents).flatten(2, 3), y.shape[1]), keys
        seen = context * y.shape[2]
        attended = self.attend(query, keys.after(past), Context(seen, seen))
        return self._merge(attended, y.shape[1]), keys

    def roll(self, y: Tensor, rotary: TrunkRotary, held: Held, rows: tuple[Rows, ...]) -> Tensor:
        """Output [B, F, N, d]; the keys and values of these tokens are `held` from now on."""
        query, keys = self._turned(y, rotary)
        return self.o(attend_in_turn(query, keys, held, rows, ALL_TOKENS, self.attend).flatten(-2))

    def _turned(self, y: Tensor, rotary: TrunkRotary) -> tuple[Tensor, KeyValue]:
        """Queries, keys and values [B, F, N, H, D] of tokens [B, F, N, d]."""
        if self.joined is None:
            query, key, value = self.q(y), self.k(y), self.v(y)
        else:
            query, key, value = self.joined(y).chunk(3, dim=-1)
        query, key = self.turn(query, key, (self.norm_q, self.norm_k), rotary, value.dtype)
        return query, KeyValue(key, self._heads(value))


def turn(
    query: Tensor, key: Tensor, norms: tuple[RMSNorm, RMSNorm], rotary: TrunkRotary, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Queries and keys [B, F, N, d] as [B, F, N, H, D]: normalised, turned, in `dtype`."""
    tables = rotary.joined()
    return turned(query, norms[0], tables, dtype), turned(key, norms[1], tables, dtype)


def turned(x: Tensor, norm: RMSNorm, rotary: Rotary, dtype: torch.dtype) -> Tensor:
    """One of them."""
    return rotate(norm(x).unflatten(-1, (-1, rotary.cos.shape[-1])), rotary).to(dtype)


class CrossAttention(Attention):
    """Attention of the tokens to the text: no positions, no mask."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__(config)
        self.attend_counted = attend_counted  # other arithmetic is put here from outside

    def keys(self, text: Tensor) -> KeyValue:
        """Keys and values of the embedded text [B, T, d]."""
        value = self._heads(self.v(text))
        key = self._heads(self.norm_k(self.k(text))).to(value.dtype)
        return KeyValue(key.transpose(1, 2), value.transpose(1, 2))

    def forward(self, x: Tensor, text: KeyValue | Counted) -> Tensor:
        query = self._heads(self.norm_q(self.q(x))).to(text.value.dtype).flatten(1, 2).transpose(1, 2)
        if isinstance(text, Counted):
            return self._merge(self.attend_counted(query, text), x.shape[1])
        return self._merge(attend(query, text), x.shape[1])


class Block(nn.Module):
    """One transformer block with the official tensor names; an action module only where `has_action`."""

    def __init__(self, config: DiTConfig, has_action: bool) -> None:
        super().__init__()
        dim = config.dim
        self.eps = config.eps
        self.modulate = modulate  # other arithmetic is put here from outside
        self.modulation = nn.Parameter(torch.randn(1, MODULATIONS, dim) / dim**0.5)
        self.self_attn = SelfAttention(config)
        self.action_model = (
            ActionModule(config.action_config) if has_action and config.action_config else None
        )
        self.norm3 = nn.LayerNorm(dim, eps=config.eps)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(
            nn.Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), nn.Linear(config.ffn_dim, dim)
        )
        self.cam_injector_layer1 = nn.Linear(dim, dim)
        self.cam_injector_layer2 = nn.Linear(dim, dim)
        self.cam_scale_layer = nn.Linear(dim, dim)
        self.cam_shift_layer = nn.Linear(dim, dim)

    def prepare(self, camera: Tensor, text: KeyValue | Counted, windows: ActionWindows | None) -> BlockClip:
        """The step-invariant part, from embedded rays [B, F, N, d], the text's keys and actions."""
        hidden = F.silu(self.cam_injector_layer1(camera))
        camera = camera + self.cam_injector_layer2(hidden)
        return BlockClip(
            camera_scale=self.cam_scale_layer(camera),
            camera_shift=self.cam_shift_layer(camera),
            text=text,
            action=self.action_model.prepare(windows) if self.action_model and windows else None,
        )

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        clip: BlockClip,
        rotary: TrunkRotary,
        *,
        context: int = 0,
        past: BlockCache | None = None,
        alone: bool = False,
    ) -> tuple[Tensor, BlockCache]:
        """Hidden states after this block, and what these tokens offer to later ones.

        `time` [B, F, 1 or N, 6, d]. The first `context` latents attend only among themselves; the tokens
        behind `past` are attended to but not computed. With `alone` each latent sees only itself.
        """
        shift, scale, gate, *ffn = (self.modulation + time).unbind(-2)
        y = self.modulate(x, shift, scale, self.eps, clip.camera_scale.dtype)
        y, keys = self.self_attn(y, rotary, context, past.attention if past else None, alone)
        x = self._listen(gated_add(x, y, gate), clip)
        action = None
        if self.action_model is not None and clip.action is not None:
            offered = past.action if past else None
            x, action = self.action_model(x, clip.action, context, offered, alone=alone)
        return self._think(x, clip, *ffn), BlockCache(keys, action)

    def roll(
        self,
        x: Tensor,
        time: Tensor,
        clip: BlockClip,
        rotary: TrunkRotary,
        held: HeldBlock,
        rows: tuple[Rows, ...],
    ) -> Tensor:
        """Hidden states after this block; what these latents offer is `held` from now on, see `Rows`."""
        shift, scale, gate, *ffn = (self.modulation + time).unbind(-2)
        y = self.modulate(x, shift, scale, self.eps, clip.camera_scale.dtype)
        y = self.self_attn.roll(y, rotary, held.attention, rows)
        x = self._listen(gated_add(x, y, gate), clip)
        if self.action_model is not None and clip.action is not None and held.action is not None:
            x = self.action_model.roll(x, clip.action, held.action, rows)
        return self._think(x, clip, *ffn)

    def hold(self, places: int, tokens: int, like: Tensor) -> HeldBlock:
        """Room for so many latents of `tokens` tokens, in the type and on the device of `like` [B, ...]."""
        action = self.action_model.hold(places, tokens, like) if self.action_model is not None else None
        return HeldBlock(self.self_attn.hold(places, tokens, like), action)

    def _listen(self, x: Tensor, clip: BlockClip) -> Tensor:
        """What cameras and text say."""
        x = see_camera(x, clip.camera_scale, clip.camera_shift, self.norm3)
        return x + self.cross_attn(x.to(clip.camera_scale.dtype), clip.text)

    def _think(self, x: Tensor, clip: BlockClip, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """The feed-forward layers."""
        y = self.ffn(self.modulate(x, shift, scale, self.eps, clip.camera_scale.dtype))
        return gated_add(x, y, gate)

    def context_keys(
        self,
        x: Tensor,
        time: Tensor,
        clip: BlockClip,
        rotary: TrunkRotary,
        past: BlockCache | None = None,
        alone: bool = False,
    ) -> BlockCache:
        """Only what these tokens offer: enough for the last block, whose output nobody reads."""
        if self.action_model is not None:
            return self(x, time, clip, rotary, past=past, alone=alone)[1]
        shift, scale = (self.modulation + time).unbind(-2)[:2]
        y = self.modulate(x, shift, scale, self.eps, clip.camera_scale.dtype)
        return BlockCache(self.self_attn.keys(y, rotary), None)


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Layer norm, then a shift and scale [B, F, 1 or N, d] that depend on the noise level (float32)."""
    return (layer_norm(x, eps) * (1 + scale) + shift).to(dtype)


def see_camera(x: Tensor, scale: Tensor, shift: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The camera's scale and shift [B, F, N, d], then the affine norm of the residual stream itself.

    The released model normalises the stream here, not only the branch (Wan2.2 differs).
    """
    x = (x + x * scale + shift).to(x.dtype)
    return (layer_norm(x, norm.eps) * norm.weight + norm.bias).to(x.dtype)


def gated_add(x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
    return (x + branch * gate).to(x.dtype)
