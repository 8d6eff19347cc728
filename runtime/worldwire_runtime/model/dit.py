"""The diffusion transformer: noisy latents, poses, actions and text in; velocities out.

`DiT.prepare` does once per clip what no denoising step changes; then either `forward` (every latent, in
training and in `joint` attention) or `encode_context` once and `denoise` in each step (`cached` attention).
`rolling` attention keeps what `encode_alone` (memory) and `extend` (past) gave from clip to clip. The
prediction is v = noise - data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldwire.errors import ConfigError, StateError
from worldwire_runtime.model.action import ActionCache, build_windows
from worldwire_runtime.model.attention import Counted, KeyValue, Rows, layer_norm, linear_of
from worldwire_runtime.model.blocks import MODULATIONS, Block, BlockCache, BlockClip, HeldBlock
from worldwire_runtime.model.config import PATCH, DiTConfig
from worldwire_runtime.model.rope import TrunkRotary, trunk_rotary

TIME_PERIOD = 10000.0


class TextKeys(NamedTuple):
    """What a prompt offers to every block's text attention, whatever the clip is."""

    blocks: tuple[KeyValue | Counted, ...]  # [B, heads, T, head width]


@dataclass(frozen=True)
class ClipConditions:
    """What the model is told about one clip: M memory latents, then W window latents, of h x w cells.

    Per-frame actions are padded in front: window latent i takes entries 4i ... 4i + 11.
    """

    text: (
        Tensor | TextKeys
    )  # [B, T, text_dim], already padded, padding zero; or what `encode_text` made of it
    plucker: Tensor  # [B, M + W, 6 * rays_per_cell ** 2, h, w], memory first
    keyboard: Tensor  # [B, 4 * (W + 2), 6]
    mouse: Tensor  # [B, 4 * (W + 2), 2]
    memory_times: Tensor  # [M] or [B, M] rotary times of the memory latents
    window_times: Tensor  # [W] or [B, W]
    pose_known: Tensor | None = None  # [B] bool; False zeroes that sample's camera features (None: all known)
    action_times: Tensor | None = None  # [M + W] places in the action modules (None: both count from 0)


class PreparedClip(NamedTuple):
    """The step-invariant part of a clip."""

    blocks: tuple[BlockClip, ...]
    rotary: TrunkRotary

    @property
    def latents(self) -> int:
        return self.rotary.latents

    def part(self, start: int, stop: int) -> PreparedClip:
        """The latents start ... stop - 1."""
        return PreparedClip(
            tuple(block.part(start, stop) for block in self.blocks),
            self.rotary.part(start, stop),
        )


class ContextCache(NamedTuple):
    """Keys and values of the context latents in every block."""

    blocks: tuple[BlockCache, ...]
    latents: int

    def part(self, start: int, stop: int) -> ContextCache:
        """What the latents start ... stop - 1 of these offer."""

        def cut(keys: KeyValue) -> KeyValue:
            each = keys.key.shape[2] // self.latents
            return KeyValue(*(part[:, :, start * each : stop * each] for part in keys))

        blocks = tuple(
            BlockCache(cut(block.attention), block.action and ActionCache(*map(cut, block.action)))
            for block in self.blocks
        )
        return ContextCache(blocks, stop - start)

    @classmethod
    def join(cls, caches: Sequence[ContextCache]) -> ContextCache:
        """What all of these latents offer, in this order."""

        def joined(parts: Sequence[KeyValue]) -> KeyValue:
            return KeyValue(*(torch.cat(same, dim=2) for same in zip(*parts, strict=True)))

        blocks = []
        for same in zip(*(cache.blocks for cache in caches), strict=True):
            actions = [block.action for block in same if block.action is not None]
            action = ActionCache(*map(joined, zip(*actions, strict=True))) if actions else None
            blocks.append(BlockCache(joined([block.attention for block in same]), action))
        return cls(tuple(blocks), sum(cache.latents for cache in caches))


class HeldContext(NamedTuple):
    """Room for the keys and values of latents in every block, each latent at a place of its own."""

    blocks: tuple[HeldBlock, ...]

    @property
    def places(self) -> int:
        return self.blocks[0].attention.key.shape[1]


class TimeSignal(NamedTuple):
    """Noise levels as the network sees them (float32): [B, F, 1 or N, d], and six vectors for the blocks."""

    head: Tensor
    blocks: Tensor  # [B, F, 1 or N, 6, d]


