"""95 % intervals of a share (an accuracy, a rate), torch-free so that reports can be built without it.

Two questions, two intervals, and neither contains the other's uncertainty:

* `wilson`: how well do n images tell the share that one fixed defense reaches? (Sampling of the test images.)
* `t_interval`: where does the mean over training seeds lie? (Chance in training; the images stay the same.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist, mean, stdev

CONFIDENCE = 0.95

Interval = tuple[float, float]


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Score interval of a binomial share, fractions in [0, 1].

    Unlike p ± 1.96·√(p(1−p)/n) it stays inside [0, 1] and has a width at 0 and n successes.
    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    J. Am. Stat. Assoc. 22 (1927).

    Raises:
        ValueError: n < 1, or successes outside 0..n.
    """
    if n < 1:
        raise ValueError(f"n: expected an integer ≥ 1, found {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes: expected 0 ≤ successes ≤ {n}, found {successes}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    scale = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends the formula gives 0 and 1 exactly; rounding must not leave 1e-17 or 1.0000000000000002.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return low, high


def t_interval(values: Sequence[float], bounds: Interval = (0.0, 1.0), confidence: float = CONFIDENCE) -> Interval:
    """Student-t interval of the mean of independent runs, clipped to `bounds` (shares by default).

    With 3 seeds the factor is 4.30, not 1.96: wide, and rightly so.

    Raises:
        ValueError: fewer than two values, or one that is not finite.
    """
    if len(values) < 2:
        raise ValueError(f"values: expected at least 2 runs, found {len(values)}")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"values: expected finite numbers, found {list(values)}")
    from scipy.stats import t as student_t  # a second, for what most who need a share's interval do not

    factor = float(student_t.ppf((1 + confidence) / 2, df=len(values) - 1))
    middle, half = mean(values), factor * stdev(values) / math.sqrt(len(values))
    low, high = bounds
    return max(low, middle - half), min(high, middle + half)


def standard_error(share: float, images: int) -> float:
    """Of a share of that many images; with one image more of each kind, so that 0 and 1 are not taken for certain."""
    kept = (abs(share) * images + 1) / (images + 2)
    return math.sqrt(max(kept * (1 - kept), 0) / max(images, 1))


def paired_error(one: int, other: int, images: int) -> tuple[float, float]:
    """Distance of one share above another of the same images, and its standard error (McNemar's).

    Only images that one of them gets right and the other wrong tell them apart, so it is a fraction of what two
    separate sets of images would give. One image more is taken for such, so that none is not taken for certain.
    Source: Q. McNemar, Note on the sampling error of the difference between correlated proportions, Psychometrika 12
    (1947).

    Args:
        one: which images are right, as the bits of a number.
        other: likewise.
        images: how many there are.
    """
    difference = (one.bit_count() - other.bit_count()) / images
    apart = ((one ^ other).bit_count() + 1) / images
    return difference, math.sqrt(max(apart - difference**2, 0) / images)


def upper_tail(successes: int, n: int, share: float) -> float:
    """Probability of `successes` or more in n independent draws, each a success with probability `share`.

    With `share` 0.5 it is the exact sign test's (one-sided).
    """
    from scipy.special import bdtrc  # quicker to import than scipy.stats, whose binom.sf it is

    return float(bdtrc(successes - 1, n, share)) if successes > 0 else 1.0


def sign_test(one: int, other: int) -> float:
    """McNemar's exact test, two-sided: how often chance alone parts `one + other` images at least so unevenly.

    Args:
        one: images that only one of two gets right.
        other: images that only the other does.
    """
    return min(1.0, 2 * upper_tail(max(one, other), one + other, 0.5))
