"""One player's walk: all its state, and the five calls by which a frame comes to be."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as save_tensors
from torch import Tensor

from worldwire.api import Frame
from worldwire.camera import invert
from worldwire.errors import ConfigError, StateError
from worldwire.inputs import Inputs, per_frame
from worldwire.motion import PlayerPose
from worldwire_runtime.config import ClipPlan
from worldwire_runtime.memory import Memory
from worldwire_runtime.model.dit import ClipConditions
from worldwire_runtime.model.vae import FRAMES_PER_LATENT
from worldwire_runtime.rolling import FirstStep, RollingContext, read_turns
from worldwire_runtime.rules import ACTION_SIZE, Clip, draw_noise
from worldwire_runtime.saved_state import (
    Shape,
    check_frames,
    check_player,
    check_shapes,
    read_state,
    under,
    unreadable_is_a_state_error,
)
from worldwire_runtime.timing import StageTimer

if TYPE_CHECKING:
    from worldwire_runtime.ahead import Decoding
    from worldwire_runtime.decoder import DecoderStream
    from worldwire_runtime.world import World

Conditioning = Literal["both", "keys", "poses"]
STATE_FORMAT = "worldwire-session-1"
MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Move:
    """Where one step goes. c2w: [F, 4, 4] float64, the camera of each new frame in the session's world."""

    c2w: NDArray[np.float64]

    @property
    def latent_c2w(self) -> Tensor:
        """The cameras of the new latents [n, 4, 4]: each latent has the pose of its last frame."""
        return torch.from_numpy(self.c2w[FRAMES_PER_LATENT - 1 :: FRAMES_PER_LATENT])


class Told(NamedTuple):
    """What the network is told of a clip. seen: latents of memory and past, by their indices."""

    clip: ClipConditions | FirstStep
    seen: list[int]
    noise: Tensor

    @property
    def latents(self) -> int:
        """How many the network sees in the first step."""
        conditions = self.clip.conditions if isinstance(self.clip, FirstStep) else self.clip
        return conditions.plucker.shape[1]

    @property
    def parts(self) -> tuple[Any, ...]:
        """All that has tensors in it."""
        if isinstance(self.clip, FirstStep):
            return self.clip.conditions, self.clip.held, self.clip.rows, self.noise
        return self.clip, self.noise


class Begun(NamedTuple):
    """A step whose latents are made. c2w: [F, 4, 4], its cameras. frames: may be taken in another thread."""

    c2w: NDArray[np.float64]
    frames: Iterator[Frame]


