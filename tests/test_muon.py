"""Muon's update: orthogonal, of Adam's size, resumable, and only for matrices."""

import pytest
import torch
from torch import nn

from worldwire_training.muon import Muon, is_matrix, orthogonalise


@pytest.mark.parametrize("shape", [(2, 6, 20), (1, 20, 6)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_update_has_the_size_of_adams():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(32, 32, 3, 3))
    weight.grad = 1e-6 * torch.randn_like(weight)
    Muon([weight], lr=0.1).step()
    root_mean_square = weight.detach().square().mean().sqrt()
    assert 0.1 * 0.1 < root_mean_square < 0.1 * 0.4


def test_state_continues():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.zeros(4, 3)) for _ in range(2)]
    optimizers = [Muon([weight], lr=0.1) for weight in weights]
    gradients = torch.randn(2, 4, 3)
    for weight, optimizer in zip(weights, optimizers, strict=True):
        weight.grad = gradients[0].clone()
        optimizer.step()
    again = Muon([weights[1]], lr=0.1)
    again.load_state_dict(optimizers[1].state_dict())
    for weight, optimizer in ((weights[0], optimizers[0]), (weights[1], again)):
        weight.grad = gradients[1].clone()
        optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], atol=0, rtol=0)


def test_biases_and_gains_are_no_matrices():
    assert is_matrix(torch.zeros(4, 3, 3, 3, 3))
    assert not is_matrix(torch.zeros(4))
    assert not is_matrix(torch.zeros(4, 1, 1, 1))
