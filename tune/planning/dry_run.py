"""The output of `--dry-run`: the resolved space, and the artifacts, time and disk space that the search needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent

import torch

from components.hardware import keep_memory
from tune.cluster.resources import Resources
from tune.monitor.terminal_page import duration
from tune.pipeline.recipe import bounds_of
from tune.pipeline.stage import Rates
from tune.planning.estimate import Artifacts, Counted, count
from tune.planning.preflight import Plan
from tune.planning.rates import measure, seconds_of_attacks, seconds_of_reference, seconds_of_test
from tune.space.config import stops_early
from tune.storage.mounts import free_bytes
from tune.storage.sizes import size_text

START = 12.0  # seconds until the first trial runs, and as many for the report


@dataclass(frozen=True)
class Row:
    """One line of the plan.

    Attributes:
        stage: its name.
        artifacts: how many there are.
        held: how many of them are in the store.
        note: the signature, where there is one.
        seconds: of computing, for those that are missing.
        parts: how many workers can share that work.
    """

    stage: str
    artifacts: float
    held: int
    note: str
    seconds: float
    parts: float

    def wall(self, concurrent: int) -> float:
        """Seconds with that many workers, where each stage waits for the one before."""
        return self.seconds * math.ceil(self.parts / concurrent) / self.parts if self.parts else 0.0


def describe(plan: Plan, resources: Resources, *, quiet: bool = False, reuse: bool = True) -> str:
    """Describes the work of a search and its cost. Measures this machine, for seconds; writes nothing.

    Args:
        plan: the search.
        resources: of each trial.
        quiet: print nothing while it measures.
        reuse: whether trials share what they build.
    """
    counted = count(plan.space, plan.dataset, plan.storage, plan.home, bounds_of(plan.space), reuse)
    device = torch.device("cuda" if resources.gpus and torch.cuda.is_available() else "cpu")
    keep_memory()  # as trials do
    torch.set_num_threads(max(1, int(resources.cpus)))
    rates = measure(counted.kinds, device, tell=None if quiet else _tell)
    concurrent = resources.concurrent
    rows = [_row(artifacts, "differs by trial", rates) for artifacts in counted.search]
    further = [_row(artifacts, "differs by trial and seed", rates) for artifacts in counted.finalists]
    final = _final_rows(plan, counted, rates)
    state = "would be resumed" if plan.resumed else "would be started"
    return "\n\n".join(
        [
            f"{plan.home.uri}: {state}; {counted.trials} trials, {concurrent} at once; nothing is started or written",
            _space(plan),
            _table("Stages of the search", rows),
            *([_table("Further seeds of the finalists, at most", further)] if further else []),
            *([_table("Retraining of the best, on train + validation", final)] if final else []),
            _cost(plan, [*rows, *further, *final], concurrent, rates),
            _room(plan, counted),
        ]
    )


def _tell(title: str) -> None:
    print(f"Measuring the speed of this machine: {title} …", flush=True)


def _space(plan: Plan) -> str:
    """The space with every field filled in, as the experiment's space.yaml will have it."""
    return f"Search space {plan.space.source}, every field\n{indent(plan.space.to_yaml(), '  ')}".rstrip()


def _row(artifacts: Artifacts, several: str, rates: Rates) -> Row:
    number = len(artifacts.recipes)
    return Row(
        artifacts.stage,
        number * artifacts.times,
        len(artifacts.held),
        next(iter(artifacts.recipes)) if number == 1 else several,
        artifacts.seconds(rates),
        artifacts.parts,
    )


def _final_rows(plan: Plan, counted: Counted, rates: Rates) -> list[Row]:
    if not counted.final:
        return []
    rows = [_row(artifacts, "one per seed", rates) for artifacts in counted.final]
    seeds = plan.config.search.retrain_seeds
    seconds = seeds * seconds_of_test(counted.typical, len(plan.dataset.held_out), rates)
    rows.append(Row("test images", seeds, 0, "measured once, at the end", seconds, seeds))
    recipe = next(iter(counted.final[0].recipes.values()))  # on train + validation
    seconds = seconds_of_attacks(recipe, len(plan.dataset.held_out), seeds, rates)
    rows.append(Row("attacks", seeds, 0, "by one who knows the defense, on some test images", seconds, seeds))
    if reference := seconds_of_reference(recipe, rates):
        rows.append(Row("static reference", 1, 0, "the classifier, trained as the defense is", reference, 1))
    return rows


def _table(title: str, rows: Sequence[Row]) -> str:
    lines = [
        f"  {row.stage:17} {row.artifacts:6.0f} {row.held:9d} {_time(row.seconds):>10}  {row.note}" for row in rows
    ]
    return "\n".join([title, f"  {'stage':17} {'needed':>6} {'in store':>9} {'computing':>10}  signature", *lines])


def _cost(plan: Plan, rows: Sequence[Row], concurrent: int, rates: Rates) -> str:
    computing = sum(row.seconds for row in rows)
    wall = START + sum(row.wall(concurrent) for row in rows)
    speed = ", ".join(f"{rate.title} {rate}" for rate in rates.values())
    search = plan.config.search
    lines = [
        f"Estimated: {_time(computing)} of computing, about {_time(wall)} with {concurrent} trials at once",
        f"measured here: {speed}",
    ]
    if stops_early(plan.space.fixed):
        lines.append("early stopping is not counted, which saves part of the U-Nets")
    if search.budget:
        lines.append(f"nor is search.budget, after {search.budget} of which no further trial begins")
    return "\n  ".join(lines)


def _room(plan: Plan, counted: Counted) -> str:
    needed = f"Disk: {size_text(counted.bytes())} to be written"
    free = free_bytes(plan.storage)
    return needed if free is None else f"{needed}, {size_text(free)} free in {plan.storage.uri}"


def _time(seconds: float) -> str:
    return "–" if seconds < 0.05 else duration(seconds)
