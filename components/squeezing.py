"""Feature squeezing: fewer grey levels, so that small changes of a pixel vanish."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["straight_through", "sigmoid"]
STEEPNESS = 10.0  # of the sigmoids, per distance of two levels


def squeezed(images: Tensor, levels: int | None) -> Tensor:
    """Images in [0, 1] reduced to `levels` grey levels (feature squeezing: Xu, Evans, Qi 2018, section II-A).

    With two levels, pixels above 0.5 become 1 and all others 0: what an attack changed by less than half is undone
    where the original was black or white.
    """
    if levels is None:
        return images
    # just below the half, as `metrics.threshold` leaves a pixel of 0.5 black
    return (images * (levels - 1) - 1e-6).round().clamp(min=0) / (levels - 1)


def squeezed_with_gradient(images: Tensor, levels: int | None, surrogate: Surrogate = "straight_through") -> Tensor:
    """The values of `squeezed`, which has no gradient, with the gradient of a stand-in.

    Args:
        images: (N, C, H, W) in [0, 1].
        levels: grey levels; None leaves the images, and their gradient, alone.
        surrogate: straight_through: of the identity (BPDA: Athalye, Carlini, Wagner 2018, section 4.1); sigmoid: of a
            staircase of sigmoids, which is steep near the thresholds and flat elsewhere.
    """
    if levels is None:
        return images
    stand_in = images if surrogate == "straight_through" else _staircase(images, levels)
    return squeezed(images.detach(), levels) + (stand_in - stand_in.detach())


def _staircase(images: Tensor, levels: int) -> Tensor:
    steps = torch.arange(levels - 1, device=images.device, dtype=images.dtype) + 0.5
    rises = torch.sigmoid(STEEPNESS * (images.unsqueeze(-1) * (levels - 1) - steps))
    return rises.sum(-1) / (levels - 1)
