import hashlib
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets import DataError, Dataset, DataSplit, RawSplit, load_dataset
from components.datasets.config import DataConfig
from components.datasets.idx import read_idx
from components.datasets.raw import stratified_indices
from tests.tiny import IMAGES, LABELS, T10K_IMAGES, T10K_LABELS, tiny_split, write_folder, write_idx

ROOT = Path(__file__).parents[3]


def classes_of(split: DataSplit) -> list[int]:
    return split.labels.bincount().tolist()


# --- the embedded data ---


@pytest.fixture(scope="module")
def mini() -> Dataset:
    return load_dataset("mnist_mini")


def test_mnist_mini_is_whole_and_stratified(mini: Dataset) -> None:
    assert (len(mini.train), len(mini.validation), len(mini.test)) == (9_000, 1_000, 2_000)
    assert (mini.name, mini.classes, mini.image_shape) == ("mnist_mini", 10, (1, 28, 28))
    assert (mini.train.images.min(), mini.train.images.max()) == (0, 1)
    # MNIST's own share of ones, the most frequent digit, is 11.24 %.
    assert classes_of(mini.merged())[1] == 1124


def test_mnist_mini_matches_its_sums() -> None:
    folder = ROOT / "components" / "mnist_mini"
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        expected, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected


def test_mnist_mini_needs_no_data_dir(tmp_path: Path) -> None:
    assert len(load_dataset("mnist_mini", tmp_path / "absent").test) == 2_000


def test_cutting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    from components.mnist_mini import cut

    source = write_folder(tmp_path / "source", tiny_split(12_000), tiny_split(2_400))
    for target in ("one", "two"):
        (tmp_path / target).mkdir()
        cut.cut(source, tmp_path / target)
        time.sleep(1.1)  # a time stamp in gzip counts seconds
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / t).iterdir()} for t in ("one", "two"))
    assert one == two
    assert len(read_idx(tmp_path / "one" / "train-labels-idx1-ubyte.gz")) == cut.TRAIN


# --- folders ---


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_is_read_plain_or_compressed(tmp_path: Path, compressed: bool) -> None:
    train, test = tiny_split(), tiny_split(20, seed=1)
    data = load_dataset(write_folder(tmp_path / "mine", train, test, compressed), validation_fraction=0.2)
    assert (data.name, data.classes, data.image_shape) == ("mine", 4, (1, 8, 8))
    assert torch.equal(data.test.images, torch.from_numpy(test.images).float() / 255)
    assert data.train.images.dtype == torch.float32
    assert data.train.labels.dtype == torch.int64
    assert classes_of(data.train) == [8, 8, 8, 8]
    assert classes_of(data.validation) == [2, 2, 2, 2]


def test_names_with_a_dot_are_read_too(tiny_folder: Path) -> None:
    for path in tiny_folder.iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(load_dataset(tiny_folder).test) == 20


