"""What a trial says of itself while it runs, and what is left of it when Tune stops it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, SilentChannel, setting_on, tiny_space
from tune.execution.trial import attempt
from tune.metrics import TARGETS
from tune.monitor.progress import ProgressReporter
from tune.monitor.tensorboard import TensorBoardRun, close_run
from tune.pipeline.job import Progress, Work
from tune.pipeline.recipe import Development
from tune.storage.store import Artifact

ARTIFACT = Artifact(Path("none"), {"metrics": {}})


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
    setting = setting_on(tmp_path, tiny_dataset, tiny_space(unet__epochs=3, search__warmup_epochs=1))
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
    right = [row["psd"] * len(tiny_dataset.validation) for row in told]
    assert [int(row["right"], 16).bit_count() for row in told] == [round(images) for images in right]
    work = told[-1]["work"]
    assert (work["classifier"]["built"], work["projection_train"]["built"]) == (1, 1)
    assert (work["unet"]["built"], work["unet"]["reused"]) == (0, 0)  # not to its end
    assert work["unet"]["seconds"] > 0
    for name, value in last.items():
        shown = {point.step: point.value for point in events.Scalars(f"result/{name}")}
        assert list(shown) == [1, 2]  # the driver repeats the last, and drops none before it
        assert shown[2] == pytest.approx(value)


def waiting(gan: str = "g") -> Progress:
    return Progress("waiting for gan", 0, 0, waits_for=(gan,))


def test_a_trial_that_waits_offers_its_share_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [1000.0], list[Mapping[str, Any]]()
    monkeypatch.setattr("ray.tune.report", told.append)
    monkeypatch.setattr("tune.monitor.progress.time.time", lambda: now[0])
    reporter = ProgressReporter(3, SilentChannel(), None, judged=True)
    reporter(Progress("classifier", 1, 1, artifact=ARTIFACT, work={"classifier": Work(1, 0, 2.5)}))
    offers = []
    for _ in range(300):
        reporter(waiting())
        offers.append(len(told))
        now[0] += 1
    assert offers[:2] == [0, 0], "expected a wait of a second to bother nobody"
    assert [offers.index(n) for n in range(1, len(told) + 1)] == [3, 8, 17, 34, 67, 128, 189, 250]
    assert told[0]["waits"] == ["g"]
    assert told[0]["seconds"] == 3


def test_a_retraining_has_nobody_to_offer_it_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.tune.report", lambda told: pytest.fail("Tune was told"))
    monkeypatch.setattr("tune.monitor.progress.PATIENCE", -1.0)
    ProgressReporter(0, SilentChannel(), None, judged=False)(waiting())


def test_seconds_are_those_of_the_share_before_a_pause_and_of_all_that_was_built() -> None:
    assert 60 <= ProgressReporter(3, SilentChannel(), None, judged=True, before=60.0).seconds < 70
    reporter = ProgressReporter(3, SilentChannel(), None, judged=True)
    reporter(Progress("gan", 1, 1, artifact=ARTIFACT, work={"gan": Work(1, 0, 300.0), "attack": Work(0, 1)}))
    reporter(Progress("unet", 2, 8, seconds=20.0))
    assert reporter.work()["unet"] == vars(Work(0, 0, 20.0))
    assert reporter.seconds == 320, "expected the seconds of what a process that was lost had built"
