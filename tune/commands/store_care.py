"""The parts of `python -m tune store` that look after it: verify, why, pins, export and import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from components.files import expanded
from tune.commands.units import Ticker, time_text
from tune.errors import FAILED, Refused
from tune.storage.care import pins, tar_export, tar_import
from tune.storage.care.exclusion import searches_kept_out
from tune.storage.care.reasons import Reason, reasons
from tune.storage.care.usage import PIN_OF, StoreUsage, experiment_in, usage_of
from tune.storage.care.verification import Checked, artifact_folders, quarantined, verified
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.mounts import free_bytes
from tune.storage.signature import signature_in
from tune.storage.sizes import size_text
from tune.storage.store import MANIFEST, QUARANTINE, Store
from tune.storage.targets import file_to_write


@contextmanager
def _telling(words: str) -> Iterator[Callable[[int, int], None]]:
    """Progress of `words` as a percentage, on stderr."""
    ticker = Ticker()
    try:
        yield lambda done, whole: ticker(f"{words}: {100 * done // max(whole, 1)} % ({done} of {whole})")
    finally:
        ticker.end()


def verify(place: Storage) -> int:
    """Checks every file, moves what is damaged to the quarantine, and says who used it."""
    usage, artifacts = usage_of(place), place.child("store")
    damaged, whole, read = list[Checked](), 0, 0
    ticker = Ticker()
    for one in verified(artifacts, lambda done, of, size: ticker(f"verifying: {done} of {of}, {size_text(size)}")):
        read += one.size
        whole += one.damage is None
        if one.damage is not None:
            ticker.end()
            damaged.append(one)
            print(f"{one.stage}/{one.folder}/{one.damage}; used by {_users(usage, one.folder)}", flush=True)
    ticker.end()
    print(f"Whole: {whole} of {whole + len(damaged)} folders, {size_text(read)}")
    if not damaged:
        return 0
    try:
        with searches_kept_out(place) as usage:
            moved = quarantined(artifacts, damaged, usage.users)
    except Refused as error:
        print(f"Nothing was moved, as a search may be making these at this moment: {error}", file=sys.stderr)
        return FAILED
    print(f"Moved to {artifacts.child(QUARANTINE).uri}: {len(moved)}; a search that needs them builds them again")
    if len(moved) < len(damaged):
        print(f"Left in place: {len(damaged) - len(moved)}, whole by now or behind a link that leads out of the store")
    return FAILED


def _users(usage: StoreUsage, folder: str) -> str:
    names = usage.users.get(signature_in(folder, usage.users), ())
    return ", ".join(names) or "no experiment"


def explain(place: Storage, name: str, trial: int) -> int:
    """Says for each stage of a trial why it was built."""
    name, experiment = experiment_in(place, name, "--why")
    ledger = Ledger(experiment)
    outcome = ledger.outcome(trial) if trial >= 0 else None
    if outcome is None:
        known = [one.trial for one in ledger.outcomes()]
        expected = f"a trial that ended, one of {min(known)} … {max(known)}," if known else "a trial that ended"
        damage = next((f"; {problem}" for problem in ledger.problems if f"/{trial:03d}.json" in problem), "")
        raise Refused(f"--why: expected {expected} in {experiment.uri}, found {trial}{damage}")
    print(f"Trial {trial} of {name}")
    for reason in reasons(Store(place.child("store")), outcome):
        _print_reason(reason)
    if not outcome.stages:
        reached = f"in {list(outcome.work)[-1]}" if outcome.work else "before a stage was begun"
        print(f"  no signatures are known: it {'failed' if outcome.status == 'failed' else 'was stopped'} {reached}")
    return 0


def _print_reason(reason: Reason) -> None:
    if reason.built == 0:
        print(f"  {reason.stage:18}{reason.signature[:12]}  found in the store")
        return
    done = "perhaps built"
    if reason.built is not None:
        parts = reason.built + reason.reused
        took = f"{reason.seconds:.1f} s" if reason.seconds < 10 else time_text(reason.seconds)
        done = f"built{f' {reason.built} of {parts} parts' if parts > 1 else ''} in {took}"
    print(f"  {reason.stage:18}{reason.signature[:12]}  {done}")
    if reason.note:
        print(f"    {reason.note}")
    if reason.nearest is not None:
        print(f"    nearest before: {reason.nearest[:12]}; it differs in")
        for one in reason.differences:
            owner = "" if one.stage == reason.stage else f"{one.stage}: "
            print(f"      {owner}{one.key}  {one.stored} → {one.wanted}")


def pin_experiment(place: Storage, name: str) -> int:
    """Pins what an experiment's report came from."""
    name, experiment = experiment_in(place, name, "--pin")
    artifacts = place.child("store")
    made = pins.pin(artifacts, name, experiment)
    there = {signature_in(folder, made.signatures) for _, folder in artifact_folders(artifacts)}
    gone = sorted(made.signatures - there)
    print(f"Pinned {len(made.signatures)} results that the report of {name} came from; to undo: --unpin {name}")
    if gone:
        print(f"Caution: {len(gone)} of them are in the store no more: {', '.join(one[:12] for one in gone)}")
    return 0


