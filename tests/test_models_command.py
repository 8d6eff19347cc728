"""`worldwire models`: the list of presets, and what `verify` finds in a released tree."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from released_trees import STEM, write_tree
from safetensors.torch import load_file, save_file

from worldwire.cli import main

DISTILLED = f"base_distilled_model/{STEM}.safetensors"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    return write_tree(tmp_path_factory.mktemp("release"))


@pytest.fixture
def tree(pristine, tmp_path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "release"))


def verify(tree: Path, *options: str) -> tuple[int, dict[str, dict]]:
    """The exit status, and the report by the name of each file."""
    written = tree.parent / "report.json"
    status = main(["models", "verify", str(tree), "--json", str(written), *options])
    report = json.loads(written.read_text())
    return status, {Path(file["path"]).name: file for file in report["files"]}


def spoil(path: Path, change) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path)


def test_the_list_says_what_each_preset_needs(capsys):
    assert main(["models", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert {"tiny", "5b-720p", "28b-moe"} <= lines.keys()
    assert "704x1280" in lines["5b-720p"]
    assert "weights apart" in lines["5b-720p"]
    assert "GiB" in lines["28b-moe"]


def test_a_good_tree_is_good_and_says_how_it_is_stored(tree, capsys):
    status, files = verify(tree)
    assert status == 0
    assert files[f"{STEM}.safetensors"]["stored_as"] == ["float32"]
    assert files[f"{STEM}.safetensors.index.json"]["stored_as"] == ["bfloat16"]
    assert "this tree plays" in capsys.readouterr().out


def test_what_training_left_is_reported_not_refused(tree):
    _, files = verify(tree)
    light = files["MG-LightVAE.pth"]
    assert "dynamic_feature_projection_heads.0.weight" in light["set_aside"]
    assert any(name.startswith("encoder.") for name in light["set_aside"])
    assert files["Wan2.2_VAE.pth"]["set_aside"] == []


def test_every_fault_of_a_transformer_is_named(tree, capsys):
    def change(state):
        del state["blocks.1.ffn.0.bias"]
        state["blocks.0.norm3.weight"] = torch.zeros(7)
        state["head.extra"] = torch.zeros(2)

    spoil(tree / DISTILLED, change)
    status, files = verify(tree)
    assert status == 1
    assert files[f"{STEM}.safetensors"]["faults"] == {
        "missing": ["blocks.1.ffn.0.bias"],
        "extra": ["head.extra"],
        "mis-shaped": ["blocks.0.norm3.weight [7] instead of [32]"],
    }
    out = capsys.readouterr().out
    assert "blocks.1.ffn.0.bias" in out
    assert "does not play" in out


def test_a_decoder_with_a_hole_is_named(tree):
    state = torch.load(tree / "MG-LightVAE_v2.pth", weights_only=True)
    del state["generator"]["decoder.conv_in.weight"]
    torch.save(state, tree / "MG-LightVAE_v2.pth")
    status, files = verify(tree)
    assert status == 1
    assert files["MG-LightVAE_v2.pth"]["faults"] == {"missing": ["decoder.conv1.weight"]}


@pytest.mark.parametrize("name", [DISTILLED, "Wan2.2_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth"])
def test_a_file_cut_short_is_named_by_its_header(tree, name):
    path = tree / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 100])
    status, files = verify(tree)
    assert status == 1
    assert "unreadable" in files[path.name]["faults"]


def test_missing_files_are_named(tree, capsys):
    (tree / "Wan2.2_VAE.pth").unlink()
    shutil.rmtree(tree / "google")
    assert verify(tree)[0] == 1
    out = capsys.readouterr().out
    assert "BAD Wan2.2_VAE.pth is missing" in out
    assert "BAD google/umt5-xxl is missing" in out


def test_in_full_numbers_that_are_none_are_found_and_files_hashed(tree):
    assert verify(tree, "--full")[0] == 0
    spoil(tree / DISTILLED, lambda state: state["blocks.0.modulation"].fill_(float("nan")))
    assert verify(tree)[0] == 0
    status, files = verify(tree, "--full")
    assert status == 1
    assert files[f"{STEM}.safetensors"]["faults"] == {"not finite": ["blocks.0.modulation"]}
    assert len(files[f"{STEM}.safetensors.index.json"]["sha256"]) == 3


def test_two_copies_of_the_network_in_one_file_play_the_student(tree):
    """Distillation code may store student and critic."""

    def double(state):
        for name in list(state):
            tensor = state.pop(name)
            state["student." + name], state["critic." + name] = tensor, tensor.clone()

    spoil(tree / DISTILLED, double)
    status, files = verify(tree)
    assert status == 0
    assert len(files[f"{STEM}.safetensors"]["set_aside"]) == files[f"{STEM}.safetensors"]["tensors"]
    assert all(name.startswith("critic.") for name in files[f"{STEM}.safetensors"]["set_aside"])


def test_a_folder_of_something_else_is_refused(tmp_path):
    assert main(["models", "verify", str(tmp_path)]) == 2
