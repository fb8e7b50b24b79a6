"""Requests to an object store, counted by an S3 of our own (moto): of a search per trial, and of a trial that waits."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from components.datasets.dataset import Dataset
from components.datasets.raw import RawSplit
from tests.tune.tiny_search import run, words, write_space
from tune.pipeline.executor import Executor, part_signatures
from tune.pipeline.recipe import Development, bounds_of
from tune.pipeline.stages import STAGES, path_of
from tune.space.config import ExperimentConfig
from tune.space.space import SearchSpace, load_space
from tune.storage.folder import Storage
from tune.storage.store import Store

SPACE = "published"  # whose trials wait for a projection of minutes; those of `mnist` start from a trained generator
LEDGER = "proposals/|trials/"  # what the driver reads and writes itself
OWN = 3  # requests to it by the trial: whether it has a record, and to write one


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


def widest(space: SearchSpace) -> ExperimentConfig:
    """The configuration of a search of R, L and λ with most restarts and steps."""
    bounds = bounds_of(space)
    most = {"projector.restarts": max(bounds.restarts), "projector.steps": max(bounds.steps)}
    return space.config({**most, "unet.high_level_weight": 1.0})


class Enough(Exception):
    """Ends a trial that has been seen to wait."""


def looks(place: str, requests: Requests, built: set[str]) -> tuple[int, int]:
    """Requests of the first look of a trial of `published` where `built` is there, and of that when it is told.

    The first are those for what is not there.
    """
    labels = (np.arange(60_000) % 10).astype(np.uint8)
    split = RawSplit(np.zeros((60_000, 1, 8, 8), np.uint8), labels)
    dataset = Dataset.cut("many", split, RawSplit(split.images[:20], labels[:20]), validation_fraction=0.1)
    space, data = load_space(SPACE, {}), Development.for_search(dataset)
    config = widest(space)
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
        executor = Executor(Store(storage, Path(here)), leases, data, bounds_of(space), 0, torch.device("cpu"))
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
