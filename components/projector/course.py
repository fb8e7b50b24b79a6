"""The course of many restarts at once: evaluate, step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor

from components.projector.descent import Descent
from components.projector.trace import Standing


class Evaluate(Protocol):
    """How far latents are from their targets."""

    def __call__(self, rows: Tensor, targets: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        """Latents (m, latent_dim), images (m, C, H, W) → errors (m,) and, where wanted, gradients like the latents."""
        ...


def course(
    evaluate: Evaluate, descent: Descent, images: Tensor, begin: Standing, last: int
) -> Iterator[tuple[Standing, Tensor]]:
    """Yields where the restarts stand and their errors (n, R), at the beginning and after every step up to `last`.

    Args:
        evaluate: error and gradient.
        descent: gradient → step.
        images: (n, C, H, W).
        begin: where they stand, (n, R, latent_dim).
        last: the last step.
    """
    shape = begin.latents.shape[:2]
    z = begin.latents.flatten(0, 1)
    memory = {name: tensor.flatten(0, 1) for name, tensor in begin.memory.items()}
    targets = images.repeat_interleave(shape[1], 0)
    for step in range(begin.step, last + 1):
        errors, gradient = evaluate(z, targets, with_gradient=step < last)
        standing = {name: tensor.unflatten(0, shape) for name, tensor in memory.items()}
        yield Standing(step, z.unflatten(0, shape), standing), errors.unflatten(0, shape)
        if step < last:
            z, memory = descent(step + 1, z, gradient, memory)
