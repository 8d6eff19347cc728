"""Rolling attention: sessions against a slow reference that recomputes an era under an explicit mask."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_tensors
from test_graphs import fake_record
from torch.utils._pytree import tree_leaves
from worlds import random_config, write_random_world

from worldwire.errors import ConfigError, StateError
from worldwire.inputs import Inputs
from worldwire_runtime.camera.plucker import turned_deg
from worldwire_runtime.config import ClipPlan
from worldwire_runtime.denoiser import Denoiser
from worldwire_runtime.model import action, attention, blocks
from worldwire_runtime.model.sampler import euler, flow_schedule
from worldwire_runtime.rolling import MOST_FRESH, Turn
from worldwire_runtime.rules import draw_noise
from worldwire_runtime.saved_state import read_state
from worldwire_runtime.session import Session
from worldwire_runtime.world import World

ERA = 12
PLANS = [ClipPlan(3, 4, 2, 3), ClipPlan(2, 3, 1, 2), ClipPlan(5, 4, 3, 0), ClipPlan(6, 2, 4, 2)]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return small_world(tmp_path_factory.mktemp("world"), "cpu")


def small_world(folder: Path, device: str) -> World:
    world = World.load(write_random_world(folder, attention="rolling"), device=device, precision="float32")
    plans = {str(plan): plan for plan in PLANS}
    world.config = dataclasses.replace(
        world.config, rolling_latents=ERA, plans=plans, default_plan=str(PLANS[0])
    )
    return world


def walk(session: Session, steps: int, first: int = 0) -> list[np.ndarray]:
    """Walks a curve with stops and turns back, so that the memory's choice changes and comes back."""
    pictures = []
    for step in range(first, first + steps):
        turn = 25.0 if step % 6 < 3 else -25.0
        keys = {"forward"} if step % 4 else set()
        pictures += [frame.pixels for frame in session.step(Inputs(frozenset(keys), yaw_deg=turn / 4))]
    return pictures


# ---------------------------------------------------------------------------------------- a slow reference


@dataclasses.dataclass
class Node:
    """A latent of the reference's sequence. sees: places in the sequence."""

    index: int
    slot: int | None
    sees: set[int]


def era_nodes(turns: list[Turn], slots: int, keep: int) -> list[Node]:
    """Memory latents (one for each time that one was chosen anew), then the window; `sees` by the rule."""
    memory: list[Node] = []
    places: list[tuple[int, int] | None] = [None] * slots  # latent index and node by slot
    seen_by_turn = []
    for turn in turns:
        places = [held if held and held[0] in turn.slots else None for held in places]
        for index in turn.slots:
            if index not in [held[0] for held in places if held]:
                slot = places.index(None)
                places[slot] = (index, len(memory))
                memory.append(Node(index, slot, {len(memory)}))
        seen_by_turn.append({held[1] for held in places if held})
    window, begin = [], len(memory)
    past = range(begin, begin + turns[0].past)
    window += [Node(turns[0].first + place, None, seen_by_turn[0] | set(past)) for place in range(len(past))]
    for turn, seen in zip(turns, seen_by_turn, strict=True):
        stop = begin + len(window)
        visible = seen | set(range(max(begin, stop - keep), stop)) | set(range(stop, stop + turn.new))
        start = turn.first + turn.past
        window += [Node(start + place, None, visible) for place in range(turn.new)]
    return memory + window


def masked(mask: torch.Tensor):
    """Attention under a mask between latents, whatever the number of tokens of each."""

    def attend(query, keys, context=attention.EVERYTHING):
        latents = len(mask)
        rows, columns = query.shape[2] // latents, keys.key.shape[2] // latents
        allowed = mask.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        scores = query @ keys.key.transpose(-1, -2) / query.shape[-1] ** 0.5
        return scores.masked_fill(~allowed, -torch.inf).softmax(-1) @ keys.value

    return attend


