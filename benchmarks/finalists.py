"""What further seeds of the best few trials are worth, on made-up searches of which the truth is known.

    python -m benchmarks.finalists [--repetitions 400] [--images 3000] [--seed-error 0.011]

Each repetition draws trials with true scores, and what each shows with a seed: its truth, an error of that seed, and
which of the same validation images come out right. The search sees the first seed. Regret is the true score of the best
trial less that of the chosen one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.printing import Paper
from tune.optimizer import finalists as rules
from tune.optimizer.finalists import Finalist, decide, wanted

TRIALS, FINALISTS, SEEDS = 20, 3, (0, 1, 2)
SCORE, SPREAD = 0.92, 0.006  # mean and standard deviation of the trials' true scores
OWN = 0.3  # of an image's difficulty, the part that is a trial's own: the rest all trials share


def main() -> None:
    options = read_options()
    ways = {
        "the best score of one seed": None,
        "finalists, an error of the images alone": 0.0,
        f"finalists, and {100 * rules.UNSEEN:g} points for the unseen seed": rules.UNSEEN,
        "finalists, none left out after one seed": 1.0,
    }
    rows = []
    for title, unseen in ways.items():
        found = [repetition(seed, options, unseen) for seed in range(options.repetitions)]
        regret, trainings = np.mean(found, axis=0)
        error = np.std([one for one, _ in found]) / len(found) ** 0.5
        shown = f"{100 * regret:.2f} ± {196 * error:.2f}"
        rows.append({"choice by": title, "regret, points (95 %)": shown, "further trainings": f"{trainings:.1f}"})
    Paper().table("finalists", f"{options.repetitions} searches of {TRIALS} trials", rows)


def repetition(seed: int, options: argparse.Namespace, unseen: float | None) -> tuple[float, int]:
    """Regret of the choice, and how many trainings it took beyond the search's own."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(SCORE, SPREAD, TRIALS)
    shown = np.clip(truth[:, None] + rng.normal(0, options.seed_error, (TRIALS, len(SEEDS))), 0, 1)
    shared, own = rng.random(options.images), rng.random((TRIALS, len(SEEDS), options.images))
    mixed = np.where(rng.random(own.shape) < OWN, own, shared)
    right = mixed < shown[:, :, None]
    scores = right.mean(2)
    best = np.argsort(-scores[:, 0])[: 1 if unseen is None else FINALISTS]
    if unseen is None:
        return float(truth.max() - truth[best[0]]), 0
    known = {int(trial): {0: float(scores[trial, 0])} for trial in best}

    def entered() -> list[Finalist]:
        return [
            Finalist(trial, 1.0, scores[trial, 0], found, right[trial, : len(found)]) for trial, found in known.items()
        ]

    with unseen_of(unseen):
        while asked := wanted(entered(), SEEDS, options.images):
            for trial, one in asked:
                known[trial][one] = float(scores[trial, one])
        chosen = decide(entered(), SEEDS, options.images).chosen
    return float(truth.max() - truth[chosen]), sum(len(found) - 1 for found in known.values())


@contextmanager
def unseen_of(value: float) -> Iterator[None]:
    """Within the block another error stands for the seed that nobody has seen."""
    before, rules.UNSEEN = rules.UNSEEN, value
    try:
        yield
    finally:
        rules.UNSEEN = before


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--images", type=int, default=3000, help="validation images")
    parser.add_argument("--seed-error", type=float, default=0.011, help="standard deviation of a score by the seed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
