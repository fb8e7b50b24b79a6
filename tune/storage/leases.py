"""Leases, by which at most one process builds an artifact; a lease ends when its process does.

There are two implementations. On a file system, the kernel's lock on a file: it is freed the moment its holder dies,
and there is no one to ask, so who waits looks again and again. In object stores, and on network file systems that are
mounted without locks, the cluster's coordinator: `tune.cluster.leases`.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from components.files import lock
from tune.storage.folder import Storage
from tune.storage.patience import patiently

SHORTEST, LONGEST = 0.25, 10.0  # seconds of a pause, before chance
TRIED = 16  # leases asked for at once: each is two requests to an NFS server
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # NFS without lockd, Lustre without flock, …


class Leases(Protocol):
    """Exclusive rights to build, by key."""

    def acquire(self, keys: Sequence[str]) -> str | None:
        """Takes one of the leases; returns None at once where other processes hold those that it tried."""
        ...

    def release(self, key: str) -> None:
        """Frees the lease."""
        ...

    def wait(self, keys: Sequence[str], waited: float) -> Collection[str]:
        """Waits until one of the leases may be free, and returns those that may be.

        Args:
            keys: that others held.
            waited: seconds for which the caller has waited for them already.
        """
        ...


class FileLeases:
    """Leases as `flock`s on files of one folder, which may be on NFS (version 4, where the server keeps the locks).

    Args:
        folder: of the files.
        sleep: waits for some seconds.
        patience: seconds for which a file server that does not answer is asked again.
    """

    def __init__(
        self, folder: Path, sleep: Callable[[float], None] = time.sleep, patience: float = 0.0
    ) -> None:
        self.folder, self._sleep, self.patience = folder, sleep, patience
        self._held: dict[str, int] = {}

    @patiently
    def work(self) -> bool:
        """False where the file system has no locks."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.folder / ".lockable", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(handle)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
        finally:
            os.close(handle)
        return True

    @patiently
    def acquire(self, keys: Sequence[str]) -> str | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        others = random.sample(keys[1:], min(len(keys), TRIED) - 1) if keys else []
        return next((key for key in [*keys[:1], *others] if self._acquire(key)), None)

    def release(self, key: str) -> None:
        # The file stays: were it removed, a third builder could lock a new one of its name beside a waiting second.
        with suppress(OSError):  # of a server that is gone; closed it is all the same
            os.close(self._held.pop(key))

    def wait(self, keys: Sequence[str], waited: float) -> Collection[str]:
        """A quarter of the time waited so far, so that many who wait for long seldom look; never all at one moment."""
        self._sleep(min(max(SHORTEST, waited / 4), LONGEST) * random.uniform(0.5, 1.5))
        return keys

    def _acquire(self, key: str) -> bool:
        handle = os.open(self.folder / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o666)  # as the umask says
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


def file_leases(store: Storage) -> FileLeases | None:
    """Leases by file locks in the folder of a store; None where it has none."""
    if store.local is None:
        return None
    leases = FileLeases(store.local / ".leases", patience=store.patience)
    return leases if leases.work() else None
