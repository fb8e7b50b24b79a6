"""Labelled images: data sets by name, and folders of idx files or of images."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Imports a name when it is first asked for, so that settings and help need no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
