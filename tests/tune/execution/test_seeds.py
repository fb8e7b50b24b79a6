"""Retrainings side by side."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, setting_on
from tune.execution.seeds import run_seeds
from tune.monitor.terminal import LiveView


def _spans(*_: object) -> tuple[float, float]:
    began = time.time()
    time.sleep(3)
    return began, time.time()


def _measured(*given: Any) -> dict[str, Any]:
    return {"metrics": {}, "trained": given[-1], "measured": _spans()}


@pytest.mark.slow
def test_as_many_seeds_run_at_once_as_there_are_cores(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.execution.seeds.train_seed", _spans)
    monkeypatch.setattr("tune.execution.seeds.run_retraining", _measured)
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    try:
        used = [ray.remote(num_cpus=1)(_Nothing).remote() for _ in range(2)]  # so that no worker waits, as after trials
        ray.get([one.done.remote() for one in used])
        for one in used:
            ray.kill(one)
        with LiveView("seeds", 3, {"psd": "max"}, console=Console(file=io.StringIO())) as view:
            setting = setting_on(tmp_path, tiny_dataset)
            found = run_seeds(setting, tiny_dataset, PARAMS, 0, [0, 1, 2], view, lambda: None)
    finally:
        ray.shutdown()
    (_, first_end), (second, second_end), (third, third_end) = sorted(one["trained"] for one in found.values())
    assert second < first_end
    assert third >= min(first_end, second_end)
    assert min(one["measured"][0] for one in found.values()) < third_end  # while the third is being trained


class _Nothing:
    def done(self) -> None:
        """Answers."""
