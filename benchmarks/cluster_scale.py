"""What a cluster of 1 to 256 GPU nodes loads first: measured on this machine where it can be, else by arithmetic.

    python -m benchmarks.cluster_scale

Measured: requests of a trial to an object store (moto's S3, counted), those of a trial that waits, processor time of
the driver per trial, and of the lease actor and the progress actor per call. Assumed: the constants below in capitals.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import ray
import torch
from tune.cluster.lease_actor import LeaseActor
from tune.monitor.progress_actor import Message, start_progress_actor

from benchmarks import bookkeeping
from components.datasets.dataset import Dataset
from components.datasets.raw import RawSplit
from tests.tune.tiny_search import run, words, write_space
from tune.cluster.connection import connect
from tune.execution import driver
from tune.execution.trial import Setting, arrays_of
from tune.metrics import OBJECTIVES
from tune.monitor.terminal import LiveView
from tune.optimizer.searcher import LedgerSearcher
from tune.pipeline.executor import LONGEST_POLL, Executor, part_signatures
from tune.pipeline.job import Progress
from tune.pipeline.recipe import Bounds, Development
from tune.pipeline.stages import STAGES, path_of
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace, load_space, parse_space
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.store import Store

NODES = (1, 8, 64, 256)
TRIALS_PER_GPU = 4  # what cluster.yaml's machines have cores for
GPU_SECONDS = 202.0  # of a trial of the space `mnist` beside what it shares: benchmarks/gpu_hours.py, at 3 TFLOP/s
EPOCHS = 20  # of its U-Net
WRITES, READS = 3500, 5500  # requests per second that S3 promises for one prefix
REQUEST = 0.03  # seconds until S3 answers
HEAD_BANDWIDTH = 12.5e9 / 8  # bytes per second: the most of an m7i.large
MESSAGE_PERIOD = 0.3  # seconds between two messages of a trial
DRIVEN = 150  # empty trials, to see what the driver does for each
CALLS = 3000
LOOKS = 4
LEDGER = "proposals/|trials/"  # what the driver reads and writes itself


@dataclass(frozen=True)
class Costs:
    """What was measured, per trial unless another unit is said."""

    writes: float
    reads: float
    writes_per_epoch: float
    reads_per_epoch: float
    driver_requests: float
    driver_seconds: float
    lease_seconds: float  # per call
    progress_seconds: float  # per message
    early_look: tuple[int, int]  # requests and lease calls of one look, while the GAN is being trained
    late_look: tuple[int, int]  # the same while the last parts of the projection are being built
    data_bytes: int


class Requests(logging.Handler):
    """Counts what moto's server is asked, by its log."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        if match := re.search(r"(GET|HEAD|PUT|POST|DELETE) (\S+) HTTP", record.getMessage()):
            self.counts[match[1], match[2]] += 1

    def total(self, *methods: str, of: str = "") -> int:
        """How many there were of `methods`, to addresses that match `of`."""
        return sum(n for (method, path), n in self.counts.items() if method in methods and re.search(of, path))


