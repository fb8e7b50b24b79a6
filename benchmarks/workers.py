"""How much quicker a search is with two workers than with one: Ray nodes of one core each, all on this machine.

    python -m benchmarks.workers [WORKERS ...]

Each search has a storage of its own, so that each builds everything. Driver and head have no core of their own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster.raylets import raylets
from tests.tune.tiny_search import ROOT, run

TRIALS = 8
SETTINGS = f"""
search.trials: {TRIALS}
search.early_stopping: false
unet.epochs: 24
"""


def space(folder: Path) -> Path:
    """The space `smoke` with more work for each trial, and none of it cut short."""
    changed = {line.partition(":")[0] for line in SETTINGS.split("\n") if line}
    lines = (ROOT / "search_spaces/smoke.yaml").read_text().splitlines()
    path = folder / "workers.yaml"
    path.write_text("\n".join(line for line in lines if line.partition(":")[0] not in changed) + SETTINGS)
    return path


def search(workers: int) -> tuple[float, float]:
    """Seconds until all trials have ended, and until the report is there."""
    with tempfile.TemporaryDirectory() as name, raylets(workers) as nodes:
        folder = Path(name)
        words = ["--space", str(space(folder)), "--storage", name, "--name", "one", "--address", nodes.address]
        began = time.time()
        status, output = run(words, folder / "log", 500)
        whole = time.time() - began
        assert status == 0, output
        ended = [path.stat().st_mtime for path in (folder / "one/trials").glob("*.json")]
        assert len(ended) == TRIALS
        return max(ended) - began, whole


def main(numbers: list[int]) -> None:
    """Prints the table."""
    print(f"{os.cpu_count()} cores, {TRIALS} trials of smoke with 24 epochs\n")
    print("| workers | until all trials ended | trials per minute | with retraining and report |\n|---|---|---|---|")
    for workers in numbers:
        trials, whole = search(workers)
        print(f"| {workers} | {trials:.0f} s | {60 * TRIALS / trials:.1f} | {whole:.0f} s |", flush=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [1, 2])
