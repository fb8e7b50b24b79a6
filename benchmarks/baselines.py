"""Defense-GAN's projection as its public PyTorch ports write it, and with its restarts in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

RATE, MOMENTUM = 10.0, 0.7
# the same as settings of our projector: Samangouei, Kabkab, Chellappa, Defense-GAN (ICLR 2018)
PUBLISHED: Mapping[str, Any] = {
    "init": "random", "levels": None, "threshold": None, "distance": "l2", "optimizer": "sgd", "learning_rate": RATE,
    "momentum": MOMENTUM,
}  # fmt: skip


def in_sequence(generator: nn.Module, images: Tensor, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """One restart after another, each over the whole batch.

    The generator is in evaluation mode and otherwise as it was trained: its weights' gradients are computed too. Of the
    restarts the best of each image is kept, as published; ports that keep one for a whole batch do worse.

    Args:
        generator: latents (n, latent_dim) → images.
        images: (n, C, H, W).
        starts: (R, latent_dim), shared by the images.
        steps: of gradient descent.

    Returns:
        Latents (n, latent_dim) and mean square errors (n,).
    """
    found = [_descend(generator, images, start.expand(len(images), -1), steps) for start in starts]
    latents, errors = torch.stack([z for z, _ in found]), torch.stack([error for _, error in found])
    best = errors.argmin(0)
    rows = torch.arange(len(images), device=images.device)
    return latents[best, rows], errors[best, rows]


def in_one_batch(generator: nn.Module, images: Tensor, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The same with all restarts of all images in one batch: what a plain PyTorch loop gains by batching alone."""
    count = len(starts)
    z, errors = _descend(generator, images.repeat_interleave(count, 0), starts.repeat(len(images), 1), steps)
    best = errors.view(-1, count).argmin(1) + count * torch.arange(len(images), device=images.device)
    return z[best], errors[best]


def _descend(generator: nn.Module, images: Tensor, starts: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    z = starts.clone().requires_grad_()
    optimizer = torch.optim.SGD([z], lr=RATE, momentum=MOMENTUM)
    for _ in range(steps):
        optimizer.zero_grad()
        # the sum of the images' mean square errors: the step must not depend on how many there are
        loss = (generator(z) - images).square().flatten(1).mean(1).sum()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        errors = (generator(z) - images).square().flatten(1).mean(1)
    return z.detach(), errors
