"""Published sets: found where they lie, else downloaded once."""

import multiprocessing
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torchvision import datasets

from components.datasets import DataError, load_dataset
from components.datasets.idx import read_idx
from tests.tiny import FILES, LABELS, tiny_split, write_folder, write_idx

ROOT = Path(__file__).parents[3]


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for torchvision's download, and lists what it was asked for."""
    asked: list[Path] = []

    def download(root: Path, download: bool) -> None:
        asked.append(Path(root))
        write_folder(Path(root) / "MNIST" / "raw", tiny_split(), tiny_split(20), compressed=True)

    monkeypatch.setattr(datasets, "MNIST", download)
    return asked


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(root: Path, download: bool) -> None:
        (Path(root) / "MNIST" / "raw").mkdir(parents=True)
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz:\nno route to host")

    monkeypatch.setattr(datasets, "MNIST", refuse)


@pytest.mark.parametrize("place", [".", "mnist", "MNIST/raw"])
def test_a_published_set_is_found_where_it_may_lie(tmp_path: Path, place: str, downloads: list[Path]) -> None:
    write_folder(tmp_path / place, tiny_split(), tiny_split(20))
    assert load_dataset("mnist", tmp_path).name == "mnist"
    assert not downloads


def test_a_published_set_is_downloaded_once(tmp_path: Path, downloads: list[Path]) -> None:
    assert len(load_dataset("mnist", tmp_path / "new").test) == 20
    assert len(load_dataset("mnist", tmp_path / "new").test) == 20
    assert len(downloads) == 1
    left = sorted(path.name for path in (tmp_path / "new" / "MNIST" / "raw").iterdir())
    assert left == sorted(f"{name}.gz" for name in FILES)


def test_the_default_folder_is_the_users_cache(
    tmp_path: Path, downloads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_dataset("mnist")
    assert (tmp_path / "latent-defense" / "data" / "MNIST" / "raw").is_dir()


@pytest.mark.usefixtures("offline")
def test_a_set_that_cannot_be_had_says_where_it_was_sought_and_leaves_nothing(tmp_path: Path) -> None:
    data_dir = tmp_path / "a" / "b"
    with pytest.raises(DataError) as refused:
        load_dataset("mnist", data_dir)
    message = str(refused.value)
    for part in (
        *FILES,
        f"{data_dir}:",
        f"{data_dir}/mnist:",
        f"{data_dir}/MNIST/raw:",
        "no route",
        "--data-dir",
    ):
        assert part in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("offline")
def test_another_sets_files_are_not_taken_for_the_one_asked_for(tmp_path: Path) -> None:
    train = tiny_split(40, classes=10)
    train.labels[:10] = [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
    write_folder(tmp_path, train, tiny_split(20))
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path))}: found fashion_mnist"):
        load_dataset("mnist", tmp_path)
    assert load_dataset("fashion_mnist", tmp_path).name == "fashion_mnist"


def test_what_speaks_against_a_sets_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path, tiny_split(), tiny_split(20, seed=1))
    expected = "published with 60,000 training and 10,000 test images; found 40 training and 20 test images"
    for name in ("mnist", "kmnist"):
        notes = load_dataset(name, tmp_path).notes
        assert notes == (f"{tmp_path}: taken for {name}, which was {expected}",)
    monkeypatch.setattr("components.datasets.download._COUNTS", (40, 20))  # as if so few had been published
    assert load_dataset("mnist", tmp_path).notes == (
        f"{tmp_path}: taken for mnist, whose published labels begin otherwise",
    )
    assert load_dataset("kmnist", tmp_path).notes == ()  # whose first labels are not known here


def test_a_damaged_published_set_is_named_not_downloaded_again(tmp_path: Path, downloads: list[Path]) -> None:
    write_folder(tmp_path, tiny_split(), tiny_split(20))
    labels = read_idx(tmp_path / LABELS).copy()
    labels[5] = 77
    write_idx(tmp_path / LABELS, labels)
    with pytest.raises(DataError, match=r"labels\[5\]: expected a class from 0 to 9, found 77"):
        load_dataset("mnist", tmp_path)
    assert not downloads


def _download_slowly(data_dir: Path, counter: Path) -> None:
    def download(root: Path, download: bool) -> None:
        with counter.open("a") as stream:
            stream.write("x")
        time.sleep(0.2)
        write_folder(Path(root) / "MNIST" / "raw", tiny_split(), tiny_split(20), compressed=True)

    datasets.MNIST = download
    load_dataset("mnist", data_dir)


def test_processes_that_want_the_same_set_download_it_once(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    counter = tmp_path / "downloads"
    workers = [fork.Process(target=_download_slowly, args=(tmp_path / "data", counter)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert counter.read_text() == "x"


def test_reading_data_does_not_import_torchvision() -> None:
    """It takes a second, which every worker of a search would pay."""
    code = "import sys, components.datasets.dataset; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match=r"data\.name: .* found 'fashon_mnist'; did you mean fashion_mnist"):
        load_dataset("fashon_mnist")
