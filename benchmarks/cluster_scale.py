"""The load of a cluster of 1 to 1,024 GPU nodes on each part of a search: measured here, and simulated from that.

    python -m benchmarks.cluster_scale [--keep FILE]

Measured: requests of a trial to an object store (moto's S3, counted), those of a trial that waits, and processor time:
of the driver per trial and per trial whose progress has changed, of the coordinator per message of a node, of a
relay per message of a trial. Assumed: the constants below in capitals.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import bookkeeping
from benchmarks.cluster_actors import of_actors, real_run
from benchmarks.cluster_simulation import Prices, Simulation
from benchmarks.gpu_hours import mnist_like
from benchmarks.store_requests import SPACE, looks, object_store, per_trial, widest
from tune.cluster.connection import connect
from tune.execution.trial import arrays_of
from tune.pipeline.stages import path_of
from tune.space.space import load_space

NODES = (1, 8, 64, 256, 1024)
TRIALS_PER_GPU = 4  # what cluster.yaml's machines have cores for
GPU_SECONDS = 202.0  # of a trial of `published` beside what it shares: benchmarks/gpu_hours.py, at 3 TFLOP/s
PART_SECONDS = 23.4 * TRIALS_PER_GPU  # of one of the 108 parts of its projection: the same, each on its share of a GPU
EPOCHS = 20  # of its U-Net
WRITES, READS = 3500, 5500  # requests per second that S3 promises for one prefix
REQUEST = 0.03  # seconds until S3 answers
HEAD_BANDWIDTH = 12.5e9 / 8  # bytes per second: the most of an m7i.large
DRIVEN = 150  # empty trials, to see what the driver does for each


@dataclass(frozen=True)
class Costs:
    """Measured costs, per trial unless another unit is said."""

    writes: float
    reads: float
    writes_per_epoch: float
    reads_per_epoch: float
    driver_requests: float
    driver_seconds: float
    progress_seconds: float  # of the driver, per trial whose progress has changed
    exchange_seconds: float  # of the coordinator, per message of a node of four trials that build
    waiting_seconds: float  # the same, of four trials that wait for 108 parts
    lease_seconds: float  # of the coordinator, per call
    relay_seconds: float  # of a relay, per message of a trial
    early_look: int  # requests of a look that finds nothing, while the GAN is being trained
    late_look: int  # the same while the last parts of the projection are being built
    told_look: int  # of a node's first look when it is told of one part
    data_bytes: int


def of_driver(folder: Path) -> float:
    """The driver's processor time per trial, with trials that do nothing but their bookkeeping."""
    searcher = bookkeeping.prepared(str(folder), DRIVEN)
    before = time.process_time()
    bookkeeping.run_empty_trials(str(folder), searcher)
    return (time.process_time() - before) / DRIVEN


def of_waiting() -> dict[str, float]:
    """Requests of a trial that waits, by `looks`."""
    path = path_of(widest(load_space(SPACE, {})))
    with object_store() as (place, requests):
        early, _ = looks(place, requests, {"classifier"})
        late, told = looks(place, requests, {*path[: path.index("projection_train")]})
    return {"early_look": early, "late_look": late, "told_look": told}


def of_search() -> dict[str, float]:
    """Requests of whole searches, by `per_trial`."""
    with tempfile.TemporaryDirectory() as folder, object_store() as (place, requests):
        return per_trial(Path(folder), f"{place}/results", requests)


def of_processes() -> dict[str, Any]:
    """Processor times of coordinator, relay and driver, and the coordinator with many nodes to hear."""
    with tempfile.TemporaryDirectory() as folder, connect(None):
        costs = of_actors() | {"driver_seconds": of_driver(Path(folder))}
        return {**costs, "lines": [real_run(nodes) for nodes in NODES[2:]]}


def of_data() -> dict[str, float]:
    """Bytes of the images that every trial is given."""
    dataset = mnist_like()
    arrays = arrays_of(train=dataset.train, validation=dataset.validation)
    return {"data_bytes": sum(array.nbytes for array in arrays.values())}


def measure(kept: Path | None) -> Costs:
    """All of it, some minutes; what the file `kept` holds is not measured again."""
    found: dict[str, Any] = json.loads(kept.read_text()) if kept is not None and kept.exists() else {}
    parts: tuple[Callable[[], dict[str, Any]], ...] = (of_search, of_waiting, of_processes, of_data)
    for part in parts:
        if part.__name__ not in found:
            found[part.__name__] = part()
            if kept is not None:
                kept.write_text(json.dumps(found, indent=1))
    print("\n".join(found["of_processes"].pop("lines")))
    return Costs(**{name: value for part in found.values() for name, value in part.items()})


def loads(costs: Costs, nodes: int) -> dict[str, float]:
    """Share of each part's capacity that a busy cluster of `nodes` GPUs takes; above 1 it is the limit."""
    rate, at_once = nodes / GPU_SECONDS, nodes * TRIALS_PER_GPU
    prices = Prices(
        costs.waiting_seconds, costs.lease_seconds, costs.late_look, costs.told_look, 108, PART_SECONDS
    )
    waiting = Simulation(prices, nodes, TRIALS_PER_GPU).run()
    period = max(1.0, nodes * costs.exchange_seconds / 0.4)
    return {
        "coordinator, all in their own work": nodes * costs.exchange_seconds / period,
        "coordinator, all waiting for a projection": waiting["coordinator"],
        "seconds between two messages of a node, at most": max(period, waiting["period"]),
        "seconds until who waits knows, on average": waiting["delay"],
        "relay of a node": TRIALS_PER_GPU * costs.relay_seconds,
        "driver, trials": rate * (costs.driver_seconds + costs.driver_requests * REQUEST),
        "driver, progress": at_once * costs.progress_seconds / period,
        "storage writes": rate * (costs.writes + EPOCHS * costs.writes_per_epoch) / WRITES,
        "storage reads": rate * (costs.reads + EPOCHS * costs.reads_per_epoch) / READS,
        "storage reads, all waiting for the GAN, a look a minute": at_once * costs.early_look / 60 / READS,
        "storage reads, looks of all waiting for a projection": waiting["looks per second"] / READS,
        "seconds until every node has the projection's parts": waiting["fetches"] / READS,
        "seconds until all have the data, if all took it from the head": costs.data_bytes * nodes / HEAD_BANDWIDTH,
    }


def report(costs: Costs) -> None:
    """Prints what was measured, and the table."""
    for name, value in vars(costs).items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}")
    table = {nodes: loads(costs, nodes) for nodes in NODES}
    requests = costs.writes + costs.reads
    print(f"requests per trial: {requests:.1f}, of the driver {costs.driver_requests:.1f}, the others of its node")
    print("\n| | " + " | ".join(f"{nodes:,} nodes" for nodes in NODES) + " |")
    print("|---" * (len(NODES) + 1) + "|")
    print("| trials at once | " + " | ".join(f"{TRIALS_PER_GPU * nodes:,}" for nodes in NODES) + " |")
    for name in table[1]:
        form = "{:.1f}" if name.startswith("seconds") else "{:.1%}"
        print(f"| {name} | " + " | ".join(form.format(table[nodes][name]) for nodes in NODES) + " |")


def main() -> None:
    """Measures, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="a file for what was measured, with which a broken run goes on")
    report(measure(parser.parse_args().keep))


if __name__ == "__main__":
    sys.exit(main())
