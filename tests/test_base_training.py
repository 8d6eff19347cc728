"""Training the base model: two steps on a CPU, a resume that goes on exactly, and what a step computes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from base_training_cases import make_store, tiny_world

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.model.vae import VAE
from worldwire_training import common
from worldwire_training.base_config import BaseConfig, DataConfig, ValidationConfig, read_config
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.base_training import CHECKPOINT_FILE, BaseTrainer
from worldwire_training.clip_sampler import ClipSampler, DropRates, Shape
from worldwire_training.common import Ranks
from worldwire_training.losses import DivergedError, ErrorBuffer
from worldwire_training.rollout import plan_steps, roll_out
from worldwire_training.validation import Validator

ALONE = Ranks(0, 1, torch.device("cpu"))
SHAPES = (Shape(5, 4, 2, 2.0), Shape(0, 1, 2), Shape(0, 0, 1))


def config(output: Path, **changes: object) -> BaseConfig:
    plain = BaseConfig(
        output=str(output),
        data=DataConfig("", "", ""),
        world={},
        shapes=SHAPES,
        steps=4,
        latents_per_step=24,
        device="cpu",
        mixed_precision=False,
        compile="none",
        log_every=1,
        checkpoint_minutes=0.0,
        validation=ValidationConfig(every_minutes=0.0, scenes=2, latents=5, clips=2),
        noise=NoiseConfig(draws=2, error_gamma=0.5, error_latents=8),
    )
    return replace(plain, **changes)


def trainer(settings: BaseConfig, **options: object) -> BaseTrainer:
    store = make_store()
    store = replace(store, latents=store.latents.float(), images=store.images.float())
    return BaseTrainer(settings, tiny_world(), store, ALONE, **options)


def losses(output: Path) -> list[float]:
    lines = [json.loads(line) for line in (output / "scalars.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(config(whole)).fit()
    trainer(config(parts, pause_at=0.5)).fit()
    assert len(losses(parts)) == 2
    resumed = trainer(config(parts))
    resumed.fit(resume=True)
    assert losses(parts) == losses(whole)
    assert len(losses(whole)) == 4
    states = [common.load_checkpoint(folder / CHECKPOINT_FILE) for folder in (whole, parts)]
    for name, tensor in states[0]["ema"]["shadow"].items():
        torch.testing.assert_close(tensor, states[1]["ema"]["shadow"][name], rtol=0, atol=0)


def test_a_kill_while_saving_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trainer(config(tmp_path, pause_at=0.5)).fit()

    def killed(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(common.os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer(config(tmp_path, pause_at=0.75)).fit(resume=True)
    resumed = trainer(config(tmp_path))
    resumed.fit(resume=True)
    assert resumed.step == 4


def test_resuming_another_network_is_a_typed_error(tmp_path: Path):
    trainer(config(tmp_path, steps=1)).fit()
    with pytest.raises(CheckpointError, match="belongs to another run"):
        trainer(config(tmp_path, noise=NoiseConfig(error_gamma=0.5, error_latents=4))).fit(resume=True)
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        trainer(config(tmp_path / "elsewhere")).fit(resume=True)


def test_a_run_that_diverges_says_so_and_keeps_its_checkpoint(tmp_path: Path):
    trainer(config(tmp_path, pause_at=0.5)).fit()
    broken = trainer(config(tmp_path))
    saved = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with torch.no_grad():
        broken.model.dit.head.head.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="resume from the last checkpoint"):
        broken.fit()
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == saved


def random_model() -> BaseModel:
    """A model whose zero-initialised branches are random, so that everything has an influence."""
    torch.manual_seed(0)
    model = BaseModel.build(tiny_world())
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def batch_of(shape: Shape, clips: int = 2):
    store = make_store()
    store = replace(store, latents=store.latents.float(), images=store.images.float())
    draw = torch.Generator().manual_seed(1)
    return ClipSampler(store, tiny_world()).sample(shape, clips, draw, DropRates(0.0, 0.0, 0.0))


@pytest.mark.parametrize("shape", [Shape(5, 4, 2), Shape(0, 1, 2), Shape(0, 0, 1)], ids=lambda s: s.name)
def test_noise_draws_share_a_context_and_agree_with_a_forward_of_each(shape: Shape):
    model, batch, draws = random_model(), batch_of(shape), 3
    context, data = batch.latents.tensor_split([shape.context], dim=2)
    noisy, sigma = torch.randn(6, *data.shape[1:]), torch.rand(6)
    together = model(batch, context, noisy, sigma).unflatten(0, (2, draws))
    for draw in range(draws):
        alone = model(
            batch, context, noisy.view(2, draws, *data.shape[1:])[:, draw], sigma.view(2, draws)[:, draw]
        )
        torch.testing.assert_close(together[:, draw], alone)


def test_the_context_steers_the_loss_but_has_none_of_its_own():
    model, batch = random_model(), batch_of(Shape(5, 4, 2))
    plain = NoiseConfig(context_sigma=0.0)
    first = clip_losses(model, batch, plain, torch.Generator().manual_seed(3))
    changed = batch.latents.clone()
    changed[:, :, :9] += 1.0
    other = clip_losses(model, replace(batch, latents=changed), plain, torch.Generator().manual_seed(3))
    assert first.shape == (2,)
    assert not torch.equal(first, other)
    batch.latents.requires_grad_(True)

    def clean(_batch: object, _context: object, noisy: torch.Tensor, _sigma: object) -> torch.Tensor:
        return 0 * noisy

    clip_losses(clean, batch, plain, torch.Generator().manual_seed(3)).sum().backward()
    assert batch.latents.grad[:, :, :9].abs().max() == 0
    assert batch.latents.grad[:, :, 9:].abs().max() > 0


def test_the_error_buffer_is_filled_by_training_and_disturbs_the_context():
    batch = batch_of(Shape(5, 4, 2))
    errors = ErrorBuffer(4, (4, 2, 4), torch.device("cpu"))
    noise = NoiseConfig(context_sigma=0.0, error_gamma=1.0, error_rate=1.0)
    contexts = []

    def remember(_batch: object, context: torch.Tensor, noisy: torch.Tensor, _sigma: object) -> torch.Tensor:
        contexts.append(context)
        return 0 * noisy

    for _ in range(2):
        clip_losses(remember, batch, noise, torch.Generator().manual_seed(0), errors)
    assert errors.filled == 4
    assert torch.equal(contexts[0], batch.latents[:, :, :9])
    assert not torch.equal(contexts[1], batch.latents[:, :, :9])


def test_a_rollout_takes_the_steps_of_a_session():
    world = tiny_world()
    steps = [(step.shape.name, step.start) for step in plan_steps(world.plan(), 15)]
    assert steps[:4] == [("0+1+2", 0), ("0+3+2", 0), ("0+4+2", 1), ("0+4+2", 3)]
    assert steps[4] == ("5+4+2", 5)
    store = make_store()
    walked = roll_out(random_model(), store, world, 13, torch.Generator().manual_seed(0))
    assert walked.shape == (3, 13, *store.latents.shape[2:])
    assert torch.equal(walked[:, 0], store.images[:, 0])
    assert not torch.equal(walked[:, 1:], store.latents[:, 1:13])


def test_validation_writes_a_strip_and_figures(tmp_path: Path):
    world = tiny_world()
    settings = config(tmp_path, steps=1)
    truth = np.random.default_rng(0).integers(0, 255, (2, 17, world.height, world.width, 3), dtype=np.uint8)
    store = make_store()
    store = replace(store, latents=store.latents.float(), images=store.images.float())
    validator = Validator(settings.validation, world, store, truth, VAE(world.vae).eval())
    figures = trainer(settings, validator=validator).fit()
    assert {"loss_at_0.5", "psnr_0.5s", "psnr_freeze_0.5s", "psnr_vae_0.5s"} <= figures.keys()
    assert "psnr_2.0s" not in figures
    assert (tmp_path / "strip_000001.png").stat().st_size > 100


def test_settings_are_read_with_overrides(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text(
        'output = "a"\n[data]\nepisodes = "e"\nheld_out = "h"\nvae = "v"\n[world]\nname = "w"\n'
        "[[shapes]]\nmemory = 5\npast = 4\nnew = 2\n"
    )
    read = read_config(path, BaseConfig, ["optimizer.peak_rate=2e-3", "data.vae=/tmp/x", "steps = 7"])
    assert (read.optimizer.peak_rate, read.data.vae, read.steps) == (2e-3, "/tmp/x", 7)
    assert read.shapes == (Shape(5, 4, 2),)
    for wrong, said in (
        ("steps", "no assignment"),
        ("optimizer.rate=1", "unknown keys"),
        ("=3", "no assignment"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_config(path, BaseConfig, [wrong])
    with pytest.raises(ConfigError, match="unknown way to compile"):
        read_config(path, BaseConfig, ["compile=fast"])
