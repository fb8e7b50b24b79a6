"""Nodes that a Ray cluster's autoscaler may start, read from its configuration file on the head node.

Ray itself does not tell: of 2.60 `ray.autoscaler.sdk` and the cluster's state know nodes that are there or asked for,
and neither node types nor their largest numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tune.cluster.resources import NodeKind

_OPTION = "--autoscaling-config="


def growth(gcs_address: str, processes: Path = Path("/proc")) -> tuple[list[NodeKind], int | None]:
    """The kinds of nodes that can be started, and how many of them together.

    Nothing where the cluster has no autoscaler or this is not its head; None in place of the number on Kubernetes,
    where the autoscaler is a container of its own and its file is out of sight.

    Args:
        gcs_address: of the cluster's head, to tell several clusters of one machine apart.
        processes: where the system lists them.
    """
    if "KUBERAY_GEN_RAY_START_CMD" in os.environ:
        return [], None
    for words in _command_lines(processes):
        files = [word.removeprefix(_OPTION) for word in words if word.startswith(_OPTION)]
        if files and f"--gcs-address={gcs_address}" in words:
            return kinds(yaml.safe_load(Path(files[0]).expanduser().read_text()))
    return [], 0


def kinds(config: Mapping[str, Any]) -> tuple[list[NodeKind], int]:
    """The node types of a cluster's configuration, as `ray up` sends it to the head: with all resources filled in."""
    most = int(config.get("max_workers", 0))
    types = config.get("available_node_types", {}).values()
    return [NodeKind(entry.get("resources", {}), int(entry.get("max_workers", most))) for entry in types], most


def _command_lines(processes: Path) -> Iterator[list[str]]:
    for path in processes.glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended, or is another user's
            continue
