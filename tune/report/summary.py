"""The answer and every reason to doubt it: the head of the page, and report.json, which holds every figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tune.metrics import title_of
from tune.optimizer.choice import rule
from tune.report.blocks import Block, Caution, Text, Tile, Tiles, interval, percent, points
from tune.report.facts import Facts
from tune.report.reading import SeedScore
from tune.report.scores import PARTS, PUBLISHED, by_images, clearly_ahead

MEANING = (
    "PSO is the share of the originals that the classifier labels correctly; PSD the share of the denoised images that "
    "it labels correctly; PCO the share of the denoised images that it labels as it labels their original."
)
INTERVALS = {
    "ci95": "Student t across seeds, clipped to [0, 1]; of a single seed the Wilson interval",
    "wilson95": "Wilson interval on the test images, for the saved seed",
}


def head(facts: Facts) -> list[Block]:
    """The answer first: the figures, one sentence, and every reason for doubt."""
    answer: list[Block] = [Text(_verdict(facts))]
    if facts.test:
        answer = [Tiles(_tiles(facts)), *answer, Text(MEANING)]
    return [*answer, *map(Caution, cautions(facts))]


def _tiles(facts: Facts) -> list[Tile]:
    names = {"robust": "attacked through the defense"} if "robust" in facts.objectives else {}
    names |= {
        "psd": "PSD: attacked, defended",
        "noisy": "attacked, undefended",
        "pso": "PSO: originals",
        "pco": "PCO: as the original",
    }
    known = [(label, facts.test[name]) for name, label in names.items() if name in facts.test]
    by = "95 %, seeds and images"
    return [Tile(label, f"{percent(score.mean)} %", f"{by}: {interval(score.widest)}") for label, score in known]


def _verdict(facts: Facts) -> str:
    best, test = facts.best, facts.test
    if best is None:
        return "No trial has finished yet, so there is no best configuration."
    if "psd" in test and "noisy" in test and facts.saved:
        seeds = f"{len(facts.seeds)} seeds" if len(facts.seeds) > 1 else "one seed"
        return (
            f"Of {facts.saved.images:,} test images of {facts.setting('data.name') or 'the data'}, attacked with "
            f"{facts.attack} (gray-box: the attacker knows {facts.attack_type.knows}, not the defense), the classifier "
            f"alone gets {percent(test['noisy'].mean)} % right. Behind the defense it gets "
            f"{percent(test['psd'].mean)} % right (mean of {seeds}, trained with the configuration of "
            f"trial {best.trial}).{_through_the_defense(facts)}"
        )
    return (
        f"Trial {best.trial} is the best of {len(facts.finished)} finished trials, with a validation "
        f"{title_of(facts.objective)} of {percent(best.metrics.get(facts.objective))} %. This report covers the search "
        "alone: the folder holds no test scores."
    )


def _through_the_defense(facts: Facts) -> str:
    """A sentence on the attacker who knows the defense, with a space before it; empty where there was none."""
    known = facts.adaptive
    if known is None:
        return ""
    return (
        f" One who knows the defense, too, leaves {percent(known.worst)} % of {known.images:,} of them right "
        f"({interval(known.interval)}; saved seed, {known.preset} list of attacks)."
    )


def cautions(facts: Facts) -> list[str]:
    """Everything that a reader should know before believing the figures."""
    found = [_doubt(facts, rival) for rival in ("threshold", "psd_gan") if _rivals(facts, rival)]
    if len(facts.seeds) == 1 and facts.test:
        found.append("One seed only: the intervals say how well the images tell its score, not how seeds differ.")
    if facts.test and "psd" not in facts.test:
        found.append("The seeds' test scores lack PSD.")
    if missing := [score for score in facts.seeds if score.adaptive is None]:
        found.append(_unattacked(missing))
    if (settled := facts.ruled) and facts.best and settled.trial != facts.best.trial:
        found.append(
            f"best/choice.json names trial {facts.best.trial}; by its own rule it would now be trial "
            f"{settled.trial}. Trials were added since, it was made by hand, or by an earlier version's rule."
        )
    git = facts.record.get("git")
    if facts.record.get("dirty") is True or (isinstance(git, Mapping) and git.get("dirty") is True):
        found.append("The code had uncommitted changes when the search began: the commit alone is not enough.")
    if failed := facts.with_status("failed"):
        found.append(f"{len(failed)} of {len(facts.outcomes)} trials failed; the reasons are under Failures.")
    return [*found, *(f"Not read: {problem}" for problem in facts.problems)]


def _unattacked(seeds: Sequence[SeedScore]) -> str:
    """A sentence on seeds whose defense was not attacked by one who knows it, which the table's row then leaves out."""
    reasons = dict.fromkeys(score.adaptive_left_out for score in seeds if score.adaptive_left_out)
    why = f" ({'; '.join(reasons)})" if reasons else ""
    numbers = ", ".join(str(score.seed) for score in seeds)
    return f"Not attacked by one who knows the defense, so that the result has no such row: seed {numbers}{why}."


