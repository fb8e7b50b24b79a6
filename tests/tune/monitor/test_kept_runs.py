"""TensorBoard's runs: as many as it can show, those of the best trials among them, and the same after a resumption."""

import random
from pathlib import Path

import pytest

from tests.tune.searches import space_of, space_params
from tune.metrics import OBJECTIVES
from tune.monitor import kept_runs
from tune.monitor.kept_runs import KeptRuns, forget_seeds
from tune.monitor.tensorboard import TensorBoardRun, run_name
from tune.storage.folder import Storage
from tune.storage.ledger import Outcome

TRIALS = 40


def outcome(trial: int) -> Outcome:
    score = random.Random(trial).random()
    if trial % 8 == 5:
        return Outcome(trial=trial, params=space_params(), status="failed", error="ValueError: too warm")
    return Outcome(trial=trial, params=space_params(), status="finished", metrics={"psd": score, "cost": 80})


def written(experiment: Storage, trial: int) -> Outcome:
    with TensorBoardRun(experiment, space_of(), trial, space_params()):
        return outcome(trial)


def numbers(experiment: Storage) -> list[int]:
    return [int(name[:3]) for name in experiment.child("tensorboard").folders()]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"BEST": 2, "LATEST": 4, "SAMPLE": 3}.items():
        monkeypatch.setattr(kept_runs, name, number)


@pytest.mark.usefixtures("few")
def test_the_best_and_the_latest_and_the_seeds_stay(tmp_path: Path) -> None:
    experiment = Storage(tmp_path)
    with TensorBoardRun(experiment, space_of(), 3, space_params(), seed=0) as seed:
        pass
    runs = KeptRuns(experiment, OBJECTIVES["defense"])
    for trial in range(TRIALS):
        runs.add(written(experiment, trial))
    names = experiment.child("tensorboard").folders()
    assert names.pop() == seed.name
    best = sorted(range(TRIALS), key=lambda trial: -outcome(trial).metrics.get("psd", 0))[:2]
    assert {run_name(trial, space_params()) for trial in (*best, *range(TRIALS - 4, TRIALS))} <= set(names)
    assert len(names) <= 2 + 4 + 3
    assert runs.left_out == TRIALS - len(names)


@pytest.mark.usefixtures("few")
def test_a_promoted_trial_has_its_run_again_where_it_is_among_the_best(tmp_path: Path) -> None:
    experiment = Storage(tmp_path)
    runs = KeptRuns(experiment, OBJECTIVES["defense"])
    for trial in range(TRIALS):
        written(experiment, trial)
        runs.add(Outcome(trial=trial, params=space_params(), status="pruned"))
    gone = sorted(set(range(TRIALS)) - set(numbers(experiment)))
    promoted = {"params": space_params(), "status": "finished", "earlier": [[0.0, 1.0]]}
    for psd, trial in enumerate(gone[:5]):  # each better than the one before
        written(experiment, trial)
        runs.add(Outcome(trial=trial, metrics={"psd": psd / 10, "cost": 80}, **promoted))
    assert set(numbers(experiment)) & set(gone) == set(gone[3:5])  # the best two
    assert runs.left_out == TRIALS - len(numbers(experiment))
    written(experiment, gone[9])
    runs.add(Outcome(trial=gone[9], params=space_params(), status="pruned", earlier=[[0.0, 1.0]]))
    assert gone[9] not in numbers(experiment)
    assert runs.left_out == TRIALS - len(numbers(experiment))


@pytest.mark.usefixtures("few")
def test_a_resumed_search_keeps_the_same_and_removes_what_was_left(tmp_path: Path) -> None:
    whole, broken = Storage(tmp_path / "whole"), Storage(tmp_path / "broken")
    runs = KeptRuns(whole, OBJECTIVES["defense"])
    for trial in range(TRIALS):
        runs.add(written(whole, trial))
    earlier = [written(broken, trial) for trial in range(20)]  # by a driver that was killed before it removed any
    resumed = KeptRuns(broken, OBJECTIVES["defense"])
    resumed.resume(earlier)
    assert len(numbers(broken)) <= 2 + 4 + 3
    for trial in range(20, TRIALS):
        resumed.add(written(broken, trial))
    assert numbers(broken) == numbers(whole)


def test_seeds_of_an_earlier_choice_go(tmp_path: Path) -> None:
    """Also where both trials' parameters look alike in two digits: each run has its own parameters and scores."""
    experiment, names = Storage(tmp_path), []
    for trial, weight in ((4, 0.3012), (17, 0.2961)):
        params = {**space_params(), "unet.high_level_weight": weight}
        with TensorBoardRun(experiment, space_of(), trial, params, seed=0) as run:
            names.append(run.name)
    assert names[0] != names[1]
    written(experiment, 4)
    forget_seeds(experiment, names[1:])
    assert experiment.child("tensorboard").folders() == [run_name(4, space_params()), names[1]]


@pytest.mark.usefixtures("few")
def test_a_storage_that_fails_does_not_end_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(self: Storage) -> None:
        raise OSError(13, "Permission denied", self.uri)

    monkeypatch.setattr(Storage, "remove_tree", refuse)
    runs = KeptRuns(Storage(tmp_path), OBJECTIVES["defense"])
    for trial in range(TRIALS):
        runs.add(outcome(trial))
    assert "is not removed" in caplog.text
