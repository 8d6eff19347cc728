"""Training the base model: two steps on a CPU, a resume that goes on exactly, and what a step computes."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from base_training_cases import make_store, tiny_world

from worldwire.errors import CheckpointError, ConfigError
from worldwire_runtime.model.vae import VAE
from worldwire_training import common
from worldwire_training.base_config import BaseConfig, DataConfig, OwnContext, ValidationConfig, read_config
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.base_training import CHECKPOINT_FILE, BaseTrainer
from worldwire_training.clip_sampler import ClipSampler, DropRates, Shape
from worldwire_training.common import Ranks
from worldwire_training.losses import DivergedError, ErrorBuffer
from worldwire_training.rollout import plan_steps, roll_out
from worldwire_training.segments import Walks, behind_own, generate, new_noise, opening, walk_on
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
    with pytest.raises(CheckpointError, match=r"drops\.keys: 0\.15 -> 0\.5"):
        trainer(config(tmp_path, drops=DropRates(keys=0.5))).fit(resume=True)
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        trainer(config(tmp_path / "elsewhere")).fit(resume=True)


def test_a_run_that_diverges_says_so_and_writes_no_checkpoint(tmp_path: Path):
    trainer(config(tmp_path, pause_at=0.5)).fit()
    broken = trainer(config(tmp_path))
    saved = (tmp_path / CHECKPOINT_FILE).read_bytes()
    with torch.no_grad():
        broken.model.dit.head.head.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="resume from the last checkpoint"):
        broken.fit()
    assert (tmp_path / f"{CHECKPOINT_FILE}.before").read_bytes() == saved
    assert not (tmp_path / CHECKPOINT_FILE).exists()
    kept = common.load_checkpoint(tmp_path / "diverged_000000_rank0.pt")
    assert kept["latents"].shape[1] == 4
    assert kept["step"] == 0


def test_gradients_that_are_clipped_to_nothing_are_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    run = trainer(config(tmp_path))
    with torch.no_grad():
        run.model.dit.head.head.weight.fill_(1e3)
    with caplog.at_level("WARNING"):
        run.fit()
        assert caplog.text.count("suspiciously large") == 1
        caplog.clear()
        trainer(config(tmp_path / "other")).fit()
    assert "suspiciously" not in caplog.text


def test_a_full_disk_leaves_the_old_checkpoint_and_the_run_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    trainer(config(tmp_path, pause_at=0.5)).fit()
    saved = (tmp_path / CHECKPOINT_FILE).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    running = trainer(config(tmp_path, checkpoint_minutes=1e-9))
    with monkeypatch.context() as disk:
        disk.setattr(common.torch, "save", full)
        with pytest.raises(CheckpointError, match="No space left"):
            running.fit(resume=True)
    assert running.step == 4
    assert "No space left" in caplog.text
    assert (tmp_path / CHECKPOINT_FILE).read_bytes() == saved
    assert not list(tmp_path.glob("*.partial"))


def test_ctrl_c_keeps_the_step_and_a_resume_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    whole, running = trainer(config(tmp_path / "whole")), trainer(config(tmp_path))
    step = BaseTrainer.train_step
    whole.fit()

    def interrupted(self, budget):
        step(self, budget)
        if self.step == 2:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as keys:
        keys.setattr(BaseTrainer, "train_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            running.fit()
    assert signal.getsignal(signal.SIGINT) is before
    again = trainer(config(tmp_path))
    again.fit(resume=True)
    assert again.step == whole.step
    for weight, expected in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(weight, expected)


def test_a_new_run_keeps_the_checkpoint_of_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    trainer(config(tmp_path, pause_at=0.5)).fit()
    first = (tmp_path / CHECKPOINT_FILE).read_bytes()
    trainer(config(tmp_path, seed=1)).fit()
    assert (tmp_path / f"{CHECKPOINT_FILE}.before").read_bytes() == first
    assert "--resume" in caplog.text


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


def test_the_error_buffer_is_filled_by_training_and_disturbs_what_it_is_told_to():
    batch, contexts = batch_of(Shape(5, 4, 2)), []

    def remember(_batch: object, context: torch.Tensor, noisy: torch.Tensor, _sigma: object) -> torch.Tensor:
        contexts.append(context)
        return 0 * noisy

    errors = ErrorBuffer(8, (4, 2, 4), torch.device("cpu"))
    past_only = NoiseConfig(context_sigma=0.0, error_gamma=1.0, memory_gamma=0.0, error_rate=1.0)
    for _ in range(4):
        clip_losses(remember, batch, past_only, torch.Generator().manual_seed(0), errors)
    assert errors.residuals.abs().max() > 0
    assert torch.equal(contexts[0], batch.latents[:, :, :9])
    assert torch.equal(contexts[3][:, :, :5], batch.latents[:, :, :5])
    assert not torch.equal(contexts[3][:, :, 5:], batch.latents[:, :, 5:9])
    both = replace(past_only, memory_gamma=None)
    clip_losses(remember, batch, both, torch.Generator().manual_seed(0), errors)
    assert not torch.equal(contexts[4][:, :, :5], batch.latents[:, :, :5])


def test_walks_have_their_own_past_and_the_truth_to_come():
    store, shape = make_store(), Shape(5, 4, 2)
    sampler = ClipSampler(store, tiny_world())
    nothing = DropRates(0.0, 0.0, 0.0)
    walks = Walks.begin(sampler, shape, 3, 2, torch.Generator().manual_seed(5), nothing)
    truth = walks.latents.clone()
    walk_on(random_model(), walks, shape, 2, steps=2, shift=3.0, generator=torch.Generator().manual_seed(0))
    changed = (walks.latents != truth).any(dim=(2, 3, 4))
    assert changed.sum(dim=1).tolist() == [4, 4]
    batch, before = walks.clip(shape, 2), walks.clip(shape, 0)
    first = changed.long().argmax(dim=1)
    rows = torch.arange(2)
    assert torch.equal(batch.latents[:, :, 5], walks.latents[rows, first])
    assert torch.equal(batch.latents[:, :, 9], truth[rows, first + 4])
    assert torch.equal(before.latents[:, :, 9], walks.latents[rows, first])
    assert store.latents.data_ptr() != walks.latents.data_ptr()


def test_only_the_second_clip_of_a_session_has_an_opening():
    assert opening(Shape(0, 3, 2)) == Shape(0, 1, 2)
    others = (
        Shape(0, 0, 1),
        Shape(0, 1, 2),
        Shape(0, 4, 2),
        Shape(5, 4, 2),
        Shape(5, 3, 2),
        Shape(0, 3, 2, rolled=1),
    )
    assert not any(map(opening, others))


def test_the_past_of_a_second_clip_is_what_the_model_made_of_the_picture():
    model, shape, nothing = random_model(), Shape(0, 3, 2), DropRates(0.0, 0.0, 0.0)
    sampler = ClipSampler(make_store(), tiny_world())
    begin = [Walks.begin(sampler, shape, 1, 2, torch.Generator().manual_seed(5), nothing) for _ in range(2)]
    draws = [torch.Generator().manual_seed(0) for _ in range(2)]
    batch = behind_own(model, begin[0], shape, 1, steps=2, shift=3.0, generator=draws[0])
    truth, first = begin[1].clip(shape, 0).latents, begin[1].clip(Shape(0, 1, 2), 0)
    made = generate(model, first, 2, 3.0, new_noise(first, draws[1])).to(truth.dtype)
    assert batch.shape == shape
    assert (batch.latents[:, 0, 0] < 0).all()  # the picture's
    assert torch.equal(batch.latents[:, :, :1], truth[:, :, :1])
    assert torch.equal(batch.latents[:, :, 1:3], made)
    assert not torch.equal(made, truth[:, :, 1:3])
    assert torch.equal(batch.latents[:, :, 3:], truth[:, :, 3:])


def test_young_clips_have_a_past_of_its_own_only_where_contexts_are(tmp_path: Path):
    young = Shape(0, 3, 2)
    plain, own = (
        trainer(config(tmp_path, own_context=OwnContext(share, segments=2))) for share in (0.0, 1.0)
    )
    assert [plain._most_own(shape) for shape in (Shape(5, 4, 2), young, Shape(0, 1, 2))] == [0, 0, 0]
    assert [own._most_own(shape) for shape in (Shape(5, 4, 2), young, Shape(0, 1, 2))] == [2, 1, 0]
    assert (plain._own_segments(young), own._own_segments(young)) == (0, 1)
    true = plain._batch(young, 0, plain.generator(0, 0)).latents
    made = own._batch(young, 1, own.generator(0, 0)).latents
    samples, drops = plain.schedule.samples(young), plain.schedule.drops(young, plain.config.drops)
    drawn = plain._sampler.sample(young, samples, plain.generator(0, 0), drops).latents
    assert torch.equal(true, drawn)
    assert torch.equal(true[:, :, :1], made[:, :, :1])
    assert not torch.equal(true[:, :, 1:3], made[:, :, 1:3])
    assert torch.equal(true[:, :, 3:], made[:, :, 3:])


def test_contexts_of_its_own_change_what_is_trained(tmp_path: Path):
    plain, own = tmp_path / "plain", tmp_path / "own"
    steady = (Shape(5, 4, 2), Shape(0, 4, 2))
    trainer(config(plain, shapes=steady)).fit()
    trainer(config(own, shapes=steady, own_context=OwnContext(1.0, segments=2))).fit()
    assert losses(plain) != losses(own)
    again = tmp_path / "again"
    trainer(config(again, shapes=steady, own_context=OwnContext(1.0, segments=2), pause_at=0.5)).fit()
    trainer(config(again, shapes=steady, own_context=OwnContext(1.0, segments=2))).fit(resume=True)
    assert losses(again) == losses(own)
    with pytest.raises(ConfigError, match="own_context"):
        OwnContext(share=2.0)


def test_microbatches_add_up_to_a_step(tmp_path: Path):
    together = trainer(config(tmp_path, microbatches=4, noise=NoiseConfig(draws=2)))
    loss = together._backward(SHAPES[0])
    parts = [together._loss(SHAPES[0], 0, together.generator(0, place)).item() for place in range(4)]
    assert loss.item() == pytest.approx(sum(parts) / 4)
    two = Ranks(0, 2, torch.device("cpu"))
    with pytest.raises(ConfigError, match="do not share out"):
        BaseTrainer(config(tmp_path, microbatches=3), tiny_world(), make_store(), two)


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
    assert {"loss_at_0.6", "loss_at_0.857", "loss_at_1.0"} <= figures.keys()  # where three steps ask
    assert {"psnr_0.5s", "psnr_freeze_0.5s", "psnr_vae_0.5s"} <= figures.keys()
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
        ("steps=abc", "steps has the wrong type"),
        ("optimizer.peak_rate=fast", "peak_rate has the wrong type"),
        ("optimizer.peak_rate=true", "peak_rate has the wrong type"),
        ("=3", "no assignment"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_config(path, BaseConfig, [wrong])
    with pytest.raises(ConfigError, match="unknown way to compile"):
        read_config(path, BaseConfig, ["compile=fast"])