def _rivals(facts: Facts, simpler: str) -> bool:
    """True where PSD does not clearly beat a simpler defense."""
    return {"psd", simpler} <= facts.test.keys() and not clearly_ahead(facts.test["psd"], facts.test[simpler])


def _doubt(facts: Facts, rival: str) -> str:
    """A sentence on a simpler defense that PSD does not clearly beat."""
    ours, theirs, more = facts.test["psd"], facts.test[rival], facts.gain(rival)
    verdict = "is below" if ours.mean < theirs.mean else "is not clearly above"
    better = "better" if ours.mean < theirs.mean else "as well"
    reason = ""
    if more and more.ci95:
        reason = f" Compared seed by seed, the difference is {points(more)} points"
        reason += f"; the choice of images makes up to ±{100 * by_images(ours, theirs):.2f}."
    return (
        f"PSD ({percent(ours.mean)} %, {interval(ours.widest)}) {verdict} {facts.part(rival)} "
        f"({percent(theirs.mean)} %, {interval(theirs.widest)}).{reason} The simpler defense may serve {better}."
    )


def summary(facts: Facts) -> dict[str, Any]:
    """The content of report.json, shares as raw fractions in full precision; JSON has no NaN, so it has none either."""
    saved, found = facts.saved, facts.effects
    adaptive = facts.adaptive.to_json() if facts.adaptive else None
    report = {
        "answer": _verdict(facts),
        "dataset": facts.setting("data.name"),
        "attack": {
            "name": facts.setting("attack.name"),
            "epsilon": facts.setting("attack.epsilon"),
            "labels": facts.setting("attack.labels"),
            "knows": f"{facts.attack_type.knows}, not the defense (gray-box)",
        },
        "best": facts.best_params,
        "test": {name: score.as_json() for name, score in facts.test.items()}
        | ({"adaptive": adaptive} if adaptive else {}),
        "adaptive": adaptive,
        "search": _search(facts),
        "experiment": facts.name,
        "target": facts.target,
        "published": PUBLISHED,
        "intervals": INTERVALS,
        "seeds": [score.seed for score in facts.seeds],
        "saved_seed": saved.seed if saved else None,
        "test_images": saved.images if saved else None,
        "gain": {name: more.as_json() for name in PARTS if name != "psd" and (more := facts.gain(name))},
        "epsilon": {str(score.seed): dict(score.epsilon) for score in facts.seeds if score.epsilon},
        "per_class": [asdict(row) for row in facts.classes],
        "class_names": facts.data.get("class_names"),
        "choice": _choice(facts),
        "finalists": facts.finalists.model_dump() if facts.finalists else None,
        "importance": dict(found.shares) if found else None,
        "told_apart": sorted(found.clear) if found else None,
        "failures": [{"trial": o.trial, "error": o.error} for o in facts.with_status("failed")],
        "cautions": cautions(facts),
    }
    return {key: _clean(item) for key, item in report.items()}


def _search(facts: Facts) -> dict[str, Any]:
    return {
        "trials": len(facts.outcomes),
        **{status: len(facts.with_status(status)) for status in ("finished", "failed", "pruned")},
        "promoted": sum(outcome.promotions > 0 for outcome in facts.outcomes),
        "wall_s": facts.wall_s,
        "stopped": facts.record.get("stopped"),
        "stages_built": {stage: int(sums["built"]) for stage, sums in facts.work.items()},
        "stages_reused": {stage: int(sums["reused"]) for stage, sums in facts.work.items()},
        "stages_seconds": {stage: sums["seconds"] for stage, sums in facts.work.items()},
    }


def _choice(facts: Facts) -> dict[str, Any]:
    best, objectives = facts.best, facts.objectives
    return {
        "trial": best.trial if best else None,
        "validation": {metric: best.metrics.get(metric) for metric in objectives} if best else {},
        "rule": (facts.choice and facts.choice.rule) or rule(objectives, finalists=bool(facts.finalists)),
        "objectives": dict(objectives),
        "max_cost": facts.max_cost,
        "pareto_front": [
            {"trial": o.trial, "params": dict(o.params), **{metric: o.metrics[metric] for metric in objectives}}
            for o in facts.front
        ],
    }


def _clean(item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _clean(inner) for key, inner in item.items()}
    if isinstance(item, list | tuple):
        return [_clean(inner) for inner in item]
    return None if isinstance(item, float) and not math.isfinite(item) else item
