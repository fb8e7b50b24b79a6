"""Several Ray nodes on one machine: a head that runs no trial, and workers of one core each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STORE = 80 << 20  # bytes of each node's object store
# A node that is gone is noticed after some three seconds.
SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Raylets:
    """The nodes, started by a process of their own: Ray keeps the first cluster of a process in mind.

    Attributes:
        address: for `--address`.
        workers: process ids of the workers' raylets.
    """

    def __init__(self, workers: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.raylets", str(workers)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"expected Ray nodes, found none: {self._process.communicate()[1][-3000:]}")
        told = json.loads(line)
        self.address: str = told["address"]
        self.workers: list[int] = told["workers"]

    def kill(self, pid: int) -> None:
        """SIGKILL to the raylet of process `pid`, as when its machine is gone; Ray's workers end with their raylet."""
        while pid not in self.workers:
            pid = parent(pid)
        os.kill(pid, signal.SIGKILL)

    def shutdown(self) -> None:
        """Ends them all."""
        self._process.communicate("end\n", timeout=60)


@contextmanager
def raylets(workers: int) -> Iterator[Raylets]:
    """The nodes, for the length of the block."""
    nodes = Raylets(workers)
    try:
        yield nodes
    finally:
        nodes.shutdown()


def serve(workers: int) -> None:
    """Starts the nodes, says where they are, and ends them when told to, or when the caller is gone."""
    from ray.cluster_utils import Cluster

    said, sys.stdout = sys.stdout, sys.stderr  # Ray prints there too
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": SOON}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(workers)]
    cluster.wait_for_nodes()
    pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
    print(json.dumps({"address": cluster.address, "workers": pids}), file=said, flush=True)
    sys.stdin.readline()
    cluster.shutdown()


def parent(pid: int) -> int:
    """The process that started `pid`. Raises ProcessLookupError above the first one."""
    status = Path(f"/proc/{pid}/status")
    if pid < 2 or not status.exists():
        raise ProcessLookupError(pid)
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("PPid"))


def holder(file: Path) -> int | None:
    """The process that keeps `file` open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == file:
                return int(link.parts[2])
        except OSError:  # closed meanwhile, or another user's
            continue
    return None


if __name__ == "__main__":
    serve(int(sys.argv[1]))
