"""Where a data set's idx files are: embedded, in a folder, or downloaded once."""

import contextlib
import fcntl
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TextIO

from components.config import nearest
from components.datasets.idx import DataError, read_idx

EMBEDDED = "mnist_mini"
# Name here → class in torchvision.datasets, which also names the folder torchvision downloads into.
PUBLISHED = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}
# All sets' files bear the same names; these tell two of them apart whether or not they were compressed again.
_FIRST_LABELS = {
    bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]): "mnist",
    bytes([9, 0, 0, 3, 0, 2, 7, 2, 5, 5]): "fashion_mnist",
}
_FILE_NAME = re.compile(r"(?P<role>(?:train|t10k)-(?:images|labels))[-.]idx[134]-ubyte(?:\.gz)?")
_FILES = (
    "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte "
    "(each with or without .gz)"
)
_TIMEOUT = 15  # seconds without an answer; torchvision itself would wait for ever


@dataclass(frozen=True)
class Files:
    """The four idx files of one data set."""

    train_images: Path
    train_labels: Path
    t10k_images: Path
    t10k_labels: Path


def default_data_dir() -> Path:
    """`$XDG_CACHE_HOME/latent-defense/data`, or the same below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latent-defense" / "data"


def find_files(name_or_folder: str | Path, data_dir: str | Path | None = None) -> Files:
    """The files of a data set given by name or folder; a published set that is not there yet is downloaded.

    Raises:
        DataError: no such name or folder, files missing, or the download failed.
    """
    name = str(name_or_folder)
    if name == EMBEDDED:
        return _in_folder(Path(__file__).parents[1] / EMBEDDED)
    if name in PUBLISHED:
        return _published(name, Path(data_dir).expanduser() if data_dir else default_data_dir())
    folder = Path(name_or_folder).expanduser()
    if not folder.is_dir():
        known = (EMBEDDED, *PUBLISHED)
        choices = ", ".join(known)
        raise DataError(
            f"data.name: expected {choices} or a folder of idx files, found {name!r}{nearest(name, known)}"
        )
    return _in_folder(folder)


def _in_folder(folder: Path) -> Files:
    if missing := _missing(folder):
        raise DataError(f"{folder}: expected the files {_FILES}; found {missing}")
    return Files(**_roles(folder))


def _missing(folder: Path) -> str:
    """What `folder` lacks, in words; nothing if it lacks nothing."""
    found = _roles(folder)
    if not found:
        return "none of them"
    missing = [field.name.replace("_", "-") for field in fields(Files) if field.name not in found]
    return "no " + ", ".join(missing) if missing else ""


def _roles(folder: Path) -> dict[str, Path]:
    """Role → file. Of a file and its gzip, which torchvision leaves side by side, the plain one is faster."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := _FILE_NAME.fullmatch(path.name):
            found.setdefault(match["role"].replace("-", "_"), path)
    return found


def _published(name: str, data_dir: Path) -> Files:
    """In the folder that torchvision uses, in one of the set's name, or straight in `data_dir`."""
    target = data_dir / PUBLISHED[name] / "raw"
    refusals: list[str] = []
    for folder in (target, data_dir / name, data_dir):
        if missing := _missing(folder):
            refusals.append(f"{folder}: found {missing}")
            continue
        files = _in_folder(folder)
        actual = _identity(files)
        if actual in (name, None):
            return files
        refusals.append(f"{folder}: found {actual}")
    try:
        return _download(name, target)
    except (OSError, RuntimeError, DataError) as error:
        raise DataError(_unavailable(name, data_dir, refusals, error)) from error


def _identity(files: Files) -> str | None:
    """Which published set the files are, if that can be told."""
    return _FIRST_LABELS.get(read_idx(files.train_labels)[:10].tobytes())


def _download(name: str, target: Path) -> Files:
    created = [folder for folder in (target, *target.parents) if not folder.exists()]
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _locked(target / ".download.lock"):
            if len(_roles(target)) < len(fields(Files)):  # else another process was faster
                _fetch(PUBLISHED[name], target)
            return _in_folder(target)
    finally:
        for folder in created:  # what a failed download leaves empty
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` as a lock between processes; the file goes when the lock does."""
    while True:
        with path.open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if not _is_at(stream, path):  # the previous holder removed the file we waited on
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(stream: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _fetch(torchvision_class: str, target: Path) -> None:
    """Download beside the target, then move in whole files: no broken download is taken for a data set."""
    from torchvision import datasets  # takes a second to import, and only a download needs it

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=target))
    try:
        getattr(datasets, torchvision_class)(temporary, download=True)
        for path in (temporary / torchvision_class / "raw").glob("*.gz"):
            os.replace(path, target / path.name)
    finally:
        socket.setdefaulttimeout(timeout)
        shutil.rmtree(temporary, ignore_errors=True)


def _unavailable(name: str, data_dir: Path, refusals: list[str], error: Exception) -> str:
    reason = " ".join(str(error).split())
    return "\n  ".join(
        [
            f"data.name: {name}: expected the files {_FILES} in one of",
            *refusals,
            f"and could not download them: {reason}",
            "To get them: run again with a network, copy them from another machine to one of these folders,",
            f"name the folder that has them with --data-dir, or use the embedded {EMBEDDED}.",
        ]
    )
