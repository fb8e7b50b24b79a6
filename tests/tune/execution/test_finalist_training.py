"""Finalists of a real search: trained with further seeds, compared, shown; and found again when resumed."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from numpy.typing import NDArray
from rich.console import Console
from safetensors.numpy import save_file

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PARAMS, PATH, SilentChannel, setting_on, tiny_config, tiny_space
from tests.tune.tiny_search import choice, run, words, write_space
from tune.execution import finalist_training
from tune.execution.finalist_training import _train, _unless_lost, run_finalist, run_finalists
from tune.execution.trainings import seed_view
from tune.execution.trial import Setting, arrays_of
from tune.monitor.terminal import LiveView
from tune.optimizer.finalists import as_json, decide
from tune.pipeline.recipe import Bounds, bounds_for
from tune.pipeline.stages import further_path_of, path_of, sources_of
from tune.pipeline.unet import RIGHT_FILE
from tune.report.reading import Finalists
from tune.storage.ledger import Outcome

BOUNDS = Bounds([1, 2], [2, 4, 6])


def write_score(setting: Setting, trial: int, cost: float, right: NDArray[np.bool_]) -> Outcome:
    """A finished trial whose score is in the store."""
    psd = float(right.mean())
    with setting.store.draft("score_unet", f"s{trial}") as draft:
        save_file({"right": right}, draft.folder / RIGHT_FILE)
        draft.metrics["psd"] = psd
    stages = {"score_unet": f"s{trial}"}
    return Outcome(trial=trial, status="finished", params=PARAMS, metrics={"psd": psd, "cost": cost}, stages=stages)


def test_with_the_searchs_own_seed_finalists_are_compared_as_they_are(tmp_path: Path, tiny_dataset: Dataset) -> None:
    """Nothing is trained: without Ray this could not be."""
    setting = setting_on(tmp_path, tiny_dataset)
    right = np.random.default_rng(0).random(1000) < 0.9
    best, equal, worse = right.copy(), right.copy(), right.copy()
    equal[np.flatnonzero(right)[:2]], equal[np.flatnonzero(~right)[:1]] = False, True
    worse[:200] = False
    outcomes = [write_score(setting, n, c, r) for n, (c, r) in enumerate([(40, best), (1, equal), (1, worse)])]
    console = Console(file=io.StringIO(), width=100)
    with LiveView("one · finalists", 3, {"psd": "max"}, console=console, kind="training") as view:
        found, *rest = run_finalists(setting, tiny_dataset, outcomes, [setting.seed], len(right), view, lambda: None)
        page = Console(file=io.StringIO(), width=100, record=True)
        page.print(view.snapshot())
        shown = page.export_text()
    assert "3/3 trainings" in shown
    assert f"best so far: PSD {100 * best.mean():.1f} %" in shown
    assert rest == [{}, {}]
    assert [finalist.scores for finalist in found] == [{0: r.mean()} for r in (best, equal, worse)]
    verdict = decide(found, [setting.seed], len(right))
    assert verdict.chosen == 1  # two images lost and one won tell nothing, and it is the cheapest
    assert not verdict.equal(2)


def test_a_finalist_whose_training_fails_is_left_out(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = setting_on(tmp_path, tiny_dataset)

    def diverged(self: Setting, *_: object) -> None:
        raise ArithmeticError("the loss is\nNaN")

    monkeypatch.setattr(Setting, "executor", diverged)
    arrays = arrays_of(train=tiny_dataset.train, validation=tiny_dataset.validation)
    failed = run_finalist(setting, arrays, PARAMS, 1, 0, None, BOUNDS, path_of(tiny_config()))  # type: ignore[arg-type]
    assert failed == {"failed": "ArithmeticError: the loss is NaN", "seconds": {}}
    # who was to follow it fails with it, and trains nothing
    after = run_finalist(setting, arrays, PARAMS, 1, 1, None, BOUNDS, (), failed)  # type: ignore[arg-type]
    assert after == {"failed": failed["failed"]}
    view = seed_view(0, failed, None, 0.0, "trial 0, seed 1")
    assert (view.state, view.error) == ("failed", failed["failed"])

    right = np.random.default_rng(0).random(1000) < 0.9
    outcomes = [write_score(setting, n, 1, right) for n in range(2)]
    failed = {**failed, "seconds": {"gan": 7.0}}
    finished = {"metrics": {"psd": 0.8}, "right": None, "seconds": {"gan": 5.0, "unet": 2.0}}
    trained = {2: finished, 3: failed}  # trials 0 and 1 with the second seed
    monkeypatch.setattr(finalist_training, "_train", lambda *_: trained)
    with LiveView("one · finalists", 4, {"psd": "max"}, console=Console(file=io.StringIO())) as view:
        found, left_out, spent = run_finalists(setting, tiny_dataset, outcomes, [0, 1], len(right), view, lambda: None)
    assert [finalist.trial for finalist in found] == [0]
    assert left_out == {1: "seed 1: ArithmeticError: the loss is NaN"}
    params = dict.fromkeys((0, 1), PARAMS)
    written = json.dumps(as_json(found, decide(found, [0, 1], 1000), params, left_out, spent))
    kept = Finalists.model_validate_json(written)
    assert (kept.left_out, kept.seconds) == (left_out, {"gan": 12.0, "unet": 2.0})


def test_only_what_cannot_be_told_from_the_best_is_trained_again(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, trained = setting_on(tmp_path, tiny_dataset), []
    right = np.random.default_rng(0).random(1000) < 0.9
    worse = right.copy()
    worse[:200] = False
    outcomes = [write_score(setting, n, 1, r) for n, r in enumerate([right, worse, right])]

    def train(_: object, __: object, runs: Mapping[int, tuple[Outcome, int]], *___: object) -> dict[int, object]:
        trained.append({(outcome.trial, seed) for outcome, seed in runs.values()})
        return {n: {"metrics": {"psd": right.mean()}, "right": right} for n in runs}

    monkeypatch.setattr(finalist_training, "_train", train)
    console = Console(file=io.StringIO(), width=100)
    with LiveView("one · finalists", 9, {"psd": "max"}, console=console, kind="training") as view:
        found, *_ = run_finalists(setting, tiny_dataset, outcomes, [0, 1, 2], len(right), view, lambda: None)
        page = Console(file=io.StringIO(), width=100, record=True)
        page.print(view.snapshot())
        assert "/7 trainings" in page.export_text()  # the first of all, and two further of each that is left
    assert trained == [{(0, 1), (2, 1)}, {(0, 2), (2, 2)}]
    assert [len(one.scores) for one in found] == [3, 1, 3]


@dataclass(frozen=True)
class Task:
    """Stands for a task of Ray's that has ended: `ray.get` is given the error, too, where there is one."""

    error: Exception | None = None


