"""How quickly a search finds a good configuration, replayed on the table of a real grid or on made-up landscapes.

    python benchmarks/search_quality.py [--landscapes] [--repetitions 50] [--trials 100] [--processes N] [--json FILE]

Each repetition searches with one seed of the table, or a landscape of its own. Samplers see its validation scores; a
configuration's true score is its mean over all seeds. Seconds are those of computing that the table has for each stage.
With sharing a stage is paid once; without, each trial pays all of it, with a projection of its own R and L alone. A
trial that needs what another is building waits for it.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from landscapes import SECONDS, landscape
from numpy.typing import NDArray
from printing import Paper
from scipy.stats import binom
from search_table import grid, space_of, unpacked

from tune.optimizer.choice import choose
from tune.optimizer.costs import StageCosts
from tune.optimizer.finalists import Finalist, decide, finalists_of, wanted
from tune.optimizer.study import LedgerStudy
from tune.space.space import SearchSpace
from tune.storage.ledger import Outcome

# True score below the table's best: the goal, a wider one beyond the noise of one seed, and what is a bad choice.
GOAL, NEAR, BAD = 0.003, 0.01, 0.005
STARTUP = 8
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "random": {"search.sampler": "random"},
    "TPE": {"search.sampler": "tpe"},
    "GP": {"search.sampler": "gp"},
    "cost-aware TPE": {"search.sampler": "tpe", "search.cost_aware": True},
}
FINALISTS, SEEDS = 3, 3


class Table:
    """The measured grid.

    Args:
        space: that it is of.
        right: whether each validation image is right at the end, bool (seeds, configurations, images).
        seconds: of each stage; of the GAN by its encoder's steps.
    """

    def __init__(self, space: SearchSpace, right: NDArray[np.bool_], seconds: Mapping[str, Any]) -> None:
        self.space, self.right, self.seconds = space, right, seconds
        self.points = grid(space)
        self.largest = max(cost_of(point) for point in self.points)  # of the projection that all share
        self.index = {json.dumps(point, sort_keys=True): place for place, point in enumerate(self.points)}
        self.images = right.shape[2]
        self.scores = right.mean(2)  # (seeds, configurations)
        self.true = self.scores.mean(0)

    @classmethod
    def read(cls, path: Path) -> Table:
        """As search_table.py wrote it."""
        raw = json.loads(path.read_text())
        right = unpacked(raw["right"], tuple(raw["shape"]))[..., -1]
        return cls(space_of(), right.transpose(0, 2, 1), raw["seconds"])

    @classmethod
    def made_up(cls, number: int) -> Table:
        """A landscape."""
        space = space_of()
        return cls(space, landscape(space, grid(space), number), SECONDS)

    def place(self, params: Mapping[str, Any]) -> int:
        """Row of a configuration."""
        return self.index[json.dumps(dict(params), sort_keys=True)]

    def regret(self, params: Mapping[str, Any]) -> float:
        """True score below the best."""
        return float(self.true.max() - self.true[self.place(params)])

    def stages(
        self, params: Mapping[str, Any], *, shared: bool, cost: int | None = None
    ) -> dict[str, tuple[str, float]]:
        """Signature and seconds of each stage of a configuration, in order.

        Args:
            shared: whether others use the same; else it has a projection of its own R and L.
            cost: of the projection that all share; None = of the largest R and L.
        """
        encoder, tolerance = params["gan.encoder_steps"], params["projector.tolerance"]
        share = (cost or self.largest if shared else cost_of(params)) / self.largest
        projected = f"{encoder}/{tolerance}"
        seconds = self.seconds
        path = {
            "classifier": ("classifier", seconds["classifier"]),
            "attack": ("attack", seconds["attack"]),
            "attack_train": ("attack_train", seconds["attack_train"]),
            "gan": (f"gan/{encoder}", seconds["gan"][str(encoder)]),
            "projection": (f"projection/{projected}", share * seconds["projection"]),
            "projection_train": (f"projection_train/{projected}", share * seconds["projection_train"]),
            "unet": (json.dumps(dict(params), sort_keys=True), seconds["unet"]),
        }
        # without sharing, no other trial has the same
        return path if shared else {k: (f"{s} of {path['unet'][0]}", t) for k, (s, t) in path.items()}


def cost_of(params: Mapping[str, Any]) -> int:
    """Gradient evaluations per image."""
    return int(params["projector.restarts"] * params["projector.steps"])


@dataclass(frozen=True)
class Run:
    """One replayed search.

    Attributes:
        seconds: of computing until each trial had ended, in that order.
        regret: of the configuration that would be chosen then: its true score below the best.
        final: the regret of what finalists with further seeds would choose at the end.
        more: the seconds that these take.
        alone: the regret of what finalists with the search's own seed would choose, which takes none.
    """

    seconds: list[float]
    regret: list[float]
    final: float
    more: float
    alone: float

    def touched(self, goal: float) -> float:
        """Seconds until a configuration within the goal would be chosen for the first time."""
        return next((s for s, regret in zip(self.seconds, self.regret, strict=True) if regret <= goal), math.inf)


def replay(table: Table, strategy: str, seed: int, trials: int, workers: int, *, shared: bool) -> Run:
    """Searches once."""
    space = space_of(STRATEGIES[strategy])
    costs = None
    if space.fixed["search.cost_aware"]:
        costs = StageCosts(lambda params: {k: s for k, (s, _) in table.stages(params, shared=shared).items()})
    row = seed % len(table.scores)
    study = LedgerStudy(space, seed, STARTUP, costs=costs)
    ready: dict[str, float] = {}
    running: list[tuple[float, int, Outcome]] = []
    spent, clock, number = 0.0, 0.0, 0
    outcomes: list[Outcome] = []
    seconds, regret = [], []
    while number < trials or running:
        while number < trials and len(running) < workers:
            params = study.suggest(number, None, 1 - number / trials)
            assert params is not None
            study.start(number, params)
            end, work = _built(table, params, clock, ready, shared=shared)
            spent += sum(part["seconds"] for part in work.values())
            metrics = {"psd": float(table.scores[row, table.place(params)]), "cost": cost_of(params)}
            outcome = Outcome(trial=number, params=params, status="finished", metrics=metrics, work=work)
            heapq.heappush(running, (end, number, outcome))
            number += 1
        clock, _, outcome = heapq.heappop(running)
        study.finish(outcome.trial, outcome)
        outcomes.append(outcome)
        seconds.append(spent)
        regret.append(table.regret(choose(outcomes, "defense").params))
    final, more = _finals(table, row, outcomes, SEEDS)
    return Run(seconds, regret, final, more, _finals(table, row, outcomes, 1)[0])


def _built(
    table: Table, params: Mapping[str, Any], clock: float, ready: dict[str, float], *, shared: bool
) -> tuple[float, dict[str, dict[str, int | float]]]:
    """When a trial that begins now ends, and what it builds."""
    work: dict[str, dict[str, int | float]] = {}
    for stage, (signature, seconds) in table.stages(params, shared=shared).items():
        if shared and signature in ready:
            clock = max(clock, ready[signature])
            work[stage] = {"built": 0, "reused": 1, "seconds": 0.0}
        else:
            clock += seconds
            ready[signature] = clock
            work[stage] = {"built": 1, "reused": 0, "seconds": seconds}
    return clock, work


def _finals(table: Table, row: int, outcomes: Sequence[Outcome], count: int) -> tuple[float, float]:
    """The regret of what the comparison of finalists chooses, and the seconds that their further seeds take."""
    best = {o.trial: o for o in finalists_of(outcomes, {"psd": "max", "cost": "min"}, FINALISTS)}
    rows = [(row + step) % len(table.scores) for step in range(min(count, len(table.scores)))]
    seeds = list(range(len(rows)))
    known = dict.fromkeys(best, 0)  # of each finalist, how many seeds it has been trained with
    seconds = 0.0

    def finalists() -> list[Finalist]:
        return [_finalist(table, best[trial], rows[:number]) for trial, number in known.items()]

    while asked := wanted(finalists(), seeds, table.images):
        once: dict[str, float] = {}
        some = [best[trial].params for trial, _ in asked]  # all that their projection has to serve
        cost = math.prod(max(params[f"projector.{name}"] for params in some) for name in ("restarts", "steps"))
        for trial, seed in asked:
            known[trial] += 1
            once |= dict(table.stages(best[trial].params, shared=True, cost=cost).values()) if seed else {}
        seconds += sum(once.values())
    return table.regret(best[decide(finalists(), seeds, table.images).chosen].params), seconds


def _finalist(table: Table, outcome: Outcome, rows: Sequence[int]) -> Finalist:
    place = table.place(outcome.params)
    scores = {seed: float(table.scores[row, place]) for seed, row in enumerate(rows)}
    return Finalist(outcome.trial, outcome.metrics["cost"], outcome.metrics["psd"], scores, table.right[rows, place])


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """One row of the result."""
    goals = [_until(np.array([run.touched(goal) for run in runs]), goal) for goal in (GOAL, NEAR)]
    kinds = ([r.regret[-1] for r in runs], [r.final for r in runs], [r.alone for r in runs])
    ends, finals, alone = (100 * np.array(kind) for kind in kinds)
    return {
        **goals[0],
        **goals[1],
        "all trials, s": float(np.median([run.seconds[-1] for run in runs])),
        "regret, points": float(ends.mean()),
        "of finalists": float(finals.mean()),
        "with one seed": float(alone.mean()),
        "bad": f"{100 * (ends > 100 * BAD).mean():.0f} %",
        "bad of finalists": f"{100 * (finals > 100 * BAD).mean():.0f} %",
        "seconds more": f"{100 * np.mean([run.more / run.seconds[-1] for run in runs]):.0f} %",
    }


def _until(first: NDArray[np.float64], goal: float) -> dict[str, Any]:
    """Seconds to a goal: the median with its interval, and how many reached it."""
    least, most = _median_interval(first)
    named = f"to {100 * goal:g}"
    return {
        f"{named}, s": float(np.quantile(first, 0.5, method="nearest")),
        f"{named}: 95 %": f"{least:.0f}–{most:.0f}",
        f"{named}: reached": f"{100 * np.isfinite(first).mean():.0f} %",
    }


def _median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of the median, from the order of the values alone."""
    count = len(values)
    low = int(binom.ppf(0.025, count, 0.5))
    ordered = np.sort(values)
    return float(ordered[max(low - 1, 0)]), float(ordered[min(count - low, count - 1)])


