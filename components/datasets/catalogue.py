"""Every data set there is. A new one is a file beside this one, and its name in the first import."""

from __future__ import annotations

from pathlib import Path

from components.config import nearest
from components.datasets import cifar10, emnist_digits, idx_folder, image_folder, mnist, svhn  # noqa: F401
from components.datasets.idx import DataError
from components.datasets.raw import RawData
from components.datasets.sources import DATASETS, FOLDERS, default_data_dir
from components.files import expanded

__all__ = ["DATASETS", "FOLDERS", "read_raw"]


def read_raw(name_or_folder: str | Path, data_dir: str | Path | None = None) -> RawData:
    """The train and test splits of a data set given by name or folder; downloads one that is not there yet.

    Raises:
        DataError: no such name or folder, or data that are missing or bad.
    """
    name = str(name_or_folder)
    folder = expanded(data_dir or default_data_dir()) if name in DATASETS else expanded(name_or_folder)
    try:
        return _read(name, folder)
    except OSError as error:  # no permission, or a disk that fails
        found = f"{error.filename or folder}: {error.strerror or error}"
        raise DataError(f"data.name: expected data that can be read, found {found}") from error


def _read(name: str, folder: Path) -> RawData:
    if name in DATASETS:
        return DATASETS[name](folder)
    if not folder.is_dir():
        known = ", ".join(DATASETS)
        kinds = " or ".join(FOLDERS)
        raise DataError(
            f"data.name: expected {known}, or a folder of {kinds}, found {name!r}{nearest(name, DATASETS)}"
        )
    for read in FOLDERS.values():
        if (raw := read(folder)) is not None:
            return raw
    raise DataError(f"{folder}: expected {idx_folder.FILES}, or {image_folder.LAYOUT}; found {_found(folder)}")


def _found(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return "none of them" + (f", but {', '.join(map(repr, names[:3]))}" if names else "")
