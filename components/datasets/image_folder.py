"""A folder of images by class: `train/CLASS/*.png` and `test/CLASS/*.png`, or `CLASS/*.png` alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from components.datasets.idx import Bytes, DataError
from components.datasets.images import (
    DARK,
    LIGHT,
    Pixels,
    border,
    image_files,
    in_words,
    is_hidden,
    left_out_note,
    printable,
    read_image,
)
from components.datasets.raw import RawData, RawSplit, stratified_indices
from components.datasets.sources import FOLDERS
from components.order import spread

LAYOUT = "folders train/ and test/ with a folder of images for each class (or such folders for each class alone)"
HELD_OUT = 6  # one image of so many is held out where there is no test folder, as in MNIST
_CUT_SEED = 0  # the same in every search, so that all are judged by the same images
_ORDER_SEED = 0  # likewise
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_UNUSED = ("val", "valid", "validation", "extra", "unlabeled", "unlabelled")
_MOST_CLASSES = 256  # that labels of one byte tell apart

Labelled: TypeAlias = tuple[list[Bytes], Bytes]  # images (C, H, W), each of 1 or 3 channels, and their labels


@FOLDERS.register("images by class")
def read_folder(folder: Path) -> RawData | None:
    """The data set of a folder's images; None where it has no folders to hold classes.

    Labels number the classes in the order of their names, by value where all are whole numbers. Images are grey
    where all are, else colour. Their order is the same in every search, and any first part has each class in its
    proportion.

    Raises:
        DataError: an image is damaged or of another size, or the classes are not alike in train and test, or one of
            these is there twice.
    """
    inside = _folders(folder)
    splits = _splits(inside)
    if not splits and not any(image_files(path)[0] for path in inside):
        return None
    if len(splits) == 1:
        (only,) = splits.values()
        raise DataError(f"{printable(folder)}: expected {LAYOUT}, found only {printable(only.name)}/")
    home = splits.get("train", folder)
    classes = sorted(_folders(home), key=_order(_folders(home)))
    names = [path.name for path in classes]
    _check_classes(home, names)
    unused = [path for path in inside if splits and path.name.lower() in _UNUSED]  # else it is a class
    notes = [f"{printable(path)}: left out; validation images are cut from train" for path in unused]
    numbered = names == [str(number) for number in range(len(names))]
    class_names = () if numbered else tuple(map(printable, names))
    if class_names:
        notes.append("labels: " + ", ".join(f"{label} = {name}" for label, name in enumerate(class_names)))
    if splits:
        train, test = (_read(splits[part], names, notes) for part in ("train", "test"))
    else:
        train, test = _cut(_read(folder, names, notes))
        notes.append(
            f"{printable(folder)}: no train/ and test/; {len(test[0])} of {len(train[0]) + len(test[0])} images, "
            f"1 in {HELD_OUT} of each class, are held out as test images, the same in every search"
        )
    _check_alike(home, names, train, test, notes)
    notes += _mixed_grounds(train)
    return RawData(*_stacked(train, test), notes=tuple(notes), class_names=class_names)


def _splits(inside: Sequence[Path]) -> dict[str, Path]:
    """The folders of training and test images, by `train` and `test`."""
    splits: dict[str, Path] = {}
    for path in inside:
        split = _SPLITS.get(path.name.lower())
        if split in splits:
            found = f"{printable(splits[split].name)}/ and {printable(path.name)}/"
            raise DataError(f"{printable(path.parent)}: expected one folder of {split} images, found {found}")
        if split is not None:
            splits[split] = path
    return splits


def _read(split: Path, names: Sequence[str], notes: list[str]) -> Labelled:
    """The images of a folder of class folders; notes what was left out and what had to be done."""
    stray, left_out = image_files(split)
    left_out["images outside the class folders"] += len(stray)
    left_out["folders"] -= len(_folders(split))
    remarks = Counter[str]()
    images: list[Bytes] = []
    labels: list[int] = []
    if unknown := [path for path in _folders(split) if path.name not in names]:
        raise DataError(
            f"{printable(unknown[0])}: expected one of the {len(names)} classes of the training images, found another"
        )
    for label, name in enumerate(names):
        files, others = image_files(split / name) if (split / name).is_dir() else ([], Counter())
        left_out += others
        images += [_bytes(read_image(path, remarks=remarks)) for path in files]
        for path, image in zip(files, images[len(labels) :], strict=True):
            _check_size(path, image, images[0])
        labels += [label] * len(files)
    if left_out := +left_out:
        notes.append(left_out_note(split, left_out))
    notes += [f"{printable(split)}: {remark}" for remark in in_words(remarks)]
    return images, np.array(labels, np.uint8)


def _bytes(image: Pixels) -> Bytes:
    """(C, H, W) in [0, 1] → uint8, with one channel where all are equal."""
    whole = np.round(image * 255).astype(np.uint8)
    return whole[:1] if (whole == whole[:1]).all() else whole


def _cut(images: Labelled) -> tuple[Labelled, Labelled]:
    """Train and test, each class in its proportion."""
    pictures, labels = images
    held_out = np.zeros(len(labels), bool)
    held_out[stratified_indices(labels, len(labels) // HELD_OUT, _CUT_SEED)] = True
    train, test = (
        ([pictures[row] for row in np.flatnonzero(chosen)], labels[chosen]) for chosen in (~held_out, held_out)
    )
    return train, test


def _stacked(train: Labelled, test: Labelled) -> tuple[RawSplit, RawSplit]:
    """The splits as arrays, the classes mixed: grey where every image is, else colour."""
    channels = max(len(image) for images, _ in (train, test) for image in images)

    def stacked(images: Sequence[Bytes], labels: Bytes) -> RawSplit:
        order, shape = _mixed(labels), (channels, *images[0].shape[1:])
        return RawSplit(np.stack([np.broadcast_to(images[row], shape) for row in order]), labels[order])

    return stacked(*train), stacked(*test)


def _mixed(labels: Bytes) -> NDArray[np.int64]:
    """Row numbers out of the files' order, by class: who takes the first images of a data set wants some of each."""
    return spread(np.random.default_rng(_ORDER_SEED).permutation(len(labels)), labels)


