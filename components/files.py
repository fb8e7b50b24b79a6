"""Files that are whole or absent: every write goes to a temporary neighbour and is then moved into place."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any


def write_atomic(path: Path, content: bytes | str) -> None:
    """Writes `content` to `path`: a reader, or a crash, sees the old file or the new one and never a part.

    Raises:
        OSError: the folder cannot be written or the disk is full; what stood at `path` is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}")  # a name may be 255 bytes
    try:
        # whom the umask lets read may: of `tempfile`'s files nobody else, a colleague on shared storage neither
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # a rename may survive a power cut that the bytes before it do not
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):  # a read-only disk refuses that too, and in words that name the temporary file
            temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON. Raises ValueError for NaN and infinity, which JSON has not."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON.

    Raises:
        ValueError: it is torn, or not JSON; the file is named.
        OSError: it is not there, or no plain file.
    """
    try:
        return json.loads(plain(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found {error}") from error


def lock(handle: int, *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file or folder for this process (flock), until it is closed or the process ends, however it ends.

    Args:
        handle: its descriptor.
        shared: together with others who ask for the same, and with nobody else.
        wait: until it is free.

    Returns:
        Whether it is locked; False where another holds it.

    Raises:
        OSError: the file system has no locks (some network ones), or the system has none (Windows).
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOTSUP, "no file locks on this system") from None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~user` written out. Raises ValueError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: expected the home of a user of this machine behind ~, found none") from error


def plain(path: Path) -> Path:
    """`path`, where it is no pipe and no device: reading those may wait or go on for ever.

    Raises:
        OSError: it is one, or it is not there.
    """
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # of a folder whoever opens it is told
        raise OSError(errno.EINVAL, "a pipe or a device, no plain file", str(path))
    return path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
