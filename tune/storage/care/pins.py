"""Pins: artifacts that a report or a shipped network came from, kept in the store though their experiment goes.

    <storage>/store/.pins/<name>.json    one pinned experiment, with the signatures of its chosen trial and its seeds
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

from tune.errors import Refused
from tune.storage.folder import Storage
from tune.storage.ledger import Ledger

PINS = ".pins"


@dataclass(frozen=True)
class Pin:
    """One pinned experiment.

    Attributes:
        name: of the experiment.
        experiment: its address; it may be gone.
        file: of the pin, in the folder `.pins`.
        signatures: of what its report came from.
    """

    name: str
    experiment: str
    file: str
    signatures: frozenset[str]


def pins_of(store: Storage) -> list[Pin]:
    """Every pin of a store. Raises ValueError, naming a torn one."""
    home, pins = store.child(PINS), []
    for file in home.names():
        try:
            pin = json.loads(home.read(file))
            signatures = frozenset(str(signature) for signature in list(pin["signatures"]))
            pins.append(Pin(str(pin["name"]), str(pin["experiment"]), file, signatures))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{home.uri}/{file}: expected a pin, found {error!r}") from error
    return pins


def pin(store: Storage, name: str, experiment: Storage) -> Pin:
    """Pins what an experiment's report came from: the stages of its chosen trial, and those of every retrained seed.

    Raises:
        Refused: nothing was chosen yet, or what was chosen cannot be read.
    """
    signatures = _chosen(experiment) | {
        signature for used in seed_stages(experiment).values() for signature in used.values()
    }
    file = f"{hashlib.sha256(experiment.uri.encode()).hexdigest()[:16]}.json"
    facts = {"name": name, "experiment": experiment.uri, "signatures": sorted(signatures)}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    store.child(PINS).write(file, json.dumps({**facts, "time": now}, indent=1).encode())
    return Pin(name, experiment.uri, file, frozenset(signatures))


def unpin(store: Storage, name: str) -> list[Pin]:
    """Removes the pins of an experiment, by its name or address. Raises Refused where it has none."""
    pins = pins_of(store)
    going = [pin for pin in pins if name in (pin.name, pin.experiment)]
    if not going:
        known = ", ".join(sorted({pin.name for pin in pins})) or "none at all"
        raise Refused(f"--unpin: expected a pinned experiment ({known}), found {name!r}")
    for pin in going:
        store.child(PINS).delete(pin.file)
    return going


def seed_stages(experiment: Storage) -> dict[str, Mapping[str, str]]:
    """The stages of each retrained seed, by file. Raises ValueError, naming a torn one."""
    folder, found = experiment.child("best").child("seeds"), dict[str, Mapping[str, str]]()
    for name in folder.names():
        if name.endswith(".json"):
            try:
                found[name] = dict(json.loads(folder.read(name))["stages"])
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{folder.uri}/{name}: expected the result of a seed, found {error!r}") from error
    return found


def _chosen(experiment: Storage) -> set[str]:
    where = f"{experiment.uri}/best/choice.json"
    try:
        trial = int(json.loads(experiment.read("best/choice.json"))["trial"])
    except FileNotFoundError:
        raise Refused(f"--pin: expected an experiment that has chosen its best trial, found no {where}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Refused(f"--pin: expected the choice of a trial in {where}, found {error!r}") from error
    outcome = Ledger(experiment).outcome(trial)
    if outcome is None:
        raise Refused(f"--pin: expected the outcome of trial {trial}, which {where} names, found none")
    return set(outcome.stages.values())
