"""What a search costs: with and without sharing between trials, by the number of trials, and beside the trials.

    python benchmarks/search.py [--json FILE] [--patient]

A small defense search (R × L × λ) on a part of the embedded images, one trial after another in this process, so that
the seconds are computing and nothing else; then searches whose trials do nothing, through Ray. Under ten minutes on
two cores.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bookkeeping import bookkeeping_rows
from printing import Paper

from components.datasets.dataset import Dataset, load_dataset
from components.datasets.raw import RawSplit
from tune.execution.trial import Setting, attempt
from tune.monitor.progress import ProgressChannel, ProgressReporter
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.recipe import Development
from tune.space.space import SearchSpace, parse_space
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger, Outcome

# A GAN of its own, as a search has that is not handed one. The time of GAN : largest projection : one trial's U-Net is
# about 28 : 14 : 1, as `benchmarks/gpu_hours.py` counts it for the space `published`, but minutes instead of hours.
SPACE = """
search.trials: {trials}
search.startup_trials: {trials}
search.early_stopping: false
classifier.epochs: 1
gan.width: 16
gan.discriminator_width: 16
gan.steps: 240
gan.steps_per_epoch: 120
projector.distance: l2
projector.init: random
projector.restarts: {{choice: [1, 2, 5, 10]}}
projector.steps: {{low: 5, high: 40, step: 5}}
unet.epochs: 1
unet.width: 4
unet.images: 100
unet.high_level_weight: {{low: 0.01, high: 10.0, log: true}}
"""
TRAINING, TEST = 800, 100
TRIALS = (8, 24, 72)
COMPARED = 24
PROJECTIONS = ("projection", "projection_train")


def main() -> None:
    """Runs all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write the tables to")
    parser.add_argument("--patient", action="store_true", help="240 trials of plain Ray Tune, too: ten minutes more")
    asked = parser.parse_args()
    paper = Paper()
    dataset = small()
    shared = {trials: searched(dataset, trials, reuse=True) for trials in TRIALS}
    alone = searched(dataset, COMPARED, reuse=False)
    paper.table("sharing", f"{COMPARED} trials over R × L × λ, seconds of computing", sharing_rows(shared, alone))
    paper.note("equal", compared(shared[COMPARED], alone))
    paper.table("trials", "Seconds of computing by number of trials, with sharing", trial_rows(shared))
    paper.table("bookkeeping", "Trials that do nothing, two at a time", bookkeeping_rows(patient=asked.patient))
    paper.save(asked.json)


def small() -> Dataset:
    """A part of the embedded images."""
    whole = load_dataset("mnist_mini")
    parts = [split.sample(count, seed=0) for split, count in ((whole.train, TRAINING), (whole.test, TEST))]
    raw = [
        RawSplit((part.images.numpy() * 255).round().astype(np.uint8), part.labels.numpy().astype(np.uint8))
        for part in parts
    ]
    return Dataset.cut("small", raw[0], raw[1], validation_fraction=0.1)


def searched(dataset: Dataset, trials: int, *, reuse: bool) -> list[Outcome]:
    """A whole search in this process, without its retraining."""
    space: SearchSpace = parse_space(SPACE.format(trials=trials), "benchmark", "benchmark.yaml")
    threads = float(torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(
            space, str(Path(folder)), "one", 0, threads, 0.0, dataset.classes, dataset.fingerprint, reuse
        )
        ledger = Ledger(Storage(folder).child("one"))
        searcher = LedgerSearcher(space, ledger, trials=trials, seed=0, startup=trials)
        while (config := searcher.suggest("here")) != LedgerSearcher.FINISHED:
            reporter = ProgressReporter(config["trial"], _Silent(""), None, judged=False)
            data = Development.for_search(dataset)
            outcome, _ = attempt(setting, data, config["trial"], config["params"], reporter)
            assert outcome.status == "finished", outcome.error
            ledger.record(outcome)
            searcher.on_trial_complete("here")
        return sorted(ledger.outcomes(), key=lambda outcome: outcome.trial)


def sharing_rows(shared: dict[int, list[Outcome]], alone: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Seconds by stage, each trial by itself and all together."""
    together = shared[COMPARED]
    rows = []
    for stage in alone[0].work:
        apart, joint = seconds(alone, (stage,)), seconds(together, (stage,))
        rows.append({"stage": stage, "each by itself": apart, "shared": joint, "times less": apart / max(joint, 1e-9)})
    apart, joint = (sum(outcome.seconds for outcome in outcomes) for outcomes in (alone, together))
    return [*rows, {"stage": "whole trials", "each by itself": apart, "shared": joint, "times less": apart / joint}]


def trial_rows(shared: dict[int, list[Outcome]]) -> list[dict[str, Any]]:
    """Seconds by number of trials."""
    return [
        {
            "trials": str(trials),
            "projection": seconds(outcomes, PROJECTIONS),
            "U-Net": seconds(outcomes, ("unet",)),
            "all": sum(outcome.seconds for outcome in outcomes),
            "per trial": sum(outcome.seconds for outcome in outcomes) / trials,
        }
        for trials, outcomes in shared.items()
    ]


def compared(together: Sequence[Outcome], alone: Sequence[Outcome]) -> str:
    """How far the metrics of the same trials are apart."""
    assert [one.params for one in together] == [other.params for other in alone]
    pairs = list(zip(together, alone, strict=True))
    equal = sum(one.metrics == other.metrics for one, other in pairs)
    shares = ("psd", "psd_gan", "pco")
    most = max(abs(one.metrics[name] - other.metrics[name]) for one, other in pairs for name in shares)
    names = ", ".join(shares)
    return f"{equal} of {len(pairs)} trials have exactly equal metrics; {names} differ by at most {100 * most:.2f} %."


def seconds(outcomes: Sequence[Outcome], stages: Sequence[str]) -> float:
    """Of building some of the stages, in all trials."""
    return sum(outcome.work[stage]["seconds"] for outcome in outcomes for stage in stages)


class _Silent(ProgressChannel):
    """Forgets what it is told."""

    def tell(self, trial: int, message: Any) -> None:
        """Takes a message."""


if __name__ == "__main__":
    main()
