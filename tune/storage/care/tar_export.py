"""Artifacts of a store as a plain tar: each manifest before its files, and last a list of all of them.

    <stage>/<signature>/manifest.json, <stage>/<signature>/<file>, …
    .relatives/<stage>/<base>/<signature>.json, …
    export.json
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from components.files import lock
from tune.errors import Refused
from tune.storage.care.verification import check_hash, damage_of, read_manifest
from tune.storage.folder import Storage
from tune.storage.signature import whole_signature
from tune.storage.store import MANIFEST, RELATIVES

INDEX = "export.json"
FORMAT = "latent-defense store 1"

Tell = Callable[[int, int], None]


def export(store: Storage, names: Sequence[tuple[str, str]], file: Path, tell: Tell) -> list[str]:
    """Writes artifacts to a new tar, which appears under its name when it is whole.

    Args:
        store: the folder `store/` of a storage.
        names: stage and folder of each artifact.
        file: the tar.
        tell: called with the number of artifacts done, and of all.

    Returns:
        One line for each artifact that is left out, as it is damaged.

    Raises:
        Refused: there is such a file, no folder for it, or another export to it runs.
        OSError: it cannot be written, or the store cannot be read.
    """
    left_out, index = [], dict[str, str]()
    with _new_file(file) as target, tarfile.open(fileobj=target, mode="w") as tar:
        for number, (stage, folder) in enumerate(names):
            tell(number, len(names))
            end = tar.offset
            try:
                index[f"{stage}/{folder}"] = _add(tar, store.child(stage).child(folder), stage, folder)
            except (OSError, ValueError) as error:
                left_out.append(f"{stage}/{folder}: {damage_of(error)}")
                _cut_off(tar, target, end)
        relatives = _relatives(store, index)
        for name, data in relatives.items():
            _add_bytes(tar, name, data)
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in relatives.items()}
        _add_bytes(tar, INDEX, json.dumps({"format": FORMAT, "artifacts": {**index, **hashes}}).encode())
    tell(len(names), len(names))
    return left_out


def _add(tar: tarfile.TarFile, home: Storage, stage: str, folder: str) -> str:
    """Adds one artifact, each file checked as it is read, and returns the sha256 of its manifest.

    Raises:
        ValueError: it is damaged; a part of it may be in the tar.
        OSError: the same, of a file that is not there, or the storage's own.
    """
    data = home.read(MANIFEST)
    files = read_manifest(data, stage, folder)["files"]
    _add_bytes(tar, f"{stage}/{folder}/{MANIFEST}", data)
    for name, expected in files.items():
        with home.reading(name) as file:
            info = tarfile.TarInfo(f"{stage}/{folder}/{name}")
            info.size = file.size()
            source = _Hashed(file)
            tar.addfile(info, source)
        check_hash(name, expected, source.sha256.hexdigest())
    return hashlib.sha256(data).hexdigest()


class _Hashed(io.RawIOBase):
    """A file that is hashed as it is read."""

    def __init__(self, file: Any) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._file.read(size)
        self.sha256.update(data)
        return data


def _cut_off(tar: tarfile.TarFile, target: IO[bytes], end: int) -> None:
    """Takes back what was added after an end."""
    target.seek(end)
    target.truncate()
    tar.offset = end


def _relatives(store: Storage, names: Collection[str]) -> dict[str, bytes]:
    """The notes by which larger artifacts can go on from these."""
    found, wanted = dict[str, bytes](), {f"{whole_signature(name.rpartition('/')[2])}.json" for name in names}
    for stage in {name.partition("/")[0] for name in names}:
        home = store.child(RELATIVES).child(stage)
        for base in home.folders():
            for name in wanted.intersection(home.child(base).names()):
                found[f"{RELATIVES}/{stage}/{base}/{name}"] = home.child(base).read(name)
    return dict(sorted(found.items()))


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


@contextmanager
def _new_file(file: Path) -> Iterator[IO[bytes]]:
    """A draft beside `file`, which takes its name when the block ends without an error.

    A draft that a killed process left is written over by the next one.
    """
    if file.exists() or file.is_symlink():
        raise Refused(f"--export: expected a file that is not there yet, found {file}")
    if not file.parent.is_dir():
        raise Refused(f"--export: expected a file in a folder that is there, found no {file.parent}")
    draft = file.with_name(f".{file.name}.part")
    with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+b") as target:
        with suppress(OSError):  # a file system without locks
            if not lock(target.fileno()):
                raise Refused(f"--export: expected no other export to {file}, found one that runs")
        try:
            target.truncate()
            yield target
            target.flush()
            os.fsync(target.fileno())
            if file.exists():
                raise Refused(f"--export: expected a file that is not there yet, found {file}")
            os.replace(draft, file)
        except BaseException as error:
            draft.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk has no name
                raise OSError(error.errno, error.strerror, str(file)) from error
            raise
