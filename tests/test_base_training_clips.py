"""Training clips: shapes, memory older than the past, session starts, and what is dropped how often."""

from dataclasses import replace

import pytest
import torch
from base_training_cases import make_store, tiny_world

from worldwire.errors import ConfigError
from worldwire_runtime.memory import select_memory
from worldwire_training.clip_sampler import (
    ClipSampler,
    DropRates,
    Places,
    Shape,
    ShapeSchedule,
    Told,
    choose_memory,
)

SHAPES = (Shape(5, 4, 2, 4.0), Shape(0, 4, 2, 2.0), Shape(0, 1, 2), Shape(0, 2, 1), Shape(0, 0, 1))
KEEP_ALL = DropRates(0.0, 0.0, 0.0)


@pytest.fixture
def sampler() -> ClipSampler:
    return ClipSampler(make_store(), tiny_world())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def numbers(latents: torch.Tensor) -> torch.Tensor:
    """The latent indices that `make_store` wrote into the latents, [B, F]; images are negative minus one."""
    return latents[:, 0, :, 0, 0].long()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_batches_have_the_shapes_that_the_model_wants(sampler, shape):
    batch = sampler.sample(shape, 6, generator(), DropRates())
    total = shape.memory + shape.window
    assert batch.latents.shape == (6, 4, total, 2, 4)
    assert batch.plucker.shape == (6, total, 6, 2, 4)
    assert batch.keyboard.shape == (6, 4 * (shape.window + 2), 6)
    assert batch.mouse.shape == (6, 4 * (shape.window + 2), 2)
    conditions = batch.conditions(torch.zeros(6, 3, 8))
    assert conditions.memory_times.tolist() == list(range(shape.memory))
    assert conditions.window_times.tolist() == [8 + i for i in range(shape.window)]


def test_memory_is_older_than_the_past_and_holds_different_latents(sampler):
    shape = Shape(5, 4, 2)
    index = numbers(sampler.sample(shape, 64, generator(), KEEP_ALL).latents)
    index = torch.where(index < 0, -index - 1, index)
    memory, past = index[:, :5], index[:, 5:9]
    assert (memory.max(1).values < past[:, 0]).all()
    assert all(len(set(row.tolist())) == 5 for row in memory)
    assert (index[:, 5:].diff(dim=1) == 1).all()


def test_a_session_begins_with_the_latent_of_an_image(sampler):
    for shape in (Shape(0, 1, 2), Shape(0, 2, 1), Shape(0, 0, 1)):
        index = numbers(sampler.sample(shape, 32, generator(), KEEP_ALL).latents)
        assert (index[:, 0] < 0).all()
        assert (index[:, 1:] >= 0).all()
    grown = numbers(sampler.sample(Shape(5, 4, 2), 64, generator(), KEEP_ALL).latents)
    assert ((grown < 0).sum(1) <= 1).all()


def test_nothing_is_pressed_up_to_the_first_frame_of_a_session(sampler):
    places = Places(*(torch.tensor([value]) for value in (0, 2, 3)))
    batch = sampler.cut(Shape(0, 4, 2), places, Told.everything(1, torch.device("cpu")))
    frame = torch.arange(4 * 3 - 11, 4 * 3 - 11 + 4 * 8)
    assert (batch.mouse[0, frame <= 8] == 0).all()
    torch.testing.assert_close(batch.mouse[0, frame > 8], sampler.store.mouse[0, frame[frame > 8]])


def test_the_anchor_is_the_last_clean_latent(sampler):
    places = Places(*(torch.tensor([value]) for value in (1, 0, 6)))
    batch = sampler.cut(Shape(5, 4, 2), places, Told.everything(1, torch.device("cpu")))
    centres = batch.plucker[0, :, :3, 0, 0]
    assert centres[5 + 3].abs().max() == 0
    assert centres[5 + 4].abs().max() > 0


def test_drop_rates_hold_over_all_clips(sampler):
    schedule = ShapeSchedule(SHAPES, latents_per_step=4000, seed=0)
    rates, draw = DropRates(0.15, 0.15, 0.1), generator()
    lost = torch.zeros(3)
    steered, clips, without_memory = 0, 0, 0
    for step in range(150):
        shape = schedule.at(step)
        told = sampler.sample(shape, schedule.samples(shape), draw, schedule.drops(shape, rates)).told
        assert not (~told.keys & ~told.pose).any()
        assert shape.past or (told.keys.all() and told.pose.all())
        assert not shape.memory or told.pose.all()
        count = len(told.keys)
        lost += torch.tensor([(~told.keys).sum(), (~told.pose).sum(), (~told.prompt).sum()])
        steered, clips = steered + count * bool(shape.past), clips + count
        without_memory += count * (shape.past == 4 and not shape.memory)
    assert lost[0] / steered == pytest.approx(0.15, abs=0.02)
    assert lost[1] / steered == pytest.approx(0.15, abs=0.04)
    assert lost[2] / clips == pytest.approx(0.1, abs=0.02)
    assert without_memory / clips > 0.1


def test_dropped_keys_are_the_null_action(sampler):
    batch = sampler.sample(Shape(0, 4, 2), 8, generator(), DropRates(keys=1.0, pose=0.0, prompt=0.0))
    assert set(batch.keyboard.unique().tolist()) <= {-1.0, 0.0}
    assert set(batch.mouse.unique().tolist()) <= {1.0, 0.0}
    assert (batch.keyboard[:, -8:] == -1).all()


def test_slots_are_filled_as_a_session_fills_them():
    overlap = torch.rand(16, 2, 12)
    everything = torch.ones(16, 12, dtype=torch.bool)
    calm = torch.zeros(16, 5, dtype=torch.bool)
    chosen = choose_memory(overlap, torch.rand(16, 12), everything, calm)
    assert chosen.tolist() == [select_memory(one, 5) for one in overlap]
    blind = choose_memory(torch.zeros(1, 2, 12), torch.rand(1, 12), everything[:1], calm[:1])
    assert blind.tolist() == [[11, 8, 5, 2, 10]]


def test_random_memory_still_comes_from_the_allowed_latents():
    allowed = torch.zeros(200, 12, dtype=torch.bool)
    allowed[:, 3:9] = True
    distracted = torch.ones(200, 5, dtype=torch.bool)
    chosen = choose_memory(torch.zeros(200, 2, 12), torch.rand(200, 12), allowed, distracted)
    assert chosen.min() >= 3
    assert chosen.max() <= 8
    assert set(chosen.flatten().tolist()) == set(range(3, 9))


def test_shape_schedule_is_the_same_again_and_has_the_weights():
    schedule = ShapeSchedule(SHAPES, latents_per_step=64, seed=3)
    first = [schedule.at(step).name for step in range(600)]
    assert first == [ShapeSchedule(SHAPES, latents_per_step=64, seed=3).at(s).name for s in range(600)]
    assert first.count("5+4+2") / 600 == pytest.approx(4 / 9, abs=0.07)
    assert schedule.samples(Shape(5, 4, 2)) == 5


def test_impossible_shapes_and_short_episodes_are_named(sampler):
    with pytest.raises(ConfigError, match="starts a session from its prompt"):
        Shape(0, 0, 2)
    with pytest.raises(ConfigError, match=r"too short for clips of the shape 5\+4\+10"):
        sampler.sample(Shape(5, 4, 10), 1, generator(), KEEP_ALL)
    assert replace(Shape(1, 2, 3), new=4).context == 3
