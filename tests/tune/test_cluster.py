"""What trials may ask for."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import pytest
import ray

from tune import cluster
from tune.cluster import Resources, _check_nodes, _join
from tune.preflight import Refused

CORES = len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def test_one_trial_per_core_where_nothing_is_asked() -> None:
    resources = Resources.asked(1.0, None, None, None, 1000)
    assert (resources.concurrent, resources.gpus) == (CORES, 0.0)


def test_there_are_no_more_workers_than_trials() -> None:
    assert Resources.asked(1.0, None, None, None, 1).concurrent == 1


def test_concurrent_is_held_to_what_there_is() -> None:
    assert Resources.asked(float(CORES), None, 50, None, 100).concurrent == 1


@pytest.mark.parametrize(("devices", "concurrent", "gpus"), [(1, 4, 0.25), (2, 2, 1.0), (4, 2, 1.0)])
def test_gpus_are_shared_equally(
    monkeypatch: pytest.MonkeyPatch, devices: int, concurrent: int, gpus: float
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    resources = Resources.asked(1.0, None, concurrent, None, 100)
    assert (resources.gpus, resources.concurrent) == (gpus, concurrent)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """The nodes of a pretended cluster, which cannot start others."""
    found: list[Mapping[str, Any]] = []
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr("ray._private.state.state.get_cluster_config", lambda: None)
    return found


def test_ray_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([RuntimeError("not yet"), RuntimeError("not yet"), {"node": 1}])

    def look(address: str, node: str) -> Any:
        answer = next(answers)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    monkeypatch.setattr(cluster.services, "get_node", look)
    with cluster._with_patience():
        assert cluster.services.get_node("address", "node") == {"node": 1}
    assert cluster.services.get_node is look


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(Exception("The current node timed out during startup."), TimeoutError), (ValueError("x"), ValueError)],
)
def test_a_ray_that_does_not_start_in_time_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, seen: type[Exception]
) -> None:
    def init(**options: Any) -> None:
        raise raised

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(seen, match=str(raised)):
        cluster._start({})


def test_an_address_where_nobody_listens_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was asked"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and not listening
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(Refused, match=f"--address: expected a running Ray cluster, found none at {address}: "):
            _join(address, {})


def node(**resources: float) -> Mapping[str, Any]:
    return {"Alive": True, "Resources": resources}


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [
        (17.0, 0.0, "--cpus-per-trial: expected at most the 16 CPUs"),
        (1.0, 2.0, "--gpus-per-trial: expected at most the 1 GPUs"),
        (16.0, 1.0, "expected a node with 16 CPUs and 1 GPUs, found none"),
    ],
)
def test_what_no_node_has_is_refused(nodes: list[Mapping[str, Any]], cpus: float, gpus: float, said: str) -> None:
    nodes += [node(CPU=16), node(CPU=4, GPU=1), {**node(CPU=64, GPU=8), "Alive": False}]
    with pytest.raises(Refused, match=said):
        _check_nodes(Resources.asked(cpus, gpus, None, "auto", 4))


def test_what_a_node_has_is_taken(nodes: list[Mapping[str, Any]]) -> None:
    nodes += [node(CPU=16), node(CPU=4, GPU=1)]
    _check_nodes(Resources.asked(4.0, 0.5, None, "auto", 4))
