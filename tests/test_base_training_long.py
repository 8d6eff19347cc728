"""Long runs: two optimisers, a budget that grows, processes that pause, and compiling ahead."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_training_cases import tiny_world
from test_base_training import config, losses, trainer
from torch._dynamo.utils import counters

from worldwire.errors import CheckpointError, ConfigError
from worldwire_training import common
from worldwire_training.base_config import BaseConfig, OptimizerConfig, read_config
from worldwire_training.base_model import BaseModel
from worldwire_training.base_training import CHECKPOINT_FILE, BaseTrainer
from worldwire_training.clip_sampler import Shape
from worldwire_training.common import Ranks, warmup_stable_decay
from worldwire_training.muon import Muon
from worldwire_training.optimizers import BaseOptimizer
from worldwire_training.rollout import plan_steps
from worldwire_training.speed_probe import random_store
from worldwire_training.vae_training import VAEConfig
from worldwire_training.warm_up import short, warm
from worldwire_training.worlds import world_config

MUON = OptimizerConfig(kind="muon", warmup_steps=2)
TINY = Path(common.__file__).parent / "configs" / "base_tiny.toml"


def test_muon_gets_the_matrices_of_the_blocks_and_adam_the_rest():
    model = BaseModel.build(tiny_world())
    muon, adam = BaseOptimizer(model, MUON).parts
    assert isinstance(muon, Muon)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = [[names[id(p)] for group in part.param_groups for p in group["params"]] for part in (muon, adam)]
    assert Counter(held[0] + held[1]) == Counter(names.values())
    assert {"dit.blocks.0.ffn.0.weight", "dit.blocks.1.self_attn.q.weight"} <= set(held[0])
    assert all(name.startswith("dit.blocks.") and name.endswith("weight") for name in held[0])
    assert {"dit.head.head.weight", "dit.blocks.0.modulation", "text.embedding.weight"} <= set(held[1])
    (alone,) = BaseOptimizer(model, OptimizerConfig()).parts
    assert sum(len(group["params"]) for group in alone.param_groups) == len(names)


def test_the_shares_of_the_learning_rate_hold():
    optimizer = BaseOptimizer(BaseModel.build(tiny_world()), replace(MUON, adam_share=0.25))
    optimizer.set_rate(4e-3)
    assert optimizer.rate == 4e-3
    assert [group["lr"] for group in optimizer.parts[1].param_groups] == [1e-3, 1e-3]


def test_the_rate_is_constant_and_decays_at_the_end():
    def rate(step: int, progress: float) -> float:
        return warmup_stable_decay(step, progress, 1.0, 0.1, warmup_steps=10, decay_share=0.3)

    assert [rate(0, 0.0), rate(9, 0.1), rate(500, 0.7)] == pytest.approx([0.1, 1.0, 1.0])
    assert [rate(500, 0.85), rate(500, 1.0), rate(500, 2.0)] == pytest.approx([0.55, 0.1, 0.1])
    assert warmup_stable_decay(50, 1.0, 1.0, 0.1, warmup_steps=10, decay_share=0.0) == 1.0


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_paused_run_may_become_longer_and_goes_on_exactly(tmp_path: Path, kind: str):
    chosen = replace(MUON, kind=kind)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(config(whole, steps=8, optimizer=chosen)).fit()
    trainer(config(parts, steps=6, pause_at=0.4, optimizer=chosen)).fit()
    assert len(losses(parts)) == 3
    trainer(config(parts, steps=8, optimizer=chosen)).fit(resume=True)
    assert losses(parts) == losses(whole)
    states = [common.load_checkpoint(folder / CHECKPOINT_FILE) for folder in (whole, parts)]
    for name, tensor in states[0]["model"].items():
        torch.testing.assert_close(tensor, states[1]["model"][name], rtol=0, atol=0)


def test_another_optimizer_does_not_resume(tmp_path: Path):
    trainer(config(tmp_path, steps=1, optimizer=MUON)).fit()
    with pytest.raises(CheckpointError, match=r"optimizer\.kind: 'muon' -> 'adamw'"):
        trainer(config(tmp_path, steps=2)).fit(resume=True)


def test_a_process_pauses_after_its_minutes(tmp_path: Path):
    settings = config(tmp_path, steps=0, minutes=60.0, minutes_per_call=1.0)
    started = time.monotonic()
    paused = trainer(settings)
    paused.fit(began=started - 59.0)  # one second of its minute is left
    assert paused.step > 0
    assert time.monotonic() - started < 30.0
    resumed = trainer(settings)
    resumed.fit(resume=True, began=started - 120.0)
    assert resumed.step == paused.step


def test_settings_that_contradict_each_other_are_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="minutes_per_call"):
        config(tmp_path, minutes_per_call=2.0)
    with pytest.raises(ConfigError, match="unknown optimizer"):
        OptimizerConfig(kind="sgd")
    with pytest.raises(ConfigError, match="decay_share"):
        OptimizerConfig(decay_share=1.5)


def test_the_tiny_run_trains_what_its_sessions_ask_for():
    tiny = read_config(TINY, BaseConfig)
    world = world_config(tiny.world, VAEConfig(z_dim=tiny.world["dit"]["in_dim"]), ["a village"])
    trained = {shape.name for shape in tiny.shapes}
    for plan in world.plans.values():
        latents = plan.first + plan.new * 8
        assert {step.shape.name for step in plan_steps(plan, latents)} <= trained


def test_compiling_ahead_needs_little():
    assert short(tiny_world()).dit.num_layers == 3
    assert short(tiny_world()).dit.action_config.blocks == (0,)
    with pytest.raises(ConfigError, match="nothing to compile"):
        warm(config(Path("unused")), tiny_world(), jobs=2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiling takes minutes without a GPU")
def test_a_run_finds_what_was_compiled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    settings = config(
        tmp_path,
        device="cuda",
        mixed_precision=True,
        compile="blocks",
        shapes=(Shape(5, 4, 2), Shape(0, 1, 2)),
    )
    action = replace(tiny_world().dit.action_config, blocks=(0, 1))
    world = replace(tiny_world(), dit=replace(tiny_world().dit, num_layers=5, action_config=action))
    warm(settings, world, jobs=2)
    counters.clear()
    BaseTrainer(settings, world, random_store(world, "cuda"), Ranks.join("cuda")).compile()
    assert counters["aot_autograd"]["autograd_cache_hit"] > 0
    assert counters["aot_autograd"]["autograd_cache_miss"] == 0
