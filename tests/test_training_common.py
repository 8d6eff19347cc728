"""The shared training utilities: schedules, EMA, checkpoints that survive a kill, configuration."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from worldwire.errors import CheckpointError, ConfigError
from worldwire_training.common import (
    EMA,
    Ranks,
    ScalarLog,
    StepBudget,
    TimeBudget,
    load_checkpoint,
    load_config,
    random_state,
    save_checkpoint,
    set_random_state,
    warmup_cosine,
)

ALONE = Ranks(0, 1, torch.device("cpu"))


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int = 8
    mult: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True)
class Outer:
    model: Inner = dataclasses.field(default_factory=Inner)
    rate: float = 1.0


def test_warmup_cosine_rises_then_ends_at_final():
    assert warmup_cosine(0, 0.0, 1.0, 0.1, 10) == pytest.approx(0.1)
    assert warmup_cosine(9, 0.0, 1.0, 0.1, 10) == pytest.approx(1.0)
    assert warmup_cosine(1000, 1.0, 1.0, 0.1, 10) == pytest.approx(0.1)


def test_budgets_are_spent():
    assert not StepBudget(2).spent(1)
    assert StepBudget(2).spent(2)
    budget = TimeBudget(1.0, ALONE)
    assert not budget.spent(0)
    budget.load_state_dict({"elapsed": 61.0})
    assert budget.spent(1)
    with pytest.raises(ConfigError, match="at least 1 step"):
        StepBudget(0)


def test_ema_averages_and_gives_the_weights_back():
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    ema = EMA(model, decay=0.9)
    with torch.no_grad():
        model.weight += 1.0
    ema.update(model)
    with ema.applied(model):
        torch.testing.assert_close(model.weight.detach(), before + 0.9)
    torch.testing.assert_close(model.weight.detach(), before + 1.0)
    with pytest.raises(CheckpointError, match="one side only"):
        EMA(nn.Linear(2, 2, bias=False)).load_state_dict(ema.state_dict())


def test_checkpoint_round_trip_continues_the_generators(tmp_path: Path):
    path = tmp_path / "state.pt"
    save_checkpoint(path, {"step": 3, "random": random_state()})
    drawn = torch.rand(3), np.random.rand(3)
    state = load_checkpoint(path)
    set_random_state(state["random"])
    assert state["step"] == 3
    torch.testing.assert_close(torch.rand(3), drawn[0])
    np.testing.assert_array_equal(np.random.rand(3), drawn[1])


def test_damaged_checkpoint_is_a_typed_error(tmp_path: Path):
    path = tmp_path / "state.pt"
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, {"step": 3})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a readable"):
        load_checkpoint(path)


def test_config_reads_nested_tables_and_names_unknown_keys(tmp_path: Path):
    path = tmp_path / "c.toml"
    path.write_text("rate = 2.0\n[model]\nmult = [1, 2, 4]\n")
    assert load_config(path, Outer) == Outer(Inner(mult=(1, 2, 4)), 2.0)
    path.write_text("[model]\nwidht = 3\n")
    with pytest.raises(ConfigError, match="widht"):
        load_config(path, Outer)


def test_scalar_log_appends(tmp_path: Path):
    for step in (1, 2):
        curves = ScalarLog(tmp_path, ALONE)
        curves.add(step, {"loss": 0.5})
        curves.close()
    assert len((tmp_path / "scalars.jsonl").read_text().splitlines()) == 2
