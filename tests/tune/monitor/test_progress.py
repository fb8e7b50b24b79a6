"""What a trial says of itself while it runs, and what is left of it when Tune stops it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, SilentChannel, setting_on
from tune.execution.trial import attempt
from tune.metrics import TARGETS
from tune.monitor.progress import ProgressReporter
from tune.monitor.tensorboard import TensorBoardRun, close_run
from tune.pipeline.recipe import Development


def test_a_trial_that_is_stopped_early_has_its_metrics_and_its_work(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Tune stops a trial: its report does not return. TensorBoard would not draw a run that lacks a metric."""
    told: list[Mapping[str, Any]] = []

    def stop(row: Mapping[str, Any]) -> None:
        told.append(row)
        if row["epoch"] == 2:
            raise SystemExit

    monkeypatch.setattr("ray.tune.report", stop)
    setting = setting_on(tmp_path, tiny_dataset)
    run = TensorBoardRun(setting.home, setting.space, 3, PARAMS)
    reporter = ProgressReporter(3, SilentChannel(), run, judged=True)
    with pytest.raises(SystemExit), run:
        attempt(setting, Development.for_search(tiny_dataset), 3, PARAMS, reporter)
    last = told[-1]["metrics"]
    close_run(setting.home, setting.space, 3, PARAMS, "pruned", last, told[-1]["epoch"])
    events = EventAccumulator(str(run.folder.local)).Reload()
    assert set(last) == set(TARGETS["defense"].shown)
    assert last["cost"] == 8
    assert last["images_per_second"] > 0
    work = told[-1]["work"]
    assert (work["classifier"]["built"], work["projection_train"]["built"]) == (1, 1)
    assert (work["unet"]["built"], work["unet"]["reused"]) == (0, 0)  # not to its end
    assert work["unet"]["seconds"] > 0
    for name, value in last.items():
        shown = {point.step: point.value for point in events.Scalars(f"result/{name}")}
        assert list(shown) == [1, 2]  # the driver repeats the last, and drops none before it
        assert shown[2] == pytest.approx(value)
