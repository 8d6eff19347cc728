"""Fused elementwise work: only inside the context, and the same numbers."""

from dataclasses import replace

import pytest
import torch
from base_training_cases import make_store, tiny_world

from worldwire_runtime.model import action, blocks
from worldwire_training.base_model import BaseModel, NoiseConfig, clip_losses
from worldwire_training.clip_sampler import ClipSampler, DropRates, Shape
from worldwire_training.fused import fused_elementwise


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