def reference(world: World, session: Session, turns: list[Turn], noise: torch.Tensor, monkeypatch):
    """The new latents of the last turn [n, C, h, w], with everything of the era computed in each step."""
    memory, plan, last = session._memory, session._plan, turns[-1]
    nodes = era_nodes(turns, plan.memory, plan.past)
    front = [node for node in nodes if node.slot is not None]
    window = nodes[len(front) :]
    clip = dataclasses.replace(
        session._clip(memory, memory.c2w([])[:0], ()),
        memory_c2w=memory.c2w([node.index for node in front]),
        window_c2w=memory.c2w([node.index for node in window]),
        past=0,
        anchor_c2w=memory.c2w([turns[0].first + turns[0].past - 1])[0],
        slot_numbers=tuple(node.slot for node in front),
    )
    dit, conditions = world.denoiser._dit, world.rules.conditions(clip)
    mask = torch.tensor([[place in node.sees for place in range(len(nodes))] for node in nodes])
    clean = memory.latents([node.index for node in nodes]).transpose(0, 1)[None].clone()

    def velocity(x, timestep):
        latents, times = clean.clone(), torch.zeros(1, len(nodes))
        latents[:, :, -last.new :], times[:, -last.new :] = x, timestep
        return dit(latents, times, dit.prepare(conditions))[:, :, -last.new :]

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(blocks.SelfAttention, "forward", masked_self_attention(masked(mask)))
        patch.setattr(action, "attend", masked(mask))
        for block in filter(lambda block: block.action_model is not None, dit.blocks):
            patch.setattr(block.action_model, "attend", masked(mask))
        schedule = flow_schedule(world.config.sampler.steps, world.config.sampler.shift)
        return euler(velocity, noise.transpose(0, 1)[None], schedule)[0].transpose(0, 1)


def masked_self_attention(attend):
    def forward(self, y, rotary, context, past, alone=False):
        keys = self.keys(y, rotary)
        tables = rotary.joined()
        query = blocks.rotate(self._heads(self.norm_q(self.q(y))), tables).flatten(1, 2).transpose(1, 2)
        return self._merge(attend(query, keys), y.shape[1]), keys

    return forward


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_session_equals_the_slow_reference(world, plan, monkeypatch):
    session = world.session(plan)
    session.reset(seed=3)
    eras = chosen_anew = 0
    for step in range(14):
        generator = torch.Generator()
        generator.set_state(session._generator.get_state())
        walk(session, 1, step)
        turns = list(session._context.turns)
        noise = draw_noise(world.config, turns[-1].new, generator)
        expected = reference(world, session, turns, noise, monkeypatch)
        ours = session._memory.latents(session._memory.newest(turns[-1].new))
        assert torch.allclose(ours, expected, atol=1e-4), step
        eras += len(turns) == 1
        chosen_anew += len(turns) > 1 and set(turns[-1].slots) != set(turns[-2].slots)
    assert eras > 1
    assert chosen_anew or not plan.memory


@pytest.mark.parametrize("seed", range(6))
def test_any_history_equals_the_slow_reference(world, seed, monkeypatch):
    """Any plan and era, with new prompts, and with sessions that are saved and restored on the way."""
    draw = random.Random(seed)
    past, new = draw.randint(1, 4), draw.randint(1, 4)
    plan = ClipPlan(1 + draw.randint(1, 4), past, new, draw.randint(0, 3))
    era = max(plan.first, past + new) + draw.randint(0, 6)
    config = dataclasses.replace(
        world.config,
        rolling_latents=era,
        rolling_turn_deg=draw.choice([40.0, 180.0]),
        plans={"any": plan},
        default_plan="any",
    )
    monkeypatch.setattr(world, "config", config)
    session = world.session(plan)
    session.reset(seed=seed)
    for step in range(9):
        match draw.randrange(6):
            case 0:
                session.set_prompt(draw.choice(["a village", "by day"]))
            case 1:
                session = session.branch()
            case 2:
                session.restore(session.save())
        generator = torch.Generator()
        generator.set_state(session._generator.get_state())
        walk(session, 1, step)
        turns = list(session._context.turns)
        noise = draw_noise(world.config, turns[-1].new, generator)
        ours = session._memory.latents(session._memory.newest(turns[-1].new))
        assert torch.allclose(ours, reference(world, session, turns, noise, monkeypatch), atol=1e-4), step


# ---------------------------------------------------------------------------------------- sessions


