"""Cores of retrainings: whoever runs last has those that would stand idle."""

from __future__ import annotations

import pytest

from tune.execution.driver import cores_of


@pytest.mark.parametrize(
    ("runs", "concurrent", "cores"),
    [(3, 2, [1, 1, 2]), (3, 1, [1, 1, 1]), (3, 8, [2, 2, 2]), (4, 2, [1, 1, 1, 1]), (1, 4, [4])],
)
def test_no_core_stands_idle_beside_the_last_runs(runs: int, concurrent: int, cores: list[float]) -> None:
    assert cores_of(runs, concurrent, 1) == cores


def test_each_has_a_multiple_of_what_was_asked_for() -> None:
    assert cores_of(3, 2, 4) == [4, 4, 8]
