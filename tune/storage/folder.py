"""A folder that every node can reach: on a local disk, on NFS, or in an object store such as S3.

Everything that outlives a process goes through here, and arrives whole or not at all: locally a file is
written beside its place and then moved there, in an object store one put is atomic by nature, and nothing is
ever renamed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from components.files import expanded, write_atomic
from tune.storage.patience import patiently

_ABANDONED = 3600.0  # seconds
_CHUNK = 8 << 20  # bytes per read of a large file: above S3's least part of 5 MiB


_BUCKETS = ("s3", "gs", "gcs", "abfs", "abfss")
_BUCKET = re.compile(f"({'|'.join(_BUCKETS)}):", re.IGNORECASE)  # an address that lacks a slash is one, too


class Storage:
    """One folder, by path or by address: `results`, `file:///data`, `s3://bucket/folder?endpoint_override=…`.

    Names are those of files in the folder; `a/b` reaches into its subfolders. Folders appear with their first
    file. An S3-compatible server is found by `endpoint_override` in the address or AWS_ENDPOINT_URL in the
    environment; credentials come from where AWS keeps them (environment, profile, instance), never from the
    address.

    Every method raises OSError, naming the file, where the storage fails: FileNotFoundError where there is no
    such file, errno ENOSPC for a full disk.

    Attributes:
        patience: seconds for which a request that an object store does not answer is made again.
    """

    def __init__(self, folder: str | Path | Storage, patience: float = 0.0) -> None:
        """Names the folder; makes nothing.

        Raises:
            ValueError: an address that is not understood, or one that holds a key.
            OSError: a bucket whose region cannot be found out.
        """
        self._fs: Any  # pyarrow's file system
        self._path: str  # the folder in it: /results, bucket/folder
        self._uri = ""  # the address, of a folder that is not a path
        self.patience = patience
        if isinstance(folder, Storage):
            self._fs, self._path, self._uri = folder._fs, folder._path, folder._uri
        elif "://" in str(folder) or _BUCKET.match(str(folder)):
            self._uri = _address(str(folder))
            self._fs, self._path = _filesystem(self._uri)
        else:
            self._fs = fs.LocalFileSystem()
            self._path = str(expanded(folder).absolute())

    @property
    def uri(self) -> str:
        """The folder's address, from which any node can open it: a path, or a URI. It holds no secret."""
        return self._uri if self.local is None else self._path

    @property
    def local(self) -> Path | None:
        """The folder as a path, where it is on this machine's file systems (NFS too)."""
        return Path(self._path) if isinstance(self._fs, fs.LocalFileSystem) else None

    def child(self, name: str) -> Storage:
        """A folder inside this one."""
        inner = Storage(self, self.patience)
        inner._path = self._at(name)
        if self.local is None:
            parts = urlsplit(self._uri)
            inner._uri = urlunsplit(parts._replace(path=f"{parts.path}/{quote(name)}"))
        return inner

    @patiently
    def read(self, name: str) -> bytes:
        """A file's bytes."""
        with self._open(name) as file, self._naming(name):
            data: bytes = file.read()
            return data

    @patiently
    def write(self, name: str, data: bytes) -> None:
        """Puts a file in place, whole; a reader meanwhile sees the old one."""
        with self._naming(name):
            if self.local is not None:
                write_atomic(Path(self._at(name)), data)
            else:
                with self._fs.open_output_stream(self._at(name)) as file:
                    file.write(data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file unless there is one of that name; True where it was written.

        Of several writers at one moment exactly one succeeds locally; in an object store the last may win.
        """
        if self.exists(name):
            return False
        if self.local is None:
            self.write(name, data)
            return True
        with self._naming(name), _draft_of(Path(self._at(name))) as draft:
            draft.write_bytes(data)
            return _linked(draft, Path(self._at(name)))

    @patiently
    def exists(self, name: str) -> bool:
        """True where there is a file of that name (a folder is not a file)."""
        if self.local is not None:
            with self._naming(name):
                return bool(self._fs.get_file_info(self._at(name)).type == fs.FileType.File)
        with suppress(FileNotFoundError):  # one request, of which a question for its kind takes two
            self._open(name).close()
            return True
        return False

    def names(self) -> list[str]:
        """The names of the files directly in this folder, sorted; none where the folder is not there yet."""
        return self._listed(fs.FileType.File)

    def folders(self) -> list[str]:
        """The names of the folders directly in this one, sorted."""
        return self._listed(fs.FileType.Directory)

    @patiently
    def delete(self, name: str) -> None:
        """Removes a file; one that is not there is no error."""
        with suppress(FileNotFoundError), self._naming(name):
            self._fs.delete_file(self._at(name))

    @patiently
    def remove_tree(self) -> None:
        """Removes this folder with all that is in it."""
        with suppress(FileNotFoundError), self._naming(""):
            self._fs.delete_dir(self._path)

    def sweep(self) -> None:
        """Removes the drafts directly in this folder of writers that were killed: those an hour without a change."""
        for draft in self.local.glob(".*.*") if self.local is not None else ():
            with suppress(OSError):
                if draft.is_file() and time.time() - draft.stat().st_mtime > _ABANDONED:
                    draft.unlink()

    @patiently
    def upload(self, path: Path, name: str) -> None:
        """Copies a local file of any size here."""
        with path.open("rb") as source:
            self.put(name, source)

    def put(self, name: str, source: Any) -> None:
        """Copies an open binary file of any size here."""
        with self._naming(name):
            if self.local is not None:
                _fill(Path(self._at(name)), source)
            else:
                with self._fs.open_output_stream(self._at(name)) as target:
                    shutil.copyfileobj(source, target, _CHUNK)

    @patiently
    def download(self, name: str, path: Path) -> None:
        """Copies a file of any size to a local path, which holds it whole or not at all."""
        with self._open(name) as source, _naming(str(path)):
            _fill(path, source)

    @patiently
    def sha256(self, name: str) -> str:
        """SHA-256 of a file's bytes, in hex; a file of any size is read once and not kept."""
        with self._open(name) as file, self._naming(name):
            return hashlib.file_digest(file, "sha256").hexdigest()

    def size_and_age(self) -> tuple[int, float | None]:
        """Bytes of all files in this folder and below, and when the youngest changed, in seconds since 1970."""
        with self._naming(""):
            found = self._fs.get_file_info(fs.FileSelector(self._path, allow_not_found=True, recursive=True))
        files = [info for info in found if info.type == fs.FileType.File]
        return sum(info.size for info in files), max((info.mtime.timestamp() for info in files), default=None)

    def move_tree(self, name: str, target: Storage) -> None:
        """Moves the folder `name` to `target`, of the same storage, which holds no files yet.

        Whoever is killed in the midst of it leaves all files at the old place, at the new one, or at both.
        """
        home = self.child(name)
        if home.local is not None and target.local is not None:
            with self._naming(name):
                target.local.parent.mkdir(parents=True, exist_ok=True)
                os.rename(home.local, target.local)
            return
        for file in home.names():
            with home._naming(file):
                home._fs.copy_file(home._at(file), target._at(file))
        home.remove_tree()

    def _at(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts:
            raise ValueError(f"name: expected a file or folder inside {self.uri}, found {name!r}")
        return "/".join((self._path.rstrip("/"), *parts))

    def _open(self, name: str) -> Any:
        with self._naming(name):
            return self._fs.open_input_file(self._at(name))

    def _naming(self, name: str) -> Any:
        path = self._at(name) if name else self._path
        return _naming(path if self.local is not None else f"{urlsplit(self._uri).scheme}://{path}")

    @patiently
    def _listed(self, kind: Any) -> list[str]:
        with self._naming(""):
            if self.local is not None:
                return _listed_locally(self.local, folders=kind == fs.FileType.Directory)
            found = self._fs.get_file_info(fs.FileSelector(self._path, allow_not_found=True))
        return sorted(f.base_name for f in found if f.type == kind and not f.base_name.startswith("."))

    def __reduce__(self) -> tuple[type[Storage], tuple[str, float]]:
        return Storage, (self.uri, self.patience)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Storage) and self.uri == other.uri

    def __hash__(self) -> int:
        return hash(self.uri)

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"


def _address(uri: str) -> str:
    """The address with what this process knows from its environment and another may not: the S3 server."""
    parts = urlsplit(uri)
    if parts.scheme in _BUCKETS and not parts.netloc:
        raise ValueError(f"storage: expected a bucket, as in {parts.scheme}://bucket/folder, found {uri}")
    if parts.username is not None or parts.password is not None:
        expected = "expected credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise ValueError(f"storage: {expected}, found {parts.scheme}://***@{parts.hostname}{parts.path}")
    options = dict(parse_qsl(parts.query))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if parts.scheme == "s3" and endpoint:
        options.setdefault("endpoint_override", endpoint)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/"), query=urlencode(options)))


def _filesystem(uri: str) -> tuple[Any, str]:
    parts = urlsplit(uri)
    if parts.scheme == "s3":  # else a file of ten bytes takes the three requests of a multi-part upload
        options = {"allow_delayed_open": "true", **dict(parse_qsl(parts.query))}
        uri = urlunsplit(parts._replace(query=urlencode(options)))
    shown = f"{parts.scheme}://{parts.netloc}{parts.path}"
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid as error:
        expected = "expected a folder or an address like s3://bucket/folder"
        raise ValueError(f"storage: {expected}, found {shown}: {error}") from error
    except OSError as error:
        raise OSError(f"{shown}: {error}") from error
    return filesystem, path


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Gives a failure the name of the file it is about: pyarrow's have none, a draft's is no help."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # pyarrow's own, for example "AWS Error ACCESS_DENIED …"
            raise OSError(f"{where}: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), where) from error


def _listed_locally(folder: Path, folders: bool) -> list[str]:
    """Some ten times faster than pyarrow, which asks for every file's size and date."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() == folders and not e.name.startswith("."))
    return []


def _fill(target: Path, source: Any) -> None:
    """Copies an open file to `target`, which holds it whole or not at all."""
    with _draft_of(target) as draft:
        with draft.open("wb") as file:
            shutil.copyfileobj(source, file, _CHUNK)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """An empty file beside `target`, gone afterwards unless it was moved."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        os.fchmod(handle, 0o644)  # mkstemp's files cannot be read by a colleague on shared storage
        os.close(handle)
        yield Path(draft)
    finally:
        Path(draft).unlink(missing_ok=True)


def _linked(draft: Path, target: Path) -> bool:
    """Gives the draft its name unless another has it: what `os.replace` cannot promise, a hard link does."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    try:
        os.link(draft, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links, for example a mounted bucket
        os.replace(draft, target)
    return True
