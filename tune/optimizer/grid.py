"""Every point of a space that has finitely many."""

from __future__ import annotations

import random
from collections.abc import Hashable

from tune.space.space import SearchSpace
from tune.storage.ledger import Params

MOST = 10_000  # points: a space with more is treated as one that no search exhausts


def points_of(space: SearchSpace) -> list[Params] | None:
    """All that the space can propose, conditions kept; None where a range is continuous or there are over 10,000."""
    points: list[Params] = [{}]
    for key, values in space.ranges.items():
        listed = values.values()
        if listed is None:
            return None
        longer: list[Params] = []
        for point in points:
            longer += [{**point, key: value} for value in listed] if space.applies(key, point) else [point]
            if len(longer) > MOST:
                return None
        points = longer
    return points


def shuffled(points: list[Params], seed: int) -> list[Params]:
    """The same points in an order that follows from the seed: a grid that is cut short is a sample of itself."""
    order = list(points)
    random.Random(f"{seed}/grid").shuffle(order)
    return order


def identity(params: Params) -> Hashable:
    """A hashable key that is the same for equal points."""
    return frozenset(params.items())
