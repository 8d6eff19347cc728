"""Compiled training steps: only inside the context, the same numbers, and never waiting for the GPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from base_training_cases import make_store, tiny_world
from test_base_training import ALONE, config
from test_distillation import config as distill_config
from torch._dynamo.utils import counters

from worldwire_runtime.config import WorldConfig
from worldwire_runtime.model import action, blocks
from worldwire_runtime.sources import CONFIG_FILE, preset_folder
from worldwire_training.base_config import Compile, OptimizerConfig, OwnContext
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.base_training import BaseTrainer
from worldwire_training.clip_sampler import ClipBatch, ClipSampler, DropRates, Shape, ShapeSchedule, Told
from worldwire_training.common import CACHE_TAG, COMPILE_OPTIONS, Ranks, StepBudget
from worldwire_training.distillation import DistillTrainer
from worldwire_training.fused import compile_blocks, fused_elementwise
from worldwire_training.speed_probe import random_store
from worldwire_training.worlds import load_base


def test_the_functions_are_replaced_inside_only():
    plain = blocks.modulate, blocks.rotate, action.rotate
    with fused_elementwise(enabled=False):
        assert blocks.modulate is plain[0]
    with fused_elementwise():
        assert blocks.modulate is not plain[0]
        assert blocks.rotate is action.rotate
    assert (blocks.modulate, blocks.rotate, action.rotate) == plain


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiling takes a minute without a GPU")
@pytest.mark.parametrize("shape", [Shape(5, 4, 2), Shape(0, 1, 1), Shape(0, 0, 1)], ids=lambda s: s.name)
def test_fused_steps_give_the_losses_and_gradients_of_plain_ones(shape: Shape):
    store = make_store()
    device = torch.device("cuda")
    store = replace(store, **{name: value.to(device) for name, value in vars(store).items()})
    batch = ClipSampler(store, tiny_world()).sample(
        shape, 4, torch.Generator(device).manual_seed(0), DropRates()
    )
    torch.manual_seed(0)
    model = BaseModel.build(tiny_world()).to(device)
    results = []
    for fused in (False, True):
        draw = torch.Generator(device).manual_seed(1)
        with fused_elementwise(fused), torch.autocast("cuda", torch.bfloat16):
            loss = clip_losses(model, batch, NoiseConfig(draws=2), draw).mean()
        model.zero_grad()
        loss.backward()
        results.append((loss.detach(), model.dit.head.head.weight.grad.clone()))
    torch.testing.assert_close(results[0], results[1], rtol=3e-2, atol=3e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="compiling takes a minute without a GPU")
@pytest.mark.parametrize("kind", ["none", "fused", "blocks"])
def test_steps_on_a_gpu_learn_and_never_wait_for_it(tmp_path: Path, kind: Compile):
    settings = config(
        tmp_path,
        device="cuda",
        mixed_precision=True,
        compile=kind,
        shapes=(Shape(5, 4, 2),),
        optimizer=OptimizerConfig(kind="muon", warmup_steps=1),
        noise=NoiseConfig(draws=2, sampler_share=0.5, error_gamma=0.5),
        own_context=OwnContext(share=1.0),
    )
    trainer, budget = _trainer(settings), StepBudget(4)
    before = {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}
    with fused_elementwise(kind == "fused"):
        if kind != "none":
            trainer.compile()
        trainer.train_step(budget)
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.train_step(budget)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert trainer.recent.first_broken() is None
    moved = [name for name, weight in trainer.model.named_parameters() if not weight.equal(before[name])]
    assert {"dit.blocks.0.self_attn.q.weight", "dit.blocks.1.ffn.2.weight", "dit.head.head.weight"} <= set(
        moved
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["none", "blocks"])
@pytest.mark.parametrize("shape", [Shape(0, 4, 2), Shape(5, 4, 2), Shape(5, 4, 10)], ids=lambda s: s.name)
def test_gradients_of_the_shipped_world_on_a_gpu_are_those_of_a_cpu(kind: Compile, shape: Shape):
    """At its real lengths: a library's kernels may be right for some numbers of tokens only."""
    wanted, device = _gradient(shape, torch.device("cpu")), Ranks.join("cuda").device
    got = _gradient(shape, device, compiled=kind == "blocks")
    assert float((got.cpu() - wanted).norm() / wanted.norm()) < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["none", "blocks"])
