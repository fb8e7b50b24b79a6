"""Settings shared by the tests of what is built around the components."""

import pytest

from components.attacks.presets import PRESETS

LITTLE = {
    "transfer_steps": 1, "steps": 2, "greedy": 2, "square": 2, "curve_steps": 1,
    "epsilons": (0.0, 0.3, 0.5), "step_counts": (1, 2),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _little_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What attacks find is tested with the components: here little is tried of every kind."""
    monkeypatch.setitem(PRESETS, "quick", PRESETS["quick"].model_copy(update=LITTLE))
