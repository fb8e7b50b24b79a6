"""The figures of images, and of the classes."""

import time

import numpy as np
import pytest

from tune.report import detail
from tune.report.blocks import Drawing, Table
from tune.report.facts import Facts
from tune.report.reading import ROWS, Pictures, SeedScore


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 70, 20), (1, 9, 30)])
def test_pixels_are_squares(shape: tuple[int, ...]) -> None:
    rows = {name: np.zeros((2, *shape), np.uint8) for name in ROWS}
    figure = detail._grid(Pictures(rows, np.zeros(2, int), np.zeros((len(ROWS), 2), int)), "GAN")
    shown = figure.axes[0].get_images()
    assert len(shown) == 2 * len(ROWS)
    for image in shown:
        left, right, bottom, top = image.get_extent()
        assert (bottom - top) / (right - left) == pytest.approx(shape[1] / shape[2])
        assert max(bottom - top, right - left) == pytest.approx(0.92)


def test_of_many_classes_the_worst_are_listed_and_the_chart_is_one_image() -> None:
    """With a number in each of 10,000 cells it took half a minute, and three megabytes of the page."""
    counts = np.diag(np.full(100, 40))
    counts[7, 7], counts[7, 93] = 10, 30
    counts[50, 50], counts[50, 2], counts[50, 3] = 20, 12, 8
    seed = SeedScore(seed=0, n=4000, metrics={"psd": 0.98}, confusion=counts.tolist())
    names = [f"name {label}" for label in range(100)]
    known = Facts("one", "one", {}, {"data": {"class_names": names}}, (), seeds=(seed,))
    began = time.perf_counter()
    worst, confused, drawn = detail.classes(known).blocks
    assert time.perf_counter() - began < 15
    assert isinstance(worst, Table)
    assert isinstance(confused, Table)
    assert isinstance(drawn, Drawing)
    assert [row[0] for row in worst.rows] == [f"{label} name {label}" for label in (7, 50, *range(7), 8)]
    assert worst.note.startswith("The 10 worst of 100 classes; report.json has them all.")
    assert confused.rows[0] == ("7 name 7", "93 name 93", "30", "75.00")
    assert confused.rows[1:] == [
        ("50 name 50", "2 name 2", "12", "30.00"),
        ("50 name 50", "3 name 3", "8", "20.00"),
    ]
    assert len(drawn.chart.svg) < 100_000