def regrets(runs: Sequence[Run], places: int = 40) -> dict[str, list[float]]:
    """Regret against seconds: median and quartiles at places spaced evenly in the logarithm."""
    start, stop = max(run.seconds[0] for run in runs), min(run.seconds[-1] for run in runs)
    at = np.geomspace(start, max(stop, start * 1.01), places)
    lines = [[run.regret[np.searchsorted(run.seconds, x, "right") - 1] for x in at] for run in runs]
    bands = np.quantile(np.array(lines), (0.25, 0.5, 0.75), axis=0)
    return {"seconds": at.tolist(), **dict(zip(("low", "median", "high"), bands.tolist(), strict=True))}


def _repeat(path: Path | None, strategy: str, seed: int, trials: int, workers: int, shared: bool) -> Run:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    table = Table.read(path) if path else Table.made_up(seed)
    return replay(table, strategy, seed, trials, workers, shared=shared)


def main() -> None:
    """Replays everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--landscapes", action="store_true", help="on made-up landscapes in place of the table")
    parser.add_argument("--table", type=Path, default=Path(__file__).parent / "search_table.json")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sharing", nargs="+", default=["yes", "no"])
    parser.add_argument("--json")
    asked = parser.parse_args()
    paper, path = Paper(), None if asked.landscapes else asked.table
    table = Table.read(path) if path else Table.made_up(0)
    best = f"the best has {100 * table.true.max():.2f} %"
    where = "one landscape a repetition; of the first " if asked.landscapes else ""
    paper.note("table", f"{len(table.scores)} seeds × {len(table.points)} configurations; {where}{best}")
    rows = []
    with ProcessPoolExecutor(asked.processes) as pool:
        for workers, sharing, strategy in itertools.product(asked.workers, asked.sharing, asked.strategies):
            how = {"search": strategy, "workers": str(workers), "sharing": sharing}
            tasks = [
                pool.submit(_repeat, path, strategy, seed, asked.trials, workers, sharing == "yes")
                for seed in range(asked.repetitions)
            ]
            runs = [task.result() for task in tasks]
            rows.append({**how, **summary(runs)})
            paper.sections.setdefault("regret", []).append({**how, **regrets(runs)})
            print(rows[-1], flush=True)
    paper.table("quality", "Computing seconds to within 0.3 and 1 points of the table's best, by true score", rows)
    paper.save(asked.json)


if __name__ == "__main__":
    main()
