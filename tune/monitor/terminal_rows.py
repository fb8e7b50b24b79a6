"""Trials as the live view shows them, and which of them it has room for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

State = Literal["waiting", "running", "finished", "failed", "pruned"]
ENDED: tuple[State, ...] = ("finished", "pruned", "failed")
BEST_ROWS, FAILURE_ROWS = 3, 3


@dataclass(frozen=True)
class TrialView:
    """One trial as it stands."""

    number: int
    name: str  # as in TensorBoard: `012 R4 L60 λ0.3`
    state: State
    stage: str = ""  # the stage it is in
    done: float = 0  # of the stage: steps, epochs, images
    total: float = 0  # 0 = not known
    started: float | None = None  # seconds since 1970
    stage_started: float | None = None  # seconds since 1970
    host: str = ""  # the node it runs on, where that is another than the search's own
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    promoted: bool = False  # it goes on after it was set aside


def ranked(
    trials: Iterable[TrialView], objectives: Mapping[str, str], max_cost: float | None = None
) -> list[TrialView]:
    """Finished trials with finite objectives within the cost limit, best first, ties to the lower number."""
    fit = [
        trial
        for trial in trials
        if trial.state == "finished"
        and all(math.isfinite(trial.metrics.get(metric, math.nan)) for metric in objectives)
        and (max_cost is None or trial.metrics.get("cost", math.inf) <= max_cost)
    ]
    signs = {metric: -1 if direction == "max" else 1 for metric, direction in objectives.items()}
    return sorted(fit, key=lambda t: (*(sign * t.metrics[m] for m, sign in signs.items()), t.number))


def shown(
    trials: Iterable[TrialView], objectives: Mapping[str, str], max_cost: float | None, ended: int
) -> list[TrialView]:
    """Of many trials those that a page may show, now or later: what has not ended, the best, and the latest `ended`."""
    ordered = sorted(trials, key=lambda trial: trial.number)
    over = [trial for trial in ordered if trial.state in ENDED]
    failed = [trial for trial in over if trial.state == "failed"]
    kept = [*ranked(over, objectives, max_cost)[:BEST_ROWS], *over[-ended:], *failed[-FAILURE_ROWS:]]
    numbers = {trial.number for trial in kept}
    return [trial for trial in ordered if trial.state not in ENDED or trial.number in numbers]


def choose_rows(
    trials: Sequence[TrialView], ranking: Sequence[TrialView], room: int
) -> dict[str, list[TrialView]]:
    """The trials to show, under their headings: those running, the best few, and of the others the latest."""
    running = [trial for trial in trials if trial.state == "running"][: max(room - BEST_ROWS, 1)]
    best = list(ranking[: max(min(BEST_ROWS, room - len(running)), 0)])
    numbers = {trial.number for trial in best}
    others = [trial for trial in trials if trial.state in ENDED and trial.number not in numbers]
    others.sort(key=lambda trial: (trial.started or 0, trial.number), reverse=True)
    latest = others[: max(room - len(running) - len(best), 0)]
    return {"running": running, "best": best, "latest": latest}
