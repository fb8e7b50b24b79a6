"""Expected improvement per second that is not spent yet: which of many candidates to try next.

    argmax EI(x) / seconds(x)^η,   η from 1 to 0 as the search ends

Sources: Snoek, Larochelle, Adams, Practical Bayesian optimization (NeurIPS 2012), section 3.2, for the improvement per
second; Lee et al., Cost-aware Bayesian optimization (2020, arXiv 2003.10870), for the cooling; Lin et al. (2024, arXiv
2411.03731), for counting only what a cache does not hold and for candidates that go on from what it holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr  # scipy.stats, which has the density too, takes a second to import

from tune.optimizer.surrogate import Array


def expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Mean of max(0, value − best) for normal values; larger is better."""
    z = (mean - best) / np.maximum(deviation, 1e-12)
    gain: Array = (mean - best) * ndtr(z) + deviation * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return gain


def expected_front(mean: Array, deviation: Array, costs: Array, front: Sequence[tuple[float, float]]) -> Array:
    """Expected gain of the area below the front of score over the logarithm of a known cost.

    The axis reaches from the cheapest to the dearest and as far again beyond it, so that half of the weight is on
    scores that no cost has reached yet.

    Args:
        mean: of the score of each candidate.
        deviation: likewise.
        costs: of each candidate, exactly known.
        front: (cost, score) of the trials that no other beats, by cost.
    """
    logs = np.log(np.maximum([cost for cost, _ in front], 1e-9))
    own = np.log(np.maximum(costs, 1e-9))
    low, high = min(own.min(), logs.min()), max(own.max(), logs.max())
    span = high - low or 1.0
    edges = np.array([low, *logs, high + span])
    reached = [min(score for _, score in front), *(score for _, score in front)]
    total = np.zeros_like(mean)
    for begin, end, score in zip(edges[:-1], edges[1:], reached, strict=True):
        width = np.clip(end - np.maximum(begin, own), 0, None) / span
        total += width * expected_improvement(mean, deviation, score)
    return total
