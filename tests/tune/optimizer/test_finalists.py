"""The choice among finalists: noise does not make it, and cost decides between equals."""

from __future__ import annotations

import numpy as np
import pytest

from tune.optimizer.finalists import Finalist, as_json, decide, finalists_of
from tune.storage.ledger import Outcome

IMAGES = 1000


def finalist(trial: int, mean: float, cost: float = 10.0, spread: float = 0.002, shift: int = 0) -> Finalist:
    """Three seeds around a mean; the same images come first among those that are wrong, or others by `shift`."""
    scores = {0: mean - spread, 1: mean, 2: mean + spread}
    right = np.stack([np.roll(np.arange(IMAGES) < score * IMAGES, shift) for score in scores.values()])
    return Finalist(trial, cost, mean + 0.01, scores, right)


def test_a_clear_winner_wins_whatever_it_costs() -> None:
    assert decide([finalist(0, 0.9, 1), finalist(1, 0.95, 600), finalist(2, 0.8, 1)], IMAGES).chosen == 1


def test_of_equals_the_cheapest_wins() -> None:
    verdict = decide([finalist(0, 0.950, 600), finalist(1, 0.948, 5, shift=300), finalist(2, 0.8, 1)], IMAGES)
    assert (verdict.best, verdict.chosen) == (0, 1)
    assert verdict.equal(1)
    assert not verdict.equal(2)


def test_pairs_tell_apart_what_the_images_alone_would_not() -> None:
    one, other = finalist(0, 0.95, 600), finalist(1, 0.94, 5)
    assert decide([one, other], IMAGES).chosen == 0  # the same images are wrong, and ten more
    unpaired = [Finalist(f.trial, f.cost, f.searched, f.scores, None) for f in (one, other)]
    assert decide(unpaired, IMAGES).behind[1][1] > 2 * decide([one, other], IMAGES).behind[1][1]


def test_seeds_that_disagree_widen_the_error() -> None:
    best, other = finalist(0, 0.95, 600), finalist(1, 0.945, 5)
    turned = dict(zip(other.scores, reversed(list(other.scores.values())), strict=True))
    shaken = Finalist(1, 5.0, other.searched, turned, other.right)
    assert decide([best, shaken], IMAGES).behind[1][1] > decide([best, other], IMAGES).behind[1][1]


def test_one_finalist_is_chosen() -> None:
    assert decide([finalist(7, 0.5)], IMAGES).chosen == 7


def test_fresh_is_the_mean_of_seeds_that_the_search_did_not_see() -> None:
    row = as_json([finalist(3, 0.9)], decide([finalist(3, 0.9)], IMAGES), {3: {"unet.width": 4}})["finalists"][0]
    assert row["searched"] - row["fresh"] == pytest.approx(0.009)


def test_the_best_within_the_cost_are_finalists() -> None:
    outcomes = [
        Outcome(trial=n, status="finished", params={}, metrics={"psd": psd, "cost": cost})
        for n, (psd, cost) in enumerate([(0.9, 5), (0.95, 50), (0.9, 4), (0.8, 1), (0.99, 500)])
    ]
    outcomes.append(Outcome(trial=5, status="pruned", params={}))
    objectives = {"psd": "max", "cost": "min"}
    assert [o.trial for o in finalists_of(outcomes, objectives, 3)] == [4, 1, 2]  # type: ignore[arg-type]
    assert [o.trial for o in finalists_of(outcomes, objectives, 3, 50)] == [1, 2, 0]  # type: ignore[arg-type]


@pytest.mark.parametrize("images", [99, 100, 500, 1000, 6000])
def test_a_lead_of_one_image_tells_nothing_apart(images: int) -> None:
    for base in range(images // 2, images - 1, max(1, images // 40)):
        right = [np.arange(images) < count for count in (base + 1, base)]
        pair = [Finalist(n, 60 - 50 * n, r.mean(), {0: r.mean()}, r[None]) for n, r in enumerate(right)]
        assert decide(pair, images).chosen == 1, base
        assert decide([Finalist(f.trial, f.cost, f.searched, f.scores) for f in pair], images).chosen == 1, base
