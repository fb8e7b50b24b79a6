"""Searches and what removes from their store keep out of each other's way.

Each first says that it is there, and then looks for the other. A search holds its experiment and notes it in the store,
then waits while the store's lock is held; what removes from the store takes that lock, then every experiment. So
whichever comes second sees the first, and no lock is needed that several searches would share: object stores have none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tune.errors import Refused
from tune.storage.care.usage import StoreUsage, usage_of
from tune.storage.folder import Storage
from tune.storage.lock import ExperimentLock, LockedError

LOOK = 1.0  # seconds between two looks at the lock of the store


class StoreLock(ExperimentLock):
    """Held in the folder `store/` by whatever removes from it; ends with its process as that of a driver does."""

    file = ".care.lock"
    holders = "command that removes from this store"


@contextmanager
def searches_kept_out(place: Storage) -> Iterator[StoreUsage]:
    """Holds the store and every experiment that uses it: a search may use what no outcome names yet.

    Args:
        place: the storage.

    Yields:
        The uses of the store, as they stay within the block.

    Raises:
        Refused: a search runs, or another command that removes from the store.
    """
    with ExitStack() as locks:
        try:
            locks.enter_context(StoreLock(place.child("store")))
            for experiment in usage_of(place).experiments:
                locks.enter_context(ExperimentLock(experiment))
        except LockedError as error:
            raise Refused(str(error)) from error
        yield usage_of(place)


def wait_for_removals(store: Storage, tell: Callable[[str], None]) -> None:
    """Waits until nothing is removed from a store any more, for a search that can be found as one that uses it.

    Args:
        store: the folder `store/` of a storage.
        tell: is told once what is waited for.
    """
    lock, told = StoreLock(store), False
    while holder := lock.holder():
        if not told:
            tell(f"waiting until process {holder.pid} on {holder.host} has removed from {store.uri} what nobody uses")
        told = True
        time.sleep(LOOK)