@contextmanager
def object_store() -> Iterator[tuple[str, Requests]]:
    """An S3 of our own, as an address, and the count of its requests."""
    from moto.server import ThreadedMotoServer

    server, requests = ThreadedMotoServer("127.0.0.1", 0, verbose=True), Requests()
    log = logging.getLogger("werkzeug")
    log.setLevel(logging.INFO)
    log.addHandler(requests)
    log.propagate = False
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    os.environ |= {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    import boto3

    boto3.client("s3").create_bucket(Bucket="bench")
    try:
        yield "s3://bench", requests
    finally:
        server.stop()


def searched(folder: Path, place: str, requests: Requests, trials: int, epochs: int) -> Requests:
    """The requests of a whole tiny search with stages of its own."""
    requests.counts.clear()
    space = write_space(folder, search__trials=trials, unet__epochs=epochs, search__seed=trials * 100 + epochs)
    status, output = run(words(space, Storage(place).uri, name=f"s{trials}-{epochs}"), folder / "log", 400)  # type: ignore[arg-type]
    assert status == 0, output
    counted = Requests()
    counted.counts = Counter(requests.counts)
    return counted


def per_trial(folder: Path, place: str, requests: Requests) -> dict[str, float]:
    """From three searches: what one trial more costs, and what one epoch more of each U-Net does."""
    few = searched(folder, place, requests, 3, 2)
    more = searched(folder, place, requests, 7, 2)
    longer = searched(folder, place, requests, 3, 6)
    read, write = ("GET", "HEAD"), ("PUT", "POST", "DELETE")
    listed = r"list-type|prefix="  # the driver's look at the ledger, twice a second whatever the trials do

    def reads(counted: Requests, of: str = "") -> int:
        return counted.total(*read, of=of) - sum(
            n for (_, path), n in counted.counts.items() if re.search(listed, path) and re.search(of, path)
        )

    def driven(counted: Requests) -> int:
        return reads(counted, LEDGER) + counted.total(*write, of=LEDGER)

    trained = 4 * (3 + 1)  # four epochs more of three U-Nets and the retrained one
    return {
        "writes": (more.total(*write) - few.total(*write)) / 4,
        "reads": (reads(more) - reads(few)) / 4,
        "writes_per_epoch": (longer.total(*write) - few.total(*write)) / trained,
        "reads_per_epoch": (reads(longer) - reads(few)) / trained,
        "driver_requests": (driven(more) - driven(few)) / 4,
    }


class Taken:
    """Leases that others hold, and the number of times that they were asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def acquire(self, key: str) -> bool:
        self.asked += 1
        return False

    def release(self, key: str) -> None:
        raise AssertionError("never held")


def widest() -> ExperimentConfig:
    """The configuration of the space `mnist` with most restarts and steps."""
    params = {"projector.restarts": 10, "projector.steps": 200, "unet.high_level_weight": 1.0}
    return load_space("mnist", {}).config(params)


def look(place: str, requests: Requests, built: set[str]) -> tuple[int, int]:
    """Requests and lease calls of one look of a waiting trial of the space `mnist` where `built` is there."""
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    split = RawSplit(np.zeros((60_000, 1, 8, 8), np.uint8), labels)
    dataset = Dataset.cut("many", split, RawSplit(split.images[:20], labels[:20]), validation_fraction=0.1)
    data, leases = Development.for_search(dataset), Taken()
    config = widest()
    store = Store(Storage(place).child(f"look-{len(built)}"))
    executor = Executor(store, leases, data, Bounds([10], [200]), 0, torch.device("cpu"))
    recipe = executor.recipe(config)
    for name, signature in executor.signatures(config, path_of(config)).items():
        for key in part_signatures(STAGES[name], recipe, signature) if name in built else ():
            with store.draft(name, key):
                pass
    asked: list[tuple[int, int]] = []

    class Enough(Exception):
        pass

    def count(progress: Progress) -> None:
        if not progress.stage.startswith("waiting"):
            return
        asked.append((sum(requests.counts.values()), leases.asked))
        if len(asked) == LOOKS:
            raise Enough

    try:
        executor.get(config, path_of(config), count)
    except Enough:
        return asked[-1][0] - asked[-2][0], asked[-1][1] - asked[-2][1]
    raise AssertionError("it did not wait")


def processor_time(actor: Any, work: Callable[[], object], calls: int) -> float:
    """Seconds of processor time of an actor's process per call."""
    spent = [ray.get(actor.__ray_call__.remote(lambda self: time.process_time()))]
    work()
    spent.append(ray.get(actor.__ray_call__.remote(lambda self: time.process_time())))
    return float(spent[1] - spent[0]) / calls


def of_actors() -> dict[str, float]:
    """The lease actor's time per call and the progress actor's per message."""
    lease_actor, progress_actor = LeaseActor.remote(), start_progress_actor()  # type: ignore[attr-defined]
    message = Message("unet", 3, 20, time.time(), "ip-172-31-0-1")

    def leases() -> None:
        for call in range(CALLS // 100):
            ray.get([lease_actor.acquire.remote(f"{call}-{number}", f"{number}") for number in range(100)])

    def messages() -> None:
        for call in range(CALLS):
            progress_actor.put.remote(call % 100, message)
        ray.get(progress_actor.all.remote())

    return {
        "lease_seconds": processor_time(lease_actor, leases, CALLS),
        "progress_seconds": processor_time(progress_actor, messages, CALLS),
    }


def of_driver(folder: Path) -> float:
    """The driver's processor time per trial, with trials that do nothing but their bookkeeping."""
    split = RawSplit(np.zeros((40, 1, 8, 8), np.uint8), (np.arange(40) % 4).astype(np.uint8))
    dataset = Dataset.cut("empty", split, split, validation_fraction=0.2)
    space: SearchSpace = parse_space(bookkeeping.SPACE.format(trials=DRIVEN), "empty", "empty.yaml")
    home = Storage(folder).child("empty")
    setting = Setting(space, str(folder), "empty", 0, 1.0, 0.0, dataset.classes, dataset.fingerprint)
    searcher = LedgerSearcher(space, Ledger(home), trials=DRIVEN, seed=0)
    view = LiveView("empty", DRIVEN, OBJECTIVES["defense"], True, False)
    before = time.process_time()
    with mock.patch.object(driver, "run_trial", bookkeeping.empty_trial), view:
        driver.run_trials(setting, dataset, searcher, 2, view, lambda: None)
    return (time.process_time() - before) / DRIVEN


def measure() -> Costs:
    """All of it; some minutes."""
    with tempfile.TemporaryDirectory() as name, object_store() as (place, requests):
        folder = Path(name)
        costs = per_trial(folder, f"{place}/results", requests)
        early = look(place, requests, {"classifier"})
        path = path_of(widest())
        late = look(place, requests, {*path[: path.index("projection_train")]})
        with connect(None):
            actors = of_actors()
            seconds = of_driver(folder)
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    split = RawSplit(np.zeros((60_000, 1, 28, 28), np.uint8), labels)
    dataset = Dataset.cut("mnist", split, RawSplit(split.images[:20], labels[:20]), validation_fraction=0.1)
    arrays = arrays_of(train=dataset.train, validation=dataset.validation)
    size = sum(array.nbytes for array in arrays.values())
    return Costs(**costs, **actors, driver_seconds=seconds, early_look=early, late_look=late, data_bytes=size)


def loads(costs: Costs, nodes: int) -> dict[str, float]:
    """Share of what each part can do that a busy cluster of `nodes` GPUs takes of it; above 1 it is the limit."""
    rate, at_once = nodes / GPU_SECONDS, nodes * TRIALS_PER_GPU
    waiting = max(0, at_once - 1)
    lookups = [waiting / (LONGEST_POLL + requests * REQUEST) for requests, _ in (costs.early_look, costs.late_look)]
    return {
        "driver": rate * (costs.driver_seconds + costs.driver_requests * REQUEST),
        "storage writes": rate * (costs.writes + EPOCHS * costs.writes_per_epoch) / WRITES,
        "storage reads": rate * (costs.reads + EPOCHS * costs.reads_per_epoch) / READS,
        "progress actor": at_once / MESSAGE_PERIOD * costs.progress_seconds,
        "leases, waiting for the GAN": lookups[0] * costs.early_look[1] * costs.lease_seconds,
        "storage reads, waiting for the GAN": lookups[0] * costs.early_look[0] / READS,
        "leases, waiting for the last parts": lookups[1] * costs.late_look[1] * costs.lease_seconds,
        "storage reads, waiting for the last parts": lookups[1] * costs.late_look[0] / READS,
    }


def report(costs: Costs) -> None:
    """Prints what was measured, and the table."""
    for name, value in vars(costs).items():
        print(f"{name}: {value:.3g}" if isinstance(value, float) else f"{name}: {value}")
    table = {nodes: loads(costs, nodes) for nodes in NODES}
    print("\n| | " + " | ".join(f"{nodes} nodes" for nodes in NODES) + " | full at |")
    print("|---" * (len(NODES) + 2) + "|")
    print("| trials at once | " + " | ".join(f"{TRIALS_PER_GPU * nodes}" for nodes in NODES) + " | |")
    for name in table[1]:
        full = NODES[-1] / max(table[NODES[-1]][name], 1e-9)
        print(f"| {name} | " + " | ".join(f"{table[nodes][name]:.1%}" for nodes in NODES) + f" | {full:,.0f} nodes |")
    seconds = [costs.data_bytes * nodes / HEAD_BANDWIDTH for nodes in NODES]
    print("| seconds until all have the data, at most | " + " | ".join(f"{value:.1f}" for value in seconds) + " | |")


if __name__ == "__main__":
    sys.exit(report(measure()))
