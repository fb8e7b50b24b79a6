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
from typing import IO

from components.files import lock
from tune.errors import Refused
from tune.storage.care.verification import check, read_manifest
from tune.storage.folder import Storage
from tune.storage.scratch import scratch
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
            checked = check(store, stage, folder)
            if checked.damage is not None:
                left_out.append(f"{stage}/{folder}: {checked.damage}")
                continue
            index[f"{stage}/{folder}"] = _add(tar, store.child(stage).child(folder), stage, folder)
        relatives = _relatives(store, index)
        for name, data in relatives.items():
            _add_bytes(tar, name, data)
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in relatives.items()}
        _add_bytes(tar, INDEX, json.dumps({"format": FORMAT, "artifacts": {**index, **hashes}}).encode())
    tell(len(names), len(names))
    return left_out


def _add(tar: tarfile.TarFile, home: Storage, stage: str, folder: str) -> str:
    """Adds one artifact, and returns the sha256 of its manifest."""
    data = home.read(MANIFEST)
    _add_bytes(tar, f"{stage}/{folder}/{MANIFEST}", data)
    with scratch("export") as copies:
        for name in read_manifest(data, stage, folder)["files"]:
            path = copies / name
            if home.local is None:
                home.download(name, path)
            else:
                path = home.local / name
            info = tarfile.TarInfo(f"{stage}/{folder}/{name}")
            info.size = path.stat().st_size
            with path.open("rb") as source:
                tar.addfile(info, source)
    return hashlib.sha256(data).hexdigest()


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
            if isinstance(error, OSError) and error.filename is None:  # a full disk has no name
                raise OSError(error.errno, error.strerror, str(file)) from error
            raise