class Head(nn.Module):
    """Hidden states to velocities of latent cells, in float32."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.head = nn.Linear(config.dim, PATCH[0] * PATCH[1] * config.out_dim)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = (self.modulation + time.unsqueeze(-2)).unbind(-2)
        return linear_float32(self.head, layer_norm(x, self.eps) * (1 + scale) + shift)


class DiT(nn.Module):
    """The transformer with the official tensor names."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        dim, cells = config.dim, PATCH[0] * PATCH[1]
        self.patch_embedding = nn.Conv3d(config.in_dim, dim, kernel_size=(1, *PATCH), stride=(1, *PATCH))
        self.patch_embedding_wancamctrl = nn.Linear(config.plucker_channels * cells, dim)
        self.c2ws_hidden_states_layer1 = nn.Linear(dim, dim)
        self.c2ws_hidden_states_layer2 = nn.Linear(dim, dim)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, MODULATIONS * dim))
        with_action = config.action_config.blocks if config.action_config else ()
        self.blocks = nn.ModuleList(Block(config, index in with_action) for index in range(config.num_layers))
        self.head = Head(config)
        self.initialise()

    def initialise(self) -> None:
        """Starting values for training: the camera and action branches and the head start at zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patch_embedding.weight.flatten(1))
        for layer in (*self.text_embedding, *self.time_embedding):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=0.02)
        for name, module in self.named_modules():
            if name.endswith(
                ("cam_scale_layer", "cam_shift_layer", "proj_mouse", "proj_keyboard", "head.head")
            ):
                nn.init.zeros_(module.weight)

    def prepare(self, cond: ClipConditions) -> PreparedClip:
        """Everything about a clip that no denoising step changes.

        Raises ConfigError where the conditions do not fit each other or the configuration.
        """
        self._check(cond)
        grid = _grid(cond.plucker)
        times = _all_times(cond)
        config = self.config
        rotary = trunk_rotary(times, grid, config.num_heads, config.head_dim, config.sigma_theta)
        camera = self._embed_camera(cond)
        text = cond.text if isinstance(cond.text, TextKeys) else self.encode_text(cond.text)
        windows = None
        if config.action_config is not None:
            memory = cond.memory_times.shape[-1]
            windows = build_windows(
                cond.keyboard, cond.mouse, memory, config.action_config, cond.action_times
            )
        blocks = zip(self._blocks(), text.blocks, strict=True)
        return PreparedClip(tuple(block.prepare(camera, keys, windows) for block, keys in blocks), rotary)

    def encode_text(self, text: Tensor) -> TextKeys:
        """Keys and values of embedded words [B, T, text_dim]: `prepare` takes them in place of the words."""
        _expect("text", text, (None, None, self.config.text_dim))
        hidden = self.text_embedding(text.to(linear_of(self.text_embedding, 0).weight.dtype))
        blocks = cast(Sequence[Block], self.blocks)
        return TextKeys(tuple(block.cross_attn.keys(hidden) for block in blocks))

    def forward(self, latents: Tensor, timestep: Tensor, prepared: PreparedClip, context: int = 0) -> Tensor:
        """Velocities [B, C, F - context, h, w] of the latents after the first `context` ones.

        `latents` [B, C, F, h, w], memory first; `timestep` [B, F] (or [B, F * N] per token), 0 (clean) to
        1000. With `cached` attention the context attends only to itself; with `joint` it is merely not
        returned.
        """
        self._check_latents(latents, prepared.latents)
        time = self._embed_time(timestep, latents.shape[2])
        x = self._embed_latents(latents)
        hidden = context if self.config.attention == "cached" else 0
        *blocks, (last, clip) = zip(self._blocks(), prepared.blocks, strict=True)
        for block, told in blocks:
            x, _ = block(x, time.blocks, told, prepared.rotary, context=hidden)
        x = self._behind_context(last, x, time.blocks, clip, prepared.rotary, context)
        return self._velocity(x, time.head[:, context:], latents)

    def _behind_context(
        self,
        block: Block,
        x: Tensor,
        time: Tensor,
        clip: BlockClip,
        rotary: TrunkRotary,
        context: int,
    ) -> Tensor:
        """The last block for what comes after the context: nobody reads what it makes of the context itself.

        Two things need it whole: an action module under `joint`, where the context's actions see those of
        the new latents, and learning, where what wraps blocks (recomputation, strips) knows only their call.
        """
        joint = self.config.attention != "cached"
        acts = cast(Block, self.blocks[-1]).action_model is not None
        if not context or torch.is_grad_enabled() or (acts and joint):
            return block(x, time, clip, rotary, context=0 if joint else context)[0][:, context:]
        seen, new = (0, context), (context, x.shape[1])
        past = block.context_keys(
            x[:, slice(*seen)], time[:, slice(*seen)], clip.part(*seen), rotary.part(*seen)
        )
        told = (x[:, slice(*new)], time[:, slice(*new)], clip.part(*new), rotary.part(*new))
        return block(*told, past=past)[0]

    def encode_context(self, latents: Tensor, prepared: PreparedClip) -> ContextCache:
        """Keys and values of the clean context (memory and past) [B, C, context, h, w], once per clip.

        Raises StateError for no context, and for a `joint` model, whose context depends on the new latents.
        """
        if self.config.attention != "cached":
            raise StateError(
                "this model's context depends on the new latents and cannot be encoded alone",
                expected="a model trained with attention 'cached'",
                got=f"attention {self.config.attention!r}",
                remedy="call forward with all latents in every step",
            )
        return self.extend(latents, prepared.part(0, latents.shape[2]))

    def extend(
        self, latents: Tensor, prepared: PreparedClip, past: ContextCache | None = None
    ) -> ContextCache:
        """Keys and values of clean latents [B, C, n, h, w] that see each other and everything in `past`."""
        return self._encode(latents, prepared, past, alone=False)

    def encode_alone(self, latents: Tensor, prepared: PreparedClip) -> ContextCache:
        """Keys and values of clean latents [B, C, n, h, w] each of which sees only itself."""
        return self._encode(latents, prepared, None, alone=True)

    def _encode(
        self, latents: Tensor, prepared: PreparedClip, past: ContextCache | None, alone: bool
    ) -> ContextCache:
        if not latents.shape[2]:
            raise StateError("there is no context to encode", expected="at least one latent", got="none")
        self._check_latents(latents, prepared.latents)
        time = self._embed_time(latents.new_zeros(1, 1, dtype=torch.float32), 1).blocks
        x, rotary, last = self._embed_latents(latents), prepared.rotary, len(self.blocks) - 1
        caches = []
        for index, (block, clip) in enumerate(zip(self._blocks(), prepared.blocks, strict=True)):
            seen = past.blocks[index] if past else None
            if index == last:
                caches.append(block.context_keys(x, time, clip, rotary, past=seen, alone=alone))
            else:
                x, cache = block(x, time, clip, rotary, past=seen, alone=alone)
                caches.append(cache.apart())
        return ContextCache(tuple(caches), latents.shape[2])

    def denoise(self, noisy: Tensor, timestep: Tensor, prepared: PreparedClip, cache: ContextCache) -> Tensor:
        """Velocities of the new latents [B, C, new, h, w] at `timestep` [B, new], given the context.

        prepared: of the new latents alone, or of the context's latents and them.
        """
        alone = prepared.latents == noisy.shape[2]
        clip = prepared if alone else prepared.part(cache.latents, prepared.latents)
        self._check_latents(noisy, clip.latents)
        time = self._embed_time(timestep, noisy.shape[2])
        x = self._embed_latents(noisy)
        for block, block_clip, past in zip(self._blocks(), clip.blocks, cache.blocks, strict=True):
            x, _ = block(x, time.blocks, block_clip, clip.rotary, past=past)
        return self._velocity(x, time.head, noisy)

    def hold(self, places: int, like: Tensor) -> HeldContext:
        """Room for so many latents, in the type, on the device and of the cells of `like` [B, ..., h, w]."""
        rows, columns = _grid(like)
        blocks = cast(Sequence[Block], self.blocks)
        return HeldContext(tuple(block.hold(places, rows * columns, like) for block in blocks))

    def roll(
        self,
        latents: Tensor,
        timestep: Tensor,
        prepared: PreparedClip,
        held: HeldContext,
        rows: tuple[Rows, ...],
    ) -> Tensor:
        """Velocities of the last of `rows`; what all latents [B, C, F, h, w] offer is `held` from now on.

        One pass for clean latents (`timestep` [B, F] 0) and noisy ones; `rows` says who sees what.
        """
        self._check_latents(latents, prepared.latents)
        time = self._embed_time(timestep, latents.shape[2])
        x = self._embed_latents(latents)
        for block, clip, room in zip(self._blocks(), prepared.blocks, held.blocks, strict=True):
            x = block.roll(x, time.blocks, clip, prepared.rotary, room, rows)
        new = slice(*rows[-1].latents)
        return self._velocity(x[:, new], time.head[:, new], latents)

    def _blocks(self) -> Sequence[Block]:
        return cast(Sequence[Block], self.blocks)

    def _embed_latents(self, latents: Tensor) -> Tensor:
        """[B, C, F, h, w] to tokens [B, F, N, d] in the latents' data type."""
        conv = self.patch_embedding
        cells = _patches(latents.transpose(1, 2)).to(conv.weight.dtype)
        return F.linear(cells, conv.weight.flatten(1), conv.bias).to(latents.dtype)

    def _embed_camera(self, cond: ClipConditions) -> Tensor:
        plucker = cond.plucker
        if cond.pose_known is not None:
            plucker = torch.where(cond.pose_known[:, None, None, None, None], plucker, 0)
        first = self.patch_embedding_wancamctrl
        camera = first(_patches(plucker).to(first.weight.dtype))
        return camera + self.c2ws_hidden_states_layer2(F.silu(self.c2ws_hidden_states_layer1(camera)))

    def _embed_time(self, timestep: Tensor, latents: int) -> TimeSignal:
        """Timesteps [B, F] (or [B, F * N]) through a sinusoid and the time layers."""
        half = self.config.freq_dim // 2
        exponents = torch.arange(half, dtype=torch.float64, device=timestep.device) / half
        angles = timestep.double().unflatten(1, (latents, -1))[..., None] * TIME_PERIOD**-exponents
        sinusoid = torch.cat((angles.cos(), angles.sin()), dim=-1).float()
        embedding = linear_float32(linear_of(self.time_embedding, 0), sinusoid)
        embedding = linear_float32(linear_of(self.time_embedding, 2), F.silu(embedding))
        six = linear_float32(linear_of(self.time_projection, 1), F.silu(embedding))
        return TimeSignal(embedding, six.unflatten(-1, (MODULATIONS, -1)))

    def _velocity(self, x: Tensor, time: Tensor, latents: Tensor) -> Tensor:
        """Hidden states through the head (features: row, column, channel) and back to latent cells."""
        cells = self.head(x, time).unflatten(-1, (*PATCH, -1)).unflatten(2, _grid(latents))
        velocity = cells.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
        return velocity.to(latents.dtype)

    def _check(self, cond: ClipConditions) -> None:
        memory, window = cond.memory_times.shape[-1], cond.window_times.shape[-1]
        config, action = self.config, self.config.action_config
        _expect("plucker", cond.plucker, (None, memory + window, config.plucker_channels, None, None))
        if any(size % patch for size, patch in zip(cond.plucker.shape[-2:], PATCH, strict=True)):
            raise ConfigError(
                "the latent grid does not split into tokens",
                expected="even sizes",
                got=str(cond.plucker.shape),
            )
        if action is not None:
            frames = action.vae_time_compression_ratio * (window + action.windows_size - 1)
            _expect("keyboard", cond.keyboard, (None, frames, action.keyboard_dim_in))
            _expect("mouse", cond.mouse, (None, frames, action.mouse_dim_in))

    def _check_latents(self, latents: Tensor, count: int) -> None:
        _expect("latents", latents, (None, self.config.in_dim, count, None, None))


