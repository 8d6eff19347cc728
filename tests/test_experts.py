"""Experts by noise level, and training in fake 8 bits."""

from pathlib import Path

import pytest
import torch
from base_training_cases import make_store, tiny_world
from test_base_training import batch_of, config, losses, random_model, trainer

from worldwire.errors import ConfigError
from worldwire_runtime.kernels.rows import INT8
from worldwire_runtime.quantize.config import Quantization
from worldwire_runtime.quantize.layers import layer_names, quantise
from worldwire_training.base_config import BaseConfig, DataConfig, read_config
from worldwire_training.base_model import NoiseConfig, clip_losses
from worldwire_training.base_training import CHECKPOINT_FILE
from worldwire_training.clip_sampler import DropRates, Shape, ShapeSchedule
from worldwire_training.common import load_checkpoint
from worldwire_training.experts import ExpertPair, expert_boundary
from worldwire_training.losses import sample_noise_levels, truncated_noise_levels
from worldwire_training.quant_aware import rounded, train_quantised
from worldwire_training.rollout import roll_out
from worldwire_training.segments import clip_velocity

CPU = torch.device("cpu")
CONFIGS = Path(read_config.__code__.co_filename).parent / "configs"
SHAPE = Shape(5, 4, 2)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_boundary_is_between_two_steps():
    assert expert_boundary(3, 3.0) == pytest.approx((1 + 6 / 7) / 2)
    assert expert_boundary(3, 3.0, 2) == pytest.approx((6 / 7 + 0.6) / 2)
    with pytest.raises(ConfigError, match="each expert"):
        expert_boundary(3, 3.0, 3)
    high, low = (read_config(CONFIGS / f"expert_{name}_tiny.toml", BaseConfig) for name in ("high", "low"))
    boundary = expert_boundary(high.noise.sampler_steps, high.noise.shift)
    assert high.noise.lowest == low.noise.highest == pytest.approx(boundary, abs=1e-4)
    assert high.noise.sampler_levels == (1.0,)
    assert low.noise.sampler_levels == pytest.approx((6 / 7, 0.6))


def test_levels_in_range_have_the_distribution_of_all_levels():
    everything = sample_noise_levels(40000, 3.0, draw(), CPU)
    inside = everything[(everything > 0.6) & (everything < 0.9)]
    cut = truncated_noise_levels(10000, 0.6, 0.9, 3.0, draw(1), CPU)
    assert cut.min() >= 0.6
    assert cut.max() <= 0.9
    for share in (0.25, 0.5, 0.75):
        assert cut.quantile(share) == pytest.approx(inside.quantile(share).item(), abs=0.01)
    assert truncated_noise_levels(100, 0.9, 1.0, 3.0, draw(), CPU).isfinite().all()
    with pytest.raises(ConfigError, match="range of noise levels"):
        NoiseConfig(lowest=0.5, highest=0.5)
    with pytest.raises(ConfigError, match="range of noise levels"):
        NoiseConfig(lowest=0.1, highest=0.2, sampler_share=0.5)


def test_experts_take_turns_by_noise_level():
    high, low, batch = random_model(), random_model(), batch_of(SHAPE)
    with torch.no_grad():
        low.dit.head.head.bias += 1.0
    pair = ExpertPair(high, low, 0.9)
    context, data = batch.latents.tensor_split([SHAPE.context], dim=2)
    for sigma, expert in ((0.95, high), (0.5, low)):
        level = torch.full((2,), sigma)
        expected = expert(batch, context, data, level)
        torch.testing.assert_close(pair(batch, context, data, level), expected)
        stepped = clip_velocity(pair, batch)(data, 1000 * sigma)
        torch.testing.assert_close(stepped, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="both experts"):
        pair(batch, context, data, torch.tensor([0.95, 0.5]))
    store = make_store()
    assert roll_out(pair, store, tiny_world(), 5, draw()).shape[1] == 5


def test_an_expert_trains_in_its_range_without_actions(tmp_path: Path):
    noise = NoiseConfig(draws=2, highest=0.9)
    trainer(config(tmp_path, noise=noise, drops=DropRates(keys=1.0))).fit()
    assert len(losses(tmp_path)) == 4
    shapes = (Shape(0, 4, 2), Shape(5, 4, 2))
    schedule = ShapeSchedule(shapes, latents_per_step=24, seed=0)
    assert schedule.drops(shapes[0], DropRates(keys=1.0)).pose == 0
    with pytest.raises(ConfigError, match="unknown view"):
        DataConfig("", "", "", view="second")


def test_fake_eight_bits_are_the_values_of_inference():
    real, fake = random_model(), random_model()
    quantization = Quantization("int8", "all")
    names = train_quantised(fake.dit, quantization)
    assert names == layer_names(fake.dit, "all")
    assert fake.state_dict().keys() == real.state_dict().keys()
    quantise(real.dit, quantization)
    batch = batch_of(SHAPE)
    context, data = batch.latents.tensor_split([SHAPE.context], dim=2)
    with torch.no_grad():
        outputs = [model(batch, context, data, torch.full((2,), 0.5)) for model in (real, fake)]
    error = (outputs[0] - outputs[1]).norm() / outputs[0].norm()
    assert error < 0.02  # sums are rounded in another order, which may move a value by one step later on


def test_gradients_pass_through_the_rounding():
    x = torch.randn(3, 16, requires_grad=True)
    y = rounded(x, INT8)
    assert not torch.equal(y, x)
    torch.testing.assert_close(y, x, atol=float(x.detach().abs().max()) / 127, rtol=0)
    y.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
    model = random_model()
    train_quantised(model.dit, Quantization())
    clip_losses(model, batch_of(SHAPE), NoiseConfig(draws=2), draw()).mean().backward()
    assert model.dit.blocks[0].ffn[0].weight.grad.abs().max() > 0


def test_a_quantised_run_is_another_run(tmp_path: Path):
    plain, fake = tmp_path / "plain", tmp_path / "fake"
    trainer(config(plain)).fit()
    trainer(config(fake, quantization=Quantization("int8", "all"))).fit()
    states = [load_checkpoint(folder / CHECKPOINT_FILE)["model"] for folder in (plain, fake)]
    assert states[0].keys() == states[1].keys()
    assert any(not torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert losses(fake) == pytest.approx(losses(plain), rel=0.1)
    tiny = read_config(CONFIGS / "qat_tiny.toml", BaseConfig)
    assert tiny.quantization == Quantization("int8", "all")
