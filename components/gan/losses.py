"""The losses by which a generator and its discriminator are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class GanLoss(Protocol):
    """The losses of generator and discriminator, and the optimizer settings that were published with them."""

    critic_steps: int
    learning_rate: float
    betas: tuple[float, float]
    interval: int  # of the steps that pay the penalty on the discriminator's gradient

    def generator(self, fake_scores: Tensor) -> Tensor:
        """The generator's loss from D's scores of its images."""
        ...

    def discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor, step: int) -> Tensor:
        """The discriminator's loss on real and generated images."""
        ...


class WassersteinGP:
    """Wasserstein loss, gradient penalty (Gulrajani et al. 2017, algorithm 1): λ 10, five critic steps."""

    critic_steps, learning_rate, betas, interval = 5, 1e-4, (0.5, 0.9), 1

    def generator(self, fake_scores: Tensor) -> Tensor:
        return -fake_scores.mean()

    def discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor, step: int) -> Tensor:
        mix = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        norms = _input_gradient(discriminator, between).flatten(1).norm(dim=1)
        loss: Tensor = discriminator(fake).mean() - discriminator(real).mean() + 10 * (norms - 1).square().mean()
        return loss


class NonSaturatingR1:
    """Non-saturating loss (Goodfellow et al. 2014) with a penalty on D's gradient at real images.

    The penalty (Mescheder et al. 2018) is lazy: every 16th step at 16 times its weight (Karras et al. 2020,
    appendix B).
    """

    critic_steps, learning_rate, betas, interval = 1, 1e-3, (0.5, 0.99), 16
    # a weight of 1 left D nearly blind on MNIST (its loss stayed at 1.36 of 1.39)
    weight = 0.05

    def generator(self, fake_scores: Tensor) -> Tensor:
        return functional.softplus(-fake_scores).mean()

    def discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor, step: int) -> Tensor:
        loss = functional.softplus(-discriminator(real)).mean()
        loss = loss + functional.softplus(discriminator(fake)).mean()
        if step % self.interval == 0:
            gradient = _input_gradient(discriminator, real.detach().requires_grad_())
            penalty = gradient.square().flatten(1).sum(1).mean()
            loss = loss + self.interval * self.weight / 2 * penalty
        return loss


LOSSES: Mapping[str, type[GanLoss]] = {"wgan_gp": WassersteinGP, "nonsaturating": NonSaturatingR1}


def _input_gradient(discriminator: nn.Module, images: Tensor) -> Tensor:
    return torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)[0]
