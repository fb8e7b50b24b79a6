"""SVHN: 73,257 training and 26,032 test house numbers, 32×32 colour, 10 classes. Netzer et al. 2011."""

from pathlib import Path
from typing import Any

import numpy as np

from components.datasets.download import published
from components.datasets.raw import RawData, RawSplit
from components.datasets.sources import DATASETS


@DATASETS.register("svhn")
def _svhn(data_dir: Path) -> RawData:
    def read(root: Path, download: bool) -> RawData:
        from torchvision.datasets import SVHN  # takes a second to import

        train, test = (SVHN(root, split, download=download) for split in ("train", "test"))
        return RawData(_split(train), _split(test))

    return published("svhn", read, "*_32x32.mat", data_dir)


def _split(loaded: Any) -> RawSplit:
    """torchvision's images (N, C, H, W) and labels, in which 0 is the digit 0."""
    return RawSplit(np.ascontiguousarray(loaded.data), loaded.labels.astype(np.uint8))
