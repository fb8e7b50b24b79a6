"""What the driver takes for one more trial after 100, 1,000 and 10,000 others, with plain Optuna beside it.

    python -m benchmarks.growth [--known 100,1000,10000] [--trials 60]

The trials do nothing but their bookkeeping. Those before them are made up, as outcomes in a ledger from which a search
is resumed; times are processor time of the driver's process, so that another process beside it does not count.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from benchmarks import bookkeeping
from benchmarks.printing import print_line
from tune.cluster.connection import connect
from tune.optimizer.searcher import LedgerSearcher
from tune.storage.ledger import Outcome

SKIPPED = 10  # trials that are not counted: a worker starts, and modules are imported
RANGES = {
    "projector.restarts": CategoricalDistribution([1, 2, 4, 8]),
    "projector.steps": IntDistribution(10, 200, step=10),
    "unet.high_level_weight": FloatDistribution(0.01, 10.0, log=True),
}


class Timed(LedgerSearcher):
    """Notes the driver's processor time and memory at every proposal, and the time that proposals take."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.proposing = 0.0
        self.notes: list[tuple[float, float, float]] = []  # seconds in all, of these proposing, MB
        began = time.process_time()
        super().__init__(*arguments, **options)
        self.reading = time.process_time() - began

    def suggest(self, trial_id: str) -> Any:
        """The searcher's own proposal."""
        self.notes.append((time.process_time(), self.proposing, bookkeeping.resident()))
        began = time.process_time()
        proposal = super().suggest(trial_id)
        self.proposing += time.process_time() - began
        return proposal


def made_up(trials: int) -> Iterator[Outcome]:
    """Outcomes of trials with random parameters."""
    numbers = random.Random(0)
    for number in range(trials):
        params = {
            "projector.restarts": numbers.choice([1, 2, 4, 8]),
            "projector.steps": numbers.randrange(10, 201, 10),
            "unet.high_level_weight": 10 ** numbers.uniform(-2, 1),
        }
        work = {"empty": {"built": 1, "reused": 0}}
        metrics = bookkeeping.measured(params)
        yield Outcome(
            trial=number, params=params, status="finished", metrics=metrics, seconds=1.0, ended=1e9 + number, work=work
        )


def ours(known: int, trials: int) -> dict[str, Any]:
    """A resumed search, on the running Ray."""
    with tempfile.TemporaryDirectory() as folder:
        for outcome in made_up(known):
            path = Path(folder) / "one" / "trials" / f"{outcome.trial:03d}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(outcome.model_dump()))
        searcher = bookkeeping.prepared(folder, known + trials, Timed)
        assert isinstance(searcher, Timed)
        began = time.perf_counter()
        bookkeeping.run_empty_trials(folder, searcher)
        wall = time.perf_counter() - began
    first, last = searcher.notes[SKIPPED], searcher.notes[-1]
    counted = len(searcher.notes) - SKIPPED - 1
    return {
        "trials before": f"{known:,}",
        "ms per trial": 1e3 * (last[0] - first[0]) / counted,
        "of it proposing": 1e3 * (last[1] - first[1]) / counted,
        "driver MB": last[2],
        "s to read the ledger": searcher.reading,
        "s of wall for all": wall,
    }


def plain_optuna(known: int, trials: int, directions: tuple[str, ...]) -> float:
    """Milliseconds of plain Optuna per trial, with the objectives of `directions`."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=0))

    def values(metrics: dict[str, float]) -> list[float]:
        return [metrics[name] for name in ("psd", "cost")][: len(directions)]

    for outcome in made_up(known):
        study.add_trial(create_trial(params=outcome.params, distributions=RANGES, values=values(dict(outcome.metrics))))
    began = time.process_time()
    study.optimize(lambda trial: values(bookkeeping.measured(bookkeeping.asked(trial))), n_trials=trials)
    return 1e3 * (time.process_time() - began) / trials


def main() -> None:
    """Prints the table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--known", default="100,1000,10000")
    parser.add_argument("--trials", type=int, default=60)
    asked = parser.parse_args()
    with connect(None):
        for number, known in enumerate(map(int, asked.known.split(","))):
            row = ours(known, asked.trials)
            row["plain Optuna, ms"] = plain_optuna(known, asked.trials // 3, ("maximize",))
            row["with two objectives"] = plain_optuna(known, asked.trials // 3, ("maximize", "minimize"))
            print_line(row, head=number == 0)


if __name__ == "__main__":
    main()
