"""A data set that a test can learn in seconds, in memory or as files."""

import gzip
from pathlib import Path

import numpy as np

from components.datasets.idx import Bytes, to_idx
from components.datasets.raw import RawSplit

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
T10K_IMAGES, T10K_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = (IMAGES, LABELS, T10K_IMAGES, T10K_LABELS)


def tiny_split(n: int = 40, classes: int = 4, shape: tuple[int, ...] = (1, 8, 8), seed: int = 0) -> RawSplit:
    """Images that a classifier can learn: on noise, each class lights a row of its own."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(n) % classes).astype(np.uint8)
    images = rng.integers(0, 60, (n, *shape), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[..., 1 + label % (shape[-2] - 1), :] = 220
    return RawSplit(images, labels)


def write_folder(folder: Path, train: RawSplit, test: RawSplit, compressed: bool = False) -> Path:
    """Write a data set as the four idx files of MNIST."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, split in (("train", train), ("t10k", test)):
        images = split.images[:, 0] if split.images.shape[1] == 1 else split.images
        write_idx(folder / f"{prefix}-images-idx{images.ndim}-ubyte", images, compressed)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", split.labels, compressed)
    return folder


def write_idx(path: Path, array: Bytes, compressed: bool = False) -> None:
    """Write one idx file, with `.gz` added to its name if it is to be compressed."""
    content = to_idx(array)
    path = path.with_name(path.name + ".gz") if compressed else path
    path.write_bytes(gzip.compress(content) if compressed else content)
