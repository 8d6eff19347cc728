"""A critic of small patches, which makes a decoder show detail where averages would be nearer to the truth.

Several detailed pictures fit one latent; a decoder that minimises a distance shows their mean, which is
soft. The critic learns to tell pairs of neighbouring frames of the truth from decoded ones, patch by patch
(Isola et al. 2017), and the decoder is rewarded for what it cannot tell (hinge loss). How much this counts
beside the distances follows the gradients at the decoder's last layer (Esser et al. 2021, equation 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from worldwire_training.common import Ranks, average_gradients, broadcast_model

CHANNELS = (6, 32, 64, 128)
"""Two frames side by side, then after each halving."""
SLOPE = 0.2
BETAS = (0.5, 0.99)
LARGEST_BALANCE = 1e3
SMALLEST_GRADIENT = 1e-6
FROM, FULL = 0.05, 0.2
"""Of the budget: before the first the critic learns alone, from the second on it counts in full."""


class PatchCritic(nn.Module):
    """Frames [B, 3, T, H, W] in [-1, 1] to scores [N, 1, H / 8, W / 8]: high for what looks true."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for into, out in pairwise(CHANNELS):
            layers += [spectral_norm(nn.Conv2d(into, out, 4, stride=2, padding=1)), nn.LeakyReLU(SLOPE)]
        layers += [spectral_norm(nn.Conv2d(CHANNELS[-1], CHANNELS[-1], 3, padding=1)), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(CHANNELS[-1], 1, 3, padding=1)))

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(neighbours(frames))


def neighbours(frames: Tensor) -> Tensor:
    """[B, 3, T, H, W] to pairs [B * (T - 1), 6, H, W]; a single frame is its own neighbour."""
    if frames.shape[2] == 1:
        frames = frames.expand(-1, -1, 2, -1, -1)
    return torch.cat([frames[:, :, :-1], frames[:, :, 1:]], dim=1).transpose(1, 2).flatten(0, 1)


def critic_loss(true_scores: Tensor, made_scores: Tensor) -> Tensor:
    """Hinge loss of the critic: the truth above 1, what is made below -1."""
    return 0.5 * (F.relu(1 - true_scores).mean() + F.relu(1 + made_scores).mean())


def adversarial_loss(made_scores: Tensor) -> Tensor:
    """What the decoder wants to be low."""
    return -made_scores.mean()


def balance(distance: Tensor, adversarial: Tensor, last_layer: Tensor) -> Tensor:
    """What makes the gradient of the adversarial loss at the last layer as long as that of the distance."""
    (near,) = torch.autograd.grad(distance, last_layer, retain_graph=True)
    (far,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    return (near.norm() / (far.norm() + SMALLEST_GRADIENT)).clamp(max=LARGEST_BALANCE).detach()


class Adversary:
    """A critic in training beside a decoder: first `loss`, then, after the decoder's step, `learn`.

    share: how long the gradient of the critic's verdict is at the decoder's last layer, relative to that of
    the distances. rate: the critic's learning rate.
    """

    def __init__(self, share: float, rate: float, ranks: Ranks) -> None:
        self._share, self._ranks = share, ranks
        self.critic = PatchCritic().to(ranks.device)
        broadcast_model(self.critic, ranks)
        self._optimizer = torch.optim.Adam(self.critic.parameters(), lr=rate, betas=BETAS)
        self._compared: tuple[Tensor, Tensor] | None = None

    def loss(
        self, made: Tensor, truth: Tensor, distance: Tensor, last_layer: Tensor, progress: float
    ) -> Tensor:
        """What to add to the distance, for frames [B, 3, T, H, W] at `progress` 0 ... 1 of the run."""
        self._compared = made.detach(), truth
        share = self._share * min(max((progress - FROM) / (FULL - FROM), 0.0), 1.0)
        if not share:
            return made.new_zeros(())
        adversarial = adversarial_loss(self.critic(made))
        return share * balance(distance, adversarial, last_layer) * adversarial

    def learn(self) -> None:
        """One step of the critic on the frames that `loss` was last asked about."""
        if self._compared is None:
            return
        (made, truth), self._compared = self._compared, None
        self._optimizer.zero_grad(set_to_none=True)
        critic_loss(self.critic(truth), self.critic(made)).backward()
        average_gradients(self.critic.parameters(), self._ranks)
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"critic": self.critic.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state_dict`."""
        self.critic.load_state_dict(state["critic"])
        self._optimizer.load_state_dict(state["optimizer"])
