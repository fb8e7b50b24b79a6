"""The choice among finalists: noise does not make it, and cost decides between equals."""

from __future__ import annotations

import numpy as np
import pytest

from tune.optimizer.finalists import Finalist, as_json, decide, finalists_of, wanted
from tune.storage.ledger import Outcome

IMAGES, SEEDS = 1000, (0, 1, 2)


def finalist(trial: int, mean: float, cost: float = 10.0, spread: float = 0.002, shift: int = 0) -> Finalist:
    """Three seeds around a mean; the same images come first among those that are wrong, or others by `shift`."""
    scores = {0: mean - spread, 1: mean, 2: mean + spread}
    right = np.stack([np.roll(np.arange(IMAGES) < score * IMAGES, shift) for score in scores.values()])
    return Finalist(trial, cost, mean + 0.01, scores, right)


def test_a_clear_winner_wins_whatever_it_costs() -> None:
    assert decide([finalist(0, 0.9, 1), finalist(1, 0.95, 600), finalist(2, 0.8, 1)], SEEDS, IMAGES).chosen == 1


def test_of_equals_the_cheapest_wins() -> None:
    verdict = decide([finalist(0, 0.950, 600), finalist(1, 0.948, 5, shift=300), finalist(2, 0.8, 1)], SEEDS, IMAGES)
    assert (verdict.best, verdict.chosen) == (0, 1)
    assert verdict.equal(1)
    assert not verdict.equal(2)


def test_pairs_tell_apart_what_the_images_alone_would_not() -> None:
    one, other = finalist(0, 0.95, 600), finalist(1, 0.94, 5)
    assert decide([one, other], SEEDS, IMAGES).chosen == 0  # the same images are wrong, and ten more
    unpaired = [Finalist(f.trial, f.cost, f.searched, f.scores, None) for f in (one, other)]
    assert decide(unpaired, [0], IMAGES).behind[1][1] > 2 * decide([one, other], [0], IMAGES).behind[1][1]


def test_seeds_that_disagree_widen_the_error() -> None:
    best, other = finalist(0, 0.95, 600), finalist(1, 0.945, 5)
    turned = dict(zip(other.scores, reversed(list(other.scores.values())), strict=True))
    shaken = Finalist(1, 5.0, other.searched, turned, other.right)
    assert decide([best, shaken], SEEDS, IMAGES).behind[1][1] > decide([best, other], SEEDS, IMAGES).behind[1][1]


def test_one_finalist_is_chosen() -> None:
    assert decide([finalist(7, 0.5)], SEEDS, IMAGES).chosen == 7


def test_fresh_is_the_mean_of_seeds_that_the_search_did_not_see() -> None:
    row = as_json([finalist(3, 0.9)], decide([finalist(3, 0.9)], SEEDS, IMAGES), {3: {"unet.width": 4}})["finalists"][0]
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
        assert decide(pair, [0], images).chosen == 1, base
        assert decide([Finalist(f.trial, f.cost, f.searched, f.scores) for f in pair], [0], images).chosen == 1, base


def with_seeds(count: int, *all_of_them: Finalist) -> list[Finalist]:
    return [one.first(count) for one in all_of_them]


def test_what_is_told_from_the_best_gets_no_further_seed() -> None:
    best, equal, worse = finalist(0, 0.950, 600), finalist(1, 0.948, 5, shift=300), finalist(2, 0.8, 1)
    seeds = [7, 8, 9]
    assert wanted(with_seeds(0, best, equal, worse), seeds, IMAGES) == [(0, 7), (1, 7), (2, 7)]
    assert wanted(with_seeds(1, best, equal, worse), seeds, IMAGES) == [(0, 8), (1, 8)]
    assert wanted([best.first(2), equal.first(1), worse.first(1)], seeds, IMAGES) == [(1, 8)]
    assert wanted([best.first(2), equal.first(2), worse.first(1)], seeds, IMAGES) == [(0, 9), (1, 9)]
    assert wanted([best, equal, worse.first(1)], seeds, IMAGES) == []
    verdict = decide([best, equal, worse.first(1)], SEEDS, IMAGES)
    assert (verdict.best, verdict.chosen) == (0, 1)
    assert verdict.behind[2][0] == pytest.approx(0.15)  # on the one seed that both have
    assert not verdict.equal(2)


def test_once_a_single_one_is_left_no_seed_is_wanted() -> None:
    pair = with_seeds(1, finalist(0, 0.95), finalist(1, 0.8))
    assert wanted(pair, SEEDS, IMAGES) == []
    assert decide(pair, SEEDS, IMAGES).chosen == 0
    assert wanted([finalist(0, 0.95).first(0)], SEEDS, IMAGES) == [(0, 0)]


def test_images_alone_tell_nothing_apart_while_further_seeds_are_to_come() -> None:
    """Half a point is clear on the same 100,000 images, and less than another seed may change."""
    images = 100_000
    right = [np.arange(images) < share * images for share in (0.95, 0.945)]
    pair = [Finalist(n, 60 - 50 * n, r.mean(), {0: float(r.mean())}, r[None]) for n, r in enumerate(right)]
    assert wanted(pair, SEEDS, images) == [(0, 1), (1, 1)]
    assert decide(pair, [0], images).chosen == 0


def test_a_finalist_that_fails_later_calls_back_whom_it_had_outdone() -> None:
    """Its training with the second seed failed, so it is none of them any more."""
    best, second = finalist(0, 0.95), finalist(1, 0.8)
    third = finalist(2, 0.799, shift=300)
    assert wanted(with_seeds(1, best, second, third), [0, 1], IMAGES) == []
    assert wanted(with_seeds(1, second, third), [0, 1], IMAGES) == [(1, 1), (2, 1)]


@pytest.mark.parametrize("draw", range(20))
def test_the_choice_does_not_depend_on_seeds_of_those_told_apart(draw: int) -> None:
    """Trained or not, they count for nothing: a search that finds them in the store chooses as one that does not."""
    rng = np.random.default_rng(draw)
    whole = []
    for trial in range(4):
        right = rng.random((3, IMAGES)) < rng.uniform(0.88, 0.92, (3, 1))
        scores = dict(enumerate(right.mean(1).tolist()))
        whole.append(Finalist(trial, float(rng.integers(1, 50)), scores[0], scores, right))
    known = dict.fromkeys(range(4), 0)
    while asked := wanted([whole[trial].first(count) for trial, count in known.items()], SEEDS, IMAGES):
        known |= {trial: known[trial] + 1 for trial, _ in asked}
    lazy = decide([whole[trial].first(count) for trial, count in known.items()], SEEDS, IMAGES)
    assert lazy == decide(whole, SEEDS, IMAGES)
