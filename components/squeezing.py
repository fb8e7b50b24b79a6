"""Feature squeezing: fewer grey levels, so that small changes of a pixel vanish."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["straight_through", "sigmoid"]
STEEPNESS = 10.0  # of the sigmoids, per distance of two levels
_BELOW = 1e-6  # of a threshold: rounding must not lift a pixel that lies on it


def squeezed(images: Tensor, levels: int | None, threshold: float | None = None) -> Tensor:
    """Images in [0, 1] reduced to `levels` grey levels (feature squeezing: Xu, Evans, Qi 2018, section II-A).

    With two levels, pixels above 0.5 become 1 and all others 0: what an attack changed by less than half is undone
    where the original was black or white.

    Args:
        images: (N, C, H, W).
        levels: how many; None leaves the images alone.
        threshold: where the first level ends, see `thresholds`; None: the nearest level is taken.
    """
    if levels is None:
        return images
    if threshold is None:
        # just below the half, as `metrics.threshold` leaves a pixel of 0.5 black
        return (images * (levels - 1) - _BELOW).round().clamp(min=0) / (levels - 1)
    above = [(images > place + _BELOW).to(images.dtype) for place in thresholds(levels, threshold)]
    return torch.stack(above).sum(0) / (levels - 1)


def thresholds(levels: int, threshold: float | None) -> list[float]:
    """The places in [0, 1] between the levels, in ascending order.

    With a `threshold` the first is there and the last at one minus it, the others evenly between; with two levels there
    is only the first. Without, each lies halfway between two levels.
    """
    if threshold is None:
        return [(place + 0.5) / (levels - 1) for place in range(levels - 1)]
    last = threshold if levels == 2 else 1 - threshold
    width = (last - threshold) / max(1, levels - 2)
    return sorted(threshold + width * place for place in range(levels - 1))


def squeezed_with_gradient(
    images: Tensor, levels: int | None, threshold: float | None = None, surrogate: Surrogate = "straight_through"
) -> Tensor:
    """The values of `squeezed`, which has no gradient, with the gradient of a stand-in.

    Args:
        images, levels, threshold: as `squeezed`; without levels the images, and their gradient, are left alone.
        surrogate: straight_through: of the identity (BPDA: Athalye, Carlini, Wagner 2018, section 4.1); sigmoid: of a
            staircase of sigmoids, which is steep near the thresholds and flat elsewhere.
    """
    if levels is None:
        return images
    stand_in = images if surrogate == "straight_through" else _staircase(images, thresholds(levels, threshold))
    return squeezed(images.detach(), levels, threshold) + (stand_in - stand_in.detach())


def _staircase(images: Tensor, places: list[float]) -> Tensor:
    rises = [torch.sigmoid(STEEPNESS * len(places) * (images - place)) for place in places]
    return torch.stack(rises).sum(0) / len(places)
