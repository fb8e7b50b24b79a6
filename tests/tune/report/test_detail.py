"""The figures of images."""

import numpy as np
import pytest

from tune.report import detail
from tune.report.reading import ROWS, Pictures


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
