"""Search spaces written in a test, and how one that is refused is read."""

from collections.abc import Callable
from typing import Any

import pytest

from tune.space.space import SearchSpace, SpaceError, parse_space

FULL = """
search.target: defense
search.trials: 12
projector.restarts: {choice: [4, 1, 2]}
projector.steps: {low: 10, high: 60, step: 10}
unet.high_level_weight: {low: 1e-2, high: 10, log: true}
projector.distance: {choice: [l2, insensitive]}
projector.tolerance: {low: 0.1, high: 0.4, when: {projector.distance: insensitive}}
"""


def parse(text: str, **overrides: Any) -> SearchSpace:
    """The space in `text`, as if it stood in my.yaml."""
    return parse_space(
        text, "my", "my.yaml", {key.replace("__", "."): value for key, value in overrides.items()}
    )


def refusal(call: Callable[[], Any]) -> str:
    """The message with which `call` is refused."""
    with pytest.raises(SpaceError) as caught:
        call()
    return str(caught.value)
