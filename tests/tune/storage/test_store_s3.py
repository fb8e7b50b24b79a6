"""The store on an object store, built by several workers at once: each artifact once, leased by the coordinator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from components.datasets.dataset import Dataset
from tests.tune.executor_fixture import PATH, tiny_config
from tune.cluster.coordinator import start_coordinator
from tune.cluster.leases import ClusterLeases
from tune.pipeline.executor import Executor
from tune.pipeline.recipe import Bounds, Development
from tune.storage.folder import Storage
from tune.storage.store import MANIFEST, Store

pytestmark = pytest.mark.cluster
PART = 5


@pytest.fixture(scope="module")
def cluster(bucket: str) -> Iterator[None]:
    """Ray on this machine, whose workers know the server's credentials."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=80 << 20, log_to_driver=False)
    start_coordinator()
    yield
    ray.shutdown()


@pytest.fixture
def address(bucket: str, cluster: None, request: pytest.FixtureRequest) -> str:
    """A folder of its own for each test."""
    return Storage(bucket).child(request.node.name).uri


def built(address: str, cache: Path, dataset: Dataset, bounds: Bounds) -> tuple[Counter[str], dict[str, Any], str]:
    """Builds the path as a worker on a machine with `cache` does: what it built, what it measured, and by whom."""
    from tune.pipeline.stage import Stage

    Stage.part_images = PART
    torch.set_num_threads(1)
    store = Store(Storage(address).child("store"), cache)
    data = Development.for_search(dataset)
    executor = Executor(store, ClusterLeases(), data, bounds, 0, torch.device("cpu"))
    path = executor.get(tiny_config(), PATH)
    work = Counter({name: done.built for name, done in path.work.items()})
    return work, dict(path.artifacts["score_unet"][0].metrics), path.signatures["projection"]


def in_workers(address: str, caches: list[Path], dataset: Dataset, bounds: Bounds) -> list[Any]:
    task = ray.remote(built).options(num_cpus=1, max_retries=0)
    return list(ray.get([task.remote(address, cache, dataset, bounds) for cache in caches], timeout=100))


def test_workers_build_each_artifact_once(address: str, tmp_path: Path, tiny_dataset: Dataset) -> None:
    bounds = Bounds([1, 2], [2, 4])
    caches = [tmp_path / "one", tmp_path / "other"]
    (one, metrics, signature), (other, same, _) = in_workers(address, caches, tiny_dataset, bounds)
    parts = {"projection": 2, "projection_train": 7}
    assert one + other == Counter({name: parts.get(name, 1) for name in PATH})
    assert metrics == same
    # a machine that has none of it finds all of it
    ((third, again, _),) = in_workers(address, [tmp_path / "third"], tiny_dataset, bounds)
    assert not +third
    assert again == metrics
    # an object that is damaged is noticed by who has no copy, and built again
    folder = Storage(address).child("store").child("projection").child(f"{signature}-001")
    folder.write("trace.safetensors", b"torn")
    ((fourth, again, _),) = in_workers(address, [tmp_path / "fourth"], tiny_dataset, bounds)
    assert +fourth == Counter({"projection": 1})
    assert again == metrics


def test_a_grown_search_goes_on_there_too(address: str, tmp_path: Path, tiny_dataset: Dataset) -> None:
    ((_, _, small),) = in_workers(address, [tmp_path / "one"], tiny_dataset, Bounds([1, 2], [2, 4]))
    ((_, _, large),) = in_workers(address, [tmp_path / "other"], tiny_dataset, Bounds([1, 2, 3], [2, 4, 6]))
    assert small != large
    projections = Storage(address).child("store").child("projection")
    assert projections.child(f"{large}-000").exists(MANIFEST)
    artifact = Store(Storage(address).child("store"), tmp_path / "third").find("projection", f"{large}-000")
    assert artifact is not None
    assert artifact.metrics["evaluations"] == PART * (3 * 6 - 2 * 4)


def test_what_is_published_is_no_less_so_where_no_copy_can_be_kept(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, nowhere = Storage(bucket).child("kept-elsewhere"), tmp_path / "file"
    nowhere.write_text("in the place of a folder")
    with Store(place, nowhere).draft("gan", "abc") as draft:
        (draft.folder / "weights").write_bytes(b"1")
    assert "gan/abc: published, but not kept on this node" in caplog.text
    found = Store(place, tmp_path / "copies").find("gan", "abc")
    assert found is not None
    assert (found.folder / "weights").read_bytes() == b"1"
