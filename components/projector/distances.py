"""Distances between a generated image and its target: differences (…, C, H, W) → distances (…)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def l2(difference: Tensor, tolerance: float) -> Tensor:
    """Mean square over each image: (…, C, H, W) → (…)."""
    return difference.square().flatten(-3).mean(-1)


def huber(difference: Tensor, tolerance: float) -> Tensor:
    """Huber's loss (1964), quadratic up to `tolerance` and linear beyond, scaled to agree with `l2` near zero."""
    size = difference.abs()
    inner = size.clamp(max=tolerance)
    return (inner * (2 * size - inner)).flatten(-3).mean(-1)


def insensitive(difference: Tensor, tolerance: float) -> Tensor:
    """Mean of max(|d| − tolerance, 0)²: Vapnik's ε-insensitive loss, squared.

    What an attack of radius ≤ tolerance can have added costs nothing, so it is not fitted.
    """
    return functional.softshrink(difference, tolerance).square().flatten(-3).mean(-1)


DISTANCES = {"l2": l2, "huber": huber, "insensitive": insensitive}