def unpin_experiment(place: Storage, name: str) -> int:
    """Removes the pins of an experiment."""
    for gone in pins.unpin(place.child("store"), name):
        print(f"Unpinned {len(gone.signatures)} results of {gone.name} ({gone.experiment})")
    return 0


def export_from(place: Storage, file: str, used_by: str | None) -> int:
    """Writes artifacts to a tar."""
    artifacts, target = place.child("store"), file_to_write(file, "--export")
    names = artifact_folders(artifacts)
    if used_by is not None:
        usage = usage_of(place)
        known = {user for users in usage.users.values() for user in users}
        name = used_by if used_by in known else experiment_in(place, used_by, "--used-by")[0]
        wanted = {signature for signature, users in usage.users.items() if {name, f"{PIN_OF}{name}"} & set(users)}
        names = [one for one in names if signature_in(one[1], wanted) in wanted]
    names = [one for one in names if artifacts.child(one[0]).child(one[1]).exists(MANIFEST)]
    if not names:
        raise Refused(f"--export: expected artifacts to export, found none in {artifacts.uri}")
    with _telling("exporting") as tell:
        left_out = tar_export.export(artifacts, names, target, tell)
    print(f"{target}: {len(names) - len(left_out)} folders, {size_text(target.stat().st_size)}")
    for line in left_out:
        print(f"Left out: {line}", file=sys.stderr)
    return FAILED if left_out else 0


def import_into(place: Storage, file: str) -> int:
    """Checks a tar and copies what the store has not."""
    artifacts = place.child("store")
    with _telling("checking") as tell, tar_import.opened(expanded(file), tell) as contents:
        packed = contents.artifacts
        new = [one for one in packed if not artifacts.child(one.stage).child(one.folder).exists(MANIFEST)]
        _check_room(artifacts, new)
        with _telling("importing") as tell:
            busy = tar_import.put(artifacts, new, contents, tell)
    print(f"{artifacts.uri}: {len(new) - len(busy)} folders are new, {len(packed) - len(new)} were there already")
    if busy:
        names = ", ".join(f"{one.stage}/{one.folder}" for one in busy)
        print(f"Left out, as a search builds them at this moment: {names}", file=sys.stderr)
    return 0


def _check_room(artifacts: Storage, new: Sequence[tar_import.Packed]) -> None:
    """Raises Refused where a disk has no room for artifacts; an object store always has."""
    needed, free = sum(member.size for one in new for member in one.files.values()), free_bytes(artifacts)
    if free is not None and free < needed:
        expected = f"expected {size_text(needed)} of free disk for what is new"
        raise Refused(f"--import: {expected}, found {size_text(free)} in {artifacts.uri}")
