"""How a world is made fast: what fits the device, what is refused, what commands pass on and clients hear."""

from __future__ import annotations

import argparse

import pytest
import torch
from worlds import write_random_world

from worldwire.errors import ConfigError, MachineError
from worldwire.inputs import Inputs
from worldwire_runtime import speed
from worldwire_runtime.commands.world_options import add_world_options, as_arguments, load_world
from worldwire_runtime.quantize.attention import attend_8bit
from worldwire_runtime.speed import Speed
from worldwire_runtime.world import World

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_world_options(parser)
    return parser.parse_args(words)


def test_what_fits_the_device():
    assert Speed().on(CPU) == Speed(compiled=False, graphs=False, overlap=False)
    assert Speed().on(CUDA) == Speed(compiled=True, graphs=True, overlap=True)
    assert Speed(compiled=False).on(CUDA) == Speed(compiled=False, graphs=True, overlap=True)


def test_what_cannot_be_is_refused(monkeypatch):
    with pytest.raises(ConfigError, match="CUDA graphs"):
        Speed(graphs=True).on(CPU)
    with pytest.raises(ConfigError, match="overlap"):
        Speed(overlap=True).on(CPU)
    with pytest.raises(ConfigError, match="choice"):
        Speed(choose_on="moon")
    monkeypatch.setattr(speed.torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(speed.torch.cuda, "get_device_name", lambda _: "A100")
    with pytest.raises(MachineError, match="A100"):
        Speed(attention_8bit=True).on(CUDA)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--compile", "--no-graphs", "--no-overlap"],
        ["--no-compile", "--attention-8bit", "--choose-on", "cpu", "--threads", "1"],
        ["--weights", "some/where", "--gpu-memory", "24", "--text-on", "cpu", "--offload", "--plan", "paper"],
        ["--preset", "5b-720p", "--random-weights", "--attention", "cached", "--vae-pruning", "0.5"],
    ],
)
def test_commands_pass_their_options_on(words):
    args = parsed(*words)
    assert parsed(*as_arguments(args)) == args


def test_a_world_says_how_it_was_made_fast(tmp_path):
    folder = write_random_world(tmp_path)
    world = load_world(parsed("--preset", str(folder), "--device", "cpu"))
    assert world.info.extra["speed"] == {
        "compiled": False,
        "graphs": False,
        "attention_8bit": False,
        "choose_on": "device",
        "overlap": False,
        "settling_clips": 0,
    }


def test_a_process_computes_in_as_many_threads_as_it_was_told(tmp_path):
    before, folder = torch.get_num_threads(), write_random_world(tmp_path)
    try:
        for threads in (1, 3):
            words = ["--preset", str(folder), "--device", "cpu", "--threads", str(threads)]
            world = load_world(parsed(*words))
            assert torch.get_num_threads() == threads
            assert world.info.extra["threads"] == threads
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="--threads is too small"):
        load_world(parsed("--threads", "0"))


def test_8bit_attention_is_in_every_block_and_plays(tmp_path):
    folder = write_random_world(tmp_path)
    world = World.load(folder, "cpu", "float32", speed=Speed(attention_8bit=True, choose_on="cpu"))
    assert all(block.self_attn.attend is attend_8bit for block in world.denoiser.dit.blocks)
    session = world.session()
    session.reset(seed=0)
    assert len(session.step(Inputs())) == 8
