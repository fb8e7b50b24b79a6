"""Every file of a store against its manifest; what does not match goes to the store's quarantine."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tune.storage.folder import Storage
from tune.storage.manifest import check_manifest
from tune.storage.signature import signature_in, signature_of, whole_signature
from tune.storage.store import MANIFEST, QUARANTINE

NOTE = "why.json"  # in a folder of the quarantine
_NAME = re.compile(r"\w[\w-]*", re.ASCII)
_DAMAGES = (errno.ENOENT, errno.EISDIR, errno.ENOTDIR, errno.EIO)  # of one file; all others are the storage's


@dataclass(frozen=True)
class Checked:
    """One folder of a store, after its files were read.

    Attributes:
        stage: its stage.
        folder: its name: the signature, with the number of the part where it has one.
        size: bytes that were read.
        damage: the file that is wrong, expected and found; None where all is whole.
    """

    stage: str
    folder: str
    size: int
    damage: str | None


def verified(store: Storage, tell: Callable[[int, int, int], None]) -> Iterator[Checked]:
    """Reads every file of every artifact.

    Args:
        store: the folder `store/` of a storage.
        tell: called before each folder with the number of those done, of all, and the bytes read so far.
    """
    names, size = artifact_folders(store), 0
    for number, (stage, folder) in enumerate(names):
        tell(number, len(names), size)
        checked = check(store, stage, folder)
        size += checked.size
        yield checked
    tell(len(names), len(names), size)


def artifact_folders(store: Storage) -> list[tuple[str, str]]:
    """Stage and name of every folder that an artifact could be in; others have been put there by somebody else."""
    stages = [stage for stage in store.folders() if _NAME.fullmatch(stage)]
    return [(stage, folder) for stage in stages for folder in store.child(stage).folders() if _NAME.fullmatch(folder)]


def check(store: Storage, stage: str, folder: str) -> Checked:
    """Reads one artifact. Raises OSError where the storage fails, which says nothing of the artifact."""
    home, size = store.child(stage).child(folder), 0
    try:
        manifest = read_manifest(home.read(MANIFEST), stage, folder)
        for name, expected in manifest["files"].items():
            check_hash(name, expected, home.sha256(name))
        size = manifest["bytes"]
    except (OSError, ValueError) as error:
        return Checked(stage, folder, size, damage_of(error))
    return Checked(stage, folder, size, None)


def damage_of(error: OSError | ValueError) -> str:
    """The file of an artifact that is wrong, expected and found; raises the error where it is the storage's."""
    if not isinstance(error, OSError):
        return str(error)
    if error.errno not in _DAMAGES:
        raise error
    name = str(error.filename or "").rpartition("/")[2] or MANIFEST
    found = "a folder" if error.errno == errno.EISDIR else f"none ({error.strerror})"
    return f"{name}: expected a file, found {found}"


def check_hash(name: str, expected: str, found: str) -> None:
    """Raises ValueError where the sha256 of a file is not what its manifest says."""
    if found != expected:
        raise ValueError(f"{name}: expected sha256 {expected[:12]}…, found {found[:12]}…")


def read_manifest(data: bytes, stage: str, folder: str) -> dict[str, Any]:
    """The manifest of an artifact, with all its fields of the types that whoever reads it relies on.

    Raises:
        ValueError: it is torn, or that of another artifact, or not what its own signature is the hash of.
    """
    try:
        manifest: dict[str, Any] = json.loads(data, parse_constant=_no_number)
        check_manifest(manifest, stage, folder)
        kinds: dict[str, Any] = {"files": dict, "metrics": dict, "bytes": int, "seconds": (int, float), "created": str}
        for key, kind in kinds.items():
            found = manifest.get(key)
            if not isinstance(found, kind) or isinstance(found, bool):
                raise ValueError(f"found no {key} but {found!r}")
        if min(manifest["bytes"], manifest["seconds"]) < 0 or MANIFEST in manifest["files"]:
            raise ValueError("found a negative size or time, or a hash of itself")
        if not all(isinstance(value, str) for value in manifest["files"].values()):
            raise ValueError("found a sha256 that is no text")
        facts = manifest.get("follows_from")  # the first stores were written without it
        if facts is not None and (facts["stage"], signature_of(facts)) != (stage, whole_signature(folder)):
            raise ValueError("found that of another signature")
    except (AttributeError, KeyError, TypeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(f"{MANIFEST}: expected the manifest of {stage}/{folder}, {error}") from error
    return manifest


def quarantined(store: Storage, damaged: Iterable[Checked], users: Mapping[str, Iterable[str]]) -> list[Checked]:
    """Moves what is still damaged to the quarantine, where a note says why; returns what was moved.

    No search may run: one that does may be making these very artifacts.
    """
    moved = []
    for earlier in damaged:
        now = check(store, earlier.stage, earlier.folder)
        if now.damage is None or not _is_inside(store, store.child(now.stage).child(now.folder)):
            continue
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        place = store.child(QUARANTINE).child(f"{now.stage}-{now.folder}-{stamp}")
        store.child(now.stage).move_tree(now.folder, place)
        names = list(users.get(signature_in(now.folder, users), ()))
        note = {"stage": now.stage, "signature": now.folder, "damage": now.damage, "users": names, "time": stamp}
        place.write(NOTE, json.dumps(note, indent=2, ensure_ascii=False).encode())
        moved.append(now)
    return moved


def _is_inside(store: Storage, folder: Storage) -> bool:
    """False where a link leads out of the store: what is there is not the store's to move."""
    if store.local is None or folder.local is None:
        return True
    return os.path.realpath(folder.local).startswith(os.path.realpath(store.local) + os.sep)


def _no_number(text: str) -> float:
    raise ValueError(f"found {text}, which is no number")
