"""A search on several Ray nodes: what each is given, and a node that is lost while it builds what all need."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tests.cluster.raylets import Raylets, alive, holder, raylets
from tests.tune.tiny_search import outcomes, run, searching, words, write_space
from tune.cluster.connection import other_nodes
from tune.cluster.coordinator import start_coordinator
from tune.cluster.leases import ClusterLeases

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture
def nodes() -> Iterator[Raylets]:
    """Two workers of one core each."""
    with raylets(2) as started:
        yield started


def on(nodes: Raylets, space: Path, storage: Path) -> list[str]:
    """A search on them, with as many trials at once as it chooses itself."""
    line = words(space, storage, "--address", nodes.address, "--verbose")
    place = line.index("--concurrent")
    return [*line[:place], *line[place + 2 :]]


def test_two_workers_run_two_trials_at_once(tmp_path: Path, nodes: Raylets) -> None:
    space = write_space(tmp_path, search__trials=4)
    status, output = run(on(nodes, space, tmp_path / "results"), tmp_path / "log", 400)
    assert status == 0, output
    assert "0 GPUs and 1 cores per trial (no node has one), 2 trials at once" in output
    ended = outcomes(tmp_path / "results/one")
    assert [ended[number].status for number in sorted(ended)] == ["finished"] * 4
    assert built(tmp_path / "results/one", "gan") == 1


def test_the_coordinator_outlives_the_node_of_the_driver_that_started_it(nodes: Raylets) -> None:
    ray.init(address=nodes.address, log_to_driver=False)
    try:
        away = next(node["NodeID"] for node in other_nodes() if node["Resources"].get("CPU"))
        there = NodeAffinitySchedulingStrategy(away, soft=False)
        start = ray.remote(num_cpus=0, scheduling_strategy=there)(lambda: (start_coordinator(), os.getpid())[1])
        nodes.kill(ray.get(start.remote()))
        assert ClusterLeases().acquire(["a"]) == "a"
    finally:
        ray.shutdown()


def test_a_node_lost_in_a_shared_stage(tmp_path: Path, nodes: Raylets) -> None:
    """The other node takes over from the last save; nobody builds the stage beside it."""
    space = write_space(tmp_path, search__trials=3, gan__steps=4000, gan__steps_per_epoch=100)
    home, store = tmp_path / "results/one", tmp_path / "results/store"
    with searching(on(nodes, space, home.parent), tmp_path / "log") as search:
        save = search.until(lambda: saved(store), 200)
        builder = holder(store / ".leases" / f"{save.parent.name}.lock")
        assert builder is not None
        nodes.kill(builder)
        search.until(lambda: not alive(builder), 60)  # it may save once more before it notices
        before = save.read_bytes()
        search.until(lambda: save.exists() and save.read_bytes() != before, 60)
        assert search.wait(400) == 0, search.output
        output = search.output
    ended = outcomes(home)
    assert [ended[number].status for number in sorted(ended)] == ["finished"] * 3
    assert built(home, "gan") == 1  # the lost builder recorded nothing: its trial began anew
    assert len(re.findall(r" \d{3} .*: gan started", output)) in (1, 2)  # the lost one may not have said so yet


def saved(store: Path) -> Path | None:
    """The first save of the GAN: the classifier's, which is over before that begins, may not be removed yet."""
    over = {path.parent.name for path in store.glob("classifier/*/manifest.json")}
    saves = store.glob(".unfinished/*/training.pt") if over else ()
    return next((path for path in saves if path.parent.name not in over), None)


def built(home: Path, stage: str) -> int:
    """How many of the recorded trials have built a stage."""
    return sum(int(outcome.work.get(stage, {}).get("built", 0)) for outcome in outcomes(home).values())
