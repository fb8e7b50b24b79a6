"""An order of labelled images of which any first part stands for the whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def spread(order: NDArray[np.int64], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """The row numbers `order` put so that any first part of them has each class in its proportion.

    Args:
        order: int64 (N,), each row number once; within a class it is kept.
        labels: (N,) of the rows.
    """
    place = np.empty(len(order))
    for label in np.unique(labels):
        (rows,) = np.where(labels[order] == label)
        place[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return order[place.argsort(kind="stable")]
