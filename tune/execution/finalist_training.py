"""Trains the finalists with several seeds on the training images, and compares them on the validation images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from safetensors.numpy import load_file

from components.datasets.dataset import Dataset
from tune.execution.gpu_errors import broken
from tune.execution.trainings import results_of, seed_view
from tune.execution.trial import Arrays, Setting, arrays_of, development, last_line, prepared
from tune.metrics import objectives_of
from tune.monitor.progress import Message, ProgressChannel, ProgressFeed, ProgressReporter
from tune.monitor.terminal import LiveView, TrialView
from tune.optimizer.choice import cost_of
from tune.optimizer.finalists import Finalist, wanted
from tune.pipeline.recipe import Bounds, Development, Recipe, bounds_for, bounds_of
from tune.pipeline.stages import further_path_of, path_of, signatures_of, sources_of
from tune.pipeline.unet import RIGHT_FILE
from tune.space.config import ExperimentConfig
from tune.storage.ledger import Outcome
from tune.storage.outage import outage
from tune.storage.signature import signature_of
from tune.storage.store import Artifact


def run_finalists(
    setting: Setting,
    dataset: Dataset,
    outcomes: Sequence[Outcome],
    seeds: Sequence[int],
    images: int,
    view: LiveView,
    check: Callable[[], None],
) -> tuple[list[Finalist], dict[int, str], dict[str, float]]:
    """The finalists, each with as many seeds as it takes to tell it from the best, all `seeds` at most.

    What the search trained is read; the rest is found in the store or trained.

    Args:
        images: that each score is a share of.
        check: raises where this driver must stop, and is called often.

    Returns:
        The finalists; of the trials that are none, as a training of theirs failed, the reason; and stage → computing
        seconds of all trainings.

    Raises:
        ray.exceptions.RayTaskError: the storage failed, or a GPU is not there; what was made stays in the store.
    """
    fixed = setting.space.fixed
    metric = next(iter(objectives_of(fixed["search.target"], fixed["search.objective"])))
    by_trial = {outcome.trial: outcome for outcome in outcomes}
    known: dict[int, dict[int, dict[str, Any]]] = {trial: {} for trial in by_trial}  # by trial and seed
    left_out: dict[int, str] = {}
    spent: dict[str, float] = {}
    numbers = {run: number for number, run in enumerate((trial, seed) for seed in seeds for trial in by_trial)}
    ended = 0

    def finalists() -> list[Finalist]:
        return [_finalist(by_trial[trial], results, metric) for trial, results in known.items()]

    while asked := wanted(finalists(), seeds, images):
        further = len(seeds) - seeds.index(asked[0][1])
        view.expect(ended + further * len(asked))
        results = _round(setting, dataset, {numbers[t, seed]: (by_trial[t], seed) for t, seed in asked}, view, check)
        ended += len(results)
        for trial, seed in asked:
            result = results[numbers[trial, seed]]
            for stage, seconds in result.get("seconds", {}).items():
                spent[stage] = round(spent.get(stage, 0.0) + seconds, 3)
            if "failed" in result:
                left_out[trial] = f"seed {seed}: {result['failed']}"
                del known[trial]
            else:
                known[trial][seed] = result
    view.expect(ended)
    return finalists(), left_out, spent


def _round(
    setting: Setting,
    dataset: Dataset,
    runs: Mapping[int, tuple[Outcome, int]],
    view: LiveView,
    check: Callable[[], None],
) -> dict[int, dict[str, Any]]:
    """Results of runs, each a trial with a seed: read where the search made them, else trained side by side."""
    read = {n: _stored(setting, outcome) for n, (outcome, seed) in runs.items() if seed == setting.seed}
    known = {number: result for number, result in read.items() if result is not None}
    view.update(_rows(runs, known, {}, time.time()), {})
    return known if len(known) == len(runs) else known | _train(setting, dataset, runs, known, view, check)


def _train(
    setting: Setting,
    dataset: Dataset,
    runs: Mapping[int, tuple[Outcome, int]],
    known: Mapping[int, dict[str, Any]],
    view: LiveView,
    check: Callable[[], None],
) -> dict[int, dict[str, Any]]:
    """Results of the runs whose result is not known, trained side by side on the cluster."""
    feed, began = ProgressFeed(), time.time()
    tasks = _begin(setting, dataset, {n: run for n, run in runs.items() if n not in known}, feed.channel)

    def show(results: dict[int, Any]) -> None:
        view.update(_rows(runs, {**known, **results}, feed.latest, began), {})

    return results_of(tasks, feed, check, show, _unless_lost)


def _begin(
    setting: Setting,
    dataset: Dataset,
    runs: Mapping[int, tuple[Outcome, int]],
    channel: ProgressChannel,
) -> dict[Any, int]:
    """Begins trainings on the cluster: their tasks, with the number of each.

    For a GAN that several need all but one would wait with their cores and GPU in hand. So a task of its own trains it,
    and Ray begins the others after it.
    """
    data = Development.for_search(dataset)
    configs = {number: setting.space.config(outcome.params) for number, (outcome, _) in runs.items()}
    further = all(seed != setting.seed for _, seed in runs.values())
    bounds = bounds_for(*configs.values()) if further else bounds_of(setting.space)
    arrays: Any = ray.put(arrays_of(train=dataset.train, validation=dataset.validation))

    retries = int(setting.space.fixed["search.retries"])
    remote = ray.remote(run_finalist).options(num_cpus=setting.cpus, num_gpus=setting.gpus, max_retries=retries)

    def begin(number: int, stages: Sequence[str], *before: Any) -> Any:
        outcome, seed = runs[number]
        return remote.remote(setting, arrays, outcome.params, seed, number, channel, bounds, stages, *before)

    alike: dict[tuple[str, ...], list[int]] = {}
    for number, (_, seed) in runs.items():
        recipe = Recipe(configs[number], bounds, data, seed)
        alike.setdefault(tuple(signatures_of(recipe, sources_of(recipe.config)).values()), []).append(number)
    tasks: dict[Any, int] = {}
    for numbers in alike.values():
        sources = begin(numbers[0], sources_of(configs[numbers[0]]))
        tasks |= {begin(n, further_path_of(configs[n]), sources): n for n in numbers}
    return tasks


def _unless_lost(task: Any) -> dict[str, Any]:
    """The result of a task; of one whose worker died again and again that it failed, as of a trial.

    Raises:
        ray.exceptions.RayTaskError: what the task itself raised, and so of a storage that fails.
    """
    try:
        result: dict[str, Any] = ray.get(task)
    except ray.exceptions.RayError as error:
        lost = getattr(error, "cause", error)  # that of a task which this one was to follow comes as its own error
        if not isinstance(lost, ray.exceptions.RayError):
            raise
        return {"failed": f"its worker was lost: {type(lost).__name__}: {lost}".splitlines()[0]}
    return result


def _rows(
    runs: Mapping[int, tuple[Outcome, int]],
    results: Mapping[int, dict[str, Any]],
    latest: Mapping[int, Message],
    began: float,
) -> list[TrialView]:
    """The trainings as the live view shows them."""
    return [
        seed_view(n, results.get(n), latest.get(n), began, f"trial {outcome.trial}, seed {seed}")
        for n, (outcome, seed) in runs.items()
    ]


def _stored(setting: Setting, outcome: Outcome) -> dict[str, Any] | None:
    """Reads what the search made of a trial, where its score is still in the store."""
    config = setting.space.config(outcome.params)
    last = path_of(config)[-1]
    score = setting.store.find(last, outcome.stages[last]) if last in outcome.stages else None
    return None if score is None else _result(config, score)


def _finalist(outcome: Outcome, results: Mapping[int, Mapping[str, Any]], metric: str) -> Finalist:
    rows: list[NDArray[np.bool_]] = [r["right"] for _, r in sorted(results.items()) if r["right"] is not None]
    scores = {seed: float(result["metrics"][metric]) for seed, result in sorted(results.items())}
    right = np.stack(rows) if rows and len(rows) == len(results) else None
    return Finalist(outcome.trial, cost_of(outcome), float(outcome.metrics[metric]), scores, right)


def run_finalist(
    setting: Setting,
    arrays: Arrays,
    params: Mapping[str, Any],
    seed: int,
    number: int,
    channel: ProgressChannel,
    bounds: Bounds,
    stages: Sequence[str],
    before: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Stages of one finalist with one seed: see `_result`; where a training fails by itself, the reason, as `failed`.

    Args:
        bounds: of its projections.
        before: the result of what this was to follow.

    Returns:
        Also `seconds`, of computing by stage, those of a process that was lost and of what this was to follow included.
    """
    if before and "failed" in before:
        return {"failed": before["failed"]}
    with prepared(setting):
        config, reporter = setting.space.config(params), ProgressReporter(number, channel, None, judged=False)
        try:
            owner = f"finalist {signature_of(params)} with seed {seed}"
            executor = setting.executor(development(setting, arrays), bounds, seed, owner)
            result = _result(config, executor.get(config, stages, reporter).artifacts[stages[-1]][0])
        except Exception as error:
            if outage(error) or broken(str(error)):
                raise
            result = {"failed": last_line(error, setting.gpus)}
        spent = {stage: row["seconds"] for stage, row in reporter.work().items() if row["seconds"]}
        return {**result, "seconds": spent}


def _result(config: ExperimentConfig, score: Artifact) -> dict[str, Any]:
    """The validation metrics, and which images come out right, where that was kept."""
    kept, rows = score.folder / RIGHT_FILE, "stands" if "robust" in config.search.objectives else "right"
    return {"metrics": dict(score.metrics), "right": load_file(kept).get(rows) if kept.exists() else None}
