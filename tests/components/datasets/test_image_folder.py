"""Folders of images by class."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.datasets import DataError, DataSplit, RawSplit, load_dataset
from tests.tiny import tiny_split, write_folder

NAMES = ("0", "1", "2", "3")


def write_images(folder: Path, split: RawSplit, names: tuple[str, ...] = NAMES, suffix: str = "png") -> Path:
    """A folder for each class with its images, numbered as in the split."""
    for row, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
        path = folder / names[label] / f"{row:04d}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(path)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The data set of `tiny_folder` as images."""
    write_images(tmp_path / "mine" / "train", tiny_split())
    write_images(tmp_path / "mine" / "test", tiny_split(20, seed=1))
    return tmp_path / "mine"


def rows(images: torch.Tensor, labels: torch.Tensor) -> set[tuple[bytes, int]]:
    pixels = (images * 255).round().byte().numpy()
    return {(image.tobytes(), int(label)) for image, label in zip(pixels, labels, strict=True)}


def test_a_folder_is_read_as_idx_files_of_the_same_images_are(pictures: Path, tmp_path: Path) -> None:
    found = load_dataset(pictures, validation_fraction=0.2)
    assert found.class_names == ()  # numbers are no names
    expected = load_dataset(write_folder(tmp_path / "idx", tiny_split(), tiny_split(20, seed=1)), None, 0, 0.2)
    assert (found.name, found.classes, found.image_shape, found.notes) == ("mine", 4, (1, 8, 8), ())
    for merged, other in ((found.merged(), expected.merged()), (found.test, expected.test)):
        assert rows(merged.images, merged.labels) == rows(other.images, other.labels)
    assert load_dataset(pictures).fingerprint == load_dataset(pictures).fingerprint


@pytest.mark.parametrize(("first", "second"), [("train", "training"), ("test", "testing"), ("Train", "train")])
def test_two_folders_of_the_same_images_are_refused(pictures: Path, first: str, second: str) -> None:
    for name in {first, second} - {"train", "test"}:
        if (pictures / name).exists():
            pytest.skip("this file system does not tell Train from train")
        shutil.copytree(pictures / "train", pictures / name)
    split = first.lower()
    with pytest.raises(DataError, match=rf"mine: expected one folder of {split} images, found {first}/ and {second}/"):
        load_dataset(pictures)


def test_a_cifar_10_shaped_folder_of_twelve_classes(tmp_path: Path) -> None:
    shape, names = (3, 32, 32), tuple(str(number) for number in range(12))
    train, test = tiny_split(48, 12, shape), tiny_split(24, 12, shape, seed=1)
    write_images(tmp_path / "train", train, names)
    write_images(tmp_path / "test", test, names)
    data = load_dataset(tmp_path)
    assert (data.classes, data.image_shape, data.notes) == (12, (3, 32, 32), ())
    merged = data.merged()
    assert rows(merged.images, merged.labels) == {
        (image.tobytes(), int(label)) for image, label in zip(train.images, train.labels, strict=True)
    }
    assert data.test.labels.bincount().tolist() == [2] * 12
    assert data.train.images.dtype == torch.float32
    assert 0 <= float(data.train.images.min()) <= float(data.train.images.max()) <= 1


def test_without_a_test_folder_a_sixth_is_held_out_and_said(tmp_path: Path) -> None:
    write_images(tmp_path / "mine", tiny_split(48))
    data, other = (load_dataset(tmp_path / "mine", seed=seed) for seed in (0, 1))
    assert (len(data.merged()), len(data.test)) == (40, 8)
    assert data.test.labels.bincount().tolist() == [2, 2, 2, 2]
    assert data.notes == (
        f"{tmp_path / 'mine'}: no train/ and test/; 8 of 48 images, 1 in 6 of each class, are held out as test images, "
        "the same in every search",
    )
    assert data.test_fingerprint == other.test_fingerprint
    assert data.fingerprint != other.fingerprint


