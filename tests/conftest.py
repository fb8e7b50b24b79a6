"""Settings and fixtures shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

# Before anything imports Ray, which reads its environment once: it may hold the token of a real cluster.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ |= {"RAY_worker_niceness": "0"}  # at Ray's 15 whatever is busy beside its workers leaves them 3 % of a core
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


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket of an S3-compatible server on this machine."""
    moto = pytest.importorskip("moto.server")
    from tune.storage.folder import Storage

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-nobody")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_REGION", "us-east-1")
        address = f"endpoint_override=http://{host}:{port}"
        Storage(f"s3://results?{address}&allow_bucket_creation=true")._fs.create_dir("results")
        yield f"s3://results/search?{address}"
    server.stop()
