"""The transformer: cached attention against a slow masked reference, conditions, positions, types, errors."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from worldwire.errors import ConfigError, StateError
from worldwire_runtime.model import action, attention, blocks
from worldwire_runtime.model.action import build_windows, released_padding
from worldwire_runtime.model.config import ActionConfig, DiTConfig
from worldwire_runtime.model.dit import ClipConditions, DiT
from worldwire_runtime.model.rope import rotate, trunk_rotary

MEMORY, PAST, NEW, ROWS, COLUMNS, BATCH = 2, 2, 3, 4, 6, 2
CONTEXT, LATENTS = MEMORY + PAST, MEMORY + PAST + NEW

ACTION = ActionConfig(
    blocks=(0, 1),
    heads_num=2,
    hidden_size=8,
    img_hidden_size=48,
    keyboard_dim_in=6,
    keyboard_hidden_dim=24,
    mouse_dim_in=2,
    mouse_hidden_dim=24,
    rope_dim_list=(4, 4, 4),
    mouse_qk_dim_list=(4, 4, 4),
)
CONFIG = DiTConfig(
    dim=48,
    ffn_dim=64,
    num_heads=4,
    num_layers=3,
    in_dim=5,
    out_dim=5,
    text_dim=7,
    text_len=4,
    sigma_theta=0.8,
    freq_dim=16,
    action_config=ACTION,
    attention="cached",
    rays_per_cell=1,
)


def build(seed: int = 0, **changes) -> DiT:
    """A network without the zeros of a fresh one, so that every branch matters."""
    torch.manual_seed(seed)
    model = DiT(dataclasses.replace(CONFIG, **changes)).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, std=0.2)
        if "norm" in name and name.endswith("weight"):
            parameter.data += 1.5
    return model


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative to the size of `theirs`."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def conditions(memory: int = MEMORY, window: int = PAST + NEW, batch: int = BATCH) -> ClipConditions:
    torch.manual_seed(1)
    return ClipConditions(
        text=torch.randn(batch, CONFIG.text_len, CONFIG.text_dim),
        plucker=torch.randn(batch, memory + window, CONFIG.plucker_channels, ROWS, COLUMNS),
        keyboard=torch.randn(batch, 4 * (window + 2), 6),
        mouse=torch.randn(batch, 4 * (window + 2), 2),
        memory_times=torch.arange(memory),
        window_times=torch.arange(8, 8 + window),
    )


def inputs(batch: int = BATCH, latents: int = LATENTS) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(2)
    timestep = torch.full((batch, latents), 700.0)
    timestep[:, :CONTEXT] = 0.0
    return torch.randn(batch, CONFIG.in_dim, latents, ROWS, COLUMNS), timestep


@pytest.fixture(autouse=True)
def no_gradients(request):
    with torch.set_grad_enabled("gradients" in request.node.name):
        yield


def masked_attend(query, keys, context=attention.EVERYTHING):
    """Attention with an explicit mask and softmax."""
    mask = torch.zeros(query.shape[2], keys.key.shape[2])
    mask[: context.queries, context.keys :] = -torch.inf
    scores = query @ keys.key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
    return scores.softmax(-1) @ keys.value


def test_cached_attention_equals_a_slow_masked_reference(monkeypatch):
    model, (latents, timestep) = build(), inputs()
    prepared = model.prepare(conditions())
    fast = model(latents, timestep, prepared, context=CONTEXT)
    for module in (blocks, action):
        monkeypatch.setattr(module, "attend", masked_attend)
    for block in model.blocks:
        for part in filter(None, (block.self_attn, block.action_model)):
            part.attend = masked_attend
    assert torch.allclose(fast, model(latents, timestep, prepared, context=CONTEXT), atol=1e-5)


@pytest.mark.parametrize("attention", ["joint", "cached"])
@pytest.mark.parametrize("action_blocks", [(0, 1), (1, 2)])
def test_the_last_block_spares_what_nobody_reads_of_the_context(attention, action_blocks):
    model = build(attention=attention, action_config=dataclasses.replace(ACTION, blocks=action_blocks))
    (latents, timestep), prepared = inputs(), model.prepare(conditions())
    spared = model(latents, timestep, prepared, context=CONTEXT)
    with torch.enable_grad():  # learning runs every block whole
        whole = model(latents, timestep, prepared, context=CONTEXT)
    assert torch.allclose(spared, whole.detach(), atol=1e-5)


@pytest.mark.parametrize("action_config", [ACTION, dataclasses.replace(ACTION, blocks=(1, 2)), None])
def test_encoded_context_and_denoising_equal_the_full_forward(action_config):
    model, (latents, timestep) = build(action_config=action_config), inputs()
    prepared = model.prepare(conditions())
    full = model(latents, timestep, prepared, context=CONTEXT)
    cache = model.encode_context(latents[:, :, :CONTEXT], prepared)
    step = model.denoise(latents[:, :, CONTEXT:], timestep[:, CONTEXT:], prepared, cache)
    assert full.shape == (BATCH, CONFIG.out_dim, NEW, ROWS, COLUMNS)
    assert torch.allclose(full, step, atol=1e-5)


def test_context_depends_on_no_new_latent_and_no_new_action():
    model, (latents, _) = build(), inputs()
    cond = conditions()
    later = dataclasses.replace(cond, keyboard=cond.keyboard.clone(), mouse=cond.mouse.clone())
    later.keyboard[:, 4 * (PAST + 2) :] += 1
    later.mouse[:, 4 * (PAST + 2) :] += 1
    context = latents[:, :, :CONTEXT]
    first, second = (model.encode_context(context, model.prepare(told)) for told in (cond, later))
    for ours, theirs in zip(first.blocks, second.blocks, strict=True):
        assert torch.equal(ours.attention.key, theirs.attention.key)
        assert torch.equal(ours.attention.value, theirs.attention.value)


def test_no_context_cannot_be_encoded():
    model, (latents, _) = build(), inputs()
    with pytest.raises(StateError, match="no context"):
        model.encode_context(latents[:, :, :0], model.prepare(conditions()))


def test_joint_attention_sees_everything_and_returns_what_is_asked_for():
    model, (latents, timestep) = build(attention="joint"), inputs()
    prepared = model.prepare(conditions())
    everything = model(latents, timestep, prepared)
    assert torch.equal(everything[:, :, CONTEXT:], model(latents, timestep, prepared, context=CONTEXT))
    changed = latents.clone()
    changed[:, :, -1] += 1
    assert not torch.allclose(everything[:, :, 0], model(changed, timestep, prepared)[:, :, 0], atol=1e-3)
    with pytest.raises(StateError, match="cannot be encoded alone"):
        model.encode_context(latents[:, :, :CONTEXT], prepared)


@pytest.mark.parametrize("memory", [0, MEMORY])
def test_times_matter_only_relative_to_each_other(memory):
    model = build(attention="joint")
    latents, timestep = inputs(latents=memory + PAST + NEW)
    cond = conditions(memory)
    velocity = model(latents, timestep, model.prepare(cond))

    def told(change):
        times = {name: change(getattr(cond, name)) for name in ("memory_times", "window_times")}
        return model(latents, timestep, model.prepare(dataclasses.replace(cond, **times)))

    assert difference(told(lambda times: times + 37), velocity) < 1e-5
    assert difference(told(lambda times: times * 3), velocity) > 1e-3


def test_times_may_differ_between_samples():
    model, (latents, timestep) = build(), inputs()
    cond = conditions()
    times = torch.stack((cond.window_times, cond.window_times * 2))
    both = model(latents, timestep, model.prepare(dataclasses.replace(cond, window_times=times)), CONTEXT)
    for index in range(BATCH):
        alone = sample(cond, index, window_times=times[index])
        single = model(latents[index : index + 1], timestep[:1], model.prepare(alone), CONTEXT)
        assert torch.allclose(both[index], single[0], atol=1e-5)


def sample(cond: ClipConditions, index: int, **changes) -> ClipConditions:
    """One sample of a batch of conditions."""
    names = ("text", "plucker", "keyboard", "mouse")
    one = {name: getattr(cond, name)[index : index + 1] for name in names}
    return dataclasses.replace(cond, **one, **changes)


def test_each_condition_matters():
    model, (latents, timestep) = build(), inputs()
    cond = conditions()
    velocity = model(latents, timestep, model.prepare(cond), CONTEXT)
    for name in ("text", "plucker", "keyboard", "mouse"):
        changed = dataclasses.replace(cond, **{name: getattr(cond, name) + 0.5})
        assert not torch.allclose(
            velocity, model(latents, timestep, model.prepare(changed), CONTEXT), atol=1e-3
        )


def test_unknown_poses_count_as_zero_rays():
    model, (latents, timestep) = build(), inputs()
    cond = conditions()
    zero = cond.plucker.clone()
    zero[0] = 0
    dropped = dataclasses.replace(cond, pose_known=torch.tensor([False, True]))
    expected = dataclasses.replace(cond, plucker=zero)
    assert torch.equal(
        model(latents, timestep, model.prepare(dropped)), model(latents, timestep, model.prepare(expected))
    )


def test_timesteps_may_be_given_per_token():
    model, (latents, timestep) = build(), inputs()
    prepared = model.prepare(conditions())
    tokens = ROWS * COLUMNS // 4
    per_token = timestep.repeat_interleave(tokens, dim=1)
    assert torch.allclose(model(latents, timestep, prepared), model(latents, per_token, prepared), atol=1e-5)


def test_action_windows_follow_the_numbering():
    frames = torch.arange(4.0 * (3 + 2))
    keyboard = frames[None, :, None].expand(1, -1, 6)
    mouse = frames[None, :, None].expand(1, -1, 2)
    windows = build_windows(keyboard, mouse, MEMORY, ACTION)
    assert windows.keyboard.shape == (1, MEMORY + 3, 12, 6)
    assert (windows.keyboard[:, :MEMORY] == -1).all()
    assert (windows.mouse[:, :MEMORY] == 1).all()
    for latent in range(3):
        assert windows.mouse[0, MEMORY + latent, :, 0].tolist() == list(range(4 * latent, 4 * latent + 12))
    angles = windows.keyboard_rotary.cos[:, 0]
    assert torch.equal(angles[:MEMORY], angles[MEMORY : 2 * MEMORY])


@pytest.mark.parametrize(("frames", "copies"), [(9, 12), (57, 12), (24, 8), (56, 8)])
def test_released_padding_repeats_the_first_action(frames, copies):
    actions = torch.arange(1.0, frames + 1)[None, :, None]
    latents = (frames + 3) // 4
    padded = released_padding(actions, ACTION)[0, :, 0]
    assert len(padded) == 4 * (latents + 2)
    assert (padded[: copies + 1] == 1).all()
    assert padded[copies + 1] == 2


def test_gradients_reach_every_tensor():
    model, (latents, timestep) = build(), inputs()
    velocity = model(latents, timestep, model.prepare(conditions()), CONTEXT)
    F.mse_loss(velocity, torch.zeros_like(velocity)).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without
    assert all(name.endswith(("attn_q_norm.weight", "attn_k_norm.weight")) for name in without)
    assert all(parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_fresh_networks_predict_zero_and_still_learn_gradients():
    model, (latents, timestep) = DiT(CONFIG), inputs()
    velocity = model(latents, timestep, model.prepare(conditions()), CONTEXT)
    assert not velocity.any()
    (velocity - 1).square().sum().backward()
    assert model.head.head.weight.grad.any()


def test_action_norm_weights_are_a_switch():
    latents, timestep = inputs()
    applied = dataclasses.replace(ACTION, apply_qk_norm_weights=True)
    released, multiplied = build(), build(action_config=applied)
    velocities = [model(latents, timestep, model.prepare(conditions())) for model in (released, multiplied)]
    assert not torch.allclose(*velocities, atol=1e-3)


@pytest.mark.parametrize("latent_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_weights_stay_close(latent_dtype):
    model, (latents, timestep) = build(), inputs()
    exact = model(latents, timestep, model.prepare(conditions()), CONTEXT)
    model = model.to(torch.bfloat16)
    prepared = model.prepare(conditions())
    cache = model.encode_context(latents[:, :, :CONTEXT].to(latent_dtype), prepared)
    rough = model.denoise(latents[:, :, CONTEXT:].to(latent_dtype), timestep[:, CONTEXT:], prepared, cache)
    assert rough.dtype == latent_dtype
    assert difference(rough.float(), exact) < 0.05


def test_autocast_stays_close_and_gives_gradients():
    model, (latents, timestep) = build(), inputs()
    exact = model(latents, timestep, model.prepare(conditions()), CONTEXT)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(latents, timestep, model.prepare(conditions()), CONTEXT)
        rough.float().square().mean().backward()
    assert rough.dtype == torch.float32
    assert difference(rough.float(), exact) < 0.05
    assert model.patch_embedding.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("plucker", (BATCH, LATENTS - 1, 6, ROWS, COLUMNS)),
        ("plucker", (BATCH, LATENTS, 6, ROWS, COLUMNS + 1)),
        ("keyboard", (BATCH, 4 * (PAST + NEW), 6)),
        ("mouse", (BATCH, 4 * (PAST + NEW + 2), 3)),
        ("text", (BATCH, 4, 8)),
    ],
)
def test_conditions_that_do_not_fit_are_refused(name, shape):
    with pytest.raises(ConfigError, match=r"shape|grid"):
        build().prepare(dataclasses.replace(conditions(), **{name: torch.zeros(shape)}))


def test_latents_that_do_not_fit_the_clip_are_refused():
    model, (latents, timestep) = build(), inputs()
    with pytest.raises(ConfigError, match="latents has the wrong shape"):
        model(latents[:, :, 1:], timestep[:, 1:], model.prepare(conditions()))


def test_small_attention_on_a_cpu_equals_the_fused_kernel():
    query, key, value = torch.randn(3, 2, 3, 9, 8).unbind(0)
    keys = attention.KeyValue(key, value)
    assert torch.allclose(
        attention.plain_attention(query, keys), F.scaled_dot_product_attention(query, key, value), atol=1e-5
    )


@pytest.mark.parametrize("queries", [5, 80])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_whatever_a_cpu_takes_for_attention_equals_the_definition(queries, dtype):
    query = torch.randn(2, 3, queries, 8, dtype=dtype)
    keys = attention.KeyValue(*torch.randn(2, 2, 3, 90, 8, dtype=dtype).unbind(0))
    expected = attention.plain_attention(query, keys)
    torch.testing.assert_close(attention.attend(query, keys), expected, rtol=0, atol=1e-5)


# In float32 a CPU turns complex numbers; everything else takes the tables.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_turn_by_the_angles_of_their_place(dtype):
    heads, width, grid = 3, 16, (2, 3)
    times = torch.tensor([[0.0, 7.0]])
    tables = trunk_rotary(times, grid, heads, width, 0.8)
    x = torch.randn(1, 2, 6, heads, width, dtype=dtype)
    exponents = torch.arange(4, dtype=torch.float64) / 4, torch.arange(2, dtype=torch.float64) / 2
    for latent, cell, head in ((0, 0, 0), (1, 5, 2), (1, 2, 1)):
        base = 10000 * (1 + 0.8 * (head - 1))
        places = (times[0, latent], exponents[0]), (cell // 3, exponents[1]), (cell % 3, exponents[1])
        angles = torch.cat([place * base**-powers for place, powers in places])
        pairs = torch.view_as_complex(x[0, latent, cell, head].double().unflatten(-1, (-1, 2)))
        turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten()
        ours = rotate(x, tables.joined())[0, latent, cell, head]
        assert torch.allclose(ours.double(), turned, atol=1e-5)
    late = rotate(x[:, 1:], tables.part(1, 2).joined())
    assert torch.equal(late, rotate(x, tables.joined())[:, 1:])
