"""Bad files: each is refused with its name, what was expected and what was found."""

import contextlib
import gzip
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.datasets import DataError, load_dataset
from components.datasets.idx import read_idx, to_idx
from tests.tiny import IMAGES, LABELS, T10K_IMAGES, T10K_LABELS, tiny_split, write_folder, write_idx


def overwrite(file: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes(content) and None


def rewrite(file: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda folder: write_idx(folder / file, change(read_idx(folder / file)))


def cut_off(file: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / file).write_bytes((folder / file).read_bytes()[:size]) and None


def with_label(row: int, label: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda labels: np.where(np.arange(len(labels)) == row, label, labels).astype(np.uint8)


def swap(one: str, other: str) -> Callable[[Path], None]:
    def exchange(folder: Path) -> None:
        first, second = (folder / one).read_bytes(), (folder / other).read_bytes()
        (folder / one).write_bytes(second)
        (folder / other).write_bytes(first)

    return exchange


def grow(folder: Path) -> None:
    with (folder / T10K_LABELS).open("ab") as stream:
        stream.write(b"\0")


def without_tests(folder: Path) -> None:
    for file in (T10K_IMAGES, T10K_LABELS):
        write_idx(folder / file, read_idx(folder / file)[:0])


def without_training_images(folder: Path) -> None:
    for file in (IMAGES, LABELS):
        write_idx(folder / file, read_idx(folder / file)[:0])


def without_files(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def a_folder_instead(folder: Path) -> None:
    (folder / IMAGES).unlink()
    (folder / IMAGES).mkdir()


FLOATS = b"\0\0\x0d\x03" + b"\0" * 12

# What is wrong: how to make it so, the file that is named, part of what is said.
BAD = {
    "truncated": (
        cut_off(IMAGES, -1),
        IMAGES,
        "data: truncated: expected 2576 bytes for 40×8×8 values, found 2575",
    ),
    "half a header": (cut_off(IMAGES, 9), IMAGES, "header: truncated: expected 16 bytes, found 9"),
    "three bytes": (
        cut_off(LABELS, 3),
        LABELS,
        "magic: expected 00 00 08 and the number of dimensions, found 00",
    ),
    "too long": (grow, T10K_LABELS, "data: too long: expected 28 bytes for 20 values, found 29"),
    "empty": (overwrite(T10K_IMAGES, b""), T10K_IMAGES, "file: expected an idx file, found 0 bytes"),
    "wrong magic": (overwrite(IMAGES, b"\x89PNG....."), IMAGES, "found 89 50 4e 47"),
    "floats": (overwrite(IMAGES, FLOATS), IMAGES, "magic: expected values of type uint8 (08), found float32"),
    "missing": (lambda folder: (folder / T10K_LABELS).unlink(), "", "found no t10k-labels"),
    "all missing": (without_files, "", "found none of them"),
    "a folder": (a_folder_instead, IMAGES, "file: expected a readable file, found: Is a directory"),
    "swapped": (swap(IMAGES, LABELS), LABELS, "magic: expected labels (1 dimension), found 40×8×8 values"),
    "labels as images": (rewrite(IMAGES, lambda a: a[:, 0, 0]), IMAGES, "expected images N×H×W, N×C×H×W or"),
    "four channels": (
        rewrite(IMAGES, lambda a: a.reshape(40, 4, 4, 4)),
        IMAGES,
        "C of 1 or 3, found 40×4×4×4",
    ),
    "wrong labels": (swap(LABELS, T10K_LABELS), LABELS, "labels: expected 40, one per image, found 20"),
    "other size": (rewrite(T10K_IMAGES, lambda a: a[:, :7]), T10K_IMAGES, "images: expected 1×8×8 as"),
    "no images": (without_tests, T10K_IMAGES, "images: expected at least one pixel, found 0×1×8×8"),
    "no training images": (without_training_images, IMAGES, "images: expected at least one pixel, found 0×1×8×8"),
    "test label": (
        rewrite(T10K_LABELS, with_label(7, 9)),
        T10K_LABELS,
        "labels[7]: expected a class from 0 to 3",
    ),
    "gap": (rewrite(LABELS, with_label(7, 200)), LABELS, "the largest label, 200, found 0 of class 4"),
    "lone image": (rewrite(LABELS, with_label(7, 4)), LABELS, "the largest label, 4, found 1 of class 4"),
    "one class": (rewrite(LABELS, lambda a: a * 0), LABELS, "labels: expected at least 2 classes"),
}


@pytest.mark.parametrize(("damage", "file", "message"), BAD.values(), ids=BAD)
def test_bad_files_are_named_with_what_was_expected_and_found(
    tiny_folder: Path, damage: Callable[[Path], None], file: str, message: str
) -> None:
    damage(tiny_folder)
    with pytest.raises(DataError, match=re.escape(message)) as refused:
        load_dataset(tiny_folder)
    assert str(refused.value).startswith(str(tiny_folder / file))


def test_a_pipe_under_the_name_of_an_idx_file_is_not_waited_for(tiny_folder: Path) -> None:
    (tiny_folder / T10K_LABELS).unlink()
    os.mkfifo(tiny_folder / T10K_LABELS)
    with pytest.raises(DataError, match=f"{T10K_LABELS}: file: expected a readable file, found: a pipe or a device"):
        load_dataset(tiny_folder)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[:-9], lambda b: b[:30] + bytes(9) + b[39:], lambda b: b"oops" + b],
    ids=["cut", "hole", "head"],
)
def test_a_corrupt_gzip_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    folder = write_folder(tmp_path, tiny_split(), tiny_split(), compressed=True)
    path = folder / f"{IMAGES}.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=re.escape(f"{path}: gzip: expected a whole gzip file")):
        load_dataset(folder)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\n<!DOCTYPE html><title>404", "an HTML page: a server's answer"),
        (b"<html><body>Sign in", "an HTML page: a server's answer"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML page: a server's answer"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "a pointer of Git LFS; run `git lfs pull`"),
        (b"PK\x03\x04rest", "a zip archive; unpack it"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("packed", [False, True])
def test_other_content_under_the_name_of_an_idx_file_is_named(
    tiny_folder: Path, content: bytes, found: str, suffix: str, packed: bool
) -> None:
    (tiny_folder / IMAGES).unlink()
    path = tiny_folder / f"{IMAGES}{suffix}"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(DataError, match=re.escape(f"{path}: magic: expected an idx file, found {found}")):
        load_dataset(tiny_folder)


def test_packed_or_not_is_seen_in_the_content_and_not_the_name(tiny_folder: Path) -> None:
    expected = load_dataset(tiny_folder).fingerprint
    images, labels = (tiny_folder / name for name in (IMAGES, LABELS))
    images.write_bytes(gzip.compress(images.read_bytes()))
    labels.rename(f"{labels}.gz")
    assert load_dataset(tiny_folder).fingerprint == expected


@given(content=st.binary(max_size=64) | st.binary(max_size=32).map(lambda tail: b"\0\0\x08\x02" + tail))
@settings(max_examples=200, deadline=None)
def test_no_bytes_crash_the_idx_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    # Anything but an array that is the file, or a DataError, fails the test.
    with contextlib.suppress(DataError):
        assert to_idx(read_idx(path)) == content


@given(shape=st.lists(st.integers(0, 5), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(deadline=None)
def test_an_idx_file_returns_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], seed: int
) -> None:
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path_factory.getbasetemp() / "idx"
    write_idx(path, array)
    assert np.array_equal(read_idx(path), array)