def test_a_class_that_is_named_as_validation_images_are_is_not_said_to_be_left_out(tmp_path: Path) -> None:
    data = load_dataset(write_images(tmp_path / "mine", tiny_split(), ("a", "b", "extra", "valid")))
    assert data.classes == 4
    assert not [note for note in data.notes if "left out" in note]


def test_labels_follow_the_names_and_are_said(tmp_path: Path) -> None:
    for split in ("training", "Test"):
        write_images(tmp_path / split, tiny_split(), ("zebra", "ant", "cat", "dog[2]\n"))
    data = load_dataset(tmp_path)
    assert data.notes[0] == r"labels: 0 = ant, 1 = cat, 2 = dog[2]\n, 3 = zebra"
    assert data.class_names == ("ant", "cat", r"dog[2]\n", "zebra")
    assert data.test.labels.bincount().tolist() == [10] * 4


def test_any_first_images_have_each_class_in_its_proportion(tmp_path: Path) -> None:
    """Of an evaluation's 200, of the 100 under a curve: files lie there class after class."""
    write_images(tmp_path / "train", tiny_split(200))
    write_images(tmp_path / "test", tiny_split(40))
    data = load_dataset(tmp_path)
    for size in (4, 8, 13, 20):
        counts = data.test.subset(size).labels.bincount(minlength=4)
        assert int(counts.max() - counts.min()) <= 1
    for split in (data.train, data.validation):
        assert split.subset(len(split) // 2).labels.unique().tolist() == [0, 1, 2, 3]
    assert load_dataset(tmp_path).test_fingerprint == data.test_fingerprint


def test_numbers_are_ordered_by_value(tmp_path: Path) -> None:
    names = ("9", "10", "11", "100")
    for split in ("train", "test"):
        write_images(tmp_path / split, tiny_split(), names)
    assert load_dataset(tmp_path).notes[0] == "labels: 0 = 9, 1 = 10, 2 = 11, 3 = 100"


def test_grey_images_saved_as_colour_stay_grey_until_one_has_colour(pictures: Path) -> None:
    for path in pictures.rglob("*.png"):
        Image.open(path).convert("RGB").save(path)
    assert load_dataset(pictures).image_shape == (1, 8, 8)
    path = pictures / "train" / "0" / "0000.png"
    image = np.asarray(Image.open(path)).copy()
    image[..., 2] = 0
    Image.fromarray(image).save(path)
    data = load_dataset(pictures)
    assert data.image_shape == (3, 8, 8)
    assert torch.equal(data.test.images[:, 0], data.test.images[:, 2])


def test_what_was_left_out_and_done_is_counted(pictures: Path) -> None:
    for name in ("train/0/._0000.png", "train/.DS_Store", "train/1/notes.txt", "train/2/b.heic", "train/loose.png"):
        (pictures / name).write_bytes(b"x")
    for name in ("train/.ipynb_checkpoints", "train/3/more", "val/0", "__MACOSX/train"):
        (pictures / name).mkdir(parents=True)
    path = pictures / "test" / "0" / "0000.png"
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).rotate(180).save(path, exif=exif)
    before = load_dataset(write_images(pictures.parent / "new" / "train", tiny_split()).parent.parent / "mine")
    note = next(note for note in before.notes if "left out, as no images" in note)
    assert note.startswith(f"{pictures / 'train'}: left out, as no images: hidden (3), ")
    for part in (".txt (1)", ".heic (1)", "folders (1)", "images outside the class folders (1)"):
        assert part in note
    assert f"{pictures / 'val'}: left out; validation images are cut from train" in before.notes
    assert f"{pictures / 'test'}: 1 image turned upright, by EXIF" in before.notes
    expected = DataSplit.of(tiny_split(20, seed=1))
    assert rows(before.test.images, before.test.labels) == rows(expected.images, expected.labels)


