"""The shares that say what a defense does, by their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from components.metrics import agreement, frechet_distance, threshold, wilson


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30))
def test_pso_psd_and_pco_are_shares_of_equal_labels(rows: list[tuple[int, int, int]]) -> None:
    truth, originals, denoised = (torch.tensor(column) for column in zip(*rows, strict=True))
    n = len(rows)
    assert agreement(originals, truth) == sum(o == t for t, o, _ in rows) / n  # PSO
    assert agreement(denoised, truth) == sum(d == t for t, _, d in rows) / n  # PSD
    assert agreement(denoised, originals) == sum(d == o for _, o, d in rows) / n  # PCO


@pytest.mark.parametrize(("n", "reference"), [(3, 2), (0, 0), (1, 3)])
def test_labels_that_do_not_match_are_refused(n: int, reference: int) -> None:
    message = f"predictions: expected {reference} ≥ 1 labels like the reference, found {n}"
    with pytest.raises(ValueError, match=message):
        agreement(torch.zeros(n), torch.zeros(reference))


def test_threshold_makes_pixels_black_or_white() -> None:
    images = torch.tensor([0.0, 0.2, 0.5, 0.51, 1.0])
    assert threshold(images).tolist() == [0, 0, 0, 1, 1]
    assert threshold(images, 0.1).tolist() == [0, 1, 1, 1, 1]
    assert threshold(images).dtype == images.dtype


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), features=st.integers(1, 6), n=st.integers(9, 20), m=st.integers(9, 20))
def test_frechet_distance_is_its_formula(seed: int, features: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(features, features))
    one, other = rng.normal(size=(n, features)), rng.normal(size=(m, features)) @ mixing + 1
    first, second = (np.cov(rows, rowvar=False).reshape(features, features) for rows in (one, other))
    means = ((one.mean(0) - other.mean(0)) ** 2).sum()
    expected = means + np.trace(first + second - 2 * np.real(sqrtm(first @ second)))
    found = frechet_distance(torch.from_numpy(one), torch.from_numpy(other))
    assert found == pytest.approx(expected, rel=1e-9)
    assert found == pytest.approx(frechet_distance(torch.from_numpy(other), torch.from_numpy(one)), rel=1e-9)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), rank=st.integers(1, 8))
def test_frechet_distance_of_equal_sets_is_zero(seed: int, rank: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(20, rank, generator=generator) @ torch.randn(rank, 8, generator=generator)
    assert frechet_distance(rows, rows) < 1e-9
    assert frechet_distance(rows.unflatten(1, (2, 2, 2)), rows) < 1e-9  # maps count as flat features


def test_frechet_distance_of_shifted_sets_is_the_shift() -> None:
    rows = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    assert frechet_distance(rows + 3, rows) == pytest.approx(4 * 9)


@pytest.mark.parametrize(
    ("rows", "found"), [(torch.zeros(1, 3), "1 rows"), (torch.full((4, 3), math.nan), "NaN or infinity")]
)
def test_a_generator_that_broke_is_not_at_distance_zero(rows: torch.Tensor, found: str) -> None:
    with pytest.raises(ValueError, match=f"features: expected at least 2 rows of finite numbers, found {found}"):
        frechet_distance(rows, torch.rand(4, 3))
    with pytest.raises(ValueError, match="reference: "):
        frechet_distance(torch.rand(4, 3), rows)


def test_wilson_is_here_too() -> None:
    low, high = wilson(90, 100)
    assert low == pytest.approx(0.8256, abs=1e-4)
    assert high == pytest.approx(0.9448, abs=1e-4)