def test_a_finalist_whose_worker_dies_for_good_is_left_out_as_a_trial_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(task: Task) -> dict[str, str]:
        if task.error:
            raise task.error
        return {"metrics": "some"}

    monkeypatch.setattr("ray.get", get)
    lost = ray.exceptions.WorkerCrashedError()
    after = ray.exceptions.RayTaskError("run_finalist", "Traceback", lost).as_instanceof_cause()
    assert _unless_lost(Task()) == {"metrics": "some"}
    for error in (lost, after):
        assert "its worker was lost: WorkerCrashedError: The worker died" in _unless_lost(Task(error))["failed"]
    full = ray.exceptions.RayTaskError("run_finalist", "Traceback", OSError(28, "full")).as_instanceof_cause()
    with pytest.raises(OSError, match="Traceback"):
        _unless_lost(Task(full))


def _told(setting: Setting, arrays: object, params: Mapping[str, float], *rest: object) -> dict[str, Any]:
    """In the place of `run_finalist`, in a process of Ray's: what it was given, and when."""
    if params["unet.high_level_weight"] == 13:
        os._exit(1)
    *_, bounds, stages = rest[:5]
    began = time.time()
    time.sleep(1)
    return {"metrics": {}, "bounds": bounds, "stages": stages, "span": (began, time.time()), "before": rest[5:]}


