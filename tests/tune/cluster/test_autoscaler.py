"""What the autoscaler may start, read where the head's processes say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tune.cluster.autoscaler import growth, kinds
from tune.cluster.resources import NodeKind

CONFIG = {
    "max_workers": 8,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0, "GPU": 0}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 4, "GPU": 1, "accelerator_type:L4": 1}},
        "cpu": {"resources": {"CPU": 16}, "max_workers": 3},
    },
}


@pytest.fixture
def processes(tmp_path: Path) -> Path:
    """A head's processes: Ray's own, and among them the autoscaler."""
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))
    config = f"--autoscaling-config={tmp_path}/cluster.yaml"
    for number, words in enumerate(
        [
            ["ray", "start", "--head", config],
            ["python", "-u", "monitor.py", "--gcs-address=10.0.0.1:6379", config],
            ["gcs_server"],
        ],
        1,
    ):
        folder = tmp_path / f"proc/{number}"
        folder.mkdir(parents=True)
        (folder / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    (tmp_path / "proc/9").mkdir()  # one that has just ended
    return tmp_path / "proc"


def test_the_running_autoscalers_file_is_read(processes: Path) -> None:
    assert growth("10.0.0.1:6379", processes) == kinds(CONFIG)


def test_another_clusters_autoscaler_is_none_of_ours(processes: Path) -> None:
    assert growth("10.0.0.2:6379", processes) == ([], 0)


def test_on_kubernetes_the_number_is_not_known(processes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start --head")
    assert growth("10.0.0.1:6379", processes) == ([], None)


def test_a_type_without_a_limit_has_the_clusters() -> None:
    found, most = kinds(CONFIG)
    assert most == 8
    assert [kind.most for kind in found] == [0, 8, 3]
    assert found[1] == NodeKind({"CPU": 4, "GPU": 1, "accelerator_type:L4": 1}, 8)
    assert found[1].accelerator == "L4"
