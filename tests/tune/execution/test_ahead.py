"""What idle cores begin of the retraining while the last trials run: which stages, when, and with equal results."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import ray
import torch
from ray.tune.experiment import Trial
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from components.datasets.dataset import Dataset, DataSplit
from tests.tune.executor_fixture import PARAMS, SilentChannel, setting_on, tiny_space
from tests.tune.searches import made
from tune.execution import ahead
from tune.execution.ahead import Ahead, SharedStages
from tune.execution.driver import run_trials
from tune.execution.seeds import Beginning, Retraining, build_ahead, run_seeds, train_seed
from tune.execution.trial import Setting, arrays_of
from tune.monitor.terminal import LiveView
from tune.optimizer.early_stopping import SuccessiveHalving
from tune.optimizer.searcher import LedgerSearcher
from tune.optimizer.stopping import StopRules
from tune.pipeline.recipe import Development
from tune.space.space import parse_space
from tune.storage.ledger import Ledger, Outcome

QUICKSTART = Path(__file__).parents[3] / "search_spaces/quickstart.yaml"
DIGITS = Development(DataSplit(torch.zeros(10, 1, 28, 28), torch.zeros(10, dtype=torch.int64)), None, 10, "digits")
FIRST = {"projector.restarts": 1, "projector.steps": 5, "unet.high_level_weight": 0.1, "unet.label_weight": 0.3}
SECOND = {"projector.restarts": 2, "projector.steps": 20, "unet.high_level_weight": 1.0, "unet.label_weight": 1.0}


def shared_of(dataset: Dataset, *candidates: Mapping[str, Any], **ranges: str) -> list[str]:
    """What trials of the space `quickstart`, with further ranges, share of the retraining."""
    text, ranges = QUICKSTART.read_text(), {key.replace("__", "."): value for key, value in ranges.items()}
    kept = [line for line in text.splitlines() if line.partition(":")[0] not in ranges]
    space = parse_space("\n".join([*kept, *(f"{k}: {v}" for k, v in ranges.items())]), "mine", "mine.yaml")
    setting = setting_on(Path("nowhere"), dataset, space)
    shared = SharedStages(setting, DIGITS, dict(enumerate(candidates)), 0)
    assert shared.compare(60)
    return shared.stages


def test_quickstart_shares_all_but_the_projection_and_the_unet(tiny_dataset: Dataset) -> None:
    assert shared_of(tiny_dataset, FIRST, SECOND, FIRST) == ["classifier", "gan", "attack_train"]


def test_trials_of_one_r_and_l_share_the_projection_as_well(tiny_dataset: Dataset) -> None:
    other = {**SECOND, "projector.restarts": 1, "projector.steps": 5}
    assert shared_of(tiny_dataset, FIRST, other)[-1] == "projection_train"


def test_where_the_classifier_is_searched_nothing_is_shared(tiny_dataset: Dataset) -> None:
    """Not the generator either, which is measured by the classifier."""
    first, second = ({**FIRST, "classifier.epochs": epochs} for epochs in (2, 3))
    assert shared_of(tiny_dataset, first, first, second, classifier__epochs="{choice: [2, 3]}") == []
    assert shared_of(tiny_dataset, first, {**first, **SECOND}, classifier__epochs="{choice: [2, 3]}")[0] == "classifier"


def test_of_what_is_searched_only_what_lies_before_it_is_shared(tiny_dataset: Dataset) -> None:
    first, second = ({**FIRST, "unet.images": images} for images in (5, 8))
    assert shared_of(tiny_dataset, first, second, unet__images="{choice: [5, 8]}") == ["classifier", "gan"]


def test_trials_are_compared_a_few_at_a_time(tmp_path: Path, tiny_dataset: Dataset) -> None:
    data, candidates = Development.for_retraining(tiny_dataset), dict.fromkeys(range(5), PARAMS)
    shared = SharedStages(setting_on(tmp_path, tiny_dataset), data, candidates, 0)
    assert not shared.compare(0)
    assert shared.compare(60)


class Cores:
    """A search of which as many trials run as a test says, with Ray's cores counted by hand."""

    def __init__(self, ahead: Ahead, searcher: LedgerSearcher, submitted: list[tuple[int, tuple[str, ...]]]) -> None:
        self.ahead, self.searcher, self.submitted = ahead, searcher, submitted

    def look(self, *states: str) -> list[int]:
        """The seeds that have begun after a look at trials of these states."""
        self.ahead.look([SimpleNamespace(status=state, is_finished=lambda s=state: s in ENDED) for state in states])
        return [seed for seed, _ in self.submitted]


