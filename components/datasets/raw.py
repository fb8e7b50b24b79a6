"""Images and labels as their files hold them, and the checks that keep bad data out."""

from __future__ import annotations

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
    """

    train: RawSplit
    test: RawSplit
    notes: tuple[str, ...] = ()


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
