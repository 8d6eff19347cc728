"""Distillation: its pure losses, whose gradient goes where, and runs that resume, stop and are played."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_training_cases import make_store, tiny_world
from test_base_training import ALONE, batch_of, losses, random_model
from test_base_training_run import run  # noqa: F401 - a fixture

from worldwire.errors import CheckpointError, ConfigError
from worldwire.inputs import Inputs
from worldwire_runtime.model.sampler import flow_schedule
from worldwire_runtime.world import World
from worldwire_training.base_config import (
    BaseConfig,
    DataConfig,
    OptimizerConfig,
    ValidationConfig,
    read_config,
)
from worldwire_training.base_model import NoiseConfig
from worldwire_training.base_run import WORLD_FOLDER, train_base
from worldwire_training.clip_sampler import ClipSampler, DropRates, Shape
from worldwire_training.common import StepBudget, load_checkpoint
from worldwire_training.distill_config import DistillConfig, MethodConfig
from worldwire_training.distill_run import distil, student_world
from worldwire_training.distillation import CHECKPOINT_FILE, DistillTrainer
from worldwire_training.dmd import (
    ScoreConfig,
    critic_losses,
    dmd_direction,
    dmd_losses,
    regression_losses,
    score_direction,
    untold,
)
from worldwire_training.losses import DivergedError
from worldwire_training.segments import Walks, generate, new_noise
from worldwire_training.self_forcing import last_segment, sample_until

CONFIGS = Path(read_config.__code__.co_filename).parent / "configs"
SMALL = DataConfig("", "", "")


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(output: Path, **changes: object) -> DistillConfig:
    plain = DistillConfig(
        output=str(output),
        data=SMALL,
        teacher="",
        shapes=(Shape(5, 4, 2, 2.0), Shape(0, 1, 2)),
        kept=(Shape(0, 0, 1),),
        steps=4,
        latents_per_step=24,
        device="cpu",
        mixed_precision=False,
        compile="none",
        log_every=1,
        checkpoint_minutes=0.0,
        validation=ValidationConfig(every_minutes=0.0),
        method=MethodConfig(segments=2, start_share=0.0, kept_share=0.25),
        score=ScoreConfig(guidance=2.0),
        noise=NoiseConfig(draws=2),
        optimizer=OptimizerConfig(warmup_steps=1),
        critic=OptimizerConfig(warmup_steps=1),
    )
    return replace(plain, **changes)


def trainer(settings: DistillConfig) -> DistillTrainer:
    store = make_store()
    store = replace(store, latents=store.latents.float(), images=store.images.float())
    return DistillTrainer(settings, random_model(), tiny_world(), store, ALONE)


def test_the_gradient_of_the_dmd_loss_is_the_direction():
    sample = torch.randn(2, 3, 1, 2, 2, requires_grad=True)
    real, fake = torch.randn(2, 3, 1, 2, 2), torch.randn(2, 3, 1, 2, 2)
    direction = dmd_direction(sample.detach(), real, fake)
    dmd_losses(sample, direction).sum().backward()
    torch.testing.assert_close(sample.grad, direction / 12)
    scale = (sample.detach() - real)[0].abs().mean()
    torch.testing.assert_close(direction[0], (fake - real)[0] / scale)
    assert dmd_direction(real, real, real).abs().max() == 0


def test_a_student_that_follows_the_direction_comes_to_the_real_data():
    """Scores of two Gaussians are known exactly: the sample's mean moves to that of the data."""
    sample = torch.zeros(1, 1, 1, 1, 1, requires_grad=True)
    for _ in range(200):
        direction = dmd_direction(sample.detach(), torch.tensor(2.0).expand(sample.shape), sample.detach())
        (gradient,) = torch.autograd.grad(dmd_losses(sample, direction).sum(), sample)
        with torch.no_grad():
            sample -= 0.02 * gradient
    assert sample.item() == pytest.approx(2.0, abs=0.05)


def test_equal_scores_move_nothing_and_guidance_does():
    model, batch = random_model(), batch_of(Shape(5, 4, 2))
    sample = torch.randn(2, 4, 2, 2, 4)
    plain = score_direction(sample, batch, model, model, ScoreConfig(), draw())
    assert plain.abs().max() == 0
    pushed = score_direction(sample, batch, model, model, ScoreConfig(guidance=2.0), draw())
    assert pushed.abs().max() > 0


def test_untold_clips_know_their_poses_and_nothing_else():
    batch = batch_of(Shape(0, 1, 2))
    null = untold(batch)
    assert not null.told.keys.any()
    assert not null.told.prompt.any()
    assert null.told.pose.all()
    assert set(null.keyboard[batch.started].unique().tolist()) == {-1.0}
    assert null.keyboard[~batch.started].abs().sum() == 0
    assert torch.equal(null.plucker, batch.plucker)


