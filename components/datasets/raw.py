"""Images and labels as their files hold them, and the checks that keep bad data out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from components.datasets.idx import Bytes, DataError

_CHANNELS = (1, 3)  # what an idx4 file's channel dimension may be; also how that dimension is recognised


@dataclass(frozen=True, eq=False)
class RawSplit:
    """Images as stored: uint8 (N, C, H, W) with 255 for white, and uint8 labels (N,)."""

    images: Bytes
    labels: Bytes

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> RawSplit:
        """The rows at `indices`, in that order."""
        return RawSplit(self.images[indices], self.labels[indices])

    def parts(self) -> tuple[bytes, ...]:
        """Everything that tells this split from another, for a hash."""
        return repr(self.images.shape).encode(), self.images.tobytes(), self.labels.tobytes()


@dataclass(frozen=True, eq=False)
class RawData:
    """The result of a data set's reader.

    Attributes:
        train: the images to train and validate on.
        test: the held-out images.
        notes: sentences that a user must know: what was left out, turned or renumbered, with its number.
        class_names: of the labels 0, 1, …; empty where the labels are all that is known, as of digits.
    """

    train: RawSplit
    test: RawSplit
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()


def check_raw(
    data: RawData, classes: int | None = None, called: Callable[[str, str], str] = "{} {}".format
) -> None:
    """Refuses what is no data set of labelled images.

    Args:
        data: what a reader gives.
        classes: their number, where it is known beforehand.
        called: split (train or test) and kind (images or labels) → what messages call that array.

    Raises:
        DataError: arrays of another type or shape, values that were never scaled to 255, or labels that are no classes.
    """
    for part, split in (("train", data.train), ("test", data.test)):
        _check_split(split, called(part, "images"), called(part, "labels"))
    train, test = data.train, data.test
    if train.images.shape[1:] != test.images.shape[1:]:
        expected, shape = sizes(train.images[0]), sizes(test.images[0])
        raise DataError(f"{called('test', 'images')}: expected {expected} as the training images, found {shape}")
    _check_classes(train.labels, called("train", "labels"), classes)
    count, names = int(train.labels.max()) + 1, data.class_names
    _check_known(test.labels, called("test", "labels"), count)
    if names and (len(names) != count or not all(isinstance(name, str) for name in names)):
        raise DataError(f"class_names: expected {count} names, one of each label, or none, found {names}")


def _check_split(split: object, images_called: str, labels_called: str) -> None:
    if not isinstance(split, RawSplit):
        raise DataError(f"{images_called}: expected RawSplit(images, labels), found {type(split).__name__}")
    arrays = ((split.images, images_called, 4, "(N, C, H, W), 255 for white"), (split.labels, labels_called, 1, "(N,)"))
    for array, name, dimensions, expected in arrays:
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != dimensions:
            kind = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise DataError(f"{name}: expected uint8 {expected}, found {kind}")
    images, labels = split.images, split.labels
    if images.shape[1] not in _CHANNELS or len(images) != len(labels):
        expected = f"{len(labels)} images, as there are labels, of 1 or 3 channels"
        raise DataError(f"{images_called}: expected {expected}, found {images.shape}")
    if images.size == 0:
        raise DataError(f"{images_called}: expected at least one pixel, found {sizes(images)}")
    if (white := int(images.max())) <= 1:
        raise DataError(f"{images_called}: expected values up to 255 for white, found none above {white}")


def _check_classes(labels: Bytes, name: str, classes: int | None) -> None:
    """Refuse labels that are no class; where their number is unknown, a gap or a lone image betrays them."""
    if classes is not None:
        _check_known(labels, name, classes)
    counts = np.bincount(labels)
    if len(counts) < 2:
        raise DataError(f"{name}: expected at least 2 classes, found only label 0")
    rare = int(np.argmin(counts >= 2))
    if counts[rare] < 2:
        raise DataError(
            f"{name}: expected at least 2 images of each class from 0 to the largest label, "
            f"{len(counts) - 1}, found {counts[rare]} of class {rare}"
        )


def _check_known(labels: Bytes, name: str, classes: int) -> None:
    if labels.max() >= classes:
        row = int(np.argmax(labels >= classes))
        raise DataError(f"{name}[{row}]: expected a class from 0 to {classes - 1}, found {labels[row]}")


def channels_first(path: Path, images: Bytes) -> Bytes:
    """(N, H, W), (N, H, W, C) or (N, C, H, W) → (N, C, H, W)."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] in _CHANNELS:
        return images
    if images.ndim == 4 and images.shape[3] in _CHANNELS:
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    expected = "images N×H×W, N×C×H×W or N×H×W×C with C of 1 or 3"
    raise DataError(f"{path}: magic: expected {expected}, found {sizes(images)} values")


def sizes(array: Bytes) -> str:
    """The array's shape for messages: `40×8×8`."""
    return "×".join(map(str, array.shape))


def stratified_indices(labels: NDArray[np.integer], n: int, seed: int) -> NDArray[np.int64]:
    """`n` row numbers in ascending order, each class in its proportion, off by less than one image."""
    counts = np.bincount(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    wanted = _shares(counts, n)
    return np.sort(np.concatenate([order[labels[order] == c][:k] for c, k in enumerate(wanted)]))


def _shares(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Split `n` in proportion to `counts` by largest remainders, in whole numbers: exact for every size."""
    shares, remainders = np.divmod(counts * n, counts.sum())
    largest = np.argsort(-remainders, kind="stable")[: n - shares.sum()]
    shares[largest] += 1
    return shares
