"""The ablation: what is taken back, what is left out, what a failure costs, and the command as a whole."""

from __future__ import annotations

import json
from argparse import Namespace

import pytest
from worlds import write_random_world

from worldwire.cli import main
from worldwire.errors import ConfigError, MachineError, MissingExtraError
from worldwire_runtime import ablation
from worldwire_runtime.ablation import FULL, NAMES, VARIANTS, ablate, as_json, chosen, plot, table

BEST = {
    "fps": 50.0,
    "gpus": 1,
    "precision": "int8",
    "vae_pruning": 0.75,
    "attention": "cached",
    "speed": {
        "compiled": True,
        "graphs": True,
        "attention_8bit": True,
        "overlap": True,
        "choose_on": "device",
    },
}
PLAIN = BEST | {"gpus": 0, "precision": "float32", "vae_pruning": 0.0, "attention": "joint", "speed": None}


def test_one_thing_at_a_time_is_taken_back_and_the_paper_stands_beside_it():
    seen: dict[str, dict[str, object]] = {}

    def run(args: Namespace, name: str):
        seen[name] = vars(args)
        return BEST | {"fps": 50.0 - len(seen)}

    rows = ablate(Namespace(preset="5b-720p", precision="int8", compile=None), VARIANTS, run)
    assert tuple(seen) == NAMES
    assert all(changed["preset"] == "5b-720p" for changed in seen.values())
    assert seen[FULL]["precision"] == "int8"
    assert seen["no-8bit-linears"]["precision"] == "bfloat16"
    assert (seen["no-graphs"]["graphs"], seen["no-graphs"]["compile"]) == (False, None)
    words = table(as_json(rows, ["worldwire"]))
    assert "~40 (Full)" in words
    assert "27.38 (- INT8 quantization)" in words
    assert "6.6 (- GPU retrieval)" in words


def test_what_is_not_there_cannot_be_taken_back():
    rows = ablate(Namespace(), VARIANTS, lambda *_: dict(PLAIN))
    assert [row.variant.name for row in rows if row.skipped is None] == [FULL]


def test_a_failure_is_reported_and_costs_no_other_variant():
    def run(_: Namespace, name: str):
        if name == "full-vae":
            raise MachineError("out of memory")
        return dict(BEST)

    written = []
    rows = ablate(Namespace(), VARIANTS, run, lambda rows: written.append(len(rows)))
    assert written == list(range(1, len(VARIANTS) + 1))
    result = json.loads(json.dumps(as_json(rows, ["worldwire"])))
    failed = [row for row in result["rows"] if row["failed"]]
    assert [(row["name"], row["fps"], row["drop"]) for row in failed] == [("full-vae", None, None)]
    assert "failed: out of memory" in table(result)


def test_without_the_full_one_the_others_are_still_measured():
    def run(_: Namespace, name: str):
        if name == FULL:
            raise MachineError("no")
        return dict(PLAIN)

    rows = ablate(Namespace(), VARIANTS, run)
    assert [row.fps for row in rows] == [None] + [50.0] * (len(VARIANTS) - 1)
    assert all(row["drop"] is None for row in as_json(rows, [])["rows"])


def test_unknown_variants_are_named():
    with pytest.raises(ConfigError, match="no-wings"):
        chosen(["no-wings"])
    assert [variant.name for variant in chosen(["joint"])] == [FULL, "joint"]


@pytest.mark.parametrize("rows", [chosen(["joint"]), VARIANTS])
def test_the_plot_is_drawn(tmp_path, rows):
    pytest.importorskip("matplotlib")
    plot(as_json(ablate(Namespace(), rows, lambda *_: dict(BEST)), []), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="training"):
        ablation.check_plot()


@pytest.mark.parametrize(
    "options", [["--plot", "p.png"], ["--only", "joint"], ["--ablate", "--cold"], ["--ablate", "--only", "x"]]
)
def test_meaningless_options_are_refused_at_once(options, capsys):
    assert main(["bench", *options]) == 2
    assert "worldwire: " in capsys.readouterr().err


def test_the_command_on_a_small_world(tmp_path, capsys):
    world, path = write_random_world(tmp_path / "world"), tmp_path / "ablation.json"
    options = ["--preset", str(world), "--device", "cpu", "--attention-8bit", "--json", str(path)]
    status = main(["bench", "--ablate", *options, "--only", "16-bit-attention", "joint", "cpu-retrieval"])
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    assert set(rows) == {FULL, "cpu-retrieval", "joint", "16-bit-attention"}
    assert rows[FULL]["record"]["speed"]["attention_8bit"] is True
    assert rows["16-bit-attention"]["fps"] > 0
    assert rows["16-bit-attention"]["record"]["action_to_photon_ms"]["p95"] is None
    assert rows["cpu-retrieval"]["skipped"]
    assert rows["joint"]["failed"]  # trained weights keep their mode
    assert status == 1
    assert "16-bit-attention" in capsys.readouterr().out
