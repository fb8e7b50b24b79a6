"""The map of a trial as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tune.monitor.heatmap import BLUE, CELL, MARGIN, MOST, RED, map_png

FOUND = {"restarts": [1, 2, 4], "steps": [2, 4], "psd_gan": [[0.1, 0.2], [0.3, float("nan")], [0.5, 0.9]]}


def pixels(found: Mapping[str, Any], restarts: int, steps: int) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(map_png(found, restarts, steps)))).astype(int)


def cell(page: np.ndarray, row: int, column: int) -> np.ndarray:
    """The background of a cell, near its corner and inside any frame."""
    left, top = MARGIN[0] + column * CELL[0], MARGIN[1] + row * CELL[1]
    return page[top + 6, left + 6]


def test_a_higher_share_is_darker_and_an_unknown_one_blank() -> None:
    page = pixels(FOUND, 1, 2)
    shares = [cell(page, row, column).sum() for row, column in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1))]
    assert shares == sorted(shares, reverse=True)
    assert cell(page, 1, 1).tolist() == [255, 255, 255]
    assert np.abs(cell(page, 2, 1) - BLUE).max() < 30


@pytest.mark.parametrize(("pair", "place"), [((1, 2), (0, 0)), ((4, 4), (2, 1))])
def test_the_trials_own_pair_is_framed(pair: tuple[int, int], place: tuple[int, int]) -> None:
    rows, columns = np.nonzero((pixels(FOUND, *pair) == RED).all(axis=2))
    top, left = MARGIN[1] + place[0] * CELL[1], MARGIN[0] + place[1] * CELL[0]
    assert (rows.min(), columns.min()) == (top, left)
    assert (rows.max(), columns.max()) == (top + CELL[1], left + CELL[0])


def test_a_pair_that_the_map_does_not_have_is_not_framed() -> None:
    assert not (pixels(FOUND, 3, 2) == RED).all(axis=2).any()


def test_a_map_of_one_cell_and_one_share() -> None:
    assert pixels({"restarts": [1], "steps": [1], "psd_gan": [[1.0]]}, 1, 1).shape[1] > 200


def test_of_many_steps_some_are_shown_and_the_trials_own() -> None:
    steps = list(range(10, 401))
    shares = [[0.5 if step == 123 else 0.0 for step in steps] for _ in (1, 2)]
    page = pixels({"restarts": [1, 2], "steps": steps, "psd_gan": shares}, 2, 123)
    assert page.shape[1] < MARGIN[0] + (MOST + 2) * CELL[0]
    frame = np.nonzero((page == RED).all(axis=2))[1].min()
    assert np.abs(page[MARGIN[1] + CELL[1] + 6, frame + 6] - BLUE).max() < 30, "another share than its own"