def test_test_images_that_are_training_images_are_counted(pictures: Path) -> None:
    for name in ("0000", "0004"):
        shutil.copy(pictures / "train" / "0" / f"{name}.png", pictures / "test" / "1" / f"again{name}.png")
    assert load_dataset(pictures).notes == (
        "2 of 22 test images are also training or validation images: on these, the figures measure memory",
    )


def test_a_pipe_among_the_images_is_not_waited_for(pictures: Path) -> None:
    os.mkfifo(pictures / "train" / "0" / "pipe.png")
    assert load_dataset(pictures).notes == (f"{pictures}/train: left out, as no images: no files (1)",)


def test_classes_without_test_images_are_said(pictures: Path) -> None:
    for path in (pictures / "test" / "2").iterdir():
        path.unlink()
    assert load_dataset(pictures).notes == ("test images: none of class 2",)


def test_an_empty_class_says_what_was_left_out(pictures: Path) -> None:
    for path in (pictures / "train" / "2").iterdir():
        path.rename(path.with_suffix(".npy"))
    said = r"train/2: expected at least 2 training images of each class, found 0; .*\(.*left out, .*\.npy \(10\)\)"
    with pytest.raises(DataError, match=said):
        load_dataset(pictures)


def test_inverted_images_among_others_are_counted(pictures: Path) -> None:
    path = pictures / "train" / "0" / "0000.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    (note,) = load_dataset(pictures).notes
    assert re.fullmatch("1 training images have a light border where .. have a dark one: are they inverted.", note)


def overwrite(name: str, content: bytes) -> object:
    return lambda folder: (folder / name).write_bytes(content)


def resize(folder: Path) -> None:
    Image.new("L", (9, 8)).save(folder / "train/1/0005.png")


def resize_tests(folder: Path) -> None:
    for path in (folder / "test").rglob("*.png"):
        Image.new("L", (7, 8)).save(path)


def another_class(folder: Path) -> None:
    (folder / "test" / "3").rename(folder / "test" / "7")


def only_one(folder: Path) -> None:
    for name in ("1", "2", "3"):
        shutil.rmtree(folder / "train" / name)


def lone_image(folder: Path) -> None:
    for path in list((folder / "train" / "2").iterdir())[1:]:
        path.unlink()


BAD = {
    "damaged": (overwrite("train/1/0001.png", b"\x89PNG"), "train/1/0001.png: expected an image"),
    "animated": (
        lambda folder: Image.new("L", (8, 8)).save(
            folder / "test/1/a.gif", save_all=True, append_images=[Image.new("L", (8, 8), 9)]
        ),
        "test/1/a.gif: expected a still image, found 2 frames",
    ),
    "another size": (resize, "train/1/0005.png: expected 8 × 8 pixels (width × height) as of the images before it"),
    "tests of another size": (resize_tests, "expected 8 × 8 pixels as of the test images, found 7 × 8"),
    "a class of the tests alone": (another_class, "test/7: expected one of the 4 classes of the training images"),
    "one class": (only_one, "train: expected 2 to 256 folders of classes, found 1"),
    "a lone image": (lone_image, "train/2: expected at least 2 training images of each class, found 1"),
    "an empty class": (lambda folder: (folder / "train" / "4").mkdir(), "train/4: expected at least 2 training"),
    "no tests": (lambda folder: shutil.rmtree(folder / "test"), "found only train/"),
    "no training images": (lambda folder: (folder / "train").rename(folder / "0"), "found only test/"),
    "no test images": (
        lambda folder: [path.unlink() for path in (folder / "test").rglob("*.png")],
        "expected at least one test image, found none",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD.values(), ids=BAD)
def test_bad_folders_are_refused(pictures: Path, damage: object, message: str) -> None:
    damage(pictures)  # type: ignore[operator]
    with pytest.raises(DataError, match=re.escape(message)) as refused:
        load_dataset(pictures)
    assert str(refused.value).startswith(str(pictures))


def test_a_folder_of_neither_kind_is_refused_with_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "train.npz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"train/ and test/ .* found none of them, but 'raw', 'train\.npz'"):
        load_dataset(tmp_path)
