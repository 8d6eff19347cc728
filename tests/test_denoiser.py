"""What a network makes of a prompt, and guidance of a first picture by it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import write_random_world

from worldwire.inputs import Inputs
from worldwire_runtime.denoiser import Prompts
from worldwire_runtime.model.dit import DiT
from worldwire_runtime.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World.load(write_random_world(tmp_path_factory.mktemp("world")), device="cpu", precision="float32")


def first_picture(world: World, prompt: str, guidance: float) -> np.ndarray:
    sampler = replace(world.config.sampler, first_picture_guidance=guidance)
    world.config = replace(world.config, sampler=sampler)
    return world.session().reset(prompt=prompt, seed=1).pixels.astype(float)


def test_guidance_moves_a_first_picture_away_from_the_empty_prompt(world):
    empty = first_picture(world, "", 1.0)
    assert np.array_equal(first_picture(world, "", 5.0), empty)
    distances = [
        np.abs(first_picture(world, "a village by day", scale) - empty).mean() for scale in (1.0, 20.0)
    ]
    assert 0 < distances[0] < distances[1]


def test_a_session_shows_its_prompt_to_the_network_once(world, monkeypatch):
    encoded = []
    plain = DiT.encode_text

    def counted(dit, text):
        encoded.append(text)
        return plain(dit, text)

    monkeypatch.setattr(DiT, "encode_text", counted)
    session = world.session()
    session.reset(seed=1, prompt="a village by day")
    before = len(encoded)
    for prompt in (None, "a day", None):
        if prompt is not None:
            session.set_prompt(prompt)
        for _ in range(3):
            session.step(Inputs())
    assert len(encoded) == before + 1


def test_text_keys_are_those_of_the_text_and_go_with_it(world):
    dit = world.denoiser.dit
    prompts, text = Prompts(dit), world.encode_prompt("a village")
    with torch.inference_mode():
        keys = prompts(text)
        assert prompts(text) is keys
        assert prompts(keys) is keys
        made = dit.encode_text(text).blocks
        assert all(map(torch.equal, made[0], keys.blocks[0]))
        del text
        prompts(world.encode_prompt("a village"))
    assert len(prompts._kept) == 1
    with torch.enable_grad():  # of weights that learn nothing is kept
        text = torch.zeros(1, 8, 16)
        assert prompts(text) is not prompts(text)
