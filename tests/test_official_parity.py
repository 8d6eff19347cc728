"""Every golden case of the official implementation, held to the tolerances of its README."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from worldwire.cli import main
from worldwire.errors import DataError
from worldwire_runtime import parity

GOLDEN = Path(__file__).parent / "golden"
CASES = parity.read_cases(GOLDEN)


@pytest.mark.parametrize("name", CASES)
def test_case_agrees_with_the_official_implementation(name):
    results = parity.run_case(GOLDEN, name, CASES[name])
    assert results
    assert not [result for result in results if not result.passed]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CASES)
def test_case_agrees_on_a_gpu_as_it_is_played_there(name):
    results = parity.run_case(GOLDEN, name, CASES[name], "cuda")
    assert not [result for result in results if not result.passed]


def copy_case(folder: Path, name: str, new_name: str, change=lambda tensors: None) -> None:
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    change(tensors)
    save_file(tensors, folder / f"{new_name}.safetensors")
    (folder / "cases.json").write_text(json.dumps({new_name: CASES[name]}))


@pytest.mark.parametrize("name", ["scheduler", "text_encoder", "dit_first_clip", "camera"])
def test_a_case_is_recognised_by_what_it_holds(tmp_path, name):
    copy_case(tmp_path, name, "anything")
    results = parity.run_folder(tmp_path)
    assert results
    assert all(result.passed and result.name.startswith("anything/") for result in results)


def test_command_writes_errors_and_reports_a_difference(tmp_path, capsys):
    def spoil(tensors):
        tensors["out.hidden"] = tensors["out.hidden"] + 0.01

    copy_case(tmp_path, "text_encoder", "spoiled", spoil)
    written = tmp_path / "errors.json"
    assert main(["models", "parity", str(tmp_path), "--json", str(written)]) == 1
    assert json.loads(written.read_text())["spoiled/hidden"] > parity.NETWORK_TOLERANCE
    assert "DIFFERENT" in capsys.readouterr().out


def test_what_was_compared_is_told_before_the_next_case_fails(tmp_path, capsys):
    """On a GPU the whole takes minutes: what is cut off has said what it knew."""
    copy_case(tmp_path, "text_encoder", "good")
    cases = {"good": CASES["text_encoder"], "missing": CASES["text_encoder"]}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    assert main(["models", "parity", str(tmp_path)]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["case/output", "error", "allowed"]
    assert lines[1].startswith("good/hidden ")
    assert lines[1].endswith(" ok")
    assert len(lines) == 2


def test_command_refuses_a_folder_without_cases(tmp_path):
    assert main(["models", "parity", str(tmp_path)]) == 2


def test_unknown_kind_is_named(tmp_path):
    save_file({"in.x": torch.zeros(2)}, tmp_path / "riddle.safetensors")
    (tmp_path / "cases.json").write_text(json.dumps({"riddle": {"note": "?"}}))
    with pytest.raises(DataError, match="riddle is of no known kind"):
        parity.run_folder(tmp_path)


def test_a_case_that_was_cut_short_is_named(tmp_path):
    copy_case(tmp_path, "text_encoder", "short")
    path = tmp_path / "short.safetensors"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"short\.safetensors cannot be read"):
        parity.run_folder(tmp_path)
