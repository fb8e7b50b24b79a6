"""Labelled images: data sets by name, and folders of idx files or of images."""

from typing import TYPE_CHECKING

from components.lazy import lazily

if TYPE_CHECKING:
    from components.datasets.catalogue import DATASETS, FOLDERS
    from components.datasets.dataset import Dataset, DataSplit, load_dataset
    from components.datasets.idx import DataError
    from components.datasets.raw import RawData, RawSplit

__all__ = ["DATASETS", "FOLDERS", "DataError", "DataSplit", "Dataset", "RawData", "RawSplit", "load_dataset"]

_HOMES = {
    "DATASETS": "catalogue",
    "FOLDERS": "catalogue",
    "Dataset": "dataset",
    "DataSplit": "dataset",
    "load_dataset": "dataset",
    "DataError": "idx",
    "RawData": "raw",
    "RawSplit": "raw",
}

__getattr__ = lazily(__name__, _HOMES)
