"""A folder of idx files, under the names in which MNIST, its relatives and EMNIST are published."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.datasets.idx import DataError, read_idx
from components.datasets.raw import RawData, RawSplit, channels_first, check_raw, sizes
from components.datasets.sources import FOLDERS

FILES = (
    "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte "
    "(each with or without .gz, or as EMNIST names them)"
)
_FILE_NAME = re.compile(
    r"(?P<family>(?:emnist-[a-z]+-)?)(?P<split>train|t10k|test)-(?P<kind>images|labels)[-.]idx[134]-ubyte(?:\.gz)?"
)
_ROLES = ("train_images", "train_labels", "t10k_images", "t10k_labels")


@dataclass(frozen=True)
class Files:
    """The four idx files of one data set.

    Attributes:
        family: what their names begin with: nothing, or `emnist-digits-` and the like.
    """

    train_images: Path
    train_labels: Path
    t10k_images: Path
    t10k_labels: Path
    family: str = ""

    def called(self, split: str, kind: str) -> str:
        """The file of a split's images or labels, for messages."""
        path: Path = getattr(self, f"{'t10k' if split == 'test' else split}_{kind}")
        return f"{path}: {kind}"


@FOLDERS.register("idx files")
def read_folder(folder: Path) -> RawData | None:
    """The data set of a folder's idx files; None where there are none.

    Raises:
        DataError: some are missing or damaged, or they are those of several data sets.
    """
    families = _families(folder)
    if not families:
        return None
    if len(families) > 1:
        found = ", ".join(f"{family or ''}train-images…" for family in sorted(families))
        raise DataError(
            f"{folder}: expected the idx files of one data set, found those of {len(families)}: {found}; "
            "copy or link the four that you mean into a folder of their own"
        )
    return read_files(find_files(folder, next(iter(families))))


def find_files(folder: Path, family: str = "") -> Files:
    """The four files of `family` in a folder.

    Raises:
        DataError: one is missing.
    """
    if missing := missing_files(folder, family):
        raise DataError(f"{folder}: expected the files {FILES}; found {missing}")
    return Files(**_families(folder)[family], family=family)


def missing_files(folder: Path, family: str = "") -> str:
    """Says what `folder` lacks of the four files; nothing if it lacks nothing."""
    found = _families(folder).get(family, {})
    if not found:
        return "none of them"
    missing = [role.replace("_", "-") for role in _ROLES if role not in found]
    return "no " + ", ".join(missing) if missing else ""


def _families(folder: Path) -> dict[str, dict[str, Path]]:
    """Family → role → file. Of a file and its gzip, which torchvision leaves side by side, the plain one is faster."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if match := _FILE_NAME.fullmatch(path.name):
            split = match["split"].replace("test", "t10k")
            found[match["family"]].setdefault(f"{split}_{match['kind']}", path)
    return dict(found)


def read_files(files: Files, classes: int | None = None) -> RawData:
    """The train and test splits, read and checked; `classes` is their number where it is known beforehand.

    Raises:
        DataError: a file is damaged, or the files do not fit each other.
    """
    train = _read_split(files.train_images, files.train_labels, files.family)
    test = _read_split(files.t10k_images, files.t10k_labels, files.family)
    notes = []
    some = len(train) and len(test)  # else `check_raw` names the file that holds none
    if classes is None and some and train.labels.min() == 1 and test.labels.min() >= 1:  # EMNIST's letters
        last = train.labels.max()
        notes.append(f"{files.train_labels.name}: the labels 1 … {last} are read as 0 … {last - 1}")
        train, test = (RawSplit(split.images, split.labels - 1) for split in (train, test))
    data = RawData(train, test, tuple(notes))
    check_raw(data, classes, files.called)
    return data


def _read_split(images_path: Path, labels_path: Path, family: str) -> RawSplit:
    labels = read_idx(labels_path)
    if labels.ndim != 1:
        raise DataError(f"{labels_path}: magic: expected labels (1 dimension), found {sizes(labels)} values")
    images = channels_first(images_path, read_idx(images_path))
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: labels: expected {len(images)}, one per image, found {len(labels)}")
    if family:  # EMNIST's files hold each image by columns
        images = np.ascontiguousarray(images.swapaxes(-1, -2))
    return RawSplit(images, labels)
