"""The contents of a storage's store, and the experiments that use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from components.config import nearest
from tune.errors import Refused
from tune.storage.care.pins import pins_of, seed_stages
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger
from tune.storage.signature import signature_in
from tune.storage.store import QUARANTINE, UNFINISHED, Store
from tune.storage.uses import noted_uses

PIN_OF = "pin of "  # before the name of an experiment, among those that use something


@dataclass
class StoreEntry:
    """One entry of the store: an artifact with all its parts, a save of an unfinished training, or what is quarantined.

    Attributes:
        stage: its stage; `.unfinished` for a save, `.quarantine` for what is there.
        signature: without the number of the part.
        folders: the names of its folders, one for each part.
        size: bytes.
        created: when the youngest part was made, seconds since 1970; None where that cannot be told.
        seconds: what it took to build.
        users: the experiments that use it.
    """

    stage: str
    signature: str
    folders: list[str] = field(default_factory=list)
    size: int = 0
    created: float | None = None
    seconds: float = 0.0
    users: Sequence[str] = ()

    @property
    def goes_by_age(self) -> bool:
        """True where no experiment can name it: a save, or what is quarantined."""
        return self.stage in (UNFINISHED, QUARANTINE)

    @property
    def unused(self) -> bool:
        """True for an artifact that no experiment uses and no pin holds."""
        return not self.users and not self.goes_by_age

    def older_than(self, seconds: float, now: float) -> bool:
        """True where it is known to be that old."""
        return seconds <= 0 or (self.created is not None and now - self.created > seconds)


@dataclass(frozen=True)
class StoreUsage:
    """The experiments that use each signature.

    Attributes:
        experiments: all of them: those in the storage, and those elsewhere that are noted in its store.
        users: signature → experiments and pins.
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
        signature = signature_in(folder, usage.users)
        entry = entries.setdefault((stage, signature), StoreEntry(stage, signature))
        entry.folders.append(folder)
        entry.size += int(manifest.get("bytes", 0))
        entry.seconds += float(manifest.get("seconds", 0.0))
        entry.created = max(entry.created or 0.0, _time(manifest.get("created"))) or None
        entry.users = usage.users.get(signature, ())
    others = [_by_age(artifacts, stage) for stage in (UNFINISHED, QUARANTINE)]
    return [*(entries[key] for key in sorted(entries)), *others[0], *others[1]]


def usage_of(storage: Storage) -> StoreUsage:
    """Signatures that are pinned, or used by the experiments that share the storage's store.

    Those are the stages of finished trials and measured seeds, and of all that was begun and may be gone on with.
    """
    users: dict[str, dict[str, None]] = {}
    problems: list[str] = []
    experiments = experiments_in(storage)
    experiments |= _elsewhere(storage, experiments.values(), problems)
    for name, experiment in experiments.items():
        ledger = Ledger(experiment)
        stages: list[Mapping[str, str]] = [outcome.stages for outcome in ledger.outcomes()]
        problems += ledger.problems
        for others in (noted_uses, lambda home: seed_stages(home).values()):
            try:
                stages += others(experiment)
            except ValueError as error:
                problems.append(str(error))
        for used in stages:
            for signature in used.values():
                users.setdefault(signature, {})[name] = None
    try:
        for pin in pins_of(storage.child("store")):
            for signature in pin.signatures:
                users.setdefault(signature, {})[f"{PIN_OF}{pin.name}"] = None
    except ValueError as error:
        problems.append(str(error))
    by_signature = {signature: list(names) for signature, names in users.items()}
    return StoreUsage(list(experiments.values()), by_signature, problems)


def experiments_in(storage: Storage) -> dict[str, Storage]:
    """The experiments in a storage, by name."""
    folders = {name: storage.child(name) for name in storage.folders() if name != "store"}
    return {name: folder for name, folder in folders.items() if _is_experiment(folder)}


def experiment_in(storage: Storage, name: str, flag: str) -> tuple[str, Storage]:
    """One experiment of a storage, by name or address. Raises Refused, naming the flag that asks for it."""
    known = experiments_in(storage)
    for other, experiment in known.items():
        if name == other or ("/" in name and Storage(name).place == experiment.place):
            return other, experiment
    names = ", ".join([*list(known)[:8], *(["…"] if len(known) > 8 else [])]) or "it has none"
    raise Refused(f"{flag}: expected an experiment in {storage.uri} ({names}), found {name!r}{nearest(name, known)}")


def _elsewhere(storage: Storage, known: Iterable[Storage], problems: list[str]) -> dict[str, Storage]:
    """Experiments of other storages with the same store, by address. One that is not to be found is a problem."""
    found: dict[str, Storage] = {}
    places = {experiment.place for experiment in known}
    store = Store(storage.child("store"))
    try:
        users = list(store.users())
        named = {user.experiment.place for user in users if not user.resumed}  # by the address that they have now
        for user in users:
            experiment = user.experiment
            if not _is_experiment(experiment):
                if user.beside or experiment.parent.place == storage.place:
                    continue  # it was deleted
                # moved together with the store, and noted when those beside it were not noted by name
                experiment = store.home.child(experiment.name)
                if experiment.place in named or not _is_experiment(experiment):
                    problems.append(f"{user.note}: expected an experiment in {user.experiment.uri}, found none")
                    continue
            if experiment.place not in places:
                found[experiment.uri] = experiment
    except (OSError, ValueError) as error:
        problems.append(str(error))
    return found


def _is_experiment(folder: Storage) -> bool:
    return folder.exists("space.yaml") or "trials" in folder.folders()


def _by_age(artifacts: Store, stage: str) -> list[StoreEntry]:
    home, found = artifacts.storage.child(stage), []
    for folder in home.folders():
        size, changed = home.child(folder).size_and_age()
        found.append(StoreEntry(stage, folder, [folder], size, changed))
    return found


def _time(created: object) -> float:
    try:
        return datetime.fromisoformat(str(created)).timestamp()
    except ValueError:
        return 0.0
