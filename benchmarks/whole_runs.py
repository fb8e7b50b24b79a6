"""Whole searches of trials that do nothing: ours, plain Optuna, and plain Ray Tune with its OptunaSearch.

    python -m benchmarks.whole_runs [--trials 1000] [--ways ours optuna tune tune-reusing]

Counted are processor seconds, of the driver and of all processes that it started, so that another process beside them
does not count; the clock is told, too. Plain Ray Tune starts a process for each trial unless it is told to reuse them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import bookkeeping
from benchmarks.printing import print_line

WAYS: Mapping[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "ours": ("ours", bookkeeping.ours),
    "optuna": ("plain Optuna, one process", bookkeeping.plain_optuna),
    "tune": ("plain Ray Tune", bookkeeping.plain_tune),
    "tune-reusing": ("plain Ray Tune, reuse_actors", lambda trials: bookkeeping.plain_tune(trials, reuse=True)),
}
LOOK = 0.2  # seconds between two looks at what was used
TICKS = os.sysconf("SC_CLK_TCK")  # of processor time, per second


def family(pid: int) -> Iterator[int]:
    """A process and all that it started, as far as they are alive."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = thread.read_text().split()
        except OSError:  # it has ended
            continue
        for child in children:
            yield from family(int(child))


def processor_seconds(pid: int) -> float:
    """Seconds of processor time of a family so far, of those that have ended too."""
    ticks = 0
    for one in family(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))  # own and of children that have ended: of user and of system
    return ticks / TICKS


def measured(way: str, trials: int) -> dict[str, Any]:
    """One row: a run in a process of its own, so that none has what another has imported."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    process = context.Process(target=_run, args=(way, trials, answers))
    before, began = processor_seconds(os.getpid()), time.perf_counter()
    process.start()
    whole = 0.0
    while process.is_alive() and answers.empty():  # at the end Ray's processes go without leaving their times
        whole = max(whole, processor_seconds(os.getpid()) - before)
        time.sleep(LOOK)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{WAYS[way][0]}: expected a run to its end, found exit status {process.exitcode}")
    found = answers.get(timeout=10)
    row = {"bookkeeping of": WAYS[way][0], "trials": f"{trials:,}", "processor s in all": whole}
    return {**row, "ms per trial": 1e3 * whole / trials, **found, "wall s": time.perf_counter() - began}


def _run(way: str, trials: int, answers: Any) -> None:
    before = time.process_time()
    found = WAYS[way][1](trials)
    answers.put({**found, "driver s": time.process_time() - before, "driver MB": bookkeeping.resident()})


def main() -> None:
    """Prints the table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    asked = parser.parse_args()
    for number, way in enumerate(asked.ways):
        print_line(measured(way, asked.trials), head=number == 0)


if __name__ == "__main__":
    main()
