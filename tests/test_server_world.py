"""A real world, small and random, behind the server: over the wire it is what it is in process."""

import json

import numpy as np
import pytest
from safetensors.torch import save
from server_fixture import serving
from worlds import write_random_world

import worldwire
from worldwire.errors import ConfigError, ImageError, StateError
from worldwire.inputs import Inputs
from worldwire_runtime.saved_state import read_state
from worldwire_runtime.world import World

WALK = [Inputs(frozenset({"forward"}), yaw_deg=3.0), Inputs(frozenset({"left"}), pitch_deg=-1.0), Inputs()]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World.load(write_random_world(tmp_path_factory.mktemp("world")), device="cpu", precision="float32")


@pytest.fixture
def client(world):
    with serving(world) as server, worldwire.connect(server.endpoint) as connected:
        yield connected


def test_the_same_walk_gives_the_same_frames(world, client):
    local = world.session()
    with client.session() as remote:
        pairs = [(local.reset("a village", seed=4), remote.reset("a village", seed=4))]
        for inputs in WALK:
            assert remote.frames_per_step == local.frames_per_step
            pairs += zip(local.step(inputs), remote.step(inputs), strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
        np.testing.assert_allclose(ours.c2w, theirs.c2w, atol=1e-9)
        assert (ours.index, ours.memory_latents) == (theirs.index, theirs.memory_latents)


def test_saved_kept_and_branched_walks_go_on_bit_for_bit(client):
    with client.session() as session:
        session.reset(seed=2)
        session.step(WALK[0])
        state, kept, branch = session.save(), session.keep(), session.branch()
        expected = session.step(WALK[1])[-1].pixels
        np.testing.assert_array_equal(branch.step(WALK[1])[-1].pixels, expected)
        for saved in (state, kept):
            session.restore(saved)
            np.testing.assert_array_equal(session.step(WALK[1])[-1].pixels, expected)


def test_a_state_that_does_not_fit_is_refused_and_the_session_goes_on(client):
    with client.session() as session, client.session() as twin:
        for each in (session, twin):
            each.reset(seed=2)
            each.step(WALK[0])
        tensors, facts = read_state(session.save())
        for name in ("text", "decoder.03"):
            spoilt = tensors | {name: tensors[name][..., 1:].contiguous()}
            with pytest.raises(StateError, match=rf"does not fit this world; expected: {name} \["):
                session.restore(save(spoilt, {"session": json.dumps(facts)}))
            expected, ours = twin.step(WALK[1]), session.step(WALK[1])
            np.testing.assert_array_equal(ours[-1].pixels, expected[-1].pixels)


def test_a_live_walk_moves_and_tells_its_stages(client):
    with client.session() as session:
        session.reset()
        session.start()
        seq = session.send_input({"forward"})
        frames = []
        while len(frames) < 48:
            frames += session.poll_frames(timeout_s=5)
    assert frames[-1].ack == seq
    assert frames[-1].c2w[2, 3] > 1
    stages = set().union(*(frame.timings_ms for frame in frames))
    assert {"camera", "memory", "denoise", "decode", "encode", "transport"} <= stages


def test_a_seed_image_of_the_wrong_size_is_named_and_the_session_goes_on(client):
    with client.session() as session:
        with pytest.raises(ImageError):
            session.reset(image=np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(ConfigError, match="unknown seed image"):
            session.reset(image="atlantis")
        assert session.reset().index == 0


def test_the_world_tells_what_a_benchmark_needs(client):
    assert {
        "device",
        "gpus",
        "precision",
        "attention",
        "steps",
        "vae_pruning",
        "clip_plan",
    } <= client.info.extra.keys()
