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

    Raises:
        ValueError: fewer than two rows, which have no covariance, or a feature that is NaN or infinite.
    """
    first, covariance_1 = _gaussian("features", features)
    second, covariance_2 = _gaussian("reference", reference)
    # tr((Σ₁Σ₂)^½) = the sum of the singular values of Σ₁^½ Σ₂^½; the eigenvalues of Σ₁Σ₂, which is not symmetric,
    # lose half of the digits where features depend on each other
    shared = torch.linalg.svdvals(_root(covariance_1) @ _root(covariance_2)).sum()
    distance = (first - second).square().sum() + covariance_1.trace() + covariance_2.trace() - 2 * shared
    return max(0.0, float(distance))


def _gaussian(name: str, features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F) of features (N, F), in double precision."""
    rows = features.double().flatten(1)
    if len(rows) < 2 or not bool(rows.isfinite().all()):
        found = f"{len(rows)} rows" if len(rows) < 2 else "NaN or infinity"
        raise ValueError(f"{name}: expected at least 2 rows of finite numbers, found {found}")
    return rows.mean(0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])


def _root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance (F, F)."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
