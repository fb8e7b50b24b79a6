"""How quickly a search finds a good configuration, replayed on the table of a real grid.

    python benchmarks/search_quality.py [--table FILE] [--repetitions 50] [--trials 100] [--processes N] [--json FILE]

Each repetition searches with one seed of the table. Samplers see its validation scores; a configuration's true score is
its mean over all seeds. Seconds are those of computing that the table has for each stage. With sharing a stage is paid
once; without, each trial pays all of it, with a projection of its own R and L alone. A trial that needs what another is
building waits for it.
"""

from __future__ import annotations

import argparse
import base64
import heapq
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from printing import Paper
from search_table import grid, space_of

from tune.optimizer.choice import choose
from tune.optimizer.costs import StageCosts
from tune.optimizer.finalists import Finalist, decide, finalists_of
from tune.optimizer.study import LedgerStudy
from tune.storage.ledger import Outcome

GOAL, BAD = 0.003, 0.005  # true score below the table's best: good enough, and worse than that
STARTUP = 8
STRATEGIES: Mapping[str, Mapping[str, Any]] = {
    "random": {"search.sampler": "random"},
    "TPE": {"search.sampler": "tpe"},
    "GP": {"search.sampler": "gp"},
    "cost-aware TPE": {"search.sampler": "tpe", "search.cost_aware": True},
}
LARGEST = 4 * 24  # restarts × steps of the projection that all share
FINALISTS, SEEDS = 3, 3


