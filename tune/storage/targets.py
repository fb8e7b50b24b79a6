"""The check that a place can be written, made before any work: hours of it would else be lost at their end."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

from components.files import expanded
from tune.errors import Refused
from tune.storage.address import is_address
from tune.storage.folder import Storage
from tune.storage.mounts import existing

_DEVICES = (Path("/dev"), Path("/dev/fd"))


def file_to_write(text: str, label: str) -> Path:
    """The path of a file that a command is to write, or to replace.

    Args:
        text: as it was given.
        label: the flag that gave it, for messages.

    Raises:
        Refused: an address, a folder, a device, or a file where none can be written.
    """
    path = _path(text, label, "file")
    try:
        if path.name == ".." or path.absolute().parent in _DEVICES:
            raise Refused(f"{label}: expected a file, found {path}")
        if path.is_symlink():
            path = path.resolve()  # or the link would be replaced, and what it leads to stay as it was
        if path.exists() and not path.is_file():
            kind = "the folder" if path.is_dir() else "no plain file"
            raise Refused(f"{label}: expected a file, found {kind} {path}")
        _check(path.parent, label)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise Refused(f"{label}: expected a file that can be written, found {path}: {error.strerror}") from error
    return path


def folder_to_write(text: str, label: str) -> Path:
    """The path of a folder that a command is to write into; it need not be there yet. As `file_to_write`."""
    path = _path(text, label, "folder")
    check_storage(Storage(path), label)
    return path


def check_storage(storage: Storage, label: str) -> None:
    """A small file can be written there; it is gone again, and no folder is made for it.

    Raises:
        Refused: naming `label`.
    """
    if storage.local is None:
        return _check_bucket(storage, label)
    try:
        _check(storage.local, label)
    except OSError as error:
        expected = f"{label}: expected a folder that can be written"
        raise Refused(f"{expected}, found {storage.local}: {error.strerror}") from error


def _path(text: str, label: str, kind: str) -> Path:
    if is_address(text):
        raise Refused(f"{label}: expected the path of a {kind}, found the address {text}")
    try:
        return expanded(text)
    except ValueError as error:
        raise Refused(f"{label}: {error}") from error


def _check(folder: Path, label: str) -> None:
    folder = existing(folder)
    if not folder.is_dir():
        raise Refused(f"{label}: expected a folder, found the file {folder}")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # more than os.access knows: also of read-only disks
            file.write(b"0" * 4096)
            file.flush()
    except OSError as error:
        raise Refused(f"{label}: expected a folder that can be written, found {folder}: {error.strerror}") from error


def _check_bucket(storage: Storage, label: str) -> None:
    name = f".preflight-{uuid.uuid4().hex}"
    try:
        storage.write(name, b"0")
        storage.delete(name)
    except OSError as error:
        raise Refused(f"{label}: expected an object store that can be written, found {error}") from error