@pytest.mark.parametrize(
    "shape", [Shape(0, 0, 1), Shape(0, 1, 2), Shape(5, 4, 2), Shape(5, 4, 10)], ids=lambda s: s.name
)
def test_gradients_of_a_whole_step_on_a_gpu_are_those_of_its_clips(kind: Compile, shape: Shape):
    """A library's kernels may also be right for some numbers of sequences only."""
    device, draws = Ranks.join("cuda").device, 4
    clips = ShapeSchedule([shape], latents_per_step=1024, seed=0, draws=draws).samples(shape)
    told = {"compiled": kind == "blocks", "clips": clips, "draws": draws}
    whole, parts = (_gradient(shape, device, **told, at_once=count) for count in (clips, 4))
    assert float((whole - parts).norm() / parts.norm()) < 0.05


def _gradient(
    shape: Shape,
    device: torch.device,
    compiled: bool = False,
    clips: int = 2,
    draws: int = 2,
    at_once: int = 2,
) -> torch.Tensor:
    """Of the loss at a few noise levels of clips of random latents, all parameters in one vector."""
    folder = preset_folder("tiny")
    world = WorldConfig.from_file(folder / CONFIG_FILE)
    model = load_base(folder, world).to(device)
    if compiled:
        compile_blocks(model.dit)
    torch.manual_seed(0)
    sampler, generator = ClipSampler(random_store(world, "cpu"), world), torch.Generator().manual_seed(0)
    batch = sampler.sample(shape, clips, generator, DropRates())
    drawn = torch.randn(
        clips, draws, *batch.latents[0, :, shape.context :].shape, generator=generator
    ).flatten(0, 1)
    sigma = torch.linspace(0.95, 0.6, draws).repeat(clips)
    for first in range(0, clips, at_once):
        part, rows = _part(batch, first, at_once), slice(draws * first, draws * (first + at_once))
        noise, level = drawn[rows], sigma[rows]
        loss = _loss(model, _moved(part, device), noise.to(device), level.to(device))
        (loss * len(noise) / len(drawn)).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def _loss(model: BaseModel, batch: ClipBatch, drawn: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    context, device = batch.shape.context, drawn.device
    new = batch.latents[:, :, context:].float().repeat_interleave(len(drawn) // len(batch.latents), 0)
    noisy = torch.lerp(new, drawn, sigma.view(-1, 1, 1, 1, 1))
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        velocity = model(batch, batch.latents[:, :, :context], noisy, sigma)
    return (velocity.float() - (drawn - new)).square().mean()


def _part(batch: ClipBatch, first: int, clips: int) -> ClipBatch:
    fields = {
        name: value[first : first + clips]
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor) and name != "slots"
    }
    told = Told(*(part[first : first + clips] for part in vars(batch.told).values()))
    return replace(batch, **fields, told=told)


def _moved(batch: ClipBatch, device: torch.device) -> ClipBatch:
    fields = {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in vars(batch).items()
    }
    told = Told(*(part.to(device) for part in vars(batch.told).values()))
    return replace(batch, **fields | {"told": told})


def _trainer(settings) -> BaseTrainer:
    world = tiny_world()
    return BaseTrainer(settings, world, random_store(world, settings.device), Ranks.join(settings.device))


def _compile_without_a_backend(function=None, *, options, **others):
    assert options == COMPILE_OPTIONS  # without them gradients are wrong on a GPU
    return COMPILE(function, backend="eager", **others)


COMPILE = torch.compile


@pytest.mark.parametrize("method", ["base", "distill"])
def test_the_first_steps_find_everything_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    """Graphs are counted as the compiler sees them: all own contexts, sampling steps and turns."""
    monkeypatch.setattr(torch, "compile", _compile_without_a_backend)
    torch._dynamo.reset()
    counters.clear()
    shapes = (Shape(5, 4, 2), Shape(0, 3, 2))  # the clip that opens the second one's session is not listed
    if method == "base":
        settings = config(tmp_path, compile="blocks", shapes=shapes, own_context=OwnContext(share=0.5))
        trainer = _trainer(settings)
    else:
        settings = distill_config(tmp_path, compile="blocks", shapes=shapes, latents_per_step=24)
        store = random_store(tiny_world(), "cpu")
        trainer = DistillTrainer(settings, BaseModel.build(tiny_world()), tiny_world(), store, ALONE)
    trainer.compile()
    compiled = counters["stats"]["unique_graphs"]
    for _ in range(8):
        trainer.train_step(StepBudget(8))
    assert counters["stats"]["unique_graphs"] == compiled > 0
    assert not counters["graph_break"]


def test_arithmetic_is_settled_before_anything_compiles(monkeypatch: pytest.MonkeyPatch):
    """What is compiled ahead, and the run, must ask the compiler's cache for the same thing."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    torch.compiler.config.cache_key_tag = "theirs"
    torch.set_float32_matmul_precision("highest")
    for _ in range(2):
        Ranks.join("cuda")
    assert torch.get_float32_matmul_precision() == "high"
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.compiler.config.cache_key_tag == f"theirs {CACHE_TAG}"
