"""Settings and fixtures shared by all tests."""

import os
from pathlib import Path

# Before anything imports Ray, which reads its environment once: it may hold the token of a real cluster.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch

from components.datasets.dataset import Dataset
from tests.tiny import tiny_split, write_folder


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors gain nothing from threads, and results then never depend on their number."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_dataset() -> Dataset:
    """40 training images, 8 of them for validation, and 20 test images; 4 classes, 8×8, grey."""
    return Dataset.cut("tiny", tiny_split(), tiny_split(20, seed=1), validation_fraction=0.2)


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """The same data set as a folder of idx files."""
    return write_folder(tmp_path / "tiny", tiny_split(), tiny_split(20, seed=1))