def test_clips_without_poses_keep_their_actions_when_nothing_else_is_told():
    batch = batch_of(Shape(0, 1, 2))
    batch = replace(batch, told=replace(batch.told, pose=torch.tensor([True, False])))
    null = untold(batch)
    assert null.told.keys.tolist() == [False, True]
    assert not null.told.prompt.any()
    assert torch.equal(null.told.pose, batch.told.pose)
    for ours, theirs in ((null.keyboard, batch.keyboard), (null.mouse, batch.mouse)):
        assert torch.equal(ours[1], theirs[1])
        assert not torch.equal(ours[0], theirs[0])


def test_a_sample_of_the_last_step_is_what_a_session_would_get():
    model, batch = random_model(), batch_of(Shape(5, 4, 2))
    noise = new_noise(batch, draw(4))
    sample = sample_until(model, batch, flow_schedule(3, 3.0), 2, noise)
    torch.testing.assert_close(sample, generate(model, batch, 3, 3.0, noise), rtol=1e-4, atol=1e-4)


def test_only_one_step_of_the_last_segment_has_a_gradient():
    model = random_model()
    sampler = ClipSampler(make_store(), tiny_world())
    shape, calls = Shape(5, 4, 2), []
    walks = Walks.begin(sampler, shape, 2, 2, draw(), DropRates(0.0, 0.0, 0.0))
    model.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    batch, _, sample = last_segment(model, walks, shape, 2, steps=3, shift=3.0, exit_step=1, generator=draw())
    assert calls == [True]
    assert sample.requires_grad
    assert not batch.latents.requires_grad
    regression_losses(sample, batch.latents[:, :, 9:]).mean().backward()
    assert model.dit.head.head.weight.grad.abs().max() > 0


def test_the_student_goes_on_from_an_opening_of_its_own(tmp_path: Path):
    one = trainer(config(tmp_path))
    young = Shape(0, 3, 2)
    apart, behind = (one._segment(young, True, draw(), plan=(segments, 0)) for segments in (1, 2))
    assert behind.sample.requires_grad
    context = [segment.batch.latents[:, :, :3] for segment in (apart, behind)]
    assert torch.equal(context[0][:, :, 0], context[1][:, :, 0])
    assert not torch.equal(context[0][:, :, 1:], context[1][:, :, 1:])
    assert torch.equal(apart.batch.latents[:, :, 3:], behind.batch.latents[:, :, 3:])
    drawn = set()
    for one.step in range(16):
        drawn.add(one._plan(young)[0])
        assert one._plan(Shape(0, 1, 2))[0] == 1
    assert drawn == {1, 2}
    alone = trainer(config(tmp_path, method=MethodConfig(segments=1)))
    assert alone._most_segments(young) == 1


def test_what_is_generated_takes_no_gradient_from_what_is_trained(monkeypatch: pytest.MonkeyPatch):
    """Weights that autocast has cast without gradients must not be found by the trained pass behind it."""
    model, batch, cleared = random_model(), batch_of(Shape(5, 4, 2)), []
    clear = torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: (cleared.append(True), clear()))
    schedule, noise, learning = flow_schedule(3, 3.0), new_noise(batch, draw()), []
    for generating in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            if generating:
                generate(model, batch, 3, 3.0, noise)
            sample = sample_until(model, batch, schedule, 2 * generating, noise)
            if generating:
                score_direction(sample, batch, model, model, ScoreConfig(), draw())
            loss = critic_losses(model, batch, sample, NoiseConfig(), draw()).mean() + sample.mean()
            assert len(cleared) == 3 * generating
        cleared.clear()  # the end of the block clears too
        loss.backward()
        learning.append([name for name, weight in model.named_parameters() if weight.grad is not None])
    assert learning[0] == learning[1]


def test_the_critic_learns_what_the_student_made():
    model, batch = random_model(), batch_of(Shape(0, 1, 2))
    sample = torch.randn(2, 4, 2, 2, 4, requires_grad=True)
    loss = critic_losses(model, batch, sample, NoiseConfig(draws=2), draw())
    assert loss.shape == (4,)
    loss.mean().backward()
    assert sample.grad is None


