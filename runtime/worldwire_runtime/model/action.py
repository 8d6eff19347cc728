"""The action module: mouse motion and held keys steer the hidden states (fact: after the text attention).

The mouse joins each token and mixes with the same spatial position of the other latents; the keys are one
key/value pair per latent that every token queries. Only the leading part of a head turns with (local) time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire_runtime.model.attention import (
    ALL_TOKENS,
    EACH_COLUMN,
    Context,
    Held,
    KeyValue,
    RMSNorm,
    Rows,
    attend,
    attend_in_turn,
    linear_of,
)
from worldwire_runtime.model.config import ActionConfig
from worldwire_runtime.model.rope import Rotary, action_rotary, rotate

HEAD_NORM_EPS = 1e-6
MOUSE_NORM_EPS = 1e-5
# What latents without known actions see: memory, dropped keys, and the null branch of guidance.
NULL_MOUSE = 1.0
NULL_KEYBOARD = -1.0


class ActionWindows(NamedTuple):
    """Per-frame actions that each latent sees, and the angles of its place in time."""

    mouse: Tensor  # [B, F, window, mouse_dim_in]
    keyboard: Tensor  # [B, F, window, keyboard_dim_in]
    mouse_rotary: Rotary  # [F, 1, head width]
    keyboard_rotary: Rotary


class ActionCache(NamedTuple):
    """What latents offer to later ones in one action module."""

    mouse: KeyValue  # [B * N, heads, F, head width]
    keyboard: KeyValue  # [B, heads, F, head width]


class HeldActions(NamedTuple):
    """Room for what latents offer to later ones in one action module, at places of their own."""

    mouse: Held
    keyboard: Held


class ActionClip(NamedTuple):
    """The step-invariant part of one action module for one clip."""

    mouse_hidden: Tensor  # [B, F, 1, mouse_hidden_dim]: what the window adds to the first mouse layer
    keyboard: KeyValue  # [B, heads, F, head width], already rotated
    mouse_rotary: Rotary
    keyboard_rotary: Rotary

    def part(self, start: int, stop: int) -> ActionClip:
        """The latents start ... stop - 1."""
        keyboard = KeyValue(*(part[:, :, start:stop] for part in self.keyboard))
        mouse_rotary, keyboard_rotary = (
            Rotary(*(table[start:stop] for table in rotary))
            for rotary in (self.mouse_rotary, self.keyboard_rotary)
        )
        return ActionClip(self.mouse_hidden[:, start:stop], keyboard, mouse_rotary, keyboard_rotary)


def build_windows(
    keyboard: Tensor, mouse: Tensor, memory: int, config: ActionConfig, times: Tensor | None = None
) -> ActionWindows:
    """Cuts padded per-frame actions [B, ratio * (W + windows_size - 1), .] into one window per latent.

    Window latent i takes entries ratio * i ... ratio * i + window - 1; the `memory` latents in front
    see null. times: the place of each latent in time [memory + W]; by default memory and window each count
    from 0.
    """
    windows = [_cut(actions, config) for actions in (mouse, keyboard)]
    mouse, keyboard = (
        torch.cat((part.new_full((part.shape[0], memory, *part.shape[2:]), null), part), dim=1)
        for part, null in zip(windows, (NULL_MOUSE, NULL_KEYBOARD), strict=True)
    )
    if times is None:
        here = torch.arange(keyboard.shape[1], device=keyboard.device)
        times = torch.where(here < memory, here, here - memory)
    tables = (
        action_rotary(times, dims[0], sum(dims), config.rope_theta)
        for dims in (config.mouse_qk_dim_list, config.rope_dim_list)
    )
    return ActionWindows(mouse, keyboard, *tables)


def _cut(actions: Tensor, config: ActionConfig) -> Tensor:
    """[B, frames, A] to windows [B, W, window, A]."""
    if actions.shape[1] < config.window:
        return actions.new_empty(actions.shape[0], 0, config.window, actions.shape[2])
    return actions.unfold(1, config.window, config.vae_time_compression_ratio).transpose(2, 3)


def released_padding(actions: Tensor, config: ActionConfig) -> Tensor:
    """The released model's padding of the actions [B, frames, .] of a window of latents.

    It repeats the first action: a full window of times where a clip starts with the image
    (frames = 1 + 4n), one latent's frames less in later clips (frames = 4n).
    """
    ratio = config.vae_time_compression_ratio
    frames = actions.shape[1]
    latents = -(-frames // ratio)
    copies = config.window if frames % ratio else config.window - ratio
    padded = torch.cat((actions[:, :1].expand(-1, copies, -1), actions), dim=1)
    return padded[:, : ratio * (latents + config.windows_size - 1)]


class ActionModule(nn.Module):
    """Adds mouse and keyboard to hidden states [B, F, N, d]; tensor names are the official ones."""

    def __init__(self, config: ActionConfig) -> None:
        super().__init__()
        self.config = config
        width, mouse, keyboard = config.img_hidden_size, config.mouse_hidden_dim, config.keyboard_hidden_dim
        self.keyboard_embed = nn.Sequential(
            nn.Linear(config.keyboard_dim_in, config.hidden_size),
            nn.SiLU(),
            nn.Linear(config.hidden_size, config.hidden_size),
        )
        self.mouse_mlp = nn.Sequential(
            nn.Linear(width + config.window * config.mouse_dim_in, mouse),
            nn.GELU(approximate="tanh"),
            nn.Linear(mouse, mouse),
            nn.LayerNorm(mouse, eps=MOUSE_NORM_EPS),
        )
        self.t_qkv = nn.Linear(mouse, 3 * mouse, bias=False)
        self.img_attn_q_norm = self._head_norm(mouse)
        self.img_attn_k_norm = self._head_norm(mouse)
        self.proj_mouse = nn.Linear(mouse, width, bias=False)
        self.key_attn_q_norm = self._head_norm(keyboard)
        self.key_attn_k_norm = self._head_norm(keyboard)
        self.mouse_attn_q = nn.Linear(width, keyboard, bias=False)
        self.keyboard_attn_kv = nn.Linear(config.window * config.hidden_size, 2 * keyboard, bias=False)
        self.attend = attend  # of the mouse; other arithmetic is put here from outside
        self.proj_keyboard = nn.Linear(keyboard, width, bias=False)

    def _head_norm(self, width: int) -> RMSNorm:
        return RMSNorm(width // self.config.heads_num, HEAD_NORM_EPS, self.config.apply_qk_norm_weights)

    def prepare(self, windows: ActionWindows) -> ActionClip:
        """What the actions of a clip contribute, whatever the latents are."""
        first, width = linear_of(self.mouse_mlp, 0), self.config.img_hidden_size
        flat = windows.mouse.flatten(2).to(first.weight.dtype)
        mouse_hidden = F.linear(flat, first.weight[:, width:], first.bias)[:, :, None]
        keys = self.keyboard_embed(windows.keyboard.to(first.weight.dtype)).flatten(2)
        key, value = self._split(self.keyboard_attn_kv(keys), 2)
        key = rotate(self.key_attn_k_norm(key), windows.keyboard_rotary).to(value.dtype)
        keyboard = KeyValue(key.transpose(1, 2), value.transpose(1, 2))
        return ActionClip(mouse_hidden, keyboard, windows.mouse_rotary, windows.keyboard_rotary)

    def forward(
        self,
        x: Tensor,
        clip: ActionClip,
        context: int = 0,
        past: ActionCache | None = None,
        *,
        alone: bool = False,
    ) -> tuple[Tensor, ActionCache]:
        """The steered hidden states, and what these latents offer to later ones.

        The first `context` latents attend only among themselves; `past` is what earlier latents offer. With
        `alone` each latent sees only itself.
        """
        mixed, mouse = self._mouse(x, clip, context, past.mouse if past else None, alone)
        x = x + mixed
        x = x + self._keyboard(x, clip, context, past.keyboard if past else None, alone)
        return x, ActionCache(mouse, clip.keyboard)

    def roll(self, x: Tensor, clip: ActionClip, held: HeldActions, rows: tuple[Rows, ...]) -> Tensor:
        """The steered hidden states; what these latents offer is `held` from now on."""
        query, mouse = self._mouse_latents(x, clip)
        mixed = attend_in_turn(query, mouse, held.mouse, rows, EACH_COLUMN, self.attend)
        x = x + self.proj_mouse(mixed.flatten(-2))
        keyboard = KeyValue(*(part.transpose(1, 2).unsqueeze(2) for part in clip.keyboard))
        mixed = attend_in_turn(self._keyboard_query(x, clip), keyboard, held.keyboard, rows, ALL_TOKENS)
        return x + self.proj_keyboard(mixed.flatten(-2))

    def hold(self, places: int, tokens: int, like: Tensor) -> HeldActions:
        """Room for so many latents of `tokens` tokens."""
        heads = self.config.heads_num

        def room(tokens: int, width: int) -> Held:
            shape = (like.shape[0], places, tokens, heads, width // heads)
            return Held(like.new_zeros(shape), like.new_zeros(shape))

        return HeldActions(
            room(tokens, self.config.mouse_hidden_dim), room(1, self.config.keyboard_hidden_dim)
        )

    def _mouse(
        self, x: Tensor, clip: ActionClip, context: int, past: KeyValue | None, alone: bool
    ) -> tuple[Tensor, KeyValue]:
        latents, offered = self._mouse_latents(x, clip)
        query, keys = EACH_COLUMN.split(latents), KeyValue(*map(EACH_COLUMN.split, offered))
        # a latent alone has one key at each position: attention is its value
        mixed = keys.value if alone else self.attend(query, keys.after(past), Context(context, context))
        return self.proj_mouse(EACH_COLUMN.join(mixed, latents.shape).flatten(-2)), keys

    def _mouse_latents(self, x: Tensor, clip: ActionClip) -> tuple[Tensor, KeyValue]:
        """Queries, keys and values [B, F, N, heads, head width]."""
        token_weight = linear_of(self.mouse_mlp, 0).weight[:, : x.shape[-1]]
        hidden = F.linear(x.to(clip.mouse_hidden.dtype), token_weight) + clip.mouse_hidden
        hidden = self.mouse_mlp[1:](hidden)
        query, key, value = self._split(self.t_qkv(hidden), 3)
        rotary = Rotary(*(table[:, None] for table in clip.mouse_rotary))
        query = rotate(self.img_attn_q_norm(query), rotary).to(value.dtype)
        key = rotate(self.img_attn_k_norm(key), rotary).to(value.dtype)
        return query, KeyValue(key, value)

    def _keyboard(
        self, x: Tensor, clip: ActionClip, context: int, past: KeyValue | None, alone: bool
    ) -> Tensor:
        latents, tokens = x.shape[1:3]
        if alone:
            own = clip.keyboard.value.transpose(1, 2).flatten(-2)
            return self.proj_keyboard(own)[:, :, None].expand(-1, -1, tokens, -1)
        query = ALL_TOKENS.split(self._keyboard_query(x, clip))
        mixed = attend(query, clip.keyboard.after(past), Context(context * tokens, context))
        return self.proj_keyboard(mixed.transpose(1, 2).flatten(-2).unflatten(1, (latents, tokens)))

    def _keyboard_query(self, x: Tensor, clip: ActionClip) -> Tensor:
        """[B, F, N, heads, head width]."""
        (query,) = self._split(self.mouse_attn_q(x.to(clip.mouse_hidden.dtype)), 1)
        rotary = Rotary(*(table[:, None] for table in clip.keyboard_rotary))
        return rotate(self.key_attn_q_norm(query), rotary).to(clip.keyboard.value.dtype)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[..., parts * heads * head width] into `parts` tensors [..., heads, head width]."""
        return x.unflatten(-1, (parts, self.config.heads_num, -1)).unbind(-3)
