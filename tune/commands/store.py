"""`python -m tune store`: what the store holds, who uses it, and what nobody does."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Annotated

from rich.console import Console
from rich.table import Table

from tune.storage.folder import Storage
from tune.storage.lock import ExperimentLock, LockedError
from tune.storage.store import Store
from tune.storage.usage import DAY, StoreEntry, StoreUsage, store_entries, usage_of

SIGNATURE = 12  # characters shown: enough to tell folders apart, and all fits 80 columns


def store(
    storage: Annotated[str, "STORAGE"],
    *,
    prune: bool = False,
    older_than: Annotated[float | None, "DAYS"] = None,
    yes: bool = False,
) -> int:
    """Lists what searches built and share, with its users; with --prune removes what no experiment uses.

    Args:
        storage: folder or s3:// address with experiments and their store/.
        prune: show what no experiment uses; unfinished trainings only with --older-than.
        older_than: of these, only what was made more than so many days ago.
        yes: remove what --prune shows.

    Examples:
        python -m tune store results
        python -m tune store results --prune --older-than 7 --yes

    Raises:
        ValueError: no store there, flags that do not go together, uses that cannot be told, or a search that is
            running in this storage, which may use anything.
    """
    if (yes or older_than is not None) and not prune:
        raise ValueError(f"--{'yes' if yes else 'older-than'}: expected together with --prune, found alone")
    if older_than is not None and older_than < 0:
        raise ValueError(f"--older-than: expected a number of days ≥ 0, found {older_than:g}")
    place = Storage(storage)
    if "store" not in place.folders():
        raise ValueError(f"{place.uri}: expected a storage with a folder store/, found none")
    if prune:
        _prune(place, older_than, yes)
    else:
        _list(place)
    return 0


def _list(place: Storage) -> None:
    usage = usage_of(place)
    entries = store_entries(place, usage)
    _print_problems(usage)
    _print_table(entries)
    unused = [entry for entry in entries if not entry.users and not entry.is_save]
    if unused:
        command = shlex.join(["python", "-m", "tune", "store", place.uri, "--prune"])
        print(f"No experiment uses {_sum(unused)}; to see which may go: {command}")


def _prune(place: Storage, older_than: float | None, yes: bool) -> None:
    with ExitStack() as locks:
        if yes:
            _keep_searches_out(place, locks)
        usage = usage_of(place)
        if usage.problems:
            problem = usage.problems[0]
            raise ValueError(f"{problem}; what it uses is not known, so nothing is pruned (mend or remove that file)")
        going = [entry for entry in store_entries(place, usage) if _may_go(entry, older_than, time.time())]
        if yes:
            _remove(place, going)
    _print_table(going)
    done = "Removed" if yes else "Would be removed with --yes"
    print(f"{done}: {_sum(going)}")


def _keep_searches_out(place: Storage, locks: ExitStack) -> None:
    """A search that runs, or is resumed meanwhile, may use what no outcome names yet."""
    try:
        for experiment in usage_of(place).experiments:
            locks.enter_context(ExperimentLock(experiment))
    except LockedError as error:
        raise ValueError(str(error)) from error


def _may_go(entry: StoreEntry, older_than: float | None, now: float) -> bool:
    if entry.is_save:  # an interrupted search would go on from it
        return older_than is not None and entry.older_than(older_than, now)
    return not entry.users and entry.older_than(older_than or 0.0, now)


def _remove(place: Storage, going: Sequence[StoreEntry]) -> None:
    artifacts = Store(place.child("store"))
    for entry in going:
        for folder in entry.folders:
            if entry.is_save:
                artifacts.unfinished(folder).remove_tree()
            else:
                artifacts.remove(entry.stage, folder)


def _print_problems(usage: StoreUsage) -> None:
    for problem in usage.problems:
        print(f"Caution: {problem}; what it uses is not known")


def _print_table(entries: Sequence[StoreEntry]) -> None:
    names = ("stage", "signature", "parts", "size", "age", "built in", "used by")
    table = Table(*names, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for column in table.columns[2:6]:
        column.justify = "right"
    now = time.time()
    for row in entries:
        age = "–" if row.created is None else duration(now - row.created)
        numbers = (str(len(row.folders)), bytes_text(row.size), age, "–" if row.is_save else duration(row.seconds))
        name = row.stage.removeprefix(".")
        table.add_row(name, row.signature[:SIGNATURE], *numbers, ", ".join(row.users) or "–")
    Console().print(table)
    print(f"In all {_sum(entries)}")


def _sum(entries: Sequence[StoreEntry]) -> str:
    size, seconds = sum(entry.size or 0 for entry in entries), sum(entry.seconds for entry in entries)
    folders = sum(len(entry.folders) for entry in entries)
    return f"{len(entries)} results in {folders} folders, {bytes_text(size)}, {duration(seconds)} of building"


def bytes_text(size: int | None) -> str:
    """`12.3 MB`; a dash where it is not known."""
    if size is None:
        return "–"
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 1000 and len(units) > 1:
        amount, units = amount / 1000, units[1:]
    return f"{amount:.0f} B" if units[0] == "B" else f"{amount:.1f} {units[0]}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`, `12 days`."""
    for size, unit in ((DAY, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size or (unit != "days" and seconds >= size):
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} h"
    return f"{max(0.0, seconds):.0f} s"
