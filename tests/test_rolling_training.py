"""Training under rolling attention: it computes what a session computes step by step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_training_cases import make_store, tiny_world
from test_base_training import ALONE, config, losses

from worldwire.errors import ConfigError
from worldwire_runtime.model.dit import ContextCache
from worldwire_training.base_config import OwnContext
from worldwire_training.base_model import BaseModel, NoiseConfig
from worldwire_training.base_training import BaseTrainer
from worldwire_training.clip_sampler import ClipSampler, DropRates, Places, Shape, Told
from worldwire_training.rollout import roll_out
from worldwire_training.segments import clip_velocity

SHAPES = (Shape(5, 4, 2, rolled=1), Shape(0, 1, 2, rolled=2), Shape(5, 4, 2), Shape(0, 0, 1))


def world(attention: str = "rolling"):
    plain = tiny_world()
    return replace(plain, dit=replace(plain.dit, attention=attention), rolling_latents=16)


def store():
    plain = make_store()
    return replace(plain, latents=plain.latents.float(), images=plain.images.float())


def model() -> BaseModel:
    torch.manual_seed(0)
    built = BaseModel.build(world())
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return built


def batch_of(shape: Shape, position: int = 0):
    draw = torch.Generator().manual_seed(1)
    return ClipSampler(store(), world()).sample(shape, 2, draw, DropRates(0.0, 0.0, 0.0), position)


def test_shapes_count_rolled_clips():
    shape = Shape(5, 4, 2, rolled=3)
    assert (shape.context, shape.window, shape.name) == (15, 12, "5+4+3x2+2")
    with pytest.raises(ConfigError):
        Shape(0, 0, 1, rolled=1)


def test_an_era_tells_cameras_and_times_from_its_beginning():
    """A later clip of an era is told of its latents exactly as an earlier one was told of them."""
    sampler, everything = ClipSampler(store(), world()), Told.everything(1, torch.device("cpu"))
    zero = torch.zeros(1, dtype=torch.int64)
    early = sampler.cut(Shape(0, 4, 2, rolled=1), Places(zero, zero, zero + 3), everything)
    late = sampler.cut(Shape(0, 4, 2), Places(zero, zero, zero + 5), everything, position=2)
    text = torch.zeros(1, 6, 16)
    before, after = early.conditions(text), late.conditions(text)
    torch.testing.assert_close(before.plucker[:, 2:], after.plucker)
    assert before.window_times[2:].tolist() == after.window_times.tolist()
    assert before.action_times[2:].tolist() == after.action_times.tolist()


@pytest.mark.parametrize("shape", SHAPES[:3], ids=lambda shape: shape.name)
def test_draws_see_what_a_session_encodes_step_by_step(shape: Shape):
    network, batch, draws = model(), batch_of(shape, position=0), 3
    context, data = batch.latents.tensor_split([shape.context], dim=2)
    noisy, sigma = torch.randn(6, *data.shape[1:]), torch.full((6,), 0.5)
    together = network(batch, context, noisy, sigma).unflatten(0, (2, draws))
    dit, prepared = network.dit, network.dit.prepare(network.conditions(batch))
    slots = [
        dit.encode_alone(context[:, :, slot : slot + 1], prepared.part(slot, slot + 1))
        for slot in range(shape.memory)
    ]
    begin = shape.memory + shape.past
    seen = ContextCache.join(slots) if slots else None
    cache = dit.extend(context[:, :, shape.memory : begin], prepared.part(shape.memory, begin), seen)
    past = [cache.part(place, place + 1) for place in range(shape.past)]
    for start in range(begin, shape.context, shape.new):
        seen = ContextCache.join(slots + past[-4:])
        part = slice(start, start + shape.new)
        cache = dit.extend(context[:, :, part], prepared.part(part.start, part.stop), seen)
        past += [cache.part(place, place + 1) for place in range(shape.new)]
    new = prepared.part(shape.context, prepared.latents)
    times = torch.full((2, shape.new), 500.0)
    for draw in range(draws):
        x = noisy.view(2, draws, *data.shape[1:])[:, draw]
        alone = dit.denoise(x, times, new, ContextCache.join(slots + past[-4:]))
        torch.testing.assert_close(together[:, draw], alone, rtol=1e-4, atol=1e-4)
        if draw == 0:
            sampled = clip_velocity(network, batch)(x, 500.0)
            torch.testing.assert_close(sampled, alone, rtol=1e-4, atol=1e-4)


def test_a_rolling_run_trains_rolls_out_and_resumes(tmp_path: Path):
    shapes = (*SHAPES, Shape(0, 3, 2))  # the last with a past of its own making
    settings = {"shapes": shapes, "own_context": OwnContext(0.5, segments=1), "noise": NoiseConfig(draws=2)}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run = BaseTrainer(config(whole, **settings), world(), store(), ALONE)
    run.fit()
    BaseTrainer(config(parts, pause_at=0.5, **settings), world(), store(), ALONE).fit()
    BaseTrainer(config(parts, **settings), world(), store(), ALONE).fit(resume=True)
    assert losses(parts) == losses(whole)
    walked = roll_out(run.model, store(), world(), 9, torch.Generator().manual_seed(0))
    assert walked.shape[1] == 9


def test_draws_need_a_context_that_does_not_see_them(tmp_path: Path):
    with pytest.raises(ConfigError, match="several noise draws"):
        BaseTrainer(config(tmp_path), world("joint"), store(), ALONE)
