"""The load of a cluster of 1 to 1,024 GPU nodes on each part of a search: measured here, and simulated from that.

    python -m benchmarks.cluster_scale

Measured: requests of a trial to an object store (moto's S3, counted), those of a trial that waits, and processor time:
of the driver per trial and per trial whose progress has changed, of the coordinator per message of a node, of a
relay per message of a trial. Assumed: the constants below in capitals.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import ray
import torch

from benchmarks import bookkeeping
from benchmarks.cluster_simulation import Prices, Simulation
from benchmarks.gpu_hours import mnist_like
from components.datasets.dataset import Dataset
from components.datasets.raw import RawSplit
from tests.tune.tiny_search import run, words, write_space
from tune.cluster.connection import connect
from tune.cluster.coordinator import Answer, Message, News, start_coordinator
from tune.cluster.line import Line
from tune.execution.trial import arrays_of
from tune.monitor.progress import ProgressFeed
from tune.pipeline.executor import Executor, part_signatures
from tune.pipeline.recipe import Bounds, Development
from tune.pipeline.stages import STAGES, path_of
from tune.space.config import ExperimentConfig
from tune.space.space import load_space
from tune.storage.folder import Storage
from tune.storage.store import Store

NODES = (1, 8, 64, 256, 1024)
TRIALS_PER_GPU = 4  # what cluster.yaml's machines have cores for
GPU_SECONDS = 202.0  # of a trial of the space `mnist` beside what it shares: benchmarks/gpu_hours.py, at 3 TFLOP/s
PART_SECONDS = 23.4 * TRIALS_PER_GPU  # of one of the 108 parts of its projection: the same, each on its share of a GPU
EPOCHS = 20  # of its U-Net
WRITES, READS = 3500, 5500  # requests per second that S3 promises for one prefix
REQUEST = 0.03  # seconds until S3 answers
HEAD_BANDWIDTH = 12.5e9 / 8  # bytes per second: the most of an m7i.large
DRIVEN = 150  # empty trials, to see what the driver does for each
CALLS = 2000
LEDGER = "proposals/|trials/"  # what the driver reads and writes itself
OWN = 3  # requests to it by the trial: whether it has a record, and to write one


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
        "driver_requests": (driven(more) - driven(few)) / 4 - OWN,
    }


def widest() -> ExperimentConfig:
    """The configuration of the space `mnist` with most restarts and steps."""
    params = {"projector.restarts": 10, "projector.steps": 200, "unet.high_level_weight": 1.0}
    return load_space("mnist", {}).config(params)


class Enough(Exception):
    """Ends a trial that has been seen to wait."""


def looks(place: str, requests: Requests, built: set[str]) -> tuple[int, int]:
    """Requests of the first look of a trial of the space `mnist` where `built` is there, and of that when it is told.

    The first are those for what is not there.
    """
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    split = RawSplit(np.zeros((60_000, 1, 8, 8), np.uint8), labels)
    dataset = Dataset.cut("many", split, RawSplit(split.images[:20], labels[:20]), validation_fraction=0.1)
    config, data = widest(), Development.for_search(dataset)
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory() as elsewhere:
        storage = Storage(place).child(f"look-{len(built)}")
        other = Store(storage, Path(elsewhere))  # of another node

        def finish(key: str) -> None:
            with other.draft("projection_train" if "projection" in built else "gan", key) as draft:
                (draft.folder / "trace").write_bytes(b"1")
                (draft.folder / "standing").write_bytes(b"1")

        counted: list[int] = []

        def ask(keys: Sequence[str], waited: float) -> Collection[str]:
            counted.append(sum(requests.counts.values()))
            if len(counted) == 3:
                raise Enough
            finish(keys[-1])
            counted.append(sum(requests.counts.values()))
            return [keys[-1]]

        leases = mock.Mock(acquire=lambda keys: None, wait=ask)
        executor = Executor(Store(storage, Path(here)), leases, data, Bounds([10], [200]), 0, torch.device("cpu"))
        recipe = executor.recipe(config)
        for name, signature in executor.signatures(config, path_of(config)).items():
            for key in part_signatures(STAGES[name], recipe, signature) if name in built else ():
                with executor.store.draft(name, key):  # so there is a copy, and nothing is asked for it but to list
                    pass
        began = sum(requests.counts.values())
        try:
            executor.get(config, path_of(config))
        except Enough:
            return counted[0] - began, counted[2] - counted[1]
    raise AssertionError("it did not wait")


@ray.remote(num_cpus=0)
class Nodes:
    """Many nodes' relays in one process."""

    def __init__(self, listener: Any, names: Sequence[str]) -> None:
        self._listener, self._names = listener, names

    def speak(self, messages: int, watched: int) -> None:
        """Sends messages as fast as they are answered, ten under way at a time."""
        keys = frozenset(f"{'5' * 20}-{part:03d}" for part in range(watched))
        for number in range(messages // 10):
            said = []
            for index in range(10):
                name = self._names[(10 * number + index) % len(self._names)]
                epoch = Message("unet", number, 20, 0.0, "ip-172-31-0-1")
                progress = {} if watched else {("bench", hash((name, trial))): epoch for trial in range(4)}
                holds = {} if watched else {f"{name}-{trial}": (f"{name}-{trial}",) for trial in range(4)}
                said.append(self._listener.exchange.remote(name, News(progress, holds, keys)))
            ray.get(said)

    def live(self, seconds: float) -> int:
        """Speaks for each node as often as it is told to; returns how many messages that was."""
        count, began, end = 0, time.monotonic(), time.monotonic() + seconds
        turns = [(began + index / len(self._names), name) for index, name in enumerate(self._names)]
        while turns[0][0] < end:
            at, name = turns.pop(0)
            time.sleep(max(0.0, at - time.monotonic()))
            epoch = Message("unet", count, 20, 0.0, "ip-172-31-0-1")
            news = News({("bench", hash((name, trial))): epoch for trial in range(4)}, {}, frozenset())
            answer: Answer = ray.get(self._listener.exchange.remote(name, news))
            turns.append((max(at + answer.pause, time.monotonic()), name))
            count += 1
        return count


@ray.remote(num_cpus=0)
class BareRelay:
    """A relay that speaks to nobody."""

    def __init__(self) -> None:
        self._line = Line(lambda: None)

    def exchange(self, source: str, news: News) -> Answer:
        return self._line.relay(source, news)


def processor_time(actor: Any) -> float:
    """Seconds of processor time of an actor's process so far."""
    return float(ray.get(actor.__ray_call__.remote(lambda self: time.process_time())))


def per_call(actor: Any, work: Callable[[], object], calls: int) -> float:
    """Seconds of processor time of an actor's process per call."""
    before = processor_time(actor)
    work()
    return (processor_time(actor) - before) / calls


def of_actors() -> dict[str, float]:
    """Processor time of the coordinator and of a relay per message and call, from four processes at once."""
    coordinator, relay = start_coordinator(), BareRelay.remote()  # type: ignore[attr-defined]
    senders = [Nodes.remote(coordinator, [f"{n}-{i}" for i in range(64)]) for n in range(4)]  # type: ignore[attr-defined]
    leaves = [Nodes.remote(relay, [f"{n}"]) for n in range(4)]  # type: ignore[attr-defined]

    def speak(who: Sequence[Any], watched: int) -> None:
        ray.get([sender.speak.remote(CALLS // 4, watched) for sender in who])

    def leases() -> None:
        for call in range(CALLS // 100):
            ray.get([coordinator.acquire.remote([f"{call}-{number}"], f"{number}") for number in range(100)])

    speak([*senders, *leaves], 0)  # they start
    costs = {
        "exchange_seconds": per_call(coordinator, lambda: speak(senders, 0), CALLS),
        "waiting_seconds": per_call(coordinator, lambda: speak(senders, 108), CALLS),
        "relay_seconds": per_call(relay, lambda: speak(leaves, 0), CALLS),
        "lease_seconds": per_call(coordinator, leases, CALLS),
    }
    return {**costs, "progress_seconds": of_progress(coordinator)}


def of_progress(coordinator: Any, trials: int = 4096, rounds: int = 10) -> float:
    """Processor time of this process per trial whose progress it takes."""
    feed, spent = ProgressFeed(), 0.0
    for number in range(rounds):
        epoch = Message("unet", number, 20, 0.0, "ip-172-31-0-1")
        news = News({(feed.channel.name, trial): epoch for trial in range(trials)}, {}, frozenset())
        ray.get(coordinator.exchange.remote("bench", news))
        feed._asked, before = 0.0, time.process_time()
        feed.look()
        while not feed.latest or feed.latest[0].done < number:
            feed.look()
            time.sleep(0.005)
        spent += time.process_time() - before
    return spent / rounds / trials


def real_run(nodes: int, seconds: float = 20.0) -> str:
    """The coordinator while eight processes speak for as many nodes, as often as it tells them to."""
    coordinator = start_coordinator()
    names = [f"{nodes}-{n}" for n in range(nodes)]
    senders = [Nodes.remote(coordinator, names[n::8]) for n in range(min(8, nodes))]  # type: ignore[attr-defined]
    ray.get([sender.speak.remote(10, 0) for sender in senders])
    before = processor_time(coordinator)
    messages = sum(ray.get([sender.live.remote(seconds) for sender in senders]))
    busy = (processor_time(coordinator) - before) / seconds
    pause = ray.get(coordinator.exchange.remote("bench", News({}, {}, frozenset()))).pause
    return f"{nodes} nodes: {messages / seconds:.0f} messages/s, coordinator {busy:.0%} of a core, period {pause:.1f} s"


def of_driver(folder: Path) -> float:
    """The driver's processor time per trial, with trials that do nothing but their bookkeeping."""
    searcher = bookkeeping.prepared(str(folder), DRIVEN)
    before = time.process_time()
    bookkeeping.run_empty_trials(str(folder), searcher)
    return (time.process_time() - before) / DRIVEN


def measure() -> Costs:
    """All of it; some minutes."""
    with tempfile.TemporaryDirectory() as name, object_store() as (place, requests):
        folder = Path(name)
        costs = per_trial(folder, f"{place}/results", requests)
        early, _ = looks(place, requests, {"classifier"})
        path = path_of(widest())
        late, told = looks(place, requests, {*path[: path.index("projection_train")]})
        with connect(None):
            actors = of_actors()
            seconds = of_driver(folder)
            print("\n".join(real_run(nodes) for nodes in NODES[2:]))
    dataset = mnist_like()
    arrays = arrays_of(train=dataset.train, validation=dataset.validation)
    size = sum(array.nbytes for array in arrays.values())
    looked = {"early_look": early, "late_look": late, "told_look": told}
    return Costs(**costs, **actors, **looked, driver_seconds=seconds, data_bytes=size)


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
    print("\n| | " + " | ".join(f"{nodes:,} nodes" for nodes in NODES) + " |")
    print("|---" * (len(NODES) + 1) + "|")
    print("| trials at once | " + " | ".join(f"{TRIALS_PER_GPU * nodes:,}" for nodes in NODES) + " |")
    for name in table[1]:
        form = "{:.1f}" if name.startswith("seconds") else "{:.1%}"
        print(f"| {name} | " + " | ".join(form.format(table[nodes][name]) for nodes in NODES) + " |")


if __name__ == "__main__":
    sys.exit(report(measure()))
