"""One trial: finished, failed by its own error, or stopped by the storage's."""

from __future__ import annotations

import errno
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.datasets.dataset import Dataset
from components.unet.training import UNetTraining
from tests.tune.executor_fixture import PARAMS, SilentChannel, setting_on, tiny_space, try_here
from tune.execution.trial import arrays_of, development, run_trial, split_of
from tune.pipeline.executor import Executor
from tune.pipeline.recipe import bounds_of
from tune.storage.ledger import Ledger, Outcome
from tune.storage.outage import outage, passing


def test_a_finished_trial_has_all_it_is_judged_by(tmp_path: Path, tiny_dataset: Dataset) -> None:
    outcome = try_here(setting_on(tmp_path, tiny_dataset), tiny_dataset, 3, PARAMS)
    assert outcome.status == "finished"
    assert outcome.error is None
    assert {"pso", "noisy", "threshold", "psd_gan", "psd", "pco", "attacked_label", "cost"} <= set(outcome.metrics)
    assert outcome.metrics["cost"] == 8
    assert all(math.isfinite(value) for value in outcome.metrics.values())
    assert set(outcome.stages) == set(outcome.work)


def test_a_trial_fails_by_its_own_error(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise ValueError("too warm\nin here")

    monkeypatch.setattr(Executor, "get", fail)
    outcome = try_here(setting_on(tmp_path, tiny_dataset), tiny_dataset, 3, PARAMS)
    assert (outcome.status, outcome.error) == ("failed", "ValueError: too warm in here")
    assert outcome.params == PARAMS


class SetAside(BaseException):
    """What Tune ends a trial with that its scheduler stops."""


def test_a_promoted_trial_trains_no_epoch_twice(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its worker runs it, with the answers of a scheduler in place of Tune."""
    lengths = {"unet__epochs": 4, "unet__first_images": 8, "search__warmup_epochs": 1, "search__early_stopping": True}
    space = tiny_space(search__promotion=True, **lengths)
    arrays = arrays_of(train=tiny_dataset.train, validation=tiny_dataset.validation)
    told: list[dict[str, Any]] = []
    trained: list[int] = []
    run_epoch, last = UNetTraining.run_epoch, 9

    def counted(training: UNetTraining) -> dict[str, float]:
        trained.append(training.epoch + 1)
        return run_epoch(training)

    def tell(result: dict[str, Any]) -> None:
        told.append(result)
        if result.get("epoch") == last:
            raise SetAside

    monkeypatch.setattr(UNetTraining, "run_epoch", counted)
    monkeypatch.setattr("tune.execution.trial.tell_tune", tell)
    monkeypatch.setattr("tune.monitor.progress.tell_tune", tell)

    def run(storage: Path, **more: Any) -> Outcome | None:
        setting, config = setting_on(storage, tiny_dataset, space), {"trial": 0, "params": PARAMS, **more}
        with suppress(SetAside):
            run_trial(config, setting=setting, arrays=arrays, channel=SilentChannel())
        return Ledger(setting.home).outcome(0)

    undisturbed = run(tmp_path / "quiet")
    assert trained == [1, 2, 3, 4]
    trained.clear()
    ledger = Ledger(setting_on(tmp_path / "aside", tiny_dataset, space).home)
    known: Outcome | None = None
    for promotions, last in enumerate((1, 2, 9)):  # set aside after the first epoch, promoted, again after the second
        assert run(tmp_path / "aside", promotions=promotions) == known or last == 9
        if last < 9:  # what the driver does
            scores = {str(result["epoch"]): result["psd"] for result in told[-last:]}
            known = ledger.record(
                Outcome(
                    trial=0,
                    status="pruned",
                    params=PARAMS,
                    intermediate=scores,
                    work=told[-1]["work"],
                    seconds=2.0 * (promotions + 1),
                    ended=10.0 * (promotions + 1),
                    earlier=known.spans if known else [],
                )
            )
    assert trained == [1, 2, 3, 4]
    promoted = ledger.outcome(0, promotions=2)
    assert promoted is not None
    assert undisturbed is not None
    same = {"metrics", "stages", "intermediate", "right", "params", "status"}
    assert promoted.model_dump(include=same) == undisturbed.model_dump(include=same)
    assert promoted.earlier == [[8.0, 10.0], [18.0, 20.0]]
    assert promoted.seconds > 4
    counts = {stage: (row["built"], row["reused"]) for stage, row in promoted.work.items()}
    assert counts == {stage: (row["built"], row["reused"]) for stage, row in undisturbed.work.items()}
    times = [row["work"]["unet"]["seconds"] for row in told if row.get("epoch") == 2]
    assert times[-1] > times[-2] > 0  # of a training that goes on those of its earlier runs count, too
    assert run(tmp_path / "aside", promotions=2) == promoted  # what has ended is left as it is
    assert trained == [1, 2, 3, 4]


def test_a_diverging_trial_fails_and_says_so(tmp_path: Path, tiny_dataset: Dataset) -> None:
    space = tiny_space(unet__high_level_weight="{choice: [1.0, 1.0e300]}")
    params = {**PARAMS, "unet.high_level_weight": 1e300}
    outcome = try_here(setting_on(tmp_path, tiny_dataset, space), tiny_dataset, 0, params)
    assert outcome.status == "failed"
    assert outcome.error is not None
    assert "expected a finite number" in outcome.error


def test_a_full_disk_is_not_the_trials_failure(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Executor, "get", full)
    with pytest.raises(OSError, match="No space left"):
        try_here(setting_on(tmp_path, tiny_dataset), tiny_dataset, 3, PARAMS)


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.json"), True),
        (OSError(errno.EROFS, "Read-only file system"), True),
        (RuntimeError("I/O error: No space left on device (os error 28)"), True),
        (OSError("s3://b/a: … AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"), True),
        (OSError("s3://b/a: … AWS Error ACCESS_DENIED during PutObject operation: Access Denied"), True),
        (OSError("s3://b/a: … AWS Error UNKNOWN (HTTP status 400) during PutObject operation: … ExpiredToken …"), True),
        (OSError(errno.EACCES, "Permission denied", "/shared/store/gan/abc/weights"), True),
        (PermissionError("/tmp/cache: expected a folder of user 0, found one of user 1"), True),
        (OSError(errno.EIO, "Input/output error", "a.json"), False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (ValueError("too warm"), False),
    ],
)
def test_an_outage_is_told_from_other_errors(error: Exception, found: bool) -> None:
    assert bool(outage(error)) == found


def test_who_is_refused_does_not_wait() -> None:
    assert not passing(OSError("s3://b/a: … AWS Error ACCESS_DENIED during PutObject operation: Access Denied"))
    assert not passing(OSError(errno.EACCES, "Permission denied", "/shared/store/gan/abc/weights"))


def test_bounds_are_what_the_space_can_propose() -> None:
    bounds = bounds_of(tiny_space())
    assert (list(bounds.restarts), list(bounds.steps)) == ([1, 2], [2, 4, 6])


def test_arrays_hold_a_split_as_it_is(tmp_path: Path, tiny_dataset: Dataset) -> None:
    arrays = arrays_of(train=tiny_dataset.train, validation=tiny_dataset.validation)
    assert (split_of(arrays, "train").images == tiny_dataset.train.images).all()
    data = development(setting_on(tmp_path, tiny_dataset), arrays)
    assert (data.held.labels == tiny_dataset.validation.labels).all()


def test_a_trial_that_shares_nothing_measures_the_same(tmp_path: Path, tiny_dataset: Dataset) -> None:
    setting = setting_on(tmp_path, tiny_dataset)
    shared = try_here(setting, tiny_dataset, 3, PARAMS)
    alone = try_here(replace(setting, reuse=False), tiny_dataset, 4, PARAMS)
    assert alone.metrics == shared.metrics
    assert all((work["built"], work["reused"]) == (1, 0) for work in alone.work.values())
    assert alone.stages["projection"] != shared.stages["projection"]  # its own R and L, not the search's largest
    again = try_here(replace(setting, reuse=False), tiny_dataset, 5, PARAMS)
    assert all(work["built"] == 1 for work in again.work.values())
