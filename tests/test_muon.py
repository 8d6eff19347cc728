"""Muon's update: orthogonal, of Adam's size, resumable, and only for matrices."""

import pytest
import torch
from torch import nn

from worldwire_training import muon
from worldwire_training.muon import Muon, is_matrix, matrix_shape, orthogonalise


@pytest.mark.parametrize("shape", [(2, 6, 20), (1, 20, 6)])
def test_singular_values_come_near_one(shape: tuple[int, int, int]):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("at_once", [muon.MOST_AT_ONCE, 2 * 48, 1])
def test_each_matrix_goes_its_own_way_whatever_shares_its_batch(
    monkeypatch: pytest.MonkeyPatch, at_once: int
):
    monkeypatch.setattr(muon, "MOST_AT_ONCE", at_once)
    torch.manual_seed(0)
    shapes = [(6, 8), (6, 8), (6, 8), (8, 6), (4, 3, 2), (2, 6, 4)]
    gradients = [torch.randn(shape) for shape in shapes]
    together, alone = ([nn.Parameter(torch.zeros(shape)) for shape in shapes] for _ in range(2))
    for weight, other, gradient in zip(together, alone, gradients, strict=True):
        weight.grad, other.grad = gradient.clone(), gradient.clone()
    Muon(together, lr=0.1).step()
    for weight in alone:
        Muon([weight], lr=0.1).step()
    for weight, other, gradient in zip(together, alone, gradients, strict=True):
        torch.testing.assert_close(weight, other)
        flat = (1 + 0.95) * gradient.reshape(matrix_shape(gradient))
        expected = -0.1 * 0.2 * max(flat.shape) ** 0.5 * quintic(flat)
        torch.testing.assert_close(weight.detach().reshape(flat.shape), expected, atol=1e-5, rtol=1e-4)


def quintic(matrix: torch.Tensor) -> torch.Tensor:
    """Newton-Schulz as published, through the singular values."""
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = values / matrix.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


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
