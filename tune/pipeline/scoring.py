"""Shares that several stages measure alike."""

from __future__ import annotations

from torch import Tensor

from components.classifiers.defense_gan import Classifier
from components.datasets.dataset import DataSplit
from components.metrics import agreement, threshold


def undefended(judge: Classifier, held: DataSplit, attacked: Tensor) -> tuple[dict[str, float], Tensor, Tensor]:
    """Shares that the classifier gets right by itself, and its labels of the originals and of the attacked images."""
    originals, noisy = judge.predict(held.images), judge.predict(attacked)
    shares = {
        "pso": agreement(originals, held.labels),
        "noisy": agreement(noisy, held.labels),
        "threshold": agreement(judge.predict(threshold(attacked)), held.labels),
    }
    return shares, originals, noisy