@pytest.mark.parametrize("steps", [1, 3, 5, 9])
def test_restored_and_branched_sessions_go_on_bit_for_bit(world, steps):
    session = world.session(PLANS[0])
    session.reset(seed=1)
    walk(session, steps)
    twin, branch = world.session(PLANS[0]), session.branch()
    twin.restore(session.save())
    pictures = walk(session, 5, steps)
    for other in (twin, branch):
        for ours, theirs in zip(walk(other, 5, steps), pictures, strict=True):
            assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_clip_takes_along_what_nobody_has_encoded_and_nothing_else(world, monkeypatch, plan):
    passes: list[tuple[int, int]] = []  # latents, and those that see only themselves
    roll = world.denoiser.dit.roll

    def counted(latents, timestep, prepared, held, rows):
        passes.append((latents.shape[2], sum(len(each.places) for each in rows if each.first == each.stop)))
        return roll(latents, timestep, prepared, held, rows)

    monkeypatch.setattr(world.denoiser.dit, "roll", counted)
    session = world.session(plan)
    session.reset(seed=0)
    before: set[int] = set()
    for step in range(12):
        passes.clear()
        walk(session, 1, step)
        turns = session._context.turns
        turn, begins = turns[-1], len(turns) == 1
        fresh = len(set(turn.slots) - (set() if begins else before))
        clean = turn.past if begins else turn.new
        steps = world.config.sampler.steps
        assert passes == [(fresh + clean + turn.new, fresh), *[(turn.new, 0)] * (steps - 1)]
        assert begins or not before or fresh <= MOST_FRESH
        before = set(turn.slots)


def test_an_era_ends_when_the_camera_has_turned_away_from_its_anchor(world, monkeypatch):
    """Rays are only known from nearby views: a memory behind the back of the anchor is not recognised."""
    monkeypatch.setattr(world, "config", dataclasses.replace(world.config, rolling_turn_deg=60.0))
    session = world.session(PLANS[1])
    session.reset(seed=0)
    ages = []
    for yaw_deg in [0.0, 6.0, 6.0, 6.0, 0.0, -6.0]:  # four frames for each clip
        session.step(Inputs(yaw_deg=yaw_deg))
        ages.append(len(session._context.turns))
    assert ages == [1, 2, 3, 4, 1, 2]
    anchor = session._context._anchor_c2w
    assert turned_deg(anchor, torch.eye(4, dtype=torch.float64)) == pytest.approx(72.0, abs=0.1)


def test_the_best_newly_chosen_latent_comes_first_and_the_others_wait(world):
    session = world.session(PLANS[0])
    session.reset(seed=0)
    walk(session, 4)
    context, memory = session._context, session._memory
    one, two, three = held = context.held
    new, newer, *_ = (index for index in range(len(memory)) if index not in held)
    assert context.admit(memory, held, 2) == held
    assert context.admit(memory, (new, two, one), 2) == (new, two, one)
    assert context.admit(memory, (newer, new, two), 2) == (newer, two, three)
    context.end_era()
    assert context.admit(memory, (newer, new, two), 2) == (newer, new, two)


def test_sessions_keep_their_rooms_and_share_none(world):
    session = world.session(PLANS[0])
    session.reset(seed=0)
    walk(session, 3)
    before = addresses(session)
    branch = session.branch()
    walk(session, 6, 3)
    assert addresses(session) == before
    assert not before & addresses(branch)
    session.restore(branch.save())
    walk(session, 1, 3)
    session.reset(seed=1)
    walk(session, 3)
    assert addresses(session) == before
    session.close()
    assert session._context is None


def room(session: Session) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(session._context._room) if isinstance(leaf, torch.Tensor)]


def addresses(session: Session) -> set[int]:
    return {tensor.data_ptr() for tensor in room(session)}


def test_what_stands_at_unseen_places_changes_nothing(world):
    """A restored session has other noise there: no number may depend on it, not even on a NaN."""
    session = world.session(PLANS[0])
    session.reset(seed=4)
    walk(session, 1)
    twin = session.branch()
    for held in room(twin):
        written = held[0].flatten(1).any(dim=1)
        assert not written.all()
        with torch.inference_mode():
            held[:, ~written] = torch.nan
    for ours, theirs in zip(walk(session, 4, 1), walk(twin, 4, 1), strict=True):
        assert np.array_equal(ours, theirs)


def recorded_world(world, monkeypatch, record=None):
    """The world with clips as graphs, of a recorder that stands for a GPU's unless there is one."""
    if record is not None:
        monkeypatch.setattr("worldwire_runtime.denoiser.CudaRecorder", lambda: record)
    denoiser = Denoiser(world.denoiser.dit, world.config.sampler.shift, graphs=True)
    monkeypatch.setattr(world, "denoiser", denoiser)
    return denoiser._clip_after


def in_turn(world, steps: int) -> list[list[np.ndarray]]:
    """Two sessions of one world, the second a branch of the first, that play in turn."""
    one = world.session(PLANS[1])
    one.reset(seed=6)
    pictures = [walk(one, 3), []]
    other = one.branch()
    for step in range(steps):
        pictures[0] += walk(one, 1, step)
        pictures[1] += walk(other, 1, step + 2)
    return pictures