def test_a_resumed_distillation_goes_on_as_if_it_had_never_stopped(tmp_path: Path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(config(whole)).fit()
    trainer(config(parts, pause_at=0.5)).fit()
    trainer(config(parts)).fit(resume=True)
    assert losses(parts) == losses(whole)
    states = [load_checkpoint(folder / CHECKPOINT_FILE) for folder in (whole, parts)]
    for name, tensor in states[0]["critic"].items():
        assert torch.equal(tensor, states[1]["critic"][name])
    lines = [json.loads(line) for line in (whole / "scalars.jsonl").read_text().splitlines()]
    assert {"dmd", "regression", "critic"} <= set().union(*lines)
    with pytest.raises(CheckpointError, match=r"method\.dmd: 1\.0 -> 0\.5"):
        trainer(config(parts, method=MethodConfig(segments=2, dmd=0.5))).fit(resume=True)


def test_teacher_and_turns_are_respected(tmp_path: Path):
    one = trainer(config(tmp_path, method=MethodConfig(segments=2, critic_updates=4, kept_share=0.0)))
    before = {name: tensor.clone() for name, tensor in one.teacher.state_dict().items()}
    student = one.model.dit.head.head.weight.clone()
    one.step = 1  # three steps of the critic alone
    budget = StepBudget(4)
    for _ in range(3):
        one.train_step(budget)
    assert torch.equal(one.model.dit.head.head.weight, student)
    one.train_step(budget)
    assert not torch.equal(one.model.dit.head.head.weight, student)
    assert all(torch.equal(before[name], tensor) for name, tensor in one.teacher.state_dict().items())


def test_a_student_without_a_loss_stays_as_it_is(tmp_path: Path):
    """Matching distributions alone, while only the critic learns: decay and momentum move no student."""
    method = MethodConfig(regression=0.0, segments=2, start_share=0.5, critic_updates=1, kept_share=0.0)
    one = trainer(config(tmp_path, method=method))
    student, critic = (network.dit.head.head.weight for network in (one.model, one.critic))
    before = student.clone(), critic.clone()
    budget = StepBudget(4)
    for _ in range(2):
        one.train_step(budget)
    assert torch.equal(student, before[0])
    assert one.ema.updates == 0
    assert not torch.equal(critic, before[1])
    figures = one.recent.means(one.rate)
    assert figures["loss"] == pytest.approx(figures["critic"])
    assert figures["gradient_norm"] > 0
    one.train_step(budget)
    assert not torch.equal(student, before[0])
    assert one.ema.updates == 1


def test_a_distillation_that_diverges_keeps_its_batch(tmp_path: Path):
    broken = trainer(config(tmp_path))
    with torch.no_grad():
        broken.model.dit.head.head.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="kept in"):
        broken.fit()
    assert list(tmp_path.glob("diverged_*.pt"))


def test_a_trajectory_ends_where_the_teachers_does(tmp_path: Path):
    """The teacher in as many steps as the student has, with equal weights: nothing is left to learn."""
    method = MethodConfig(
        segments=1, dmd=0.0, regression=0.0, trajectory=1.0, teacher_steps=3, kept_share=0.0
    )
    one = trainer(config(tmp_path, method=method))
    segment = one._segment(Shape(5, 4, 2), True, draw(), plan=(1, 2))
    losses = one._student_losses(segment, 0.0, draw())
    assert list(losses) == ["trajectory"]
    assert losses["trajectory"].item() < 1e-6
    early = one._segment(Shape(5, 4, 2), True, draw(), plan=(1, 0))
    assert one._student_losses(early, 0.0, draw())["trajectory"].item() > 1e-4


def test_without_distribution_matching_there_is_no_critic(tmp_path: Path):
    method = MethodConfig(segments=2, dmd=0.0, trajectory=1.0, kept_share=0.0)
    one = trainer(config(tmp_path, method=method))
    critic = one.critic.dit.head.head.weight.clone()
    student = one.model.dit.head.head.weight.clone()
    one.step = 1
    one.train_step(StepBudget(4))
    assert torch.equal(one.critic.dit.head.head.weight, critic)
    assert not torch.equal(one.model.dit.head.head.weight, student)


def test_losses_and_attentions_can_be_chosen(tmp_path: Path):
    method = MethodConfig(segments=2, dmd=0.0, regression=0.0, trajectory=1.0, kept_share=0.0)
    trainer(config(tmp_path, steps=1, method=method)).fit()
    world = tiny_world()
    joint = config(tmp_path, attention="joint", noise=NoiseConfig(draws=1))
    assert student_world(world, joint).dit.attention == "joint"
    with pytest.raises(ConfigError, match="draws"):
        student_world(world, config(tmp_path, attention="joint"))


def test_a_distilled_world_is_played(run: BaseConfig, tmp_path: Path):  # noqa: F811
    train_base(run)
    settings = config(
        tmp_path / "distill",
        data=run.data,
        teacher=str(Path(run.output) / WORLD_FOLDER),
        shapes=run.shapes,
        validation=run.validation,
        latents_per_step=12,
    )
    figures = distil(settings)
    assert figures["loss_at_0.6"] > 0
    assert list((tmp_path / "distill").glob("strip_*.png"))
    world = World.load(tmp_path / "distill" / WORLD_FOLDER, device="cpu", precision="float32")
    assert world.config.sampler.steps == 3
    session = world.session()
    session.reset(prompt="a village")
    assert len(session.step(Inputs())) == 8


def test_settings_of_the_shipped_distillation():
    tiny = read_config(CONFIGS / "distill_tiny.toml", DistillConfig)
    assert (tiny.method.regression, tiny.method.trajectory, tiny.method.segments) == (0.0, 0.5, 16)
    assert tiny.kept[0].name == "0+0+1"
    for wrong, said in (
        ("method.trajectory=-1.0", "no loss"),
        ("method.dmd=-1", "no loss"),
        ("method.segments=0", "below 1"),
        ("kept=[]", "nothing to keep"),
    ):
        with pytest.raises(ConfigError, match=said):
            read_config(CONFIGS / "distill_tiny.toml", DistillConfig, [wrong])
