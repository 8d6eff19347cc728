"""The memory that a world is said to take before it is loaded, against what sessions really hold."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils import _pytree as pytree
from worlds import random_config, write_random_world

from worldwire.inputs import Inputs
from worldwire_runtime.config import ClipPlan, WorldConfig
from worldwire_runtime.convolutions import APART, PRODUCTS, TAPS, VOLUME, cache_shapes, use_form
from worldwire_runtime.footprint import Footprint, Resident, latents_per_call, memory_estimate
from worldwire_runtime.model.vae import VAE, VAEConfig
from worldwire_runtime.sources import CONFIG_FILE, preset_folder
from worldwire_runtime.usage import GIB
from worldwire_runtime.world import World

FORWARD = Inputs(frozenset({"forward"}))
FLOAT32_ON_A_CPU = Resident(bytes_per_weight=4, decoder=TAPS, overlap=False)
SMALL_VAES = {
    "as released": VAEConfig(dim=4, dec_dim=8, z_dim=4, pruning_rate=0.75, encoder_pruning_rate=0.0),
    "one block, no start": VAEConfig(
        dim=4, dec_dim=4, z_dim=4, num_res_blocks=1, decoder_res_blocks=1, session_start="skip_time_convs"
    ),
    "shallow": VAEConfig(dim=4, dec_dim=4, z_dim=4, dim_mult=(1, 3), temporal_downsample=(True,)),
}


def preset(name: str) -> WorldConfig:
    return WorldConfig.from_file(preset_folder(name) / CONFIG_FILE)


def in_mode(config: WorldConfig, attention: str) -> WorldConfig:
    return dataclasses.replace(config, dit=dataclasses.replace(config.dit, attention=attention))


def bytes_of(tensors) -> int:
    """What tensors take, each with a storage of its own."""
    leaves = [leaf for leaf in pytree.tree_leaves(tensors) if isinstance(leaf, torch.Tensor)]
    storages = (leaf.untyped_storage() for leaf in leaves)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


@pytest.mark.parametrize("form", [TAPS, PRODUCTS, VOLUME, APART])
@pytest.mark.parametrize("config", SMALL_VAES.values(), ids=SMALL_VAES)
def test_a_decoders_cache_has_the_shapes_that_were_foretold(config, form):
    torch.manual_seed(0)
    vae = VAE(config).requires_grad_(False)
    use_form(vae.decoder, form)
    foretold = cache_shapes(vae.decoder, (2, 3))
    cache = None
    for count in (1, 1, 2):
        _, cache = vae.decode(torch.randn(1, 4, count, 2, 3), cache)
        assert [tensor.shape for tensor in cache] == foretold


@pytest.mark.parametrize(
    ("pruning", "form", "gib"), [(0.75, PRODUCTS, 0.967), (0.75, TAPS, 0.749), (0.0, TAPS, 2.995)]
)
def test_the_cache_of_720p_is_what_its_decoder_leaves(pruning, form, gib):
    config = preset("5b-720p")
    config = dataclasses.replace(config, vae=dataclasses.replace(config.vae, pruning_rate=pruning))
    with torch.device("meta"):
        vae = VAE(config.vae).bfloat16()
        use_form(vae.decoder, form)
        latents = torch.empty(1, config.vae.z_dim, 1, *config.latent_hw)
        _, cache = vae.to("meta").decode(latents)
    foretold = memory_estimate(config, Resident(decoder=form)).session["decoder's cache"]
    assert foretold == sum(tensor.nbytes for tensor in cache)
    assert foretold / GIB == pytest.approx(gib, abs=1e-3)


def test_a_session_holds_the_cache_that_was_foretold(tmp_path):
    world = World.load(write_random_world(tmp_path), "cpu", "float32")
    session = world.session()
    session.reset(seed=1)
    session.step(FORWARD)
    foretold = memory_estimate(world.config, FLOAT32_ON_A_CPU)
    assert bytes_of(session._decoder.state()) == foretold.session["decoder's cache"]
    assert foretold.session["held keys"] == 0
    extra = world.info.extra
    assert extra["estimated_session_gib"] == round(foretold.session_bytes / GIB, 2)
    assert extra["estimated_memory_gib"] == round(foretold.device_bytes / GIB, 2)


@pytest.mark.parametrize("plan", [ClipPlan(3, 4, 2, 5), ClipPlan(6, 3, 1, 2), ClipPlan(3, 3, 2, 0)], ids=str)
def test_a_rolling_session_holds_the_keys_that_were_foretold(tmp_path, plan):
    """The most that it held at any time; the first clip may be the longest."""
    world = World.load(write_random_world(tmp_path, "rolling"), "cpu", "float32")
    world.config = dataclasses.replace(world.config, plans={"any": plan}, default_plan="any")
    session = world.session()
    session.reset(seed=1)
    held = []
    for _ in range(4):
        session.step(FORWARD)
        held.append(bytes_of(session._context._room))
    assert max(held) == memory_estimate(world.config, FLOAT32_ON_A_CPU).session["held keys"]


def test_the_keys_of_720p_are_counted_for_each_session():
    config = in_mode(preset("5b-720p"), "rolling")
    needs = memory_estimate(config, Resident(), config.plan("low-latency"))
    dit, tokens = config.dit, 22 * 40
    steered = dit.action_config
    keys = 30 * dit.dim * tokens + len(steered.blocks) * (
        steered.mouse_hidden_dim * tokens + steered.keyboard_hidden_dim
    )
    assert needs.session["held keys"] == 2 * 2 * 10 * keys
    assert needs.session["held keys"] / GIB == pytest.approx(3.5, abs=0.05)
    assert needs.session_bytes == sum(needs.session.values())
    assert f"{needs.session_bytes / GIB:.1f} for each further session" in str(needs)
    for attention in ("joint", "cached"):
        assert memory_estimate(in_mode(config, attention), Resident()).session["held keys"] == 0


def test_frames_that_are_decoded_beside_the_next_clip_take_memory_of_their_own():
    config = preset("5b-720p")
    beside, after = (memory_estimate(config, Resident(overlap=overlap)) for overlap in (True, False))
    assert beside.device["clip"] - after.device["clip"] > GIB  # two caches at the turn of a latent among it


def test_several_latents_in_a_call_are_counted_where_there_is_room_for_them():
    """And only there: what a small card, or one that others use, must have for the paper's plan stays."""
    config = preset("5b-720p")
    light = dataclasses.replace(config.vae, pruning_rate=0.75, encoder_pruning_rate=0.0)
    config = dataclasses.replace(config, vae=light)
    paper, low = config.plan("paper"), config.plan("low-latency")
    cards = [Resident(text=False, eight_bit="all", gpu_bytes=gib * GIB) for gib in (24, 48, 140)]
    assert [latents_per_call(config, paper, card) for card in cards] == [1, 2, 5]
    small, middle, large = (memory_estimate(config, card, paper).device_bytes / GIB for card in cards)
    assert small < 20 < middle < 24
    assert 28.05 < large < 29  # the first is what was measured
    assert memory_estimate(config, cards[2], low) == memory_estimate(config, cards[0], low)


def test_parts_that_are_not_there_are_not_named():
    assert "held keys" not in str(memory_estimate(random_config(), Resident()))
    needs = Footprint({"driver": GIB, "text encoder": 0}, {"memory": GIB // 2})
    assert str(needs) == "1.5 GiB (driver 1.0, memory 0.5; 0.5 for each further session)"
