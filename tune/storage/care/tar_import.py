"""Artifacts from a tar that `tar_export` wrote, or somebody who pretends to have: all of it is checked first.

The hashes prove that a file arrived as it was sent, not that its sender is honest: import what you would also run.
Nothing in it is ever unpickled, and no name in it is used as a path before it was checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tune.errors import Refused
from tune.storage.care.tar_export import FORMAT, INDEX, Tell
from tune.storage.care.verification import read_manifest
from tune.storage.folder import Storage
from tune.storage.leases import FileLeases
from tune.storage.mounts import existing
from tune.storage.store import MANIFEST

_MANIFEST = re.compile(rf"([a-z]\w*)/(\w[\w-]*)/{re.escape(MANIFEST)}", re.ASCII)
_LARGEST = 16 << 20  # bytes of a manifest or of the list; a hostile header may claim any size


@dataclass
class Packed:
    """One artifact in a tar.

    Attributes:
        stage: its stage.
        folder: its folder's name.
        manifest: as it stands there, to the byte.
        files: where the others are.
    """

    stage: str
    folder: str
    manifest: bytes
    files: dict[str, tarfile.TarInfo] = field(default_factory=dict)


@contextmanager
def opened(file: Path, tell: Tell) -> Iterator[tuple[list[Packed], tarfile.TarFile]]:
    """Opens a tar and checks all of it: every name, every size and every hash. Nothing is written.

    Args:
        file: the tar.
        tell: called with the bytes that were read, and those of the file.

    Raises:
        Refused: it is torn, or not what `export` writes.
        OSError: it cannot be read.
    """
    if not file.is_file():
        found = "no plain file" if file.exists() else "no file"
        raise Refused(f"--import: expected an export of a store, found {found} {file}")
    with file.open("rb") as source, _refusing(file):
        size = os.fstat(source.fileno()).st_size
        with tarfile.open(fileobj=source, mode="r:") as tar:
            packed = _checked(tar, size, tell)
            tell(size, size)
            yield packed, tar


class _BadMemberError(Exception):
    """Something in a tar is not what an export holds."""


@contextmanager
def _refusing(file: Path) -> Iterator[None]:
    try:
        yield
    except _BadMemberError as error:
        raise Refused(f"{file}: {error}") from error
    except (tarfile.TarError, EOFError, OverflowError, MemoryError, UnicodeError) as error:
        raise Refused(f"{file}: expected an export of a store, found {str(error) or 'a torn file'}") from error


def _checked(tar: tarfile.TarFile, size: int, tell: Tell) -> list[Packed]:
    packed, missing, hashes = list[Packed](), dict[str, str](), dict[str, str]()
    for member in tar:
        tell(member.offset, size)
        _check_member(member, size)
        if missing:
            one = packed[-1]
            name = member.name.removeprefix(f"{one.stage}/{one.folder}/")
            if name not in missing:
                raise _BadMemberError(f"expected the files of {one.stage}/{one.folder}, found {member.name!r}")
            _check_hash(tar, member, missing.pop(name))
            one.files[name] = member
        elif member.name == INDEX:
            _check_index(_small(tar, member), hashes)
            return packed
        else:
            one, missing = _manifest(tar, member)
            if f"{one.stage}/{one.folder}" in hashes:
                raise _BadMemberError(f"expected each artifact once, found {one.stage}/{one.folder} again")
            hashes[f"{one.stage}/{one.folder}"] = hashlib.sha256(one.manifest).hexdigest()
            packed.append(one)
    raise _BadMemberError(f"expected {INDEX} at its end, found none: it is torn, or no export of a store")


def _manifest(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Packed, dict[str, str]]:
    """The next artifact, and the sha256 of its files."""
    match = _MANIFEST.fullmatch(member.name)
    if match is None:
        raise _BadMemberError(f"expected STAGE/SIGNATURE/{MANIFEST}, found {member.name!r}")
    data = _small(tar, member)
    try:
        manifest = read_manifest(data, match[1], match[2])
    except ValueError as error:
        raise _BadMemberError(f"{match[1]}/{match[2]}/{error}") from error
    return Packed(match[1], match[2], data), dict(manifest["files"])


def _check_member(member: tarfile.TarInfo, size: int) -> None:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
        raise _BadMemberError(f"{member.name!r}: expected a plain file, found a link, folder or device")
    if not 0 <= member.size <= size:
        expected = f"expected at most the {size} bytes of the tar"
        raise _BadMemberError(f"{member.name!r}: {expected}, found {member.size}: it is torn")


def _small(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _LARGEST:
        raise _BadMemberError(f"{member.name}: expected at most {_LARGEST} bytes, found {member.size}")
    data = _stream(tar, member).read()
    if len(data) != member.size:
        raise _BadMemberError(f"{member.name}: expected {member.size} bytes, found {len(data)}: it is torn")
    return data


def _check_hash(tar: tarfile.TarFile, member: tarfile.TarInfo, expected: str) -> None:
    found = hashlib.file_digest(_stream(tar, member), "sha256").hexdigest()  # type: ignore[arg-type]
    if found != expected:
        raise _BadMemberError(f"{member.name}: expected sha256 {expected[:12]}…, found {found[:12]}…")


def _check_index(data: bytes, seen: Mapping[str, str]) -> None:
    try:
        index: Any = json.loads(data)
        found = index["format"], index["artifacts"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _BadMemberError(f"{INDEX}: expected the list of what was exported, found {error!r}") from error
    if found[0] != FORMAT:
        raise _BadMemberError(f"{INDEX}: expected format {FORMAT!r}, found {found[0]!r}")
    if found[1] != seen:
        raise _BadMemberError(f"{INDEX}: expected the {len(seen)} artifacts before it, found others")


def _stream(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    stream = tar.extractfile(member)
    assert stream is not None, "only plain files are read"
    return stream


def check_room(store: Storage, packed: Sequence[Packed]) -> None:
    """Raises Refused where the disk has no room for artifacts."""
    if store.local is None:
        return
    needed = sum(member.size for one in packed for member in one.files.values())
    free = shutil.disk_usage(existing(store.local)).free
    if free < needed:
        raise Refused(f"--import: expected {needed} bytes of free disk for what is new, found {free} in {store.uri}")


def put(store: Storage, packed: Sequence[Packed], tar: tarfile.TarFile, tell: Tell) -> list[Packed]:
    """Puts checked artifacts into a store, each manifest last, and returns those that a search builds at this moment.

    Killed in the midst of it, it leaves whole artifacts, and one without a manifest, which is none.
    """
    leases = FileLeases(store.local / ".leases") if store.local is not None else None
    busy = []
    for number, one in enumerate(packed):
        tell(number, len(packed))
        if leases is not None and leases.acquire([one.folder]) is None:
            busy.append(one)
            continue
        try:
            _put_one(store.child(one.stage).child(one.folder), one, tar)
        finally:
            if leases is not None:
                leases.release(one.folder)
    tell(len(packed), len(packed))
    return busy


def _put_one(home: Storage, one: Packed, tar: tarfile.TarFile) -> None:
    if home.exists(MANIFEST):
        return
    try:
        for name, member in one.files.items():
            home.put(name, _stream(tar, member))
        home.write(MANIFEST, one.manifest)
    except BaseException:
        home.remove_tree()
        raise
