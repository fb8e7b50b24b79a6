"""`python -m tune store`: what the store holds, who uses it, what nobody does, and all that keeps it in order."""

from __future__ import annotations

import shlex
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Annotated, Any

from rich.console import Console
from rich.table import Table

from tune.commands import store_care
from tune.commands.units import age_of, size_of, time_text
from tune.storage.care.exclusion import searches_kept_out
from tune.storage.care.pruning import removable, remove
from tune.storage.care.usage import PIN_OF, StoreEntry, store_entries, usage_of
from tune.storage.folder import Storage
from tune.storage.sizes import size_text

SIGNATURE = 12  # characters shown: enough to tell folders apart, and all fits 80 columns


def store(
    storage: Annotated[str, "STORAGE"],
    *,
    prune: bool = False,
    older_than: Annotated[str | None, "AGE"] = None,
    max_size: Annotated[str | None, "SIZE"] = None,
    yes: bool = False,
    pin: Annotated[str | None, "EXPERIMENT"] = None,
    unpin: Annotated[str | None, "EXPERIMENT"] = None,
    verify: bool = False,
    why: Annotated[tuple[str, int] | None, "EXPERIMENT TRIAL"] = None,
    export: Annotated[str | None, "FILE.tar"] = None,
    used_by: Annotated[str | None, "EXPERIMENT"] = None,
    import_: Annotated[str | None, "FILE.tar"] = None,
) -> int:
    """Lists what searches built and share, with its users; with --prune removes what no experiment uses.

    One thing at a time: without a flag the list, else one of --prune, --pin, --unpin, --verify, --why, --export and
    --import. What no experiment uses and nobody pinned may be pruned; an experiment whose folder is gone uses nothing.

    Args:
        storage: folder or s3:// address with experiments and their store/.
        prune: show what no experiment uses; unfinished trainings and the quarantine only with --older-than.
        older_than: of these, only what was made longer ago: 30d, 12h, 2w; a bare number is days.
        max_size: of these, the oldest, until the store is no larger: 10GB, 500MB.
        yes: remove what --prune shows.
        pin: keep what this experiment's report came from (its chosen trial and every retrained seed), also when
            the experiment's folder is gone.
        unpin: undo that; by the experiment's name or address.
        verify: read every file and compare it with its manifest; what is wrong goes to store/.quarantine, where no
            search finds it, and is built again when it is needed. Status 1 where anything was.
        why: for each stage that this trial built, what differs from the nearest artifact that was there before.
        export: copy artifacts to a new tar file, for another storage.
        used_by: export only what this experiment uses, or has pinned.
        import_: check a whole tar file, and copy what this store has not. As with code, import from whom you trust:
            hashes prove that it came as it was sent.

    Examples:
        python -m tune store results
        python -m tune store results --prune --older-than 30d --max-size 10GB
        python -m tune store results --verify
        python -m tune store results --why quickstart 7
        python -m tune store results --export mnist.tar --used-by mnist
        python -m tune store s3://bucket/searches --import mnist.tar

    Raises:
        ValueError: no store there, flags that do not go together, uses that cannot be told, a file that is no export,
            or a search that is running in this storage, which may use anything.
    """
    place = Storage(storage)
    things: dict[str, tuple[Any, Callable[[Any], int]]] = {
        "--prune": (prune, lambda _: _prune(place, age, size, yes)),
        "--pin": (pin, partial(store_care.pin_experiment, place)),
        "--unpin": (unpin, partial(store_care.unpin_experiment, place)),
        "--verify": (verify, lambda _: store_care.verify(place)),
        "--why": (why, lambda words: store_care.explain(place, *words)),
        "--export": (export, lambda file: store_care.export_from(place, file, used_by)),
        "--import": (import_, partial(store_care.import_into, place)),
    }
    chosen = [flag for flag, (value, _) in things.items() if value]
    _check_together(chosen, older_than, max_size, yes, used_by)
    age = None if older_than is None else age_of(older_than, "--older-than")
    size = None if max_size is None else size_of(max_size, "--max-size")
    if chosen != ["--import"] and "store" not in place.folders():  # an import may begin a storage
        raise ValueError(f"{place.uri}: expected a storage with a folder store/, found none")
    if not chosen:
        return _list(place)
    value, act = things[chosen[0]]
    return act(value)


def _check_together(
    chosen: Sequence[str], older_than: str | None, max_size: str | None, yes: bool, used_by: str | None
) -> None:
    if len(chosen) > 1:
        raise ValueError(f"{chosen[1]}: expected without {chosen[0]}, found both")
    needs = {"--yes": yes or None, "--older-than": older_than, "--max-size": max_size}
    for flag, value in needs.items():
        if value is not None and chosen != ["--prune"]:
            raise ValueError(f"{flag}: expected together with --prune, found {chosen[0] if chosen else 'alone'}")
    if used_by is not None and chosen != ["--export"]:
        raise ValueError(f"--used-by: expected together with --export, found {chosen[0] if chosen else 'alone'}")


def _list(place: Storage) -> int:
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


def _prune(place: Storage, older_than: float | None, max_size: int | None, yes: bool) -> int:
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
    Console().print(table)


def _sum(entries: Sequence[StoreEntry]) -> str:
    size, seconds = sum(entry.size for entry in entries), sum(entry.seconds for entry in entries)
    folders = sum(len(entry.folders) for entry in entries)
    counted = f"{len(entries)} result{'s'[: len(entries) != 1]} in {folders} folder{'s'[: folders != 1]}"
    return f"{counted}, {size_text(size)}, {time_text(seconds)} of building"
