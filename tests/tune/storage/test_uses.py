"""What an experiment has begun is used, from before it is built until nobody goes on from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from components.datasets.dataset import Dataset
from tests.tune.commands.filled_storage import kept
from tests.tune.executor_fixture import PARAMS, SilentChannel, setting_on, tiny_config, tiny_space
from tune.commands.catalogue import store
from tune.execution.driver import run_trials
from tune.execution.finalist_training import run_finalist
from tune.execution.seeds import final_executor
from tune.execution.trial import Setting, arrays_of, attempt
from tune.monitor.progress import ProgressReporter
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Development, bounds_for
from tune.pipeline.stages import final_path_of, further_path_of
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome
from tune.storage.uses import uses_of


class Killed(BaseException):
    """An end in the midst of a training."""


class UntilUNet(ProgressReporter):
    """Ends the process, as it were, when the U-Net begins."""

    def __call__(self, progress: Progress) -> None:
        """Takes a report."""
        if progress.stage == "unet" and not progress.artifact:
            raise Killed


@pytest.fixture
def setting(tmp_path: Path, tiny_dataset: Dataset) -> Setting:
    setting = setting_on(tmp_path, tiny_dataset)
    setting.home.write("space.yaml", tiny_space().to_yaml().encode())
    return setting


def reporter() -> ProgressReporter:
    return UntilUNet(0, SilentChannel(), None, judged=False)


def interrupted_trial(setting: Setting, dataset: Dataset) -> None:
    Ledger(setting.home).propose(0, PARAMS)
    with pytest.raises(Killed):
        attempt(setting, Development.for_search(dataset), 0, PARAMS, reporter())


def test_an_interrupted_trial_keeps_what_it_has_built(
    setting: Setting, tiny_dataset: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted_trial(setting, tiny_dataset)
    place = Storage(setting.storage)
    before = kept(place)
    assert {"gan", "projection", "projection_train"} <= {name.partition("/")[0] for name in before}
    for yes in (False, True):
        store(place.uri, prune=True, yes=yes)
        assert "Nothing to remove: every artifact is used by an experiment" in capsys.readouterr().out
    assert kept(place) == before


def test_an_interrupted_retraining_keeps_what_it_has_built(setting: Setting, tiny_dataset: Dataset) -> None:
    final = Development.for_retraining(tiny_dataset)
    executor = final_executor(setting, arrays_of(train=final.train), final.fingerprint, tiny_config(), 0)
    with pytest.raises(Killed):
        executor.get(tiny_config(), final_path_of(tiny_config()), reporter())
    before = kept(Storage(setting.storage))
    assert any(name.startswith("gan/") for name in before)
    store(setting.storage, prune=True, yes=True)
    assert kept(Storage(setting.storage)) == before


def test_a_finalist_with_a_further_seed_is_used(setting: Setting, tiny_dataset: Dataset) -> None:
    arrays = arrays_of(train=tiny_dataset.train, validation=tiny_dataset.validation)
    config = tiny_config()
    run_finalist(setting, arrays, PARAMS, 1, 0, SilentChannel(), bounds_for(config), further_path_of(config))
    before = kept(Storage(setting.storage))
    assert any(name.startswith("score_unet/") for name in before)
    store(setting.storage, prune=True, yes=True)
    assert kept(Storage(setting.storage)) == before


def test_a_trial_that_shares_nothing_uses_nothing(tmp_path: Path, tiny_dataset: Dataset) -> None:
    setting, data = setting_on(tmp_path, tiny_dataset), Development.for_search(tiny_dataset)
    assert setting.trial_executor(data, tiny_config(), 0).uses == uses_of(setting.home, "trials")
    assert replace(setting, reuse=False).trial_executor(data, tiny_config(), 0).uses is None


def test_when_all_trials_are_over_only_the_finished_use_anything(setting: Setting, tiny_dataset: Dataset) -> None:
    interrupted_trial(setting, tiny_dataset)
    ledger = Ledger(setting.home)
    for trial in range(trials := int(setting.space.fixed["search.trials"])):
        ledger.propose(trial, PARAMS)
        ledger.record(Outcome(trial=trial, params=PARAMS, status="failed", error="too warm in here"))
    searcher = LedgerSearcher(setting.space, ledger, trials=trials, seed=0)
    run_trials(setting, tiny_dataset, searcher, 1, None, lambda: None)  # type: ignore[arg-type]  # nothing runs
    store(setting.storage, prune=True, yes=True)
    assert kept(Storage(setting.storage)) == set()


@pytest.mark.parametrize("damage", [b"{", b"[]", b'{"stages": 1}', b'{"stages": {"gan'])
def test_a_torn_note_stops_pruning(setting: Setting, damage: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    setting.store.storage.write("gan/aa/weights", b"")
    uses_of(setting.home, "trainings").write("ab.json", damage)
    store(setting.storage)
    assert f"Caution: {setting.home.uri}/uses/trainings/ab.json: expected a note" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"ab\.json: .*nothing is pruned"):
        store(setting.storage, prune=True, yes=True)
