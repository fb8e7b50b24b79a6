"""Cores of retrainings: whoever runs last has those that would stand idle."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import setting_on
from tune.execution.driver import cores_of, run_seeds
from tune.monitor.terminal import LiveView


@pytest.mark.parametrize(
    ("runs", "concurrent", "cores"),
    [(3, 2, [1, 1, 2]), (3, 1, [1, 1, 1]), (3, 8, [2, 2, 2]), (4, 2, [1, 1, 1, 1]), (1, 4, [4])],
)
def test_no_core_stands_idle_beside_the_last_runs(runs: int, concurrent: int, cores: list[float]) -> None:
    assert cores_of(runs, concurrent, 1) == cores


def test_each_has_a_multiple_of_what_was_asked_for() -> None:
    assert cores_of(3, 2, 4) == [4, 4, 8]


def _spans(*_: object) -> dict[str, Any]:
    began = time.time()
    time.sleep(3)
    return {"metrics": {}, "span": (began, time.time())}


@pytest.mark.slow
def test_seeds_run_side_by_side_and_the_last_one_alone(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to Ray, one that wants both cores keeps the second one from beginning beside the first."""
    monkeypatch.setattr("tune.execution.driver.run_retraining", _spans)
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    try:
        used = [ray.remote(num_cpus=1)(_Nothing).remote() for _ in range(2)]  # so that no worker waits, as after trials
        ray.get([one.done.remote() for one in used])
        for one in used:
            ray.kill(one)
        with LiveView("seeds", 3, {"psd": "max"}, console=Console(file=io.StringIO())) as view:
            setting = setting_on(tmp_path, tiny_dataset)
            found = run_seeds(setting, tiny_dataset, {}, 0, [0, 1, 2], view, lambda: None, 2)
    finally:
        ray.shutdown()
    (first, first_end), (second, second_end), (third, _) = (found[seed]["span"] for seed in (0, 1, 2))
    assert max(first, second) < min(first_end, second_end)
    assert third >= max(first_end, second_end)


class _Nothing:
    def done(self) -> None:
        """Answers."""
