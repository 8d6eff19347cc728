"""Guidance of a first picture: on an empty prompt it does nothing, on others it leads away from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import write_random_world

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
