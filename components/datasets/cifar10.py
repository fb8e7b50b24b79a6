"""CIFAR-10: 50,000 training and 10,000 test photographs, 32×32 colour, 10 classes. Krizhevsky 2009.

torchvision reads its pickles only after their md5 sums have been found equal to the published ones.
"""

from pathlib import Path
from typing import Any

import numpy as np

from components.datasets.download import published
from components.datasets.raw import RawData, RawSplit
from components.datasets.sources import DATASETS


@DATASETS.register("cifar10")
def _cifar10(data_dir: Path) -> RawData:
    def read(root: Path, download: bool) -> RawData:
        from torchvision.datasets import CIFAR10  # takes a second to import

        train, test = (CIFAR10(root, train, download=download) for train in (True, False))
        return RawData(_split(train), _split(test), class_names=tuple(train.classes))

    files = "cifar-10-batches-py/*"
    return published("cifar10", read, files, data_dir)


def _split(loaded: Any) -> RawSplit:
    """torchvision's images (N, H, W, C) and list of labels."""
    images = np.ascontiguousarray(loaded.data.transpose(0, 3, 1, 2))
    return RawSplit(images, np.asarray(loaded.targets, dtype=np.uint8))
