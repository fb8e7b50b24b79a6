"""Made-up results over the grid of search_table.py, on which a way to search can be tried before the real one is asked.

A score is the sum of an effect of each parameter, of each pair, and of a rest; how large the effects of a parameter are
is drawn, so that some matter much and some hardly. A seed of training adds noise.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tune.space.space import SearchSpace

SEEDS, IMAGES = 3, 1000
MEAN, PAIRS, REST, NOISE = 75.0, 0.35, 0.3, 0.6  # percent: of all; of pairs, of the rest and of a seed, deviations
# What the stages of search_table.py take on one core, as measured by the unit: 8 s for the GAN and 27 ms for a step of
# its encoder, 62 µs for an evaluation of the projection, 0.4 s for a U-Net.
SECONDS: dict[str, Any] = {
    "classifier": 2.5, "attack": 0.05, "attack_train": 0.02, "gan": {"50": 9.4, "150": 12.0, "450": 20.0},
    "projection": 3.0, "projection_train": 0.9, "unet": 0.4,
}  # fmt: skip


def landscape(space: SearchSpace, points: list[dict[str, Any]], number: int) -> NDArray[np.bool_]:
    """Whether each image is right, bool (seeds, configurations, images), of the landscape with that number."""
    rng = np.random.default_rng([2411, number])
    keys = list(space.ranges)
    values = {key: list(space.values(key) or ()) for key in keys}
    rank = {key: np.array([values[key].index(point[key]) for point in points]) for key in keys}
    size = dict(zip(keys, 1.5 * rng.gamma(1.0, 1.0, len(keys)), strict=True))
    scores = MEAN + REST * rng.normal(size=len(points))
    for key in keys:
        effect = np.sort(rng.normal(size=len(values[key])))  # most rise or fall with the value
        scores += size[key] * rng.choice([effect, effect[::-1], rng.permutation(effect)])[rank[key]]
    for one, other in itertools.combinations(keys, 2):
        effects = rng.normal(size=(len(values[one]), len(values[other])))
        scores += PAIRS * np.sqrt(size[one] * size[other]) * effects[rank[one], rank[other]]
    right = np.zeros((SEEDS, len(points), IMAGES), dtype=bool)
    ease = rng.random(IMAGES)  # an image that is easy for one U-Net is so for most
    for seed, place in itertools.product(range(SEEDS), range(len(points))):
        score = (scores[place] + NOISE * rng.normal()) / 100
        easiest = np.argsort(ease + 0.08 * rng.normal(size=IMAGES))
        right[seed, place, easiest[: round(float(np.clip(score, 0, 1)) * IMAGES)]] = True
    return right
