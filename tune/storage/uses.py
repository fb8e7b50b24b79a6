"""Notes of what an experiment uses, made before it is built: an interrupted search goes on from it.

<experiment>/uses/trials/<hash>.json      stages of a trial, until all trials have ended: the finished name theirs
<experiment>/uses/trainings/<hash>.json   stages of a finalist with a further seed, or of a retraining
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from tune.storage.folder import Storage
from tune.storage.signature import signature_of

Kind = Literal["trials", "trainings"]
_READERS = 16  # requests in flight against an object store


def uses_of(experiment: Storage, kind: Kind) -> Storage:
    """The folder with the notes of one kind."""
    return experiment.child("uses").child(kind)


def note_uses(notes: Storage, stages: Mapping[str, str]) -> None:
    """Notes the stages of one path, stage → signature. Raises OSError where the storage fails."""
    notes.write(f"{signature_of(stages)}.json", json.dumps({"stages": dict(stages)}).encode())


def noted_uses(experiment: Storage) -> list[Mapping[str, str]]:
    """The stages of every path that was noted. Raises ValueError, naming a torn note."""
    folders = [uses_of(experiment, "trials"), uses_of(experiment, "trainings")]
    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_read, [(folder, name) for folder in folders for name in folder.names()]))


def _read(file: tuple[Storage, str]) -> Mapping[str, str]:
    folder, name = file
    try:
        return {str(stage): str(signature) for stage, signature in json.loads(folder.read(name))["stages"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{folder.uri}/{name}: expected a note of what is used, found {error!r}") from error
