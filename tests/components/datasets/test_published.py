"""CIFAR-10, SVHN and EMNIST, each on tiny files in its own format on disk."""

import hashlib
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from torchvision import datasets

from components.datasets import DATASETS, DataError, RawSplit, load_dataset
from tests.tiny import tiny_split, write_idx

COLOUR = (3, 32, 32)


def sum_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def write_cifar10(root: Path, train: RawSplit, test: RawSplit) -> list[list[str]]:
    """Batches as CIFAR-10 has them: rows of 3072 bytes, red before green before blue. Gives names and sums."""
    home = root / "cifar-10-batches-py"
    home.mkdir(parents=True)
    parts = {"data_batch_1": train.take(np.arange(25)), "data_batch_2": train.take(np.arange(25, 40))}
    contents = {
        name: {"data": part.images.reshape(len(part), -1), "labels": part.labels.tolist()}
        for name, part in (parts | {"test_batch": test}).items()
    }
    contents["batches.meta"] = {"label_names": list("abcd")}
    for name, content in contents.items():
        (home / name).write_bytes(pickle.dumps(content))
    return [[name, sum_of(home / name)] for name in contents]


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, RawSplit, RawSplit]:
    """A root with a tiny CIFAR-10, whose sums torchvision takes for the published ones."""
    train, test = tiny_split(shape=COLOUR), tiny_split(20, shape=COLOUR, seed=1)
    *batches, last, (_, meta) = write_cifar10(tmp_path / "data", train, test)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", batches)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [last])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": meta})
    return tmp_path / "data", train, test