class Table:
    """The measured grid."""

    def __init__(self, path: Path) -> None:
        raw = json.loads(path.read_text())
        self.reduced = "--reduced" in raw["command"]
        self.points = grid(space_of(reduced=self.reduced))
        self.index = {json.dumps(point, sort_keys=True): place for place, point in enumerate(self.points)}
        self.images = int(raw["images"])
        self.scores = np.array(raw["epochs"], dtype=float)[:, :, -1] / self.images  # (seeds, configurations)
        self.seconds = raw["seconds"]
        bits = np.frombuffer(zlib.decompress(base64.b64decode(raw["right"])), dtype=np.uint8)
        shape = (*self.scores.shape, -(-self.images // 8))
        self.right = np.unpackbits(bits.reshape(shape), axis=2)[:, :, : self.images].astype(bool)
        self.true = self.scores.mean(0)

    def place(self, params: Mapping[str, Any]) -> int:
        """Row of a configuration."""
        return self.index[json.dumps(dict(params), sort_keys=True)]

    def stages(self, params: Mapping[str, Any], *, shared: bool) -> dict[str, tuple[str, float]]:
        """Signature and seconds of each stage of a configuration, in order."""
        encoder, tolerance = params["gan.encoder_steps"], params["projector.tolerance"]
        own = params["projector.restarts"] * params["projector.steps"] / LARGEST
        share = 1.0 if shared else own
        projected = f"{encoder}/{tolerance}"
        seconds = self.seconds
        return {
            "classifier": ("classifier", seconds["classifier"]),
            "attack": ("attack", seconds["attack"]),
            "attack_train": ("attack_train", seconds["attack_train"]),
            "gan": (f"gan/{encoder}", seconds["gan"][str(encoder)]),
            "projection": (f"projection/{projected}", share * seconds["projection"]),
            "projection_train": (f"projection_train/{projected}", share * seconds["projection_train"]),
            "unet": (json.dumps(dict(params), sort_keys=True), seconds["unet"]),
        }


@dataclass(frozen=True)
class Run:
    """One replayed search.

    Attributes:
        seconds: of computing until each trial had ended, in that order.
        chosen: row of the configuration that would be chosen then.
        finals: row that finalists would choose at the end, and the seconds more that they take.
    """

    seconds: list[float]
    chosen: list[int]
    finals: tuple[int, float]


def replay(table: Table, strategy: str, seed: int, trials: int, workers: int, *, shared: bool) -> Run:
    """Searches once."""
    space = space_of(reduced=table.reduced, more=STRATEGIES[strategy])
    costs = None
    if space.fixed["search.cost_aware"]:
        costs = StageCosts(lambda params: {k: s for k, (s, _) in table.stages(params, shared=shared).items()})
    row = seed % len(table.scores)
    study = LedgerStudy(space, seed, STARTUP, costs=costs)
    ready: dict[str, float] = {}
    running: list[tuple[float, int, Outcome]] = []
    spent, clock, number = 0.0, 0.0, 0
    outcomes: list[Outcome] = []
    seconds, chosen = [], []
    while number < trials or running:
        while number < trials and len(running) < workers:
            params = study.suggest(number, None, 1 - number / trials)
            assert params is not None
            study.start(number, params)
            end, work = _built(table, params, clock, ready, shared=shared)
            spent += sum(part["seconds"] for part in work.values())
            metrics = {
                "psd": float(table.scores[row, table.place(params)]),
                "cost": params["projector.restarts"] * params["projector.steps"],
            }
            outcome = Outcome(trial=number, params=params, status="finished", metrics=metrics, work=work)
            heapq.heappush(running, (end, number, outcome))
            number += 1
        clock, _, outcome = heapq.heappop(running)
        study.finish(outcome.trial, outcome)
        outcomes.append(outcome)
        seconds.append(spent)
        chosen.append(table.place(choose(outcomes, "defense").params))
    return Run(seconds, chosen, _finals(table, row, outcomes))


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


def _finals(table: Table, row: int, outcomes: Sequence[Outcome]) -> tuple[int, float]:
    """What the comparison of finalists chooses, and the seconds that their further seeds take."""
    best = finalists_of(outcomes, {"psd": "max", "cost": "min"}, FINALISTS)
    seeds = [(row + step) % len(table.scores) for step in range(min(SEEDS, len(table.scores)))]
    finalists = []
    for outcome in best:
        place = table.place(outcome.params)
        scores = {step: float(table.scores[seed, place]) for step, seed in enumerate(seeds)}
        finalists.append(
            Finalist(outcome.trial, outcome.metrics["cost"], scores[0], scores, table.right[seeds, place])
        )
    chosen = decide(finalists, table.images).chosen
    once: dict[str, float] = {}
    for outcome in best:
        once |= dict(table.stages(outcome.params, shared=True).values())
    params = next(outcome.params for outcome in best if outcome.trial == chosen)
    return table.place(params), (len(seeds) - 1) * sum(once.values())


def touched(table: Table, run: Run) -> float:
    """Seconds until a configuration within the goal is chosen for the first time."""
    good = np.flatnonzero(table.true[run.chosen] >= table.true.max() - GOAL)
    return run.seconds[int(good[0])] if len(good) else math.inf


def summary(table: Table, runs: Sequence[Run]) -> dict[str, Any]:
    """One row of the result."""
    first = np.array([touched(table, run) for run in runs])
    low, middle, high = np.quantile(first, (0.25, 0.5, 0.75), method="nearest")
    ends = np.array([table.true[run.chosen[-1]] for run in runs])
    finals = np.array([table.true[run.finals[0]] for run in runs])
    more = np.median([run.finals[1] / run.seconds[-1] for run in runs])
    return {
        "to the goal, s": float(middle),
        "quartiles": f"{low:.0f}–{high:.0f}",
        "reached": f"{100 * np.isfinite(first).mean():.0f} %",
        "all trials, s": float(np.median([run.seconds[-1] for run in runs])),
        "chosen, true %": 100 * float(ends.mean()),
        "by finalists %": 100 * float(finals.mean()),
        "bad": f"{100 * (ends < table.true.max() - BAD).mean():.0f} %",
        "bad of finalists": f"{100 * (finals < table.true.max() - BAD).mean():.0f} %",
        "seconds more": f"{100 * more:.0f} %",
    }


def regrets(table: Table, runs: Sequence[Run], places: int = 40) -> dict[str, list[float]]:
    """Regret of the chosen one against seconds: median and quartiles at places spaced evenly in the logarithm."""
    start, stop = max(run.seconds[0] for run in runs), min(run.seconds[-1] for run in runs)
    at = np.geomspace(start, max(stop, start * 1.01), places)
    lines = [
        table.true.max() - table.true[[run.chosen[np.searchsorted(run.seconds, x, "right") - 1] for x in at]]
        for run in runs
    ]
    bands = np.quantile(np.array(lines), (0.25, 0.5, 0.75), axis=0)
    return {"seconds": at.tolist(), **dict(zip(("low", "median", "high"), bands.tolist(), strict=True))}


def _repeat(path: Path, strategy: str, seed: int, trials: int, workers: int, shared: bool) -> Run:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return replay(Table(path), strategy, seed, trials, workers, shared=shared)


def main() -> None:
    """Replays everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, default=Path(__file__).parent / "search_table.json")
    parser.add_argument("--repetitions", type=int, default=50)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--json")
    asked = parser.parse_args()
    table, paper = Table(asked.table), Paper()
    best = 100 * table.true.max()
    paper.note("table", f"{len(table.scores)} seeds × {len(table.points)} configurations; the best has {best:.2f} %")
    rows = []
    with ProcessPoolExecutor(asked.processes) as pool:
        for workers in asked.workers:
            for shared in (True, False):
                for strategy in asked.strategies:
                    tasks = [
                        pool.submit(_repeat, asked.table, strategy, seed, asked.trials, workers, shared)
                        for seed in range(asked.repetitions)
                    ]
                    runs = [task.result() for task in tasks]
                    how = {"search": strategy, "workers": str(workers), "sharing": "yes" if shared else "no"}
                    rows.append({**how, **summary(table, runs)})
                    paper.sections.setdefault("regret", []).append({**how, **regrets(table, runs)})
                    print(rows[-1], flush=True)
    paper.table("quality", "Computing seconds to within 0.3 points of the table's best, by true score", rows)
    paper.save(asked.json)


if __name__ == "__main__":
    main()
