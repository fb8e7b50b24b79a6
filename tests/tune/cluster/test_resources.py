"""What trials may ask for, and what they get where they do not ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune.cluster.cores import usable_cores
from tune.cluster.resources import GIB, NeededMemory, NodeKind, Nodes, Request, on_cluster, on_this_machine
from tune.errors import Refused

CORES = usable_cores()
L4 = {"CPU": 4, "GPU": 1, "accelerator_type:L4": 1}


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"cpus": 0}, "--cpus-per-trial: expected a number > 0, found 0"),
        ({"gpus": -1}, "--gpus-per-trial: expected a number ≥ 0, found -1"),
        ({"cpus": 1e-9}, "--cpus-per-trial: expected at most four decimals, found 1e-09"),
        ({"gpus": 1 / 3}, "--gpus-per-trial: expected at most four decimals, found 0.3333333333333333"),
        ({"gpus": 1.5}, "--gpus-per-trial: expected a fraction of one, or whole GPUs, found 1.5"),
        ({"concurrent": 0}, "--concurrent: expected a number ≥ 1, found 0"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said):
        Request(**asked)


# ---------------------------------------------------------------- this machine


def test_one_trial_per_core_where_nothing_is_asked() -> None:
    resources = on_this_machine(Request(), 1000)
    assert (resources.concurrent, resources.gpus) == (CORES, 0.0)


def test_there_are_no_more_workers_than_trials() -> None:
    assert on_this_machine(Request(), 1).concurrent == 1


def test_concurrent_is_held_to_what_there_is() -> None:
    assert on_this_machine(Request(cpus=CORES, concurrent=50), 100).concurrent == 1


@pytest.mark.parametrize(
    ("request_", "said"), [(Request(cpus=10_000), "cores of this machine"), (Request(gpus=1), "0 GPUs of this machine")]
)
def test_more_than_this_machine_has_is_refused(request_: Request, said: str) -> None:
    with pytest.raises(Refused, match=said):
        on_this_machine(request_, 1)


@pytest.mark.parametrize(("devices", "concurrent", "gpus"), [(1, 4, 0.25), (2, 2, 1.0), (4, 2, 1.0)])
def test_gpus_are_shared_equally(
    monkeypatch: pytest.MonkeyPatch, devices: int, concurrent: int, gpus: float
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: devices)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    resources = on_this_machine(Request(concurrent=concurrent), 100)
    assert (resources.gpus, resources.concurrent) == (gpus, concurrent)


# ---------------------------------------------------------------- a cluster


def cluster(**options: Any) -> Request:
    return Request(address="auto", **options)


def never() -> int:
    raise AssertionError("measured though it does not decide")


@pytest.mark.parametrize(
    ("cpus", "gpus", "said"),
    [
        (17.0, 0.0, "--cpus-per-trial: expected at most the 16 CPUs"),
        (1.0, 2.0, "--gpus-per-trial: expected at most the 1 GPUs"),
        (16.0, 1.0, "expected a node with 16 CPUs and 1 GPUs, found none"),
    ],
)
def test_what_no_node_has_is_refused(cpus: float, gpus: float, said: str) -> None:
    alive = [NodeKind({"CPU": 16}), NodeKind({"CPU": 4, "GPU": 1})]
    nodes = Nodes(alive, growth=[NodeKind({"CPU": 64, "GPU": 8}, most=0)])
    with pytest.raises(Refused, match=said):
        on_cluster(cluster(cpus=cpus, gpus=gpus), 4, nodes, never)


def test_what_the_autoscaler_can_start_is_not_refused() -> None:
    nodes = Nodes([NodeKind({"CPU": 0})], growth=[NodeKind(L4, most=8)], most=8)
    assert on_cluster(cluster(cpus=4.0, gpus=1.0), 4, nodes, never).gpus == 1


@pytest.mark.parametrize(
    ("trials", "gpus", "concurrent"), [(100, 0.25, 32), (100, 1.0, 8), (5, 0.25, 5), (100, 0.0, 32), (100, 0.4, 16)]
)
def test_as_many_trials_as_the_cluster_can_grow_to(trials: int, gpus: float, concurrent: int) -> None:
    spot, on_demand = NodeKind(L4, most=8), NodeKind(L4, most=8)
    nodes = Nodes([NodeKind({"CPU": 0})], growth=[spot, on_demand, NodeKind({"CPU": 0}, most=0)], most=8)
    assert on_cluster(cluster(gpus=gpus), trials, nodes, never).concurrent == concurrent


def test_nodes_that_are_there_count_where_nothing_grows() -> None:
    nodes = Nodes([NodeKind({"CPU": 0}), NodeKind(L4), NodeKind(L4)])
    assert on_cluster(cluster(gpus=0.5), 100, nodes, never).concurrent == 4


def test_a_head_that_takes_trials_is_one_more() -> None:
    nodes = Nodes([NodeKind({"CPU": 2})], head=NodeKind({"CPU": 2}), growth=[NodeKind({"CPU": 4}, most=3)], most=3)
    assert on_cluster(cluster(gpus=0.0), 100, nodes, never).concurrent == 14


def test_fewer_trials_at_once_can_be_asked_for() -> None:
    nodes = Nodes([NodeKind(L4)] * 4)
    assert on_cluster(cluster(gpus=1.0, concurrent=3), 100, nodes, never).concurrent == 3


@pytest.mark.parametrize(
    ("node", "gib", "gpus"),
    [
        (L4, 3, 0.25),  # by its four cores
        ({**L4, "CPU": 48}, 3, 0.125),  # by its 24 GiB
        ({**L4, "CPU": 48}, 9, 0.5),
        ({**L4, "CPU": 48}, 7, 0.3333),
        (L4, 30, 1.0),  # it may fail, but no share would serve it better
        ({"CPU": 192, "GPU": 8, "accelerator_type:H100": 1}, 3, 0.0416),  # 24 cores for each of eight
    ],
)
def test_gpus_per_trial_follow_memory_and_cores(node: dict[str, float], gib: float, gpus: float) -> None:
    nodes = Nodes([NodeKind({"CPU": 0})], growth=[NodeKind(node, most=2)], most=2)
    resources = on_cluster(cluster(), 1000, nodes, lambda: NeededMemory(int(gib * GIB), "counted"))
    assert resources.gpus == gpus
    assert f"about {gib:.1f} of the" in str(resources)
    assert resources.concurrent == 2 * node["GPU"] * int(1 / gpus + 1e-3)


def test_the_smallest_gpu_decides() -> None:
    nodes = Nodes([NodeKind({"CPU": 32, "GPU": 1, "accelerator_type:A100": 1}), NodeKind({**L4, "CPU": 32})])
    assert on_cluster(cluster(), 100, nodes, lambda: NeededMemory(12 * GIB, "counted")).gpus == 0.5


def test_a_gpu_of_unknown_memory_is_not_shared() -> None:
    resources = on_cluster(cluster(), 100, Nodes([NodeKind({"CPU": 32, "GPU": 1, "accelerator_type:X1": 1})]), never)
    assert resources.gpus == 1
    assert "X1" in str(resources)


def test_without_gpus_trials_get_none() -> None:
    assert on_cluster(cluster(), 100, Nodes([NodeKind({"CPU": 4})]), never).gpus == 0


def test_on_kubernetes_nothing_is_known_and_nothing_refused() -> None:
    nodes = Nodes([NodeKind({"CPU": 0})], most=None)
    resources = on_cluster(cluster(), 30, nodes, never)
    assert (resources.gpus, resources.concurrent) == (1, 30)


def groups(folder: Path, files: dict[str, str]) -> Path:
    """Control groups, as Linux mounts them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "100000 100000"}, 1),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "250000 100000"}, 2),
        ("0::/on/the/host\n", {"cpu.max": "50000 100000"}, 1),  # in a container: the mount is the group itself
        ("0::/\n", {"cpu.max": "max 100000"}, 8),
        ("4:cpu,cpuacct:/job\n2:memory:/job\n", {"cpu,cpuacct/job/cpu.cfs_quota_us": "300000",
                                                 "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu:/job\n", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, 8),
        ("0::/\n", {"cpu.max": "100000000 100000"}, 8),
        ("nonsense", {"cpu.max": "half"}, 8),
        ("", {}, 8),
    ],
)  # fmt: skip
def test_a_cpu_quota_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, membership: str, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    (tmp_path / "cgroup").write_text(membership)
    assert usable_cores(groups(tmp_path / "fs", files), tmp_path / "cgroup") == expected


def test_where_there_is_no_affinity_all_cores_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")  # as on macOS
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert usable_cores(tmp_path, tmp_path / "none") == 6