def test_recorded_clips_find_the_room_of_their_session(world, monkeypatch):
    """In place, at other places in each clip, with memory newly chosen or not, from era to era."""
    expected = in_turn(world, 24)
    clips = recorded_world(world, monkeypatch, fake_record)
    for ours, plain in zip(in_turn(world, 24), expected, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(ours, plain, strict=True))
    assert clips.recordings >= 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_recorded_clips_find_the_room_of_their_session_on_a_gpu(tmp_path, monkeypatch):
    world = small_world(tmp_path, "cuda")
    expected = in_turn(world, 24)
    clips = recorded_world(world, monkeypatch)
    for ours, plain in zip(in_turn(world, 24), expected, strict=True):
        for pair in zip(ours, plain, strict=True):
            assert np.abs(np.subtract(*pair, dtype=np.int16)).max() <= 1
    assert clips.recordings >= 2


def test_attention_of_a_few_equals_the_definition():
    keys = attention.KeyValue(*torch.randn(2, 5, 3, 9, 8).unbind(0))
    for queries in (1, 3):
        query = torch.randn(5, 3, queries, 8)
        expected = attention.plain_attention(query, keys)
        assert torch.allclose(attention.few_attention(query, keys), expected, atol=1e-6)


def test_positions_stay_inside_an_era(world):
    session = world.session(PLANS[1])
    session.reset(seed=0)
    for step in range(30):
        walk(session, 1, step)
        assert session._context._position <= ERA


def test_a_new_prompt_begins_an_era_and_is_restored(world):
    session = world.session(PLANS[0])
    session.reset(seed=2)
    walk(session, 4)
    old = session.branch()
    session.set_prompt("a village")
    restored = session.branch()
    pictures = walk(session, 2, 4)
    assert len(session._context.turns) == 2
    assert all(np.array_equal(*pair) for pair in zip(walk(restored, 2, 4), pictures, strict=True))
    assert not all(np.array_equal(*pair) for pair in zip(walk(old, 2, 4), pictures, strict=True))


def test_a_session_whose_memory_was_thinned_out_is_restored(world):
    session = world.session(PLANS[0])
    session.reset(seed=5)
    walk(session, 4)
    memory, gone = session._memory, session._context.held[0]
    state, indices = memory.state(), memory.state()["indices"]
    memory.load_state({name: part[indices != gone] for name, part in state.items()})
    branch = session.branch()
    pictures = walk(session, 3, 4)
    assert all(np.array_equal(*pair) for pair in zip(walk(branch, 3, 4), pictures, strict=True))
    assert len(session._context.turns) == 3


@pytest.mark.parametrize("plan", [ClipPlan(6, 2, 3, 2), ClipPlan(5, 4, 1, 1)], ids=str)
def test_a_saved_era_of_several_lengths_goes_on_from_where_the_length_changed(world, plan):
    """As earlier versions saved them; this one begins an era there, so the walk goes on bit for bit."""
    session = world.session(plan)
    session.reset(seed=2)
    walk(session, 1)
    (longer,) = session._context.turns
    walk(session, 2, 1)
    tensors, facts = read_state(session.save())
    assert [turn["new"] for turn in facts["turns"]] == [plan.new, plan.new]
    assert longer.new > plan.new
    facts["turns"].insert(0, dataclasses.asdict(longer))
    restored = world.session(plan)
    restored.restore(save_tensors(tensors, metadata={"session": json.dumps(facts)}))
    assert restored._context.turns == session._context.turns
    assert all(np.array_equal(*pair) for pair in zip(walk(session, 6, 3), walk(restored, 6, 3), strict=True))


def test_states_whose_turns_do_not_fit_are_refused(world):
    session = world.session(PLANS[0])
    session.reset(seed=0)
    walk(session, 3)
    before = session.save()
    for change in ({"first": 400}, {"slots": [77]}, {"slots": [0]}, {"new": 0}, {"past": 9}, {"past": 1}):
        tensors, facts = read_state(before)
        facts["turns"][-1] |= change
        with pytest.raises(StateError):
            session.restore(save_tensors(tensors, metadata={"session": json.dumps(facts)}))
    assert session.save() == before


def test_a_clip_longer_than_an_era_is_refused():
    with pytest.raises(ConfigError, match="rolling_latents"):
        dataclasses.replace(random_config("rolling"), rolling_latents=8)
    with pytest.raises(ConfigError, match="rolling_turn_deg"):
        dataclasses.replace(random_config("rolling"), rolling_turn_deg=0.0)
