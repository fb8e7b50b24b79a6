"""Images and labels as their files hold them, and the checks that keep bad data out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.datasets.idx import Bytes, DataError, read_idx
from components.datasets.sources import Files

_CHANNELS = (1, 3)  # what an idx4 file's channel dimension may be; also how that dimension is recognised


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Images as stored: uint8 (N, C, H, W) with 255 for white, and uint8 labels (N,)."""

    images: Bytes
    labels: Bytes

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> "RawSplit":
        """The rows at `indices`, in that order."""
        return RawSplit(self.images[indices], self.labels[indices])

    def parts(self) -> tuple[bytes, ...]:
        """Everything that tells this split from another, for a hash."""
        return repr(self.images.shape).encode(), self.images.tobytes(), self.labels.tobytes()


def read_files(files: Files, classes: int | None = None) -> tuple[RawSplit, RawSplit]:
    """The train and test splits, read and checked; `classes` is their number where it is known beforehand.

    Raises:
        DataError: a file is damaged, or the files do not fit each other.
    """
    train = _read_split(files.train_images, files.train_labels)
    test = _read_split(files.t10k_images, files.t10k_labels)
    _check_classes(train.labels, files.train_labels, classes)
    _check_alike(train, test, files)
    return train, test


def _read_split(images_path: Path, labels_path: Path) -> RawSplit:
    labels = read_idx(labels_path)
    if labels.ndim != 1:
        raise DataError(f"{labels_path}: magic: expected labels (1 dimension), found {_sizes(labels)} values")
    images = channels_first(images_path, read_idx(images_path))
    if images.size == 0:
        raise DataError(f"{images_path}: sizes: expected at least one pixel, found {_sizes(images)}")
    if len(images) != len(labels):
        raise DataError(f"{labels_path}: labels: expected {len(images)}, one per image, found {len(labels)}")
    return RawSplit(images, labels)


def channels_first(path: Path, images: Bytes) -> Bytes:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) → (N, C, H, W)."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in _CHANNELS:
        return images
    if images.ndim == 4 and images.shape[3] in _CHANNELS:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    expected = "images N×H×W, N×C×H×W or N×H×W×C with C of 1 or 3"
    raise DataError(f"{path}: magic: expected {expected}, found {_sizes(images)} values")


def _check_classes(labels: Bytes, path: Path, classes: int | None) -> None:
    """Refuse labels that are no class; where their number is unknown, a gap or a lone image betrays them."""
    counts = np.bincount(labels)
    if classes is not None and len(counts) > classes:
        raise DataError(_bad_label(path, labels, classes))
    if len(counts) < 2:
        raise DataError(f"{path}: labels: expected at least 2 classes, found only label 0")
    rare = int(np.argmin(counts >= 2))
    if counts[rare] < 2:
        raise DataError(
            f"{path}: labels: expected at least 2 images of each class from 0 to the largest label, "
            f"{len(counts) - 1}, found {counts[rare]} of class {rare}"
        )


def _check_alike(train: RawSplit, test: RawSplit, files: Files) -> None:
    if train.images.shape[1:] != test.images.shape[1:]:
        expected, found = _sizes(train.images[0]), _sizes(test.images[0])
        raise DataError(
            f"{files.t10k_images}: sizes: expected {expected} as in {files.train_images.name}, found {found}"
        )
    classes = int(train.labels.max()) + 1
    if test.labels.max() >= classes:
        raise DataError(_bad_label(files.t10k_labels, test.labels, classes))


def _bad_label(path: Path, labels: Bytes, classes: int) -> str:
    row = int(np.argmax(labels >= classes))
    return f"{path}: labels[{row}]: expected a class from 0 to {classes - 1}, found {labels[row]}"


def _sizes(array: Bytes) -> str:
    return "×".join(map(str, array.shape))