def linear_float32(linear: nn.Linear, x: Tensor) -> Tensor:
    """A small linear layer in float32, whatever the weights' type and autocast say."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), linear.weight.float(), linear.bias.float())


def _all_times(cond: ClipConditions) -> Tensor:
    """Rotary times [1 or B, M + W] of memory and window."""
    memory, window = (
        times.unsqueeze(0) if times.ndim == 1 else times for times in (cond.memory_times, cond.window_times)
    )
    batch = max(memory.shape[0], window.shape[0])
    return torch.cat((memory.expand(batch, -1), window.expand(batch, -1)), dim=1)


def _grid(cells: Tensor) -> tuple[int, int]:
    """Rows and columns of tokens of latent cells [..., h, w]."""
    return cells.shape[-2] // PATCH[0], cells.shape[-1] // PATCH[1]


def _patches(cells: Tensor) -> Tensor:
    """[B, F, C, h, w] to tokens [B, F, N, C * 4]: channel, then row and column inside the patch (fastest)."""
    rows, columns = PATCH
    split = cells.unflatten(4, (-1, columns)).unflatten(3, (-1, rows))
    return split.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)


def _expect(name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    """A ConfigError unless `tensor` has this shape (None: any size)."""
    if len(tensor.shape) != len(shape) or any(
        want is not None and size != want for size, want in zip(tensor.shape, shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ConfigError(f"{name} has the wrong shape", expected=f"[{wanted}]", got=str(list(tensor.shape)))
