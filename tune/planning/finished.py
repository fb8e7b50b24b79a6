"""The note of a search that has nothing left to do, by which its next start knows so without torch or Ray.

It holds two digests: of all that the search was asked with, and of the names, sizes and times of the experiment's
files. Where either differs the search goes the long way, which finds out what is to be done.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from tune.planning.experiment import Experiment

FILE = "finished.json"
_ROOT = Path(__file__).parents[2]
_EMBEDDED = ("mnist_mini",)  # data that come with the code; others may have changed since
_OTHERS = (FILE, "driver.lock")  # files of the experiment that tell nothing of it


def note_finished(experiment: Experiment, *options: object) -> None:
    """Notes that a search is finished, where that can be known again; `options` are those of the command line."""
    if (facts := _facts(experiment, options)) is not None:
        experiment.home.write(FILE, f"{json.dumps(facts, indent=2)}\n".encode())


def is_finished(experiment: Experiment, *options: object) -> bool:
    """True where nothing has changed since a search with these options was finished. Raises OSError as the storage."""
    if not experiment.resumed or not experiment.home.exists(FILE):
        return False
    try:
        noted = json.loads(experiment.home.read(FILE))
    except ValueError:
        return False
    return bool(noted == _facts(experiment, options))


def _facts(experiment: Experiment, options: tuple[object, ...]) -> dict[str, str] | None:
    """The digests; None where something outside experiment and code has a part in the search."""
    home, given = experiment.home.local, experiment.user_code
    if home is None or given.plugin or given.classifier is not None or given.weights:
        return None
    if experiment.space.fixed["data.name"] not in _EMBEDDED:
        return None
    from tune.storage.record import installed

    asked = [str(home), experiment.space.to_yaml(), repr(options), platform.python_version(), repr(installed())]
    code = [line for name in ("components", "tune") for line in _listed(_ROOT / name, "*.py", "*.j2")]
    return {"asked": _digest([*asked, *code]), "files": _digest(_listed(home, "*"))}


def _listed(folder: Path, *patterns: str) -> Iterator[str]:
    """Name, size and time of every file below `folder`."""
    for path in sorted(path for pattern in patterns for path in folder.rglob(pattern)):
        if path.name not in _OTHERS and path.is_file():
            facts = os.stat(path)
            yield f"{path} {facts.st_size} {facts.st_mtime_ns}"


def _digest(lines: Iterator[str] | list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