class Session:
    """Implements `worldwire.SessionLike` in process. Not thread-safe: one caller at a time.

    plan: the clip plan. use_memory: False plays the same weights without memory slots.
    """

    def __init__(self, world: World, plan: ClipPlan, use_memory: bool = True):
        self._world, self._plan, self._use_memory = world, plan, use_memory
        self._memory: Memory | None = None
        self._context: RollingContext | None = None
        self._decoder = world.new_decoder(plan)
        self._unfinished = False
        self._begun: tuple[Tensor, Move] | None = None
        self._unshown: deque[Move] = deque()

    # ------------------------------------------------------------------ the interface

    @property
    def frames_per_step(self) -> int:
        """Frames that the next step returns: four for each new latent."""
        held = self._memory.next_index if self._memory is not None else 1
        return self._plan.new_latents(held) * FRAMES_PER_LATENT

    def reset(
        self,
        prompt: str | None = None,
        image: NDArray[np.uint8] | str | None = None,
        seed: int = 0,
        view: str | None = None,
        conditioning: Conditioning = "both",
    ) -> Frame:
        """Starts anew and returns frame 0 (see `SessionLike.reset`).

        conditioning: what of the inputs the network is told. "keys" hides the cameras (and with them the
        memory), "poses" hides keys and look.
        """
        world = self._world
        start = world.start_picture(prompt, image, view)
        generator = torch.Generator(world.device).manual_seed(_check_seed(seed))
        text = world.encode_prompt(start.prompt)
        self._conditioning = self._check_conditioning(conditioning)  # last: a refused reset changes nothing
        self._generator, self._text, self._view = generator, text, start.view
        self._origin_c2w = world.config.motion.camera(PlayerPose(), start.view)
        self._player = PlayerPose()
        self._actions = torch.zeros(1, 1, ACTION_SIZE)
        self._frames = 0
        self._memory = world.new_memory()
        self._decoder = self._decoder.anew()
        self._context = self._new_context()
        self._unfinished, self._begun, self._unshown = False, None, deque()
        first = world.encode_image(start.pixels) if start.pixels is not None else self._first_picture()
        move = Move(np.eye(4)[None])
        self._memory.add(first, torch.from_numpy(move.c2w))
        (frame,) = self._show(first, move, (), StageTimer(world.device))
        world.wait()  # what is prepared for a clip takes for granted that all of this is there
        return frame

    def set_prompt(self, prompt: str) -> None:
        """What the world is told from the next step on; memory, place and time go on."""
        self._started()
        self._text = self._world.encode_prompt(prompt)
        if self._context is not None:
            self._context.end_era()  # what it holds was encoded under the old prompt

    def step(self, inputs: Inputs | Sequence[Inputs]) -> list[Frame]:
        """The next `frames_per_step` frames."""
        return list(self.stream(inputs))

    def stream(self, inputs: Inputs | Sequence[Inputs]) -> Iterator[Frame]:
        """A step whose frames come as soon as they are decoded; run it to its end before the next call."""
        yield from self.begin(inputs).frames
        self.finish()

    @property
    def overlaps(self) -> bool:
        """Whether the next step may begin while this one's frames are decoded: on a GPU, once settled."""
        return self._world.overlaps and self._memory is not None and self._decoder.is_settled

    def begin(self, inputs: Inputs | Sequence[Inputs]) -> Begun:
        """A step in two halves: this one, then `finish`, and then the next step may begin.

        Take all frames of a step before those of the next, and before any call but `begin` and `finish`.
        """
        listed = per_frame(inputs, self.frames_per_step)
        memory = self._started()
        clock, ahead = StageTimer(self._world.device), self._world.ahead
        self._unfinished = True
        with torch.inference_mode():
            with ahead.preparing():
                with clock("camera"):
                    move = self._move(listed)
                with clock("memory"):
                    slots = self._recall(memory, move)
                with clock("camera"):
                    told = self._tell(memory, move, slots)
            ahead.hand_over(*told.parts)
            with clock("denoise"), ahead.computing(self._plan, told.latents) as decoding:
                latents = self._imagine(memory, told)
        self._begun = latents, move
        return Begun(move.c2w, self._show(latents, move, slots, clock, decoding))

    def finish(self) -> None:
        """Puts what the step made into the memory; ends when the next step may begin (see `ahead`)."""
        if self._begun is None or self._memory is None:
            return  # closed in the meantime
        latents, move = self._begun
        self._memory.add(latents, move.latent_c2w)
        self._world.ahead.wait()
        self._unfinished, self._begun = False, None

    def save(self) -> bytes:
        """The whole state, memory included, as one safetensors file."""
        memory = self._started()
        self._check_shown()
        tensors: dict[str, Tensor] = {
            "rng": self._generator.get_state(),
            "text": self._text,
            "actions": self._actions,
        }
        tensors |= {f"memory.{name}": value for name, value in memory.state().items()}
        tensors |= {f"decoder.{name}": value for name, value in self._decoder.state().items()}
        facts = self._owner | {
            "frames": self._frames,
            "view": self._view,
            "conditioning": self._conditioning,
            "player": asdict(self._player),
            "turns": [asdict(turn) for turn in self._context.lasting(memory)] if self._context else [],
        }
        stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        return save_tensors(stored, metadata={"session": json.dumps(facts)})

    def restore(self, state: bytes) -> None:
        """Continues from a state of this world and clip plan; any other bytes: StateError and no change."""
        world = self._world
        memory, decoder, generator = (
            world.new_memory(),
            world.new_decoder(self._plan),
            torch.Generator(world.device),
        )
        with unreadable_is_a_state_error():
            tensors, facts = read_state(state)
            self._check_owner(facts)
            check_shapes(tensors, self._state_shapes(generator, decoder))
            memory.load_state(under("memory.", tensors))
            decoder.load_state(under("decoder.", tensors))
            generator.set_state(tensors["rng"])
            text, actions = tensors["text"].to(world.device, world.dtype), tensors["actions"]
            player, frames = check_player(facts["player"]), check_frames(facts["frames"])
            view, conditioning = str(facts["view"]), self._check_conditioning(facts["conditioning"])
            origin_c2w = world.config.motion.camera(PlayerPose(), view)
            turns = read_turns(facts["turns"], memory, self._plan)
        decoder.take_room(self._decoder)
        self._memory, self._decoder, self._generator = memory, decoder, generator
        self._text, self._actions = text, actions
        self._player, self._frames = player, frames
        self._view, self._conditioning, self._origin_c2w = view, conditioning, origin_c2w
        self._context = self._new_context()
        if self._context is not None and turns:
            newest = memory.c2w(memory.newest(1))
            with torch.inference_mode():
                self._context.replay(memory, self._clip(memory, newest[:0], ()), turns)
        world.wait()
        self._unfinished, self._begun, self._unshown = False, None, deque()

    def branch(self) -> Session:
        """An independent session that goes on from here."""
        other = Session(self._world, self._plan, self._use_memory)
        other.restore(self.save())
        return other

    def close(self) -> None:
        """Frees the memory, the context's keys and the decoder's state."""
        self._memory = self._context = None
        self._decoder = self._world.new_decoder(self._plan)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ the five calls of a step

    def _move(self, inputs: list[Inputs]) -> Move:
        """1 camera: the pose of each frame (a given pose wins), and the actions for the network."""
        motion, cameras, players = self._world.config.motion, [], [self._player]
        for item in inputs:
            if item.c2w is None:
                self._player = motion.advance(self._player, item)
                cameras.append(invert(self._origin_c2w) @ motion.camera(self._player, self._view))
            else:
                self._player = motion.player(self._origin_c2w @ item.c2w, self._view)
                cameras.append(item.c2w)
            players.append(self._player)
        self._note_actions(inputs, players)
        return Move(np.stack(cameras))

    def _recall(self, memory: Memory, move: Move) -> tuple[int, ...]:
        """2 memory: the past latents that show what the new frames will see; all slots, or none.

        The network was trained with every slot filled or with none, so slots without an overlapping view take
        the newest latents that are left.
        """
        before = memory.next_index - self._plan.past
        if not self._use_memory or self._conditioning == "keys" or before < self._plan.memory:
            return ()
        held = self._context.held if self._context is not None else ()
        chosen = memory.select(self._world.rules.queries(move.latent_c2w), self._plan.memory, before, held)
        if self._context is not None:
            chosen = list(dict.fromkeys(chosen))  # one slot for each; the official choice repeats some
        spares = (*held, *range(before - 1, -1, -1))
        spare = (index for index in spares if index not in chosen and index in memory)
        while len(chosen) < self._plan.memory:
            chosen.append(next(spare))
        return self._context.admit(memory, chosen, len(move.latent_c2w)) if self._context else tuple(chosen)

    def _tell(self, memory: Memory, move: Move, slots: tuple[int, ...]) -> Told:
        """What the network is told of the clip: depends on inputs, not on the latents before."""
        world = self._world
        clip = self._clip(memory, move.latent_c2w, slots)
        noise = world.rules.noise(clip, self._generator)
        if self._context is not None:
            return Told(self._context.tell(memory, clip), [], noise)
        seen = [*slots, *memory.newest(self._plan.past)]
        return Told(world.rules.conditions(clip), seen, noise)

    def _imagine(self, memory: Memory, told: Told) -> Tensor:
        """3 denoiser: [memory | past | noise] to clean new latents [n, C, h, w]."""
        world = self._world
        if isinstance(told.clip, FirstStep):
            assert self._context is not None
            return self._context.generate(memory, told.clip, told.noise, world.config.sampler.steps)
        context = memory.latents(told.seen)
        return world.rules.generate(world.denoiser_for(self._view), told.clip, context, told.noise)

    def _show(
        self,
        latents: Tensor,
        move: Move,
        slots: tuple[int, ...],
        clock: StageTimer,
        decoding: Decoding | None = None,
    ) -> Iterator[Frame]:
        """4 decoder: frames, as the decoder gives them; the last one carries the step's timings."""
        self._unshown.append(move)
        first, self._frames = self._frames, self._frames + len(move.c2w)
        pictures = (pixels for part in self._decoder.show(latents, clock) for pixels in part)
        return self._frames_of(pictures, move, slots, clock, decoding, first)

    def _frames_of(
        self,
        pictures: Iterator[NDArray[np.uint8]],
        move: Move,
        slots: tuple[int, ...],
        clock: StageTimer,
        decoding: Decoding | None,
        first: int,
    ) -> Iterator[Frame]:
        """The frames of a step, numbered from `first`."""
        unshown, last = self._unshown, len(move.c2w) - 1
        for place, pixels in enumerate(pictures):
            timings = clock.stages_ms if place == last else {}
            if place == last:
                unshown.popleft()
                if decoding is not None:
                    decoding.over(timings.get("decode", 0.0))
            yield Frame(first + place, pixels, move.c2w[place], 0, slots, timings)

    # ------------------------------------------------------------------ parts of them

    def _clip(self, memory: Memory, new_c2w: Tensor, slots: tuple[int, ...]) -> Clip:
        """The clip that adds latents with the cameras `new_c2w` [n, 4, 4]."""
        past = memory.newest(self._plan.past)
        return Clip(
            text=self._text,
            view=self._view,
            memory_c2w=memory.c2w(slots),
            window_c2w=torch.cat([memory.c2w(past), new_c2w]),
            query_c2w=self._world.rules.queries(new_c2w),
            slots=slots,
            first=past[0],
            past=len(past),
            actions=self._actions,
            poses_told=self._conditioning != "keys",
        )

    def _new_context(self) -> RollingContext | None:
        """An empty context, in the room of the last one, which recorded graphs know by its address."""
        context = self._context or self._world.new_context(self._plan)
        if context is not None:
            context.end_era()
        return context

    @property
    def _owner(self) -> dict[str, Any]:
        """What a saved state must have been saved by."""
        return {"format": STATE_FORMAT, "world": self._world.config.name, "plan": asdict(self._plan)}

    def _state_shapes(self, generator: torch.Generator, decoder: DecoderStream) -> dict[str, Shape]:
        """The tensors of a saved state."""
        config = self._world.config
        decoding = decoder.state_shapes(config.latent_hw)
        return {
            "rng": tuple(generator.get_state().shape),
            "text": (1, config.dit.text_len, config.dit.text_dim),
            "actions": (1, None, ACTION_SIZE),
            "memory.latents": (None, config.dit.in_dim, *config.latent_hw),
            "memory.c2w": (None, 4, 4),
            "memory.indices": (None,),
            **{f"decoder.{name}": shape for name, shape in decoding.items()},
        }

    def _check_owner(self, facts: dict[str, Any]) -> None:
        theirs = {name: facts.get(name) for name in self._owner}
        if theirs != self._owner:
            raise StateError(
                "a saved state belongs to another session", expected=str(self._owner), got=str(theirs)
            )

    def _started(self) -> Memory:
        if self._memory is None:
            raise StateError("the session has not started", remedy="call reset() or restore() first")
        if self._unfinished:
            self._refuse_half_a_step()
        return self._memory

    def _check_shown(self) -> None:
        """The decoder's state is that of the newest frame only when all have been taken."""
        if self._unshown:
            self._refuse_half_a_step()

    def _refuse_half_a_step(self) -> NoReturn:
        raise StateError(
            "a stream was left before its end", remedy="exhaust it, or call reset() or restore()"
        )

    def _note_actions(self, inputs: list[Inputs], players: list[PlayerPose]) -> None:
        """Appends what the network is told of the new frames and forgets what no window reaches."""
        actions = self._world.rules.told(inputs, players, self._conditioning)
        era = self._world.config.rolling_latents if self._context is not None else 0
        window = (era + self._plan.past + len(inputs) // FRAMES_PER_LATENT + 2) * FRAMES_PER_LATENT
        self._actions = torch.cat([self._actions, actions[None]], dim=1)[:, -window:]

    def _check_conditioning(self, conditioning: str) -> Any:
        known = self._world.rules.conditionings
        if conditioning not in known:
            raise ConfigError("unknown conditioning", expected=" or ".join(known), got=repr(conditioning))
        return conditioning

    def _first_picture(self) -> Tensor:
        """The image latent [1, C, h, w] that the prompt alone gives."""
        world, sampler = self._world, self._world.config.sampler
        camera = torch.eye(4, dtype=torch.float64)[None]
        clip = Clip(
            text=self._text,
            view=self._view,
            memory_c2w=camera[:0],
            window_c2w=camera,
            query_c2w=camera[:0],
            slots=(),
            first=0,
            past=0,
            actions=self._actions,
            poses_told=self._conditioning != "keys",
        )
        conditions, noise = world.rules.conditions(clip), draw_noise(world.config, 1, self._generator)
        with torch.inference_mode():
            null = replace(conditions, text=world.encode_prompt(""))
            return world.denoiser.generate_guided(
                conditions, null, noise, sampler.first_picture_steps, sampler.first_picture_guidance
            )


def _check_seed(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= MAX_SEED:
        raise ConfigError(
            "the seed is wrong", expected=f"a whole number from 0 to {MAX_SEED}", got=repr(seed)
        )
    return int(seed)
