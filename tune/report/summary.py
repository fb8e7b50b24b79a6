"""report.json: every figure of the report, as raw fractions in full precision."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tune.optimizer.choice import rule
from tune.report.cost import stage_work
from tune.report.data import Experiment
from tune.report.effects import Effects
from tune.report.head import cautions
from tune.report.scores import PARTS, PUBLISHED, Score, gain, per_class

INTERVALS = {
    "ci95": "Student t across seeds, clipped to [0, 1]; of a single seed the Wilson interval",
    "wilson95": "Wilson interval on the test images, for the median seed",
}


def summary(experiment: Experiment, test: Mapping[str, Score], found: Effects | None) -> dict[str, Any]:
    """The fields that the design names first, then what else a reader may want. No NaN: JSON has none."""
    median = experiment.median
    adaptive = median.adaptive.to_json() if median and median.adaptive else None
    report = {
        "dataset": experiment.setting("data.name"),
        "attack": {
            "name": experiment.setting("attack.name"),
            "epsilon": experiment.setting("attack.epsilon"),
            "labels": experiment.setting("attack.labels"),
            "knows": "the classifier, not the defense (gray-box)",
        },
        "best": experiment.best_params,
        "test": {name: score.as_json() for name, score in test.items()} | ({"adaptive": adaptive} if adaptive else {}),
        "adaptive": adaptive,
        "search": _search(experiment),
        "experiment": experiment.name,
        "target": experiment.target,
        "published": PUBLISHED,
        "intervals": INTERVALS,
        "seeds": [score.seed for score in experiment.seeds],
        "median_seed": median.seed if median else None,
        "test_images": median.images if median else None,
        "gain": {name: more.as_json() for name in PARTS if name != "psd" and (more := gain(test, name))},
        "epsilon": {str(score.seed): dict(score.epsilon) for score in experiment.seeds if score.epsilon},
        "per_class": per_class(median.confusion) if median and median.confusion is not None else [],
        "choice": _choice(experiment),
        "finalists": experiment.finalists.model_dump() if experiment.finalists else None,
        "importance": dict(found.shares) if found else None,
        "told_apart": sorted(found.clear) if found else None,
        "failures": [{"trial": o.trial, "error": o.error} for o in experiment.with_status("failed")],
        "cautions": cautions(experiment, test),
    }
    return {key: _clean(item) for key, item in report.items()}


def _search(experiment: Experiment) -> dict[str, Any]:
    work = stage_work(experiment.outcomes)
    counts = {status: len(experiment.with_status(status)) for status in ("finished", "failed", "pruned")}
    return {
        "trials": len(experiment.outcomes),
        **counts,
        "wall_s": experiment.wall_s,
        "stopped": experiment.record.get("stopped"),
        "stages_built": {stage: int(sums["built"]) for stage, sums in work.items()},
        "stages_reused": {stage: int(sums["reused"]) for stage, sums in work.items()},
        "stages_seconds": {stage: sums["seconds"] for stage, sums in work.items()},
    }


def _choice(experiment: Experiment) -> dict[str, Any]:
    best, objectives = experiment.best, experiment.objectives
    front = experiment.front
    return {
        "trial": best.trial if best else None,
        "validation": {metric: best.metrics.get(metric) for metric in objectives} if best else {},
        "rule": (experiment.choice and experiment.choice.rule) or rule(objectives),
        "objectives": dict(objectives),
        "max_cost": experiment.max_cost,
        "pareto_front": [
            {
                "trial": o.trial,
                "params": dict(o.params),
                **{metric: o.metrics[metric] for metric in objectives},
            }
            for o in front
        ],
    }


def _clean(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _clean(inner) for key, inner in item.items()}
    if isinstance(item, list | tuple):
        return [_clean(inner) for inner in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item
