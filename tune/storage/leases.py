"""Leases, by which at most one process builds an artifact; a lease ends when its process does.

There are two implementations. On a file system, the kernel's lock on a file: it is freed the moment its
holder dies, without heartbeats. In object stores, which have no locks, a Ray actor that expects heartbeats:
`tune.cluster.lease_actor`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from components.files import lock


class Leases(Protocol):
    """Exclusive rights to build, by key."""

    def acquire(self, key: str) -> bool:
        """Takes the lease; returns False at once where another process holds it."""
        ...

    def release(self, key: str) -> None:
        """Frees the lease."""
        ...


class FileLeases:
    """Leases as `flock`s on files of one folder, which may be on NFS (version 4, where the server keeps the locks)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, int] = {}

    def acquire(self, key: str) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            free = lock(handle)
        except OSError:
            os.close(handle)
            raise
        if not free:
            os.close(handle)
            return False
        self._held[key] = handle
        return True

    def release(self, key: str) -> None:
        # The file stays: were it removed, a third builder could lock a new one of its name beside a waiting second.
        os.close(self._held.pop(key))
