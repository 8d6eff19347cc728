"""From conditions, clean context and noise to clean new latents: the network and the sampler together."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from worldwire_runtime.acceleration import (
    MOST_SHAPES,
    MOST_SHAPES_ON_CPU,
    STEADY_CLIPS,
    Steady,
    Tell,
    compiled_network,
    silent,
    whole_functions_are_compiled,
)
from worldwire_runtime.graphs import CudaRecorder, Graphed
from worldwire_runtime.model.attention import Rows
from worldwire_runtime.model.dit import (
    ClipConditions,
    ContextCache,
    DiT,
    HeldContext,
    PreparedClip,
    TextKeys,
)
from worldwire_runtime.model.sampler import TRAIN_STEPS, Euler, Solver, Velocity, euler, flow_schedule, guided

Shorten = Callable[[Tensor, TextKeys], TextKeys]


class Denoiser:
    """Samples clips with a `DiT` in any attention mode.

    shift: how far the noise levels are bent towards noise. compiled: fuse the network's calls for the shapes
    of a session's steady state. graphs: replay a whole clip as one CUDA graph, on a GPU. tell: hears of what
    takes a while. device: where it will run, if its weights wait elsewhere. shorten: makes an equal of a
    prompt's keys, given the embedded words.
    """

    def __init__(
        self,
        dit: DiT,
        shift: float,
        *,
        compiled: bool = False,
        graphs: bool = False,
        tell: Tell = silent,
        device: torch.device | None = None,
        shorten: Shorten | None = None,
    ):
        self._dit, self._shift, self._prompts = dit, shift, Prompts(dit, shorten)
        whole = whole_functions_are_compiled(dit) if device is None else device.type == "cpu"
        plain = ClipFunctions(dit)
        fused = ClipFunctions(compiled_network(dit, whole)) if compiled else plain
        self._forms = (plain, fused)
        most = MOST_SHAPES_ON_CPU if whole else MOST_SHAPES
        fuse = partial(Steady, most=most, tell=tell)
        record = (
            partial(Graphed, record=CudaRecorder(), tell=tell, immutable=("conditions",))
            if graphs
            else _plain
        )

        def fast(name: str, **options: Any) -> Callable[..., Any]:
            function = getattr(plain, name)
            return fuse(function, getattr(fused, name), **options) if compiled else function

        # Clips with a memory have the shapes of a session's steady state: they need not prove that they come
        # back, where compiling is a matter of seconds.
        after = STEADY_CLIPS if whole else 0
        self._clip, self._other = record(fast("sample", after=after), warm=after), record(fast("sample"))
        self._clip_after = record(fast("sample_after", after=after), resident=("held",), warm=after)
        self._other_after = record(fast("sample_after"), resident=("held",))
        self._velocity, self._other_velocity = fast("velocity", after=after), fast("velocity")
        self._encoded = fast("encode_behind")

    @property
    def dit(self) -> DiT:
        """The network, for what looks into it or wraps it."""
        return self._dit

    @property
    def step(self) -> Callable[..., Tensor]:
        """What computes one denoising step: `DiT.forward` under joint attention, else `DiT.denoise`.

        May be replaced by an equal function: an engine, say. Prompts are not shortened for that one.
        """
        return self._forms[0].step

    @step.setter
    def step(self, function: Callable[..., Tensor]) -> None:
        self._prompts = Prompts(self._dit)
        for form in self._forms:
            form.step = function

    def generate(self, conditions: ClipConditions, context: Tensor, noise: Tensor, steps: int) -> Tensor:
        """New latents [n, C, h, w] float32 from noise of that shape.

        context: [c, C, h, w] clean latents, memory first, then the past; c may be 0.
        """
        batch, start = context.transpose(0, 1)[None], noise.transpose(0, 1)[None]
        solver = Euler(flow_schedule(steps, self._shift))
        return self.sample(conditions, batch, start, solver)[0].transpose(0, 1)

    def sample(self, conditions: ClipConditions, context: Tensor, noise: Tensor, solver: Solver) -> Tensor:
        """The same for a batch, by any solver: [B, C, c, h, w] and [B, C, n, h, w] give [B, C, n, h, w]."""
        sample = self._clip if _has_memory(conditions) else self._other
        return sample(self._told(conditions), context, noise.float(), solver)

    def generate_after(
        self,
        conditions: ClipConditions,
        clean: Tensor,
        held: HeldContext,
        rows: tuple[Rows, ...],
        noise: Tensor,
        steps: int,
        recurs: bool = True,
    ) -> Tensor:
        """New latents [n, C, h, w] behind the context that is `held` (`rolling` attention).

        clean: latents [c, C, h, w] that the first step encodes along the way. rows: where these and the new
        latents go, and what they see. conditions: of the clean latents, then of the new ones. recurs: whether
        clips like this one are known to come again.
        """
        along = clean.transpose(0, 1)[None].to(conditions.plucker.dtype)
        start = noise.transpose(0, 1)[None].float()
        solver = Euler(flow_schedule(steps, self._shift))
        sample = self._clip_after if recurs else self._other_after
        return sample(self._told(conditions), along, held, rows, start, solver)[0].transpose(0, 1)

    def encode_behind(
        self, conditions: ClipConditions, clean: Tensor, held: HeldContext, rows: tuple[Rows, ...]
    ) -> None:
        """What the first step of `generate_after` leaves of its clean latents, bit for bit on a CPU."""
        along = clean.transpose(0, 1)[None].to(conditions.plucker.dtype)
        self._encoded(self._told(conditions), along, held, rows)

    def generate_guided(
        self, conditions: ClipConditions, null: ClipConditions, noise: Tensor, steps: int, guidance: float
    ) -> Tensor:
        """New latents [n, C, h, w] without context, by classifier-free guidance away from `null`."""
        batch = noise.transpose(0, 1)[None].float()
        told, untold = (self.velocity(each, batch[:, :, :0]) for each in (conditions, null))

        def velocity(x: Tensor, timestep: float) -> Tensor:
            return guided(told(x, timestep), untold(x, timestep), guidance)

        return euler(velocity, batch, flow_schedule(steps, self._shift))[0].transpose(0, 1)

    def velocity(self, conditions: ClipConditions, context: Tensor) -> Velocity:
        """The network as a function of noisy latents [B, C, n, h, w] and timestep, for one clip."""
        velocity = self._velocity if _has_memory(conditions) else self._other_velocity
        return velocity(self._told(conditions), context)

    def _told(self, conditions: ClipConditions) -> ClipConditions:
        """The same with what the network makes of the prompt, which no clip changes."""
        return replace(conditions, text=self._prompts(conditions.text))


class Prompts:
    """What a network makes of texts, kept for as long as somebody holds the text's tensor.

    A text is known by its tensor, whose numbers nobody may change. The weights may only change between texts.
    """

    def __init__(self, dit: DiT, shorten: Shorten | None = None) -> None:
        self._dit, self._shorten = dit, shorten
        self._kept: list[tuple[weakref.ref[Tensor], TextKeys]] = []

    def __call__(self, text: Tensor | TextKeys) -> TextKeys:
        if isinstance(text, TextKeys):
            return text
        if torch.is_grad_enabled():  # the weights are learning: nothing stays true
            return self._dit.encode_text(text)
        self._kept = [(known, keys) for known, keys in self._kept if known() is not None]
        for known, keys in self._kept:
            if known() is text:
                return keys
        made = self._dit.encode_text(text)
        if self._shorten is not None:
            made = self._shorten(text, made)
        # Contiguous, for a recording copies them to where it reads them once only if they are.
        keys = pytree.tree_map(Tensor.contiguous, made)
        self._kept.append((weakref.ref(text), keys))
        return keys


class ClipFunctions:
    """What a network does for a clip, as functions of tensors that never wait for the device.

    step: computes one denoising step; may be replaced by an equal function.
    """

    def __init__(self, dit: DiT) -> None:
        self._dit = dit
        self._is_joint = dit.config.attention == "joint"
        self.step: Callable[..., Tensor] = dit.forward if self._is_joint else dit.denoise

    def sample(self, conditions: ClipConditions, context: Tensor, noise: Tensor, solver: Solver) -> Tensor:
        """New latents from noise; context: clean latents."""
        return solver(self.velocity(conditions, context), noise)

    def sample_after(
        self,
        conditions: ClipConditions,
        clean: Tensor,
        held: HeldContext,
        rows: tuple[Rows, ...],
        noise: Tensor,
        solver: Solver,
    ) -> Tensor:
        """The same behind what is `held`; the first step takes the clean latents along."""
        return solver(self._behind(self._dit.prepare(conditions), clean, held, rows), noise)

    def encode_behind(
        self, conditions: ClipConditions, clean: Tensor, held: HeldContext, rows: tuple[Rows, ...]
    ) -> None:
        """The first step for the clean latents' sake: they do not see the new ones, any noise will do."""
        new = conditions.plucker.shape[1] - clean.shape[2]
        noise = clean.new_zeros(*clean.shape[:2], new, *clean.shape[3:])
        self._behind(self._dit.prepare(conditions), clean, held, rows)(noise.float(), TRAIN_STEPS)

    def velocity(self, conditions: ClipConditions, context: Tensor) -> Velocity:
        """The network as a function of noisy latents [B, C, n, h, w] and timestep, for one clip."""
        prepared = self._dit.prepare(conditions)
        context = context.to(conditions.plucker.dtype)
        if self._dit.config.attention == "cached" and context.shape[2]:
            return self._after(prepared, self._dit.encode_context(context, prepared), context.dtype)
        return self._beside(prepared, context)

    def _after(self, prepared: PreparedClip, cache: ContextCache, dtype: torch.dtype) -> Velocity:
        """Behind a context whose keys and values were computed once and serve every step."""

        def velocity(x: Tensor, timestep: float) -> Tensor:
            return self.step(x.to(dtype), _timesteps(x, timestep), prepared, cache).float()

        return velocity

    def _behind(
        self, prepared: PreparedClip, clean: Tensor, held: HeldContext, rows: tuple[Rows, ...]
    ) -> Velocity:
        """Behind what is `held`, of which the first evaluation encodes the last part."""
        new = rows[-1]
        alone = new._replace(latents=(0, new.latents[1] - new.latents[0]))
        steps = chain(
            [(clean, prepared, rows)], repeat((clean[:, :, :0], prepared.part(*new.latents), (alone,)))
        )

        def velocity(x: Tensor, timestep: float) -> Tensor:
            along, told, placed = next(steps)
            latents = torch.cat([along, x.to(along.dtype)], dim=2)
            times = torch.cat([x.new_zeros(len(x), along.shape[2]), _timesteps(x, timestep)], dim=1)
            return self._dit.roll(latents, times, told, held, placed).float()

        return velocity

    def _beside(self, prepared: PreparedClip, context: Tensor) -> Velocity:
        """The context goes through the network beside the new latents in every step, at timestep 0."""
        clean = context.shape[2]
        # A cached network meets this where there is no context at all, which no replaced step is made for.
        forward = self.step if self._is_joint else self._dit.forward

        def velocity(x: Tensor, timestep: float) -> Tensor:
            latents = torch.cat([context, x.to(context.dtype)], dim=2)
            times = torch.cat([x.new_zeros(len(x), clean), _timesteps(x, timestep)], dim=1)
            return forward(latents, times, prepared, clean).float()

        return velocity


def _plain(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    return function


def _has_memory(conditions: ClipConditions) -> bool:
    return bool(conditions.memory_times.shape[-1])


def _timesteps(x: Tensor, timestep: float) -> Tensor:
    """[B, n] float32, the same noise level for every new latent."""
    return torch.full((x.shape[0], x.shape[2]), timestep, device=x.device)
