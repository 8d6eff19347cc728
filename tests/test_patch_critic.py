"""The critic of patches: what it sees, what it learns, how much it counts."""

import pytest
import torch

from worldwire_training.common import Ranks
from worldwire_training.patch_critic import (
    FULL,
    Adversary,
    PatchCritic,
    adversarial_loss,
    balance,
    critic_loss,
    neighbours,
)

CPU = Ranks(0, 1, torch.device("cpu"))


def test_it_sees_each_frame_beside_the_one_before():
    frames = torch.rand(2, 3, 4, 8, 8)
    pairs = neighbours(frames)
    assert pairs.shape == (6, 6, 8, 8)
    assert torch.equal(pairs[4], torch.cat([frames[1, :, 1], frames[1, :, 2]]))
    assert torch.equal(neighbours(frames[:, :, :1])[0], torch.cat([frames[0, :, 0]] * 2))


def test_the_hinge_asks_no_more_than_it_needs():
    sure = torch.full((4,), 2.0)
    assert critic_loss(sure, -sure) == 0
    assert critic_loss(-sure, sure) == 3
    assert adversarial_loss(sure) == -2


def test_the_balance_makes_gradients_equally_long():
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    near, far = weight.square().sum(), 0.01 * weight.sum()
    factor = balance(near, far, weight)
    (scaled,) = torch.autograd.grad(factor * far, weight)
    assert scaled.norm().item() == pytest.approx(10.0, rel=1e-3)


def test_it_learns_to_tell_blurred_patches_from_sharp_ones():
    torch.manual_seed(0)
    adversary = Adversary(1.0, 2e-3, CPU)
    for _ in range(60):
        truth = torch.rand(2, 3, 2, 32, 32).round() * 2 - 1
        made = torch.nn.functional.avg_pool3d(truth, (1, 3, 3), stride=1, padding=(0, 1, 1))
        adversary.loss(made, truth, truth.sum(), truth, progress=0.0)
        adversary.learn()
    assert adversary.critic(truth).mean() > adversary.critic(made).mean() + 0.5


def test_it_says_nothing_at_first_and_pushes_the_picture_later():
    torch.manual_seed(0)
    adversary, weight = Adversary(0.5, 1e-3, CPU), torch.ones((), requires_grad=True)
    truth = torch.rand(1, 3, 2, 16, 16)
    made = weight * truth
    distance = (2 - weight).square()
    assert adversary.loss(made, truth, distance, weight, progress=0.0) == 0
    (pushed,) = torch.autograd.grad(
        adversary.loss(made, truth, distance, weight, FULL), weight, retain_graph=True
    )
    (pulled,) = torch.autograd.grad(distance, weight)
    assert abs(pushed.item()) == pytest.approx(0.5 * abs(pulled.item()), rel=0.1)


def test_scores_are_of_patches():
    assert PatchCritic()(torch.rand(2, 3, 3, 32, 64)).shape == (4, 1, 4, 8)