@pytest.mark.parametrize("shape", [(3, 9, 7), (1, 5, 12)])
def test_size_and_channels_come_from_the_data(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    folder = write_folder(tmp_path, tiny_split(shape=shape), tiny_split(20, shape=shape))
    assert load_dataset(folder).image_shape == shape


def test_channels_may_come_last(tmp_path: Path) -> None:
    first, last = (write_folder(tmp_path / name, colour(), colour()) for name in ("first", "last"))
    for path in last.glob("*-images-*"):
        write_idx(path, read_idx(path).transpose(0, 2, 3, 1))
    expected, found = load_dataset(first), load_dataset(last)
    assert found.image_shape == (3, 9, 7)
    assert torch.equal(expected.train.images, found.train.images)
    assert found.train.images.is_contiguous()


def colour() -> RawSplit:
    return tiny_split(shape=(3, 9, 7))


# --- splits ---


def test_train_and_validation_share_no_image_and_lose_none(tiny_dataset: Dataset) -> None:
    merged = tiny_dataset.merged()
    assert len(merged) == 40
    rows = {image.numpy().tobytes() for image in merged.images}
    assert rows == {image.tobytes() for image in tiny_split().images.astype(np.float32) / np.float32(255)}


def test_the_seed_alone_chooses_the_validation_images(tiny_folder: Path) -> None:
    one, again, other = (load_dataset(tiny_folder, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.validation.images, again.validation.images)
    assert one.fingerprint == again.fingerprint != other.fingerprint
    assert one.test_fingerprint == other.test_fingerprint


@pytest.mark.parametrize(
    ("file", "changes"), [(IMAGES, True), (LABELS, True), (T10K_IMAGES, False), (T10K_LABELS, False)]
)
def test_the_fingerprint_covers_all_that_a_search_sees_and_no_more(
    tiny_folder: Path, file: str, changes: bool
) -> None:
    before = load_dataset(tiny_folder)
    array = read_idx(tiny_folder / file).copy()
    array[[0, 1]] = array[[1, 0]]
    write_idx(tiny_folder / file, array)
    after = load_dataset(tiny_folder)
    assert (before.fingerprint != after.fingerprint) == changes
    assert (before.test_fingerprint != after.test_fingerprint) != changes


def test_the_test_split_is_made_only_when_asked_for(
    tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not any(len(value) == 20 for value in vars(tiny_dataset).values() if isinstance(value, DataSplit))
    assert "held_out" not in repr(tiny_dataset)
    assert len(tiny_dataset.test) == 20


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any),
    share=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_stratified_indices_keep_every_proportion(counts: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    n = round(share * len(labels))
    chosen = stratified_indices(labels, n, seed)
    assert len(chosen) == n
    assert np.all(np.diff(chosen) > 0)
    taken = np.bincount(labels[chosen], minlength=len(counts))
    assert np.all(np.abs(taken - np.array(counts) * n / len(labels)) < 1)


def test_subset_and_sample(tiny_dataset: Dataset) -> None:
    split = tiny_dataset.train
    assert torch.equal(split.subset(5).images, split.images[:5])
    assert split.subset([3, 1]).labels.tolist() == split.labels[[3, 1]].tolist()
    assert split.subset(torch.tensor([3, 1])).labels.tolist() == split.labels[[3, 1]].tolist()
    assert classes_of(split.sample(8, seed=3)) == [2, 2, 2, 2]
    assert torch.equal(split.sample(8, 3).images, split.sample(8, 3).images)
    assert not torch.equal(split.sample(8, 3).images, split.sample(8, 4).images)
    assert torch.equal(split.sample(32, 0).images, split.images)


@pytest.mark.parametrize("n", [0, -1, 33])
def test_a_subset_of_no_or_too_many_images_is_refused(tiny_dataset: Dataset, n: int) -> None:
    for draw in (tiny_dataset.train.subset, lambda n: tiny_dataset.train.sample(n, 0)):
        with pytest.raises(ValueError, match=f"n: expected 1 to 32 images, found {n}"):
            draw(n)


def test_a_split_of_the_wrong_kind_is_refused() -> None:
    images, labels = torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"images: expected float32 \(N, C, H, W\), found float64"):
        DataSplit(images.double(), labels)
    with pytest.raises(ValueError, match=r"images: .* found float32 \(2, 4, 4\)"):
        DataSplit(images[:, 0], labels)
    with pytest.raises(ValueError, match=r"labels: expected int64 \(2,\), found int64 \(1,\)"):
        DataSplit(images, labels[:1])


@pytest.mark.parametrize("fraction", [-0.1, 0, 0.001, 0.999, 1, float("nan")])
def test_a_validation_share_that_leaves_a_split_empty_is_refused(tiny_folder: Path, fraction: float) -> None:
    with pytest.raises(DataError, match=r"data\.validation_fraction: expected a share between 0 and 1"):
        load_dataset(tiny_folder, validation_fraction=fraction)


def test_the_config_is_bounded() -> None:
    assert DataConfig().name == "mnist_mini"
    for fraction in (0, 1, -1, 2):
        with pytest.raises(ValueError, match="validation_fraction"):
            DataConfig(validation_fraction=fraction)


def test_settings_and_names_need_no_torch() -> None:
    code = (
        "import sys, components.datasets, components.datasets.config; from components.datasets import DATASETS; "
        "assert 'svhn' in DATASETS; sys.exit(not {'torch', 'torchvision'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
