"""The record of a search: what it ran with, to run it again and to see why another run differs."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune.storage.folder import Storage

if TYPE_CHECKING:
    from components.datasets.dataset import Dataset

log = logging.getLogger(__name__)

PACKAGES = ("torch", "torchvision", "ray", "optuna", "tensorboard", "numpy", "pydantic", "safetensors")
FILE, IDENTITY = "record.json", "identity"
_OF_SESSION = ("command", "git", "python", "packages")  # what each session notes of itself


def recorded(home: Storage) -> dict[str, Any]:
    """The record of an experiment; nothing where it has none, or a damaged one, which is said once."""
    try:
        record = json.loads(home.read(FILE))
    except FileNotFoundError:
        return {}
    except ValueError:
        record = None
    if not isinstance(record, dict):
        _complain(home.uri)
        return {}
    return record


@cache
def _complain(place: str) -> None:
    log.warning("%s/%s: not readable, damaged; what earlier sessions noted is lost", place, FILE)


def identity_of(home: Storage) -> str:
    """Name that tells this search from any other, also from an earlier one that was called so; a new one at first.

    In a file of its own: it is by it that artifacts say for whom they were built.
    """
    with suppress(FileNotFoundError):
        if kept := home.read(IDENTITY).decode().strip():
            return kept
    return str(recorded(home).get("identity") or uuid.uuid4().hex)


def keep_identity(home: Storage, identity: str) -> None:
    """Writes it down. Raises OSError where the storage fails."""
    home.write(IDENTITY, f"{identity}\n".encode())


def write_record(home: Storage, record: Mapping[str, Any]) -> None:
    """Writes the record. Raises OSError where the storage fails."""
    home.write(FILE, (json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())


def add_time(home: Storage, seconds: float, trials: Collection[int]) -> None:
    """Ends a session: notes its time and the trials that ended in it.

    Where the storage does not let it, nothing is said: what ended the session says why not.
    """
    with suppress(OSError):
        record = recorded(home)
        wall = round(record.get("wall_s", 0.0) + seconds, 1)
        sessions = _settled(record, trials)["sessions"]
        sessions[-1]["wall_s"] = round(seconds, 1)  # a session without was killed, or runs still
        write_record(home, {**record, "sessions": sessions, "wall_s": wall})


def with_session(record: Mapping[str, Any], now: Mapping[str, Any], trials: Collection[int]) -> dict[str, Any]:
    """The record with one more session; the trials that ended before it belong to the sessions before it.

    Args:
        record: of the experiment, as far as it has one.
        now: what `reproducibility` says of this session.
        trials: those with an outcome.
    """
    whole = {**now, **record}
    before = _settled(whole, trials)["sessions"] if record else []
    session = {"began": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **{key: now[key] for key in _OF_SESSION}}
    return {**whole, "sessions": [*before, {**session, "trials": []}]}


def _settled(record: Mapping[str, Any], trials: Collection[int]) -> dict[str, Any]:
    """The sessions with every trial that has an outcome in exactly one: those of none before are the last one's."""
    first = {key: record.get(key) for key in _OF_SESSION}
    sessions = [dict(session) for session in record.get("sessions") or [{"began": None, **first, "trials": []}]]
    for session in sessions:
        session["trials"] = [trial for trial in session["trials"] if trial in trials]
    known = {trial for session in sessions for trial in session["trials"]}
    sessions[-1]["trials"] = sorted({*sessions[-1]["trials"], *(set(trials) - known)})
    return {"sessions": sessions}


def differences(record: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Versions in which this session differs from an earlier one: `torch 2.11.0 before, 2.14.1 now`."""
    current, found = versions_of(now), dict[str, None]()
    for session in (record, *record.get("sessions", [])):
        for name, old in versions_of(session).items():
            if old and current.get(name) and old != current[name]:
                found[f"{name} {old} before, {current[name]} now"] = None
    return list(found)


def versions_of(session: Mapping[str, Any]) -> dict[str, str | None]:
    """Name → version of all that a result may depend on."""
    commit = (session.get("git") or {}).get("commit")
    own = {"this code": commit and str(commit)[:12], "Python": session.get("python")}
    return {**own, **(session.get("packages") or {})}


def reproducibility(command: str, seed: int, dataset: Dataset) -> dict[str, Any]:
    """Command, seed, code, packages, machine and data of a search."""
    return {
        "command": command,
        "seed": seed,
        "git": _git(),
        "python": platform.python_version(),
        "packages": installed(),
        "machine": {"system": platform.platform(), "processor": _processor()},
        "data": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "test_fingerprint": dataset.test_fingerprint,
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.held_out),
            **({"class_names": list(dataset.class_names)} if dataset.class_names else {}),
        },
    }


def _git() -> dict[str, Any]:
    """The checkout's commit, and whether files differ from it; nothing where this is not a checkout."""
    commit = _output("git", "rev-parse", "HEAD")
    if not commit:
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(_output("git", "status", "--porcelain"))}


def _output(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  (git, with fixed words)
            command, check=False, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def installed() -> dict[str, str | None]:
    """The versions of the packages that a result may depend on."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