def refuse_to_download(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def refuse(self: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(getattr(datasets, name), "download", refuse)


def assert_holds(name: str, root: Path, train: RawSplit, test: RawSplit) -> None:
    """The set is read in full, each image with its label."""
    data = load_dataset(name, root, validation_fraction=0.2)
    assert (data.name, data.classes, data.image_shape) == (name, 4, train.images.shape[1:])
    assert torch.equal(data.test.images, torch.from_numpy(test.images).float() / 255)
    assert data.test.labels.tolist() == test.labels.tolist()
    expected = {(image.tobytes(), int(label)) for image, label in zip(train.images, train.labels, strict=True)}
    merged = data.merged()
    pixels = (merged.images * 255).round().byte().numpy()
    assert {(i.tobytes(), int(n)) for i, n in zip(pixels, merged.labels, strict=True)} == expected
    assert data.train.images.is_contiguous()


def test_cifar10_is_read(cifar10: tuple[Path, RawSplit, RawSplit]) -> None:
    assert_holds("cifar10", *cifar10)


def test_a_changed_file_of_cifar10_is_not_unpickled(
    cifar10: tuple[Path, RawSplit, RawSplit], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, *_ = cifar10
    batch = root / "cifar-10-batches-py" / "test_batch"
    batch.write_bytes(b"cos\nsystem\n(S'touch hit'\ntR.")
    monkeypatch.chdir(root)
    refuse_to_download(monkeypatch, "CIFAR10")
    with pytest.raises(DataError, match="no route to host") as refused:
        load_dataset("cifar10", root)
    assert f"{root}: Dataset not found or corrupted" in str(refused.value)
    assert not (root / "hit").exists()
    assert sorted(path.name for path in root.iterdir()) == ["cifar-10-batches-py"]


def test_a_set_is_found_in_a_folder_of_its_name(cifar10: tuple[Path, RawSplit, RawSplit]) -> None:
    root, train, test = cifar10
    (root.parent / "other").mkdir()
    root.rename(root.parent / "other" / "cifar10")
    assert_holds("cifar10", root.parent / "other", train, test)


def test_a_set_is_downloaded_once(
    cifar10: tuple[Path, RawSplit, RawSplit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, train, test = cifar10
    asked: list[Path] = []

    def download(self: datasets.CIFAR10) -> None:
        if not self._check_integrity():
            asked.append(Path(self.root))
            write_cifar10(Path(self.root), train, test)

    monkeypatch.setattr(datasets.CIFAR10, "download", download)
    for _ in range(2):
        assert_holds("cifar10", tmp_path / "new", train, test)
    assert len(asked) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["cifar-10-batches-py"]


def test_svhn_is_read_with_its_tens_as_noughts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = {"train": tiny_split(shape=COLOUR), "test": tiny_split(20, shape=COLOUR, seed=1)}
    listed = {}
    for name, split in splits.items():
        path = tmp_path / f"{name}_32x32.mat"
        labels = np.where(split.labels == 0, 10, split.labels)[:, None]
        savemat(path, {"X": split.images.transpose(2, 3, 1, 0), "y": labels})
        listed[name] = ["", path.name, sum_of(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    assert_holds("svhn", tmp_path, splits["train"], splits["test"])


def write_emnist(folder: Path, part: str, train: RawSplit, test: RawSplit, compressed: bool = False) -> Path:
    """Files as EMNIST publishes them, each image by columns."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, split in (("train", train), ("test", test)):
        images = split.images[:, 0].swapaxes(1, 2)
        write_idx(folder / f"emnist-{part}-{name}-images-idx3-ubyte", images, compressed)
        write_idx(folder / f"emnist-{part}-{name}-labels-idx1-ubyte", split.labels, compressed)
    return folder


GREY = tiny_split(shape=(1, 9, 7)), tiny_split(20, shape=(1, 9, 7), seed=1)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("place", ["EMNIST/raw", "emnist_digits", "."])
def test_emnist_digits_stand_upright(tmp_path: Path, place: str, compressed: bool) -> None:
    write_emnist(tmp_path / place, "digits", *GREY, compressed)
    write_emnist(tmp_path / place, "letters", *GREY, compressed)
    assert_holds("emnist_digits", tmp_path, *GREY)


def test_emnist_is_downloaded_by_torchvision_and_only_its_digits_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(self: datasets.EMNIST) -> None:
        for part in ("digits", "letters"):
            write_emnist(Path(self.raw_folder), part, *GREY)

    monkeypatch.setattr(datasets.EMNIST, "download", download)
    assert_holds("emnist_digits", tmp_path, *GREY)
    kept = [path.name for path in (tmp_path / "EMNIST" / "raw").iterdir()]
    assert len(kept) == 4
    assert all(name.startswith("emnist-digits-") for name in kept)


@pytest.mark.parametrize(
    ("name", "class_name", "expected"),
    [
        ("cifar10", "CIFAR10", "cifar-10-batches-py/*"),
        ("svhn", "SVHN", "*_32x32.mat"),
        ("emnist_digits", "EMNIST", "as EMNIST names them"),
    ],
)
def test_sets_that_cannot_be_had_say_where_they_were_sought_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, class_name: str, expected: str
) -> None:
    refuse_to_download(monkeypatch, class_name)
    with pytest.raises(DataError, match="no route to host") as refused:
        load_dataset(name, tmp_path / "a")
    for part in (f"data.name: {name}", expected, f"{tmp_path}/a:", f"{tmp_path}/a/{name}:", "--data-dir"):
        assert part in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_emnist_letters_is_numbered_from_nought(tmp_path: Path) -> None:
    train, test = (RawSplit(split.images, split.labels + 1) for split in GREY)
    data = load_dataset(write_emnist(tmp_path / "letters", "letters", train, test))
    assert (data.name, data.classes) == ("letters", 4)
    assert data.test.labels.tolist() == GREY[1].labels.tolist()
    assert torch.equal(data.test.images, torch.from_numpy(test.images).float() / 255)
    assert data.notes == ("emnist-letters-train-labels-idx1-ubyte: the labels 1 … 4 are read as 0 … 3",)


def test_a_folder_of_several_sets_is_refused(tmp_path: Path) -> None:
    write_emnist(tmp_path, "digits", *GREY)
    write_emnist(tmp_path, "letters", *GREY)
    found = "found those of 2: emnist-digits-train-images…, emnist-letters-train-images…; copy or link the four"
    with pytest.raises(DataError, match=re.escape(found)):
        load_dataset(tmp_path)


def test_a_gap_behind_the_first_label_is_still_refused(tmp_path: Path) -> None:
    train, test = GREY
    skipping = RawSplit(train.images, np.where(train.labels == 0, 5, train.labels).astype(np.uint8))
    with pytest.raises(DataError, match="the largest label, 4, found 0 of class 3"):
        load_dataset(write_emnist(tmp_path, "letters", skipping, RawSplit(test.images, test.labels % 2 + 1)))


def test_every_set_is_known_by_name() -> None:
    expected = ["mnist_mini", "mnist", "fashion_mnist", "kmnist", "cifar10", "svhn", "emnist_digits"]
    assert sorted(DATASETS) == sorted(expected)
