"""The contents of a storage's store, and the experiments that use them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.signature import whole_signature
from tune.storage.store import UNFINISHED, Store

DAY = 86_400.0  # seconds


@dataclass
class StoreEntry:
    """One entry of the store: an artifact, all parts of one, or the saved state of an unfinished training.

    Attributes:
        stage: its stage; `unfinished` for a save.
        signature: without the number of the part.
        folders: the names of its folders, one for each part.
        size: bytes; None where that cannot be told.
        created: when the youngest part was made, seconds since 1970; None where that cannot be told.
        seconds: what it took to build.
        users: the experiments that use it.
    """

    stage: str
    signature: str
    folders: list[str] = field(default_factory=list)
    size: int | None = 0
    created: float | None = None
    seconds: float = 0.0
    users: Sequence[str] = ()

    @property
    def is_save(self) -> bool:
        """True where it is the saved state of an unfinished training."""
        return self.stage == UNFINISHED

    def older_than(self, days: float, now: float) -> bool:
        """True where it is known to be that old."""
        return days <= 0 or (self.created is not None and now - self.created > days * DAY)


@dataclass(frozen=True)
class StoreUsage:
    """The experiments that use each signature.

    Attributes:
        experiments: all of them: those in the storage, and those elsewhere that are noted in its store.
        users: signature → experiments.
        problems: files that could not be read, so that what they use is not known.
    """

    experiments: Sequence[Storage]
    users: Mapping[str, Sequence[str]]
    problems: Sequence[str]


def store_entries(storage: Storage, usage: StoreUsage) -> list[StoreEntry]:
    """Everything in the store of a storage, by stage and signature."""
    entries: dict[tuple[str, str], StoreEntry] = {}
    artifacts = Store(storage.child("store"))
    for manifest in artifacts.artifacts():
        stage, folder = str(manifest["stage"]), str(manifest["signature"])
        signature = folder if folder in usage.users else whole_signature(folder)
        entry = entries.setdefault((stage, signature), StoreEntry(stage, signature))
        entry.folders.append(folder)
        entry.size = (entry.size or 0) + int(manifest.get("bytes", 0))
        entry.seconds += float(manifest.get("seconds", 0.0))
        entry.created = max(entry.created or 0.0, _time(manifest.get("created"))) or None
        entry.users = usage.users.get(signature, ())
    saves = [_save(artifacts, folder) for folder in artifacts.storage.child(UNFINISHED).folders()]
    return [*(entries[key] for key in sorted(entries)), *saves]


def usage_of(storage: Storage) -> StoreUsage:
    """Signatures used by the trials and retrained seeds of every experiment that shares the storage's store."""
    users: dict[str, dict[str, None]] = {}
    problems: list[str] = []
    names = [name for name in storage.folders() if name != "store" and _is_experiment(storage.child(name))]
    experiments = {name: storage.child(name) for name in names}
    experiments |= _elsewhere(storage, experiments.values(), problems)
    for name, experiment in experiments.items():
        ledger = Ledger(experiment)
        stages = [outcome.stages for outcome in ledger.outcomes()]
        problems += ledger.problems
        for used in (*stages, *_seeds(experiment, problems)):
            for signature in used.values():
                users.setdefault(signature, {})[name] = None
    by_signature = {signature: list(names) for signature, names in users.items()}
    return StoreUsage(list(experiments.values()), by_signature, problems)


def _elsewhere(storage: Storage, known: Iterable[Storage], problems: list[str]) -> dict[str, Storage]:
    """Experiments of other storages with the same store, by address. One that is not to be found is a problem."""
    found: dict[str, Storage] = {}
    places = {_place(experiment) for experiment in known}
    try:
        for note, experiment in Store(storage.child("store")).users():
            gone = _is_below(experiment, storage)  # one of this storage that was deleted
            if _place(experiment) in places or (gone and not _is_experiment(experiment)):
                continue
            if _is_experiment(experiment):
                found[experiment.uri] = experiment
            else:
                problems.append(f"{note}: expected an experiment in {experiment.uri}, found none")
    except (OSError, ValueError) as error:
        problems.append(str(error))
    return found


def _is_below(experiment: Storage, storage: Storage) -> bool:
    return _place(experiment).rpartition("/")[0] == _place(storage)


def _place(folder: Storage) -> str:
    """The same for all paths to one folder."""
    return os.path.realpath(folder.local) if folder.local is not None else folder.uri


def _is_experiment(folder: Storage) -> bool:
    return folder.exists("space.yaml") or "trials" in folder.folders()


def _seeds(experiment: Storage, problems: list[str]) -> list[Mapping[str, str]]:
    """The stages of each retrained seed."""
    folder = experiment.child("best").child("seeds")
    found: list[Mapping[str, str]] = []
    for name in folder.names():
        if name.endswith(".json"):
            try:
                found.append(dict(json.loads(folder.read(name))["stages"]))
            except (KeyError, TypeError, ValueError) as error:
                problems.append(f"{folder.uri}/{name}: expected the result of a seed, found {error!r}")
    return found


def _save(artifacts: Store, folder: str) -> StoreEntry:
    place = artifacts.unfinished(folder)
    if place.local is None:
        return StoreEntry(UNFINISHED, folder, [folder], None)
    files = [path.stat() for path in place.local.iterdir()]
    created = max((file.st_mtime for file in files), default=None)
    return StoreEntry(UNFINISHED, folder, [folder], sum(file.st_size for file in files), created)


def _time(created: object) -> float:
    try:
        return datetime.strptime(str(created), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
