"""`python -m tune store`: what the store holds, who uses it, what nobody does, and all that keeps it in order."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack

from rich.table import Table

from tune.commands.units import time_text
from tune.monitor.console import Output
from tune.storage.care.exclusion import searches_kept_out
from tune.storage.care.pruning import removable, remove
from tune.storage.care.usage import PIN_OF, StoreEntry, store_entries, usage_of
from tune.storage.folder import Storage
from tune.storage.sizes import size_text

SIGNATURE = 12  # characters shown: enough to tell folders apart, and all fits 80 columns




def list_all(place: Storage) -> int:
    """Prints what is there, and who uses it."""
    usage = usage_of(place)
    entries = store_entries(place, usage)
    for problem in usage.problems:
        print(f"Caution: {problem}; what it uses is not known")
    _print_table(entries)
    print(f"In all {_sum(entries)}")
    unused = [entry for entry in entries if entry.unused]
    if unused:
        command = shlex.join(["python", "-m", "tune", "store", place.uri, "--prune"])
        print(f"No experiment uses {_sum(unused)}; to see which may go: {command}")
    return 0


def prune(place: Storage, older_than: float | None, max_size: int | None, yes: bool) -> int:
    """Shows what no experiment uses, older than so many seconds, down to so many bytes; removes it where `yes`."""
    with ExitStack() as locks:
        usage = locks.enter_context(searches_kept_out(place)) if yes else usage_of(place)
        if usage.problems:
            problem = usage.problems[0]
            raise ValueError(f"{problem}; what it uses is not known, so nothing is pruned (mend or remove that file)")
        entries = store_entries(place, usage)
        going = removable(entries, older_than, max_size, time.time())
        if yes:
            remove(place.child("store"), going)
    if going:
        _print_table(going)
        print(f"{'Removed' if yes else 'Would be removed with --yes'}: {_sum(going)}")
    else:
        print(f"Nothing to remove: {_why_none(entries, older_than, max_size)}")
    saves = [entry for entry in entries if entry.goes_by_age]
    if saves and older_than is None:
        print(f"Saves of interrupted trainings and the quarantine go by --older-than alone: {_sum(saves)}")
    if max_size is not None:
        _print_what_stays(entries, going, max_size)
    return 0


def _why_none(entries: Sequence[StoreEntry], older_than: float | None, max_size: int | None) -> str:
    size = sum(entry.size for entry in entries)
    if max_size is not None and size <= max_size:
        return f"the store takes {size_text(size)}, no more than {size_text(max_size)}"
    unused = [entry for entry in entries if entry.unused]
    if unused and older_than is not None:
        return f"what no experiment uses is younger than {time_text(older_than)}: {_sum(unused)}"
    return "every artifact is used by an experiment, or pinned"


def _print_what_stays(entries: Sequence[StoreEntry], going: Sequence[StoreEntry], max_size: int) -> None:
    """Says by whom a store is kept above its limit."""
    stays = [entry for entry in entries if entry not in going]
    size = sum(entry.size for entry in stays)
    if size <= max_size:
        return
    alone = defaultdict[str, int](int)
    for entry in stays:
        if len(entry.users) == 1:
            alone[entry.users[0]] += entry.size
    print(f"Stays above {size_text(max_size)}: {size_text(size)} are in use, younger than asked, or unfinished.")
    for name, own in sorted(alone.items(), key=lambda item: -item[1])[:5]:
        pinned = name.startswith(PIN_OF)
        print(f"  {size_text(own)} by {name} alone, and may go once that is {'undone' if pinned else 'deleted'}")


def _print_table(entries: Sequence[StoreEntry]) -> None:
    names = ("stage", "signature", "parts", "size", "age", "built in", "used by")
    table = Table(*names, box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in table.columns[:-1]:
        column.no_wrap = True
    for column in table.columns[2:6]:
        column.justify = "right"
    now = time.time()
    for row in entries:
        age = "–" if row.created is None else time_text(now - row.created)
        numbers = (str(len(row.folders)), size_text(row.size), age, "–" if row.goes_by_age else time_text(row.seconds))
        name = row.stage.removeprefix(".")
        table.add_row(name, row.signature[:SIGNATURE], *numbers, ", ".join(row.users) or "–")
    Output().print(table)


def _sum(entries: Sequence[StoreEntry]) -> str:
    size, seconds = sum(entry.size for entry in entries), sum(entry.seconds for entry in entries)
    folders = sum(len(entry.folders) for entry in entries)
    counted = f"{len(entries)} result{'s'[: len(entries) != 1]} in {folders} folder{'s'[: folders != 1]}"
    return f"{counted}, {size_text(size)}, {time_text(seconds)} of building"
