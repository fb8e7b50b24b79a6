"""Sizes as text."""

import pytest

from tune.storage.sizes import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345_678, "12.3 MB"), (2.04e12, "2.0 TB"), (5e15, "5000.0 TB")],
)
def test_sizes(size: float, text: str) -> None:
    assert size_text(size) == text
