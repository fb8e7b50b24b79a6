"""The benchmark of requests counts a trial that its space can propose."""

from __future__ import annotations

import pytest

from benchmarks.store_requests import SPACE, widest
from tune.pipeline.recipe import bounds_of
from tune.space.space import load_space


@pytest.mark.parametrize("name", [SPACE, "mnist"])
def test_the_widest_trial_is_one_of_the_space(name: str) -> None:
    space = load_space(name, {})
    config, bounds = widest(space), bounds_of(space)
    assert (config.projector.restarts, config.projector.steps) == (max(bounds.restarts), max(bounds.steps))
