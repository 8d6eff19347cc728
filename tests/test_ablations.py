"""The ablations: every variant is a valid run of one thing changed, and what was measured becomes a table."""

import json
from pathlib import Path

import pytest

from worldwire_runtime.model.vae import VAEConfig
from worldwire_training.base_config import BaseConfig, read_config
from worldwire_training.base_model import check_draws
from worldwire_training.recipes import ablations
from worldwire_training.recipes.ablations import CONFIG, VARIANTS, AblationError, overrides, parse
from worldwire_training.worlds import world_config


def variant(name: str) -> BaseConfig:
    return read_config(CONFIG, BaseConfig, overrides(VARIANTS[name], read_config(CONFIG, BaseConfig)))


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_every_variant_is_a_run_that_can_begin(name: str):
    config = variant(name)
    world = world_config(config.world, VAEConfig(z_dim=config.world["dit"]["in_dim"]), ["a village"])
    check_draws(world, config.noise)


def test_variants_change_what_they_say():
    assert all(shape.memory == 0 for shape in variant("no_memory").shapes)
    assert len({shape.name for shape in variant("no_memory").shapes}) == len(variant("no_memory").shapes)
    assert variant("no_memory_errors").noise.memory_gamma == 0
    assert variant("no_errors").noise.error_gamma == 0
    assert variant("plain_rope").world["dit"]["sigma_theta"] == 0
    assert {shape.rolled for shape in variant("rolling").shapes} == {0, 1, 2}
    assert sum(shape.weight for shape in variant("rolling").shapes) == pytest.approx(
        sum(shape.weight for shape in variant("full").shapes), abs=0.01
    )


def test_processes_are_started_for_every_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started: dict[str, list[str]] = {}
    monkeypatch.setattr(ablations, "_run_all", lambda commands, *_: started.update(commands))
    words = ["train", "--work", str(tmp_path), "--minutes", "1", "--variants", "full", "joint"]
    ablations.train(parse([*words, "--set", "seed=3"]))
    assert set(started) == {"full", "joint"}
    assert {"world.dit.attention=joint", "seed=3", f"output={tmp_path}/ablations/joint"} <= set(
        started["joint"]
    )


def test_a_variant_that_fails_is_named_after_all_ended(tmp_path: Path):
    commands = {"good": ["python3", "-c", "print('done')"], "bad": ["python3", "-c", "raise SystemExit(3)"]}
    with pytest.raises(AblationError, match="bad"):
        ablations._run_all(commands, tmp_path, 2)
    assert "done" in (tmp_path / "good.log").read_text()


def test_measurements_become_a_table_and_a_plot(tmp_path: Path):
    folder = tmp_path / "ablations"
    args = parse(["table", "--work", str(tmp_path), "--out", str(tmp_path / "out")])
    with pytest.raises(AblationError, match="nothing was measured"):
        ablations.table(args)
    folder.mkdir()
    record = {
        "psnr_db": {"0.5": 18.0},
        "revisit_psnr_db": {"memory": {"5": 17.0, "15": 16.5}},
        "endurance_psnr_db": {"30": 12.0},
    }
    (folder / "full.json").write_text(json.dumps(record))
    ablations.table(args)
    lines = (tmp_path / "out" / ablations.TABLE).read_text().splitlines()
    assert lines[2].startswith("| everything on | 18.00 | – |")
    assert "16.50" in lines[2]
    assert (tmp_path / "out" / ablations.PLOT).stat().st_size > 1000
