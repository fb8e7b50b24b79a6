"""Artifacts from a tar that `tar_export` wrote, or somebody who pretends to have: all of it is checked first.

The hashes prove that a file arrived as it was sent, not that its sender is honest: import what you would also run.
Nothing in it is ever unpickled, and no name in it is used as a path before it was checked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
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
from tune.storage.leases import file_leases
from tune.storage.manifest import hash_of
from tune.storage.store import MANIFEST, RELATIVES

_MANIFEST = re.compile(rf"([a-z]\w*)/(\w[\w-]*)/{re.escape(MANIFEST)}", re.ASCII)
_RELATIVE = re.compile(rf"{re.escape(RELATIVES)}/([a-z]\w*)/(\w+)/(\w[\w-]*)\.json", re.ASCII)
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


@dataclass(frozen=True)
class Contents:
    """A tar that was checked.

    Attributes:
        tar: open, to read the files from.
        artifacts: in the order of the tar.
        relatives: the notes by which larger artifacts can go on from these, by name.
    """

    tar: tarfile.TarFile
    artifacts: list[Packed] = field(default_factory=list)
    relatives: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def opened(file: Path, tell: Tell) -> Iterator[Contents]:
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
            contents = _checked(tar, size, tell)
            tell(size, size)
            yield contents


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


def _checked(tar: tarfile.TarFile, size: int, tell: Tell) -> Contents:
    contents, missing, hashes = Contents(tar), dict[str, str](), dict[str, str]()
    for member in tar:
        tell(member.offset, size)
        _check_member(member, size)
        if missing:
            one = contents.artifacts[-1]
            name = member.name.removeprefix(f"{one.stage}/{one.folder}/")
            if name not in missing:
                raise _BadMemberError(f"expected the files of {one.stage}/{one.folder}, found {member.name!r}")
            _check_hash(tar, member, missing.pop(name))
            one.files[name] = member
            continue
        data = _small(tar, member)
        if member.name == INDEX:
            _check_index(data, hashes)
            return contents
        name = member.name.removesuffix(f"/{MANIFEST}")
        if name in hashes:
            raise _BadMemberError(f"expected everything once, found {name} again")
        hashes[name] = hashlib.sha256(data).hexdigest()
        if member.name.startswith(RELATIVES):
            _check_relative(member.name, data)
            contents.relatives[member.name] = data
        else:
            one, missing = _manifest(member, data)
            contents.artifacts.append(one)
    raise _BadMemberError(f"expected {INDEX} at its end, found none: it is torn, or no export of a store")


def _manifest(member: tarfile.TarInfo, data: bytes) -> tuple[Packed, dict[str, str]]:
    """The next artifact, and the sha256 of its files."""
    match = _MANIFEST.fullmatch(member.name)
    if match is None:
        raise _BadMemberError(f"expected STAGE/SIGNATURE/{MANIFEST}, found {member.name!r}")
    try:
        manifest = read_manifest(data, match[1], match[2])
    except ValueError as error:
        raise _BadMemberError(f"{match[1]}/{match[2]}/{error}") from error
    return Packed(match[1], match[2], data), dict(manifest["files"])


def _check_relative(name: str, data: bytes) -> None:
    try:
        facts = dict(json.loads(data))
        expected = hash_of(facts)
        numbers = [number for key, numbers in facts.items() if key != "sha256" for number in list(numbers)]
        good = facts["sha256"] == expected and all(type(number) is int and number > 0 for number in numbers)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _BadMemberError(f"{name!r}: expected a note of what can be gone on from, found {error!r}") from error
    if not (good and _RELATIVE.fullmatch(name)):
        raise _BadMemberError(f"{name!r}: expected a note of what can be gone on from, found another")


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


def put(store: Storage, packed: Sequence[Packed], contents: Contents, tell: Tell) -> list[Packed]:
    """Puts some checked artifacts into a store, each manifest last; returns those that a search builds at this moment.

    Killed in the midst of it, it leaves whole artifacts, and one without a manifest, which is none.
    """
    leases = file_leases(store)
    busy = []
    for number, one in enumerate(packed):
        tell(number, len(packed))
        if leases is not None and leases.acquire([one.folder]) is None:
            busy.append(one)
            continue
        try:
            _put_one(store.child(one.stage).child(one.folder), one, contents.tar)
        finally:
            if leases is not None:
                leases.release(one.folder)
    for name, data in contents.relatives.items():
        store.create(name, data)
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
