"""The surrogate of scores: whatever trials showed, it fits, and says how unsure it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune.optimizer.surrogate import Surrogate

POINTS = np.array([[0.0, 0.1], [1.0, 0.2], [0.0, 0.3], [1.0, 0.9], [0.5, 0.5], [0.5, 0.5]])


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.floats(0, 1), min_size=len(POINTS), max_size=len(POINTS)),
    spread=st.sampled_from([1e-6, 1e-3, 1.0]),
    noise=st.floats(0, 0.1),
)
def test_every_set_of_scores_can_be_fitted(values: list[float], spread: float, noise: float) -> None:
    surrogate = Surrogate.fit(POINTS, 0.9 + spread * np.array(values), noise)
    mean, deviation = surrogate.predict(POINTS)
    assert np.isfinite(mean).all()
    assert np.isfinite(deviation).all()
    assert (deviation > 0).all()


def test_scores_closer_than_their_noise_are_told_to_be_equal() -> None:
    """Eight trials of the embedded data can lie within 0.2 points, where the choice of images alone makes 0.9."""
    scores = np.array([0.918, 0.922, 0.919, 0.92, 0.921, 0.918])
    mean, _ = Surrogate.fit(POINTS, scores, noise=0.009).predict(POINTS)
    assert np.ptp(mean) < np.ptp(scores) / 4
    assert mean == pytest.approx(scores.mean(), abs=0.002)
