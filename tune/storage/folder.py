"""A folder that every node can reach: on a local disk, on NFS, or in an object store such as S3.

Everything that outlives a process goes through here, and arrives whole or not at all: locally a file is
written beside its place and then moved there, in an object store one put is atomic by nature, and nothing is
ever renamed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from pyarrow import fs

from components.files import expanded, write_atomic
from tune.storage.address import address_of, filesystem, is_address
from tune.storage.local_files import CHUNK, draft_of, fill, linked, names_in
from tune.storage.patience import patiently

_ABANDONED = 3600.0  # seconds


class Storage:
    """One folder, by path or by address: `results`, `file:///data`, `s3://bucket/folder?endpoint_override=…`.

    Names are those of files in the folder; `a/b` reaches into its subfolders. Folders appear with their first
    file. An S3-compatible server is found by `endpoint_override` in the address or AWS_ENDPOINT_URL in the
    environment; credentials come from where AWS keeps them (environment, profile, instance), never from the
    address.

    Every method raises OSError, naming the file, where the storage fails: FileNotFoundError where there is no
    such file, errno ENOSPC for a full disk.

    Attributes:
        patience: seconds for which a request that an object store or a file server does not answer is made again.
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
        elif is_address(str(folder)):
            self._uri = address_of(str(folder))
            self._fs, self._path = self._connected()
        else:
            self._fs = fs.LocalFileSystem()
            self._path = str(expanded(folder).absolute())

    @patiently
    def _connected(self) -> tuple[Any, str]:
        return filesystem(self._uri)  # which asks AWS for the region of a bucket

    @property
    def uri(self) -> str:
        """The folder's address, from which any node can open it: a path, or a URI. It holds no secret."""
        return self._uri if self.local is None else self._path

    @property
    def local(self) -> Path | None:
        """The folder as a path, where it is on this machine's file systems (NFS too)."""
        return Path(self._path) if isinstance(self._fs, fs.LocalFileSystem) else None

    @property
    def place(self) -> str:
        """The same for all paths to one folder."""
        return os.path.realpath(self._path) if self.local is not None else self.uri

    @property
    def name(self) -> str:
        """The last part of its address."""
        return posixpath.basename(self._path if self.local is None else self.place)

    @property
    def parent(self) -> Storage:
        """The folder that it lies in, where links on the way to it have been followed."""
        outer = Storage(self, self.patience)
        outer._path = posixpath.dirname(self._path if self.local is None else self.place)
        if self.local is None:
            parts = urlsplit(self._uri)
            outer._uri = urlunsplit(parts._replace(path=posixpath.dirname(parts.path.rstrip("/")).rstrip("/")))
        return outer

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
        with self.reading(name) as file, self._naming(name):
            data: bytes = file.read()
            return data

    def reading(self, name: str) -> Any:
        """An open file, for the length of a block, to be read in parts: `read(n)`, and its `size()`."""
        with self._naming(name):
            if self.local is not None and os.path.isdir(self._at(name)):
                raise IsADirectoryError(errno.EISDIR, "")
            return self._fs.open_input_file(self._at(name))

    @patiently
    def write(self, name: str, data: bytes) -> None:
        """Puts a file in place, whole; a reader meanwhile sees the old one."""
        with self._naming(name):
            if self.local is not None:
                write_atomic(Path(self._at(name)), data)
            else:
                with self._fs.open_output_stream(self._at(name)) as file:
                    file.write(data)

    @patiently
    def create(self, name: str, data: bytes) -> bool:
        """Writes a file unless there is one of that name; True where it was written.

        Of several writers at one moment exactly one succeeds locally; in an object store the last may win.
        """
        if self.exists(name):
            return False
        if self.local is None:
            self.write(name, data)
            return True
        with self._naming(name), draft_of(Path(self._at(name))) as draft:
            draft.write_bytes(data)
            return linked(draft, Path(self._at(name)))

    @patiently
    def exists(self, name: str) -> bool:
        """True where there is a file of that name (a folder is not a file)."""
        if self.local is not None:
            with self._naming(name):
                return bool(self._fs.get_file_info(self._at(name)).type == fs.FileType.File)
        with suppress(FileNotFoundError):  # one request, of which a question for its kind takes two
            self.reading(name).close()
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
                fill(Path(self._at(name)), source)
            else:
                with self._fs.open_output_stream(self._at(name)) as target:
                    shutil.copyfileobj(source, target, CHUNK)

    @patiently
    def download(self, name: str, path: Path) -> None:
        """Copies a file of any size to a local path, which holds it whole or not at all."""
        with self.reading(name) as source, _naming(str(path)):
            fill(path, source)

    @patiently
    def sha256(self, name: str) -> str:
        """SHA-256 of a file's bytes, in hex; a file of any size is read once and not kept."""
        with self.reading(name) as file, self._naming(name):
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

    def _naming(self, name: str) -> Any:
        path = self._at(name) if name else self._path
        return _naming(path if self.local is not None else f"{urlsplit(self._uri).scheme}://{path}")

    @patiently
    def _listed(self, kind: Any) -> list[str]:
        with self._naming(""):
            if self.local is not None:
                return names_in(self.local, folders=kind == fs.FileType.Directory)
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


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Gives a failure the name of the file it is about: pyarrow's have none, a draft's is no help."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # pyarrow's own, for example "AWS Error ACCESS_DENIED …"
            raise OSError(f"{where}: {error}") from error
        raise OSError(error.errno, os.strerror(error.errno), where) from error
