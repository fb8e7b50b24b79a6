"""PSO, PSD, PCO and the other shares that say what a defense does; fractions in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from components.intervals import wilson

__all__ = ["agreement", "frechet_distance", "threshold", "wilson"]


def agreement(predictions: Tensor, reference: Tensor) -> float:
    """Share of `predictions` (N,) equal to `reference` (N,).

    * PSO: predictions on originals against true labels.
    * PSD: predictions on denoised images against true labels.
    * PCO: predictions on denoised images against predictions on their originals.
    """
    if predictions.shape != reference.shape or not len(reference):
        raise ValueError(
            f"predictions: expected {len(reference)} ≥ 1 labels like the reference, found {len(predictions)}"
        )
    return float((predictions == reference).double().mean())


def threshold(images: Tensor, level: float = 0.5) -> Tensor:
    """The simplest defense, each pixel to 0 or 1: a baseline to beat on images that are nearly binary."""
    return (images > level).to(images.dtype)


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features, (N, F) and (M, F).

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) (Heusel et al. 2017, equation 6), here in the defended classifier's
    feature space: comparable between generators judged by the same classifier, and not with values from other
    networks.
    """
    first, second = features.double().flatten(1), reference.double().flatten(1)
    means = (first.mean(0) - second.mean(0)).square().sum()
    covariance_1, covariance_2 = torch.cov(first.T), torch.cov(second.T)
    # tr((Σ₁Σ₂)^½) = the sum of the roots of the eigenvalues of Σ₁Σ₂, which are real and not negative
    eigenvalues = torch.linalg.eigvals(covariance_1 @ covariance_2).real.clamp(min=0)
    distance = means + covariance_1.trace() + covariance_2.trace() - 2 * eigenvalues.sqrt().sum()
    return max(0.0, float(distance))
