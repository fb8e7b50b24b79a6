"""Published data sets: found where they lie, else downloaded once, by torchvision, which checks their sums."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from components.datasets.idx import DataError, read_idx
from components.datasets.idx_folder import FILES, Files, find_files, missing_files, read_files
from components.datasets.raw import RawData

# The sets' files bear the same names; these tell two of them apart whether or not they were compressed again.
_FIRST_LABELS = {
    bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4]): "mnist",
    bytes([9, 0, 0, 3, 0, 2, 7, 2, 5, 5]): "fashion_mnist",
}
_COUNTS = 60_000, 10_000  # training and test images of each of the sets whose files bear the same names
_TIMEOUT = 15  # seconds without an answer; torchvision itself would wait for ever


def published(name: str, read: Callable[[Path, bool], RawData], files: str, data_dir: Path) -> RawData:
    """A set that torchvision reads.

    Args:
        name: the set's name here.
        read: reads it below a root folder, with torchvision's own class, and downloads it there first if told to.
        files: pattern, below the root, of the files that it reads.
        data_dir: the folder of all named sets.

    Raises:
        DataError: the set is not there, or damaged, and cannot be downloaded.
    """
    refusals = []
    for root in (data_dir, data_dir / name):
        try:
            return read(root, False)
        except (OSError, RuntimeError) as error:  # RuntimeError: files are missing, or not those published
            refusals.append(f"{root}: {_line(error)}")
    try:
        _download(data_dir, files, lambda root: read(root, True), lambda: _is_readable(read, data_dir))
        return read(data_dir, False)
    except (OSError, RuntimeError) as error:
        expected = f"torchvision's files, {files}, as they were published"
        raise DataError(_unavailable(name, expected, refusals, error)) from error


def published_idx(
    name: str, torchvision_class: str, files: str, data_dir: Path, family: str = "", classes: int = 10
) -> RawData:
    """A set published as idx files: where torchvision puts it, in a folder of its name, or straight in `data_dir`.

    The files are read by our own reader: torchvision's takes only uncompressed ones, and fails on bad ones with
    an assertion or a message about shapes.

    Args:
        name: the set's name here.
        torchvision_class: the class in torchvision.datasets that downloads it.
        files: pattern of the files that are kept of a download.
        data_dir: the folder of all named sets.
        family: what the set's file names begin with.
        classes: their number.

    Raises:
        DataError: the set is not there and cannot be downloaded, or is damaged.
    """
    target = data_dir / torchvision_class / "raw"
    refusals: list[str] = []
    for folder in (target, data_dir / name, data_dir):
        if missing := missing_files(folder, family):
            refusals.append(f"{folder}: found {missing}")
            continue
        found = find_files(folder, family)
        if (actual := _identity(found)) in (name, None):
            data = read_files(found, classes)
            return data if family else replace(data, notes=(*data.notes, *_doubts(name, folder, actual, data)))
        refusals.append(f"{folder}: found {actual}")
    try:
        download = _class(torchvision_class, family)
        _download(data_dir, files, download, lambda: not missing_files(target, family))
        found = find_files(target, family)
    except (OSError, RuntimeError, DataError) as error:
        raise DataError(_unavailable(name, f"the files {FILES}", refusals, error)) from error
    return read_files(found, classes)


def _is_readable(read: Callable[[Path, bool], RawData], root: Path) -> bool:
    try:
        read(root, False)
    except (OSError, RuntimeError):
        return False
    return True


def _class(name: str, family: str) -> Callable[[Path], object]:
    """torchvision's download into a root folder; EMNIST's class asks which part is meant."""
    from torchvision import datasets  # takes a second to import, and only a download needs it

    part = {"split": family.split("-")[1]} if family else {}
    return lambda root: getattr(datasets, name)(root, download=True, **part)


def _identity(files: Files) -> str | None:
    """Recognises the published data set that the files belong to; None where they are unknown."""
    return _FIRST_LABELS.get(read_idx(files.train_labels)[:10].tobytes())


def _doubts(name: str, folder: Path, actual: str | None, data: RawData) -> Iterator[str]:
    """Says what speaks against the set's name, which its files do not bear."""
    counts = len(data.train), len(data.test)
    if counts != _COUNTS:
        expected, found = (f"{train:,} training and {test:,} test images" for train, test in (_COUNTS, counts))
        yield f"{folder}: taken for {name}, which was published with {expected}; found {found}"
    elif actual is None and name in _FIRST_LABELS.values():
        yield f"{folder}: taken for {name}, whose published labels begin otherwise"


def _download(
    data_dir: Path, files: str, download: Callable[[Path], object], is_there: Callable[[], bool]
) -> None:
    """Download beside the target, then move in whole files: no broken download is taken for a data set."""
    created = [folder for folder in (data_dir, *data_dir.parents) if not folder.exists()]
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        with _locked(data_dir / ".download.lock"):
            if not is_there():  # else another process was faster
                _fetch(data_dir, files, download)
    finally:
        for folder in created:  # what a failed download leaves empty
            with contextlib.suppress(OSError):
                folder.rmdir()


def _fetch(data_dir: Path, files: str, download: Callable[[Path], object]) -> None:
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT)
    temporary = Path(tempfile.mkdtemp(prefix=".download-", dir=data_dir))
    try:
        download(temporary)
        for path in temporary.glob(files):
            target = data_dir / path.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        socket.setdefaulttimeout(timeout)
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold `path` as a lock between processes; the file goes when the lock does."""
    import fcntl  # which Windows has not, where everything but a download works

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


def _unavailable(name: str, expected: str, refusals: list[str], error: Exception) -> str:
    return "\n  ".join(
        [
            f"data.name: {name}: expected {expected} in one of",
            *refusals,
            f"and could not download them: {_line(error)}",
            "To get them: run again with a network, copy them from another machine to one of these folders,",
            "name the folder that has them with --data-dir, or use the embedded mnist_mini.",
        ]
    )


def _line(error: Exception) -> str:
    """The error's message on one line."""
    return " ".join(str(error).split())