POINTS = ({**PARAMS, "projector.restarts": 1}, PARAMS)
ENDED = (Trial.TERMINATED, Trial.ERROR)
Made = Callable[..., Cores]


@pytest.fixture
def cores(tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Makes a search of two trials, of which one has ended and one runs, and three seeds, for three cores."""
    submitted: list[tuple[int, tuple[str, ...]]] = []
    done: list[int] = []

    def remote(function: Any) -> Any:
        def submit(run: Retraining, images: Any, stages: tuple[str, ...]) -> int:
            submitted.append((run.seed, stages))
            return run.seed

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=submit))

    def make(points: Sequence[Mapping[str, Any]] = POINTS, reuse: bool = True, **changes: Any) -> Cores:
        setting = setting_on(tmp_path, tiny_dataset, tiny_space(search__trials=2, **changes))
        searcher = LedgerSearcher(setting.space, Ledger(setting.home), trials=2, seed=0, points=points)
        proposed, _ = (searcher.suggest(name) for name in ("ended", "runs"))
        searcher.ledger.record(Outcome(**proposed, status="finished"))
        searcher.on_trial_complete("ended")
        told = Ahead(replace(setting, reuse=reuse), tiny_dataset, searcher, 3, [0, 1, 2], mock.Mock())
        return Cores(told, searcher, submitted)

    monkeypatch.setattr("ray.remote", remote)
    monkeypatch.setattr("ray.wait", lambda tasks, **_: (done, [task for task in tasks if task not in done]))
    monkeypatch.setattr(ahead, "room", lambda setting: 3 - 1 - len(submitted))
    monkeypatch.setattr(Beginning, "of", lambda images: Beginning(images, mock.Mock()))
    make.done = done  # type: ignore[attr-defined]
    return make


def test_as_many_seeds_begin_as_cores_are_idle(cores: Made) -> None:
    search = cores()
    assert search.look(Trial.RUNNING, Trial.TERMINATED) == [0, 1]
    assert search.submitted[0][1] == ("classifier", "gan", "attack_train")
    assert search.look(Trial.RUNNING, Trial.TERMINATED) == [0, 1]
    search.ahead._note.assert_called_once()  # type: ignore[attr-defined]


def test_the_next_seed_begins_where_one_is_done(cores: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    search = cores()
    search.look(Trial.RUNNING)
    cores.done.append(1)  # type: ignore[attr-defined]
    monkeypatch.setattr(ahead, "room", lambda setting: 0)
    assert search.look(Trial.RUNNING) == [0, 1], "an autoscaler is asked for a node"
    monkeypatch.setattr(ahead, "room", lambda setting: 1)
    assert search.look(Trial.RUNNING) == [0, 1, 2]
    assert search.look(Trial.RUNNING) == [0, 1, 2]


def test_cores_that_are_free_on_several_nodes_are_no_share(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits no node that is there would wait, and an autoscaler would start one for it."""
    nodes = {"a": {"CPU": 2.0, "GPU": 1.0}, "b": {"CPU": 2.0}, "c": {"CPU": 9.0, "GPU": 1.0}, "d": {}}
    monkeypatch.setattr(ahead, "available_resources_per_node", lambda: nodes)
    setting = setting_on(tmp_path, tiny_dataset)
    assert ahead.room(replace(setting, cpus=4.0)) == 2
    assert ahead.room(replace(setting, cpus=2.0, gpus=0.5)) == 1 + 2


@pytest.mark.parametrize(
    "states",
    [
        (Trial.RUNNING, Trial.PENDING),
        (Trial.RUNNING, Trial.PAUSED),
        (Trial.RUNNING,) * 3,
        (Trial.TERMINATED, Trial.ERROR),
    ],
)
def test_nothing_begins_while_a_trial_can_use_the_core_or_after_the_last_one(
    cores: Made, states: Sequence[str]
) -> None:
    assert cores().look(*states) == []


def test_nothing_begins_while_trials_may_be_proposed(cores: Made) -> None:
    search = cores()
    search.searcher._trials = 3
    assert search.look(Trial.RUNNING) == []


def test_nothing_begins_where_trials_share_nothing_or_nothing_is_retrained(
    cores: Made, tmp_path: Path, tiny_dataset: Dataset
) -> None:
    assert cores(reuse=False).look(Trial.RUNNING) == []
    space = tiny_space(search__target="projection", unet__high_level_weight=1.0)
    searcher = mock.Mock(finished=True)
    Ahead(setting_on(tmp_path, tiny_dataset, space), tiny_dataset, searcher, 3, [0], mock.Mock()).look(
        [SimpleNamespace(status=Trial.RUNNING, is_finished=lambda: False)]
    )
    assert searcher.mock_calls == []


def test_nothing_begins_where_trials_that_may_be_chosen_have_nothing_in_common(cores: Made) -> None:
    points = [{**point, "classifier.epochs": epochs} for point, epochs in zip(POINTS, (1, 2), strict=True)]
    search = cores(points, classifier__epochs="{choice: [1, 2]}")
    assert search.look(Trial.RUNNING) == []
    assert search.ahead.beginning is None


def test_a_search_goes_on_where_a_beginning_fails(cores: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(images: Any) -> Beginning:
        raise ray.exceptions.ObjectStoreFullError

    monkeypatch.setattr(Beginning, "of", full)
    search = cores()
    assert search.look(Trial.RUNNING) == []
    (said,), _ = search.ahead._note.call_args  # type: ignore[attr-defined]
    assert "begin nothing more of the retraining: " in said


def test_no_trial_is_handed_out_any_more_only_where_none_can_be(tmp_path: Path) -> None:
    searcher, ledger = made(tmp_path, trials=2)
    assert not searcher.finished
    first, _ = (searcher.suggest(name) for name in ("a", "b"))
    assert searcher.finished
    assert searcher.stopped == "all 2 trials that were asked for have run"
    ledger.record(Outcome(**first, status="pruned"))
    searcher.on_trial_complete("a")
    assert searcher.finished
    searcher.halving = mock.Mock(spec=SuccessiveHalving, promotes=True, promotable=[])
    assert not searcher.finished, "what runs may bring the one that was set aside into the better half"
    searcher.halving = None
    searcher._trials = 3
    searcher._rules = mock.Mock(spec=StopRules, reason=lambda *_: "patience: …", used=lambda _: 0.0)
    assert not searcher.finished, "what runs may gain something, and trials are proposed again"
    searcher._rules.used = lambda _: 1.0
    assert searcher.finished, "a budget that is spent does not come back"


def retraining_of(setting: Setting, data: Development, seed: int = 0, **changes: float) -> Retraining:
    """One of a configuration that a trial has."""
    return Retraining(setting, data.fingerprint, {**PARAMS, **changes}, 3, seed, SilentChannel())


def test_a_seed_takes_what_was_built_ahead_for_its_own(tmp_path: Path, tiny_dataset: Dataset) -> None:
    """Whichever trial it was built from, and with its curves in TensorBoard."""
    setting, data = setting_on(tmp_path, tiny_dataset), Development.for_retraining(tiny_dataset)
    arrays = arrays_of(train=data.train)
    told = mock.Mock()
    chosen = replace(retraining_of(setting, data), channel=told)
    other = retraining_of(setting, data, **{"unet.high_level_weight": 7.0})
    assert build_ahead(other, arrays, ("classifier", "gan")) is None
    before = {name: setting.store.listed(name) for name in ("classifier", "gan", "attack_train")}
    assert [len(found) for found in before.values()] == [1, 1, 0]
    train_seed(chosen, arrays)
    shown = [call.args[1].stage for call in told.tell.call_args_list]
    assert "unet" in shown
    assert not {"classifier", "gan"} & set(shown), "the view went back to what was done ahead"
    assert {name: setting.store.listed(name) for name in ("classifier", "gan")}.items() <= before.items()
    (folder,) = (tmp_path / "one/tensorboard").iterdir()
    scalars = EventAccumulator(str(folder)).Reload()
    for tag, epochs in (("classifier/loss", 3), ("gan/generator_loss", 2), ("unet/loss", 2)):
        assert [event.step for event in scalars.Scalars(tag)] == list(range(1, epochs + 1)), tag


def test_what_cannot_be_built_ahead_is_left_to_the_training(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, data = setting_on(tmp_path, tiny_dataset), Development.for_retraining(tiny_dataset)
    arrays = arrays_of(train=data.train)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tune.pipeline.executor.Executor.get", full)
        told = mock.Mock()
        failed = build_ahead(replace(retraining_of(setting, data), channel=told), arrays, ("classifier",))
        assert failed == "OSError: [Errno 28] No space left on device"
        assert told.tell.call_args.args[1].stage == "waiting to be trained"
        with pytest.raises(OSError, match="No space left"):
            train_seed(retraining_of(setting, data), arrays)
    train_seed(retraining_of(setting, data), arrays)
    assert len(setting.store.listed("unet")) == 1


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Ray on this machine."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    try:
        yield
    finally:
        ray.shutdown()


def view_of(seeds: int, file: io.StringIO | None = None) -> LiveView:
    return LiveView("one", seeds, {"psd": "max"}, console=Console(file=file or io.StringIO()))


def found_alike(found: Mapping[int, Mapping[str, Any]]) -> Any:
    """What of the seeds' results does not depend on time."""
    built = {n: {name: work["built"] for name, work in one["work"].items()} for n, one in found.items()}
    return {n: (one["metrics"], one["stages"], one["confusion"]) for n, one in found.items()}, built


def _die(*_: object) -> None:
    os._exit(1)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("two_cores")
def test_the_last_trial_leaves_a_core_that_begins_the_retraining(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tune.execution.trial_callback.LOOK", 0.02)  # the tiny trial is over in half a second
    space = tiny_space(search__trials=3, unet__epochs=60)
    setting = setting_on(tmp_path / "ahead", tiny_dataset, space)
    searcher = LedgerSearcher(space, Ledger(setting.home), trials=3, seed=0)
    begun = Ahead(setting, tiny_dataset, searcher, 2, [0, 1], lambda said: None)
    with view_of(3) as view:
        run_trials(setting, tiny_dataset, searcher, 2, view, lambda: None, begun.look)
    best = searcher.ledger.outcomes()[0]
    assert best.status == "finished"
    assert begun.beginning is not None
    assert 0 in begun.beginning.ahead
    ray.get(list(begun.beginning.ahead.values()))
    owners = {
        setting.store.find("classifier", signature).manifest["built_by"]  # type: ignore[union-attr]
        for signature in setting.store.listed("classifier")
    }
    assert " retraining with seed 0" in owners
    begun.beginning.ahead[1] = ray.remote(max_retries=0)(_die).remote()  # what becomes of it matters to no seed
    checked: list[bool] = []
    with view_of(2, said := io.StringIO()) as view:
        args = tiny_dataset, best.params, best.trial, [0, 1], view
        ahead = run_seeds(setting, *args, lambda: checked.append(True), begun.beginning)
        alone = run_seeds(setting_on(tmp_path / "alone", tiny_dataset, space), *args, lambda: None)
    assert checked
    begun_again = "seed 1: what idle cores began failed, and is done again now: its worker was lost: WorkerCrashedError"
    assert said.getvalue().count(begun_again) == 1
    assert found_alike(ahead) == found_alike(alone)
    assert ahead[0]["work"]["classifier"]["built"] == 1, "as if another had built it"