def _mixed_grounds(train: Labelled) -> list[str]:
    """A note of training images that are dark on light where nearly all others are light on dark, or the reverse."""
    brightness = np.concatenate([border(np.divide(image[None], 255, dtype=np.float32)) for image in train[0]])
    dark, light = int((brightness < DARK).sum()), int((brightness > LIGHT).sum())
    few, many = sorted((dark, light))
    if few == 0 or many < 0.8 * len(brightness):
        return []
    found = ("light", "dark") if few == light else ("dark", "light")
    return [f"{few} training images have a {found[0]} border where {many} have a {found[1]} one: are they inverted?"]


def _check_classes(home: Path, names: Sequence[str]) -> None:
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise DataError(f"{printable(home)}: expected 2 to {_MOST_CLASSES} folders of classes, found {len(names)}")


def _check_alike(
    home: Path, names: Sequence[str], train: Labelled, test: Labelled, notes: Sequence[str]
) -> None:
    counts = np.bincount(train[1], minlength=len(names))
    rare = int(np.argmin(counts))
    if counts[rare] < 2:
        others = next((f" ({note})" for note in notes if "left out, as no images" in note), "")
        raise DataError(
            f"{printable(home / names[rare])}: expected at least 2 training images of each class, "
            f"found {counts[rare]}; add some or remove the folder{others}"
        )
    if not len(test[1]):
        raise DataError(f"{printable(home.parent)}: expected at least one test image, found none")
    if test[0][0].shape[1:] != train[0][0].shape[1:]:
        expected, found = (_size(images[0]) for images, _ in (train, test))
        raise DataError(f"{printable(home)}: expected {expected} pixels as of the test images, found {found}")


def _check_size(path: Path, image: Bytes, first: Bytes) -> None:
    if image.shape[1:] != first.shape[1:]:
        raise DataError(
            f"{printable(path)}: expected {_size(first)} pixels (width × height) as of the images before it, "
            f"found {_size(image)}; bring all images to one size first"
        )


def _size(image: Bytes) -> str:
    return f"{image.shape[2]} × {image.shape[1]}"


def _folders(folder: Path) -> list[Path]:
    """The folders inside, without hidden ones such as .ipynb_checkpoints."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path))


def _order(folders: Sequence[Path]) -> Callable[[Path], Any]:
    """Sorts 10 behind 9 where all names are whole numbers, else by name."""
    numbers = all(path.name.isdecimal() for path in folders)
    return lambda path: (int(path.name), path.name) if numbers else path.name
