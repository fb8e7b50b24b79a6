"""The number of processor cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_cores(groups: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> int:
    """The cores of this machine, less those that the process's affinity or its container's CPU quota keep from it.

    A quota of one core and a half counts as one: two trials would hold each other up.

    Args:
        groups: where Linux mounts its control groups, of version 1 or 2.
        membership: the file that says which of them this process is in.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # macOS and Windows have none
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min([cores, *(int(quota + 1e-6) for quota in _quotas(groups, membership))]))


def _quotas(groups: Path, membership: Path) -> Iterator[float]:
    """The quota, in cores, of every control group around this process that has one."""
    lines = []
    with suppress(OSError):
        lines = membership.read_text().splitlines()
    for number, controllers, place in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if number == "0":  # version 2: one tree for all controllers
            mounts = [groups, groups / "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [groups / controllers, groups / "cpu"]
        else:
            continue
        for mount in mounts:
            # in a container the path is often the host's, and the mount's root is the group itself
            folder = mount / place.lstrip("/")
            for group in (folder, *folder.parents):
                if group.is_relative_to(mount):
                    yield from _quota(group)


def _quota(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = (group / "cpu.max").read_text().split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota_us, period_us = (int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
        if quota_us > 0:  # −1: none
            yield quota_us / period_us