@pytest.mark.slow
def test_what_finalists_share_is_trained_first(
    tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalist_training, "run_finalist", _told)
    setting = setting_on(tmp_path, tiny_dataset, tiny_space(search__retries=0))
    params = [{**PARAMS, "projector.steps": 2 + 2 * n, "unet.high_level_weight": w} for n, w in enumerate((1, 2, 13))]
    runs = {n: (Outcome(trial=n, status="finished", params=p), 1) for n, p in enumerate(params)}
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)
    try:
        with LiveView("one", 3, {"psd": "max"}, console=Console(file=io.StringIO())) as view:
            found = _train(setting, tiny_dataset, runs, {}, view, lambda: None)
    finally:
        ray.shutdown()
    assert "its worker was lost" in found[2]["failed"]
    ((shared,), (same,)) = found[0]["before"], found[1]["before"]
    assert shared == same
    assert shared["stages"] == ("classifier", "gan")
    assert max(found[n]["span"][0] for n in (0, 1)) >= shared["span"][1]
    assert {(*found[n]["stages"],) for n in (0, 1)} == {tuple(name for name in PATH if name != "map")}
    assert found[0]["bounds"] == Bounds([2], [2, 4, 6]), "more than the finalists need"


def test_a_further_seed_makes_no_map_and_projects_no_further_than_needed(tmp_path: Path, tiny_dataset: Dataset) -> None:
    setting = setting_on(tmp_path, tiny_dataset)
    arrays = arrays_of(train=tiny_dataset.train, validation=tiny_dataset.validation)
    config = tiny_config()
    given = setting, arrays, PARAMS, 1, 0, SilentChannel(), bounds_for(config)
    run_finalist(*given, sources_of(config))
    result = run_finalist(*given, further_path_of(config))
    assert run_finalist(*given, further_path_of(config))["seconds"] == result["seconds"]  # as after a lost process
    assert result["seconds"].keys() >= {"gan", "unet"}, "what it was to follow is left out"
    assert result["right"].shape == (len(tiny_dataset.validation),)
    assert setting.store.listed("map") == set()
    (projection,) = setting.store.listed("projection")
    found = setting.store.find("projection", projection)
    assert found is not None
    needed = config.projector.restarts * config.projector.steps * len(tiny_dataset.validation)
    assert found.metrics["evaluations"] == needed


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_finalists_are_trained_before_the_choice_and_not_twice(tmp_path: Path) -> None:
    space = write_space(tmp_path, search__finalists=2, search__finalist_seeds=2)
    command = words(space, tmp_path / "results")
    status, output = run(command, tmp_path / "log", 300)
    assert status == 0, output
    home = tmp_path / "results" / "one"
    found = json.loads((home / "finalists.json").read_text())
    assert len(found["finalists"]) == 2
    (seeds,) = {tuple(row["scores"]) for row in found["finalists"]}
    assert seeds == ("0", "1"), "told apart by the first seed, so that this test says nothing"
    assert all(row["scores"]["0"] == row["searched"] for row in found["finalists"])  # read, not trained again
    assert choice(home)["trial"] == found["chosen"]
    assert "They differ by" in (home / "report.md").read_text()
    maps = tmp_path / "results" / "store" / "map"
    assert len(list(maps.iterdir())) == 1, "a further seed has made one that nobody reads"
    assert found["seconds"]["gan"] > 0
    nets = sorted((tmp_path / "results" / "store" / "unet").iterdir())
    assert run([*command, "--resume"], tmp_path / "log", 300)[0] == 0
    assert json.loads((home / "finalists.json").read_text()) == found
    assert sorted((tmp_path / "results" / "store" / "unet").iterdir()) == nets
