"""The part of a store that may go: what no experiment uses and nobody has pinned."""

from __future__ import annotations

from collections.abc import Sequence

from tune.storage.care.usage import StoreEntry
from tune.storage.folder import Storage
from tune.storage.store import Store


def removable(
    entries: Sequence[StoreEntry], older_than: float | None, max_size: int | None, now: float
) -> list[StoreEntry]:
    """The entries that may go; with `max_size`, the oldest of them, until the others take no more than that.

    Args:
        entries: all of a store.
        older_than: only what was made more than so many seconds ago; unfinished trainings and the quarantine go
            by nothing else.
        max_size: bytes.
        now: seconds since 1970.
    """
    candidates = [entry for entry in entries if _may_go(entry, older_than, now)]
    if max_size is None:
        return candidates
    size, going = sum(entry.size for entry in entries), []
    for entry in sorted(candidates, key=lambda entry: entry.created or 0.0):
        if size <= max_size:
            break
        going.append(entry)
        size -= entry.size
    return [entry for entry in entries if entry in going]


def _may_go(entry: StoreEntry, older_than: float | None, now: float) -> bool:
    if entry.goes_by_age:  # an interrupted search would go on from a save; somebody may look into the quarantine
        return older_than is not None and entry.older_than(older_than, now)
    return not entry.users and entry.older_than(older_than or 0.0, now)


def remove(store: Storage, going: Sequence[StoreEntry]) -> None:
    """Removes entries from a store."""
    artifacts = Store(store)
    for entry in going:
        for folder in entry.folders:
            if entry.goes_by_age:
                store.child(entry.stage).child(folder).remove_tree()
            else:
                artifacts.remove(entry.stage, folder)
