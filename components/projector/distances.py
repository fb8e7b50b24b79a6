"""The objective of the descent: distances, differences (…, C, H, W) → (…), and what is added to them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from components.projector.settings import ProjectorSettings


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


def regularisation(
    config: ProjectorSettings, latents: Tensor, generated: Tensor, discriminator: nn.Module | None
) -> Tensor | float:
    """The terms beside the distance, summed over latents (m, latent_dim) and their images (m, C, H, W)."""
    terms: Tensor | float = 0.0
    if config.prior_weight:
        terms = terms + config.prior_weight * latents.square().mean(1).sum()
    if config.realism_weight and discriminator is not None:
        terms = terms + config.realism_weight * functional.softplus(-discriminator(generated)).sum()
    return terms
