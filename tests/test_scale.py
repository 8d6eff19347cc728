"""Large runs: sharded over processes, resumed by another number of them, memory told before the start."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_training_cases import tiny_world
from sharded_run import WEIGHTS, run, train
from test_base_training import ALONE, config, losses

from worldwire.errors import CheckpointError, ConfigError, MachineError
from worldwire_runtime.config import WorldConfig
from worldwire_runtime.world import CONFIG_FILE, preset_folder
from worldwire_training.base_config import OptimizerConfig, OwnContext
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.base_training import SHARDED_FOLDER
from worldwire_training.clip_sampler import Shape
from worldwire_training.memory_estimate import Estimate, activation_bytes, estimate, refuse_if_short
from worldwire_training.parallel import recompute_blocks, sharded_facts
from worldwire_training.speed_probe import measure, preset_settings, random_store, trainable


def test_a_sharded_run_goes_on_with_more_and_with_fewer_processes(tmp_path: Path):
    """Sharded over one, two, one processes: the losses and weights of a plain run."""
    plain, changing = tmp_path / "plain", tmp_path / "changing"
    weights = train(plain, ALONE, 3, parallel="replicate", recompute=False)
    run(changing, 1, 1)
    run(changing, 2, 2, "resume")
    shutil.move(changing / SHARDED_FOLDER, changing / (SHARDED_FOLDER + ".old"))  # a kill between two renames
    run(changing, 1, 3, "resume")
    assert losses(changing) == pytest.approx(losses(plain), rel=1e-4)
    assert len(losses(plain)) == 3
    assert float((changing / WEIGHTS).read_text()) == pytest.approx(weights, rel=1e-5)


@pytest.mark.parametrize("fast", [0, 1])
def test_processes_agree_when_a_checkpoint_is_due(tmp_path: Path, fast: int):
    """One that writes, while another is in its next step, waits for it for ever."""
    run(tmp_path, 2, 4, f"fast={fast}")
    assert len(losses(tmp_path)) == 4


def test_damaged_or_missing_shards_are_told(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        sharded_facts(tmp_path / "base.dcp")
    (tmp_path / "base.dcp").mkdir()
    (tmp_path / "base.dcp" / "facts.json").write_text('{"step": 3')
    with pytest.raises(CheckpointError, match="damaged"):
        sharded_facts(tmp_path / "base.dcp")
    (tmp_path / "base.dcp" / "facts.json").write_text(json.dumps({"step": 3}))
    assert sharded_facts(tmp_path / "base.dcp")[1] == {"step": 3}


def test_what_sharding_cannot_do_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="sharded run"):
        config(tmp_path, parallel="shard", optimizer=OptimizerConfig(kind="muon"))
    with pytest.raises(ConfigError, match="sharded run"):
        config(tmp_path, parallel="shard", own_context=OwnContext(0.5))
    with pytest.raises(ConfigError, match="unknown kind"):
        config(tmp_path, parallel="pipeline")


def test_recomputed_gradients_are_the_same():
    from test_base_training import batch_of, random_model

    batch, gradients = batch_of(Shape(5, 4, 2)), []
    for recompute in (False, True):
        model = random_model()
        if recompute:
            recompute_blocks(model.dit)
        loss = clip_losses(model, batch, NoiseConfig(draws=2), torch.Generator().manual_seed(0))
        loss.mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-5)


def test_the_estimate_counts_what_a_step_keeps(tmp_path: Path):
    settings, world = config(tmp_path, shapes=(Shape(5, 4, 2),), noise=NoiseConfig(draws=2)), tiny_world()
    one, two = (activation_bytes(settings, world, Shape(5, 4, 2), clips) for clips in (4, 8))
    assert 1.8 < two / one < 2.2
    assert activation_bytes(replace(settings, recompute=True), world, Shape(5, 4, 2), 8) < two / 2
    whole = estimate(settings, world, 1)
    parameters = sum(p.numel() for p in BaseModel.build(world).parameters())
    assert whole.parameters == parameters
    assert whole.state == 20 * parameters
    assert estimate(replace(settings, parallel="shard"), world, 4).state == 5 * parameters


def test_too_little_memory_is_said_before_the_start():
    needed = Estimate(10**9, 20 * 2**30, 10 * 2**30, "5+4+2")
    refuse_if_short(needed, 40 * 2**30)
    with pytest.raises(MachineError, match=r"39\.00 GiB in all .* got: 24\.00 GiB free"):
        refuse_if_short(needed, 24 * 2**30)


def test_a_probe_measures_a_step_without_data(tmp_path: Path):
    world = tiny_world()
    measured = measure(config(tmp_path), world, random_store(world, "cpu"), ALONE, steps=1)
    assert measured.step_s > 0
    assert math.isfinite(measured.loss)
    assert (measured.clips, measured.tokens_per_clip) == (1, 11 * 2)
    assert "ms per step" in str(measured)


def test_a_probe_takes_a_preset_as_it_is_or_as_told():
    world = trainable(WorldConfig.from_file(preset_folder("5b-720p") / CONFIG_FILE))
    settings = preset_settings(world, [])
    assert ([shape.name for shape in settings.shapes], settings.latents_per_step) == (["5+4+10"], 19)
    assert (settings.parallel, settings.recompute, settings.context_parallel) == ("shard", True, 1)
    assert preset_settings(world, ["context_parallel=2"]).context_parallel == 2
    with pytest.raises(ConfigError, match="unknown keys"):
        preset_settings(world, ["context=2"])
