"""Intervals against published values, against simulation, and at their ends."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.intervals import paired_error, sign_test, standard_error, t_interval, upper_tail, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # R. G. Newcombe: Two-sided confidence intervals for the single proportion (1998), table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@settings(deadline=None)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_in_range(pair: tuple[int, int]) -> None:
    successes, n = pair
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    assert low < high


@settings(deadline=None)
@given(st.integers(1, 2000), st.data())
def test_wilson_is_symmetric_in_success_and_failure(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    low, high = wilson(successes, n)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "n", "named"), [(1, 0, "n:"), (-1, 5, "successes:"), (6, 5, "successes:")])
def test_wilson_refuses_impossible_counts(successes: int, n: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        wilson(successes, n)


def test_three_seeds_have_the_factor_of_two_degrees_of_freedom() -> None:
    low, high = t_interval([0.80, 0.82, 0.84])
    # t(0.975, 2) = 4.30265, standard deviation 0.02
    assert (high - low) / 2 == pytest.approx(4.302653 * 0.02 / 3**0.5, rel=1e-6)
    assert (low + high) / 2 == pytest.approx(0.82)


def test_shares_are_clipped_and_other_numbers_are_not() -> None:
    assert t_interval([0.97, 0.99, 1.0])[1] == 1.0
    assert t_interval([90.0, 110.0], bounds=(float("-inf"), float("inf")))[1] > 110


def test_equal_runs_have_an_interval_of_no_width() -> None:
    assert t_interval([0.0935] * 3) == (0.0935, 0.0935)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, float("nan")], [0.5, float("inf")]])
def test_t_interval_refuses_what_has_none(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values: expected"):
        t_interval(values)


@pytest.mark.parametrize(
    ("successes", "n", "share", "expected"),
    [(5, 5, 0.5, 1 / 32), (7, 8, 0.5, 9 / 256), (0, 4, 0.3, 1.0), (1, 3, 0.0, 0.0), (2, 3, 1, 1.0), (1, 2, 0.1, 0.19)],
)
def test_upper_tail_is_the_binomial_one(successes: int, n: int, share: float, expected: float) -> None:
    assert upper_tail(successes, n, share) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "expected"), [(0, 0, 1.0), (5, 2, 58 / 128), (2, 5, 58 / 128), (8, 0, 1 / 128)]
)
def test_the_sign_test_is_two_sided(one: int, other: int, expected: float) -> None:
    assert sign_test(one, other) == pytest.approx(expected, rel=1e-12)


def test_upper_tail_holds_for_many_images() -> None:
    assert upper_tail(5001, 10_001, 0.5) == pytest.approx(0.5, rel=1e-9)


def test_a_paired_error_counts_only_images_that_tell_two_apart() -> None:
    one, nested, shifted = 2**90 - 1, 2**85 - 1, (2**85 - 1) << 10
    close, apart = paired_error(one, nested, 100), paired_error(one, shifted, 100)
    assert close[0] == apart[0] == pytest.approx(0.05)
    assert close[1] == pytest.approx(math.sqrt((0.06 - 0.05**2) / 100))
    assert close[1] < apart[1] < math.sqrt(2) * standard_error(0.9, 100)
    assert paired_error(one, one, 100)[1] > 0
