"""Several Ray nodes on one machine: a head that runs no trial, and workers of one core each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.files import write_atomic

ROOT = Path(__file__).parents[2]
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
        temporary: the folder of each worker's temporary files, as if it were a machine of its own.
    """

    def __init__(self, workers: int, folder: Path) -> None:
        # Files rather than pipes: Ray's processes would keep a pipe open after the one that started them.
        told, said = folder / "raylets.json", folder / "raylets.log"
        with said.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.raylets", str(workers), str(told)],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        while not told.exists():
            if self._process.poll() is not None:
                raise RuntimeError(f"expected Ray nodes, found none: {said.read_text()[-3000:]}")
            time.sleep(0.1)
        found = json.loads(told.read_text())
        self.address: str = found["address"]
        self.workers: list[int] = found["workers"]
        self.temporary = [_temporary(told, number) for number in range(workers)]

    def kill(self, pid: int) -> None:
        """SIGKILL to the raylet of process `pid` and to all that it started, as when its machine is gone.

        Workers end with their raylet by themselves, but not where something else than process 1 adopts them.
        """
        while pid not in self.workers:
            pid = parent(pid)
        for gone in (pid, *children(pid)):
            os.kill(gone, signal.SIGKILL)

    def shutdown(self) -> None:
        """Ends them all."""
        self._process.communicate(timeout=100)  # it closes what the other waits for


@contextmanager
def raylets(workers: int) -> Iterator[Raylets]:
    """The nodes, for the length of the block."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = Raylets(workers, Path(folder))
        try:
            yield nodes
        finally:
            nodes.shutdown()


def serve(workers: int, told: Path) -> None:
    """Starts the nodes, writes to `told` where they are, and ends them when the caller says so or is gone."""
    from ray.cluster_utils import Cluster

    from tune.cluster.connection import _with_patience

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE, "_system_config": SOON}
    with _with_patience():
        cluster = Cluster(initialize_head=True, head_node_args=head)
        nodes = []
        for number in range(workers):
            (place := _temporary(told, number)).mkdir()
            nodes.append(cluster.add_node(num_cpus=1, object_store_memory=STORE, env_vars={"TMPDIR": str(place)}))
    cluster.wait_for_nodes()
    pids = [node.all_processes["raylet"][0].process.pid for node in nodes]
    write_atomic(told, json.dumps({"address": cluster.address, "workers": pids}).encode())
    sys.stdin.read()
    cluster.shutdown()


def _temporary(told: Path, worker: int) -> Path:
    return told.with_name(f"worker-{worker}")


def parent(pid: int) -> int:
    """The process that started `pid`. Raises ProcessLookupError above the first one."""
    status = Path(f"/proc/{pid}/status")
    if pid < 2 or not status.exists():
        raise ProcessLookupError(pid)
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("PPid"))


def children(pid: int) -> list[int]:
    """The processes that `pid` started."""
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for threads in listed for child in threads.read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay listed until its parent asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


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
    serve(int(sys.argv[1]), Path(sys.argv[2]))
