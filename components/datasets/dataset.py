"""Labelled images: splits, and data sets by name or folder."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from components.datasets.catalogue import DATASETS, read_raw
from components.datasets.idx import Bytes, DataError
from components.datasets.raw import RawSplit, stratified_indices
from components.files import expanded


@dataclass(frozen=True, eq=False)
class DataSplit:
    """Images float32 (N, C, H, W) in [0, 1] and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.float32:
            raise ValueError(f"images: expected float32 (N, C, H, W), found {_describe(self.images)}")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(f"labels: expected int64 ({len(self.images)},), found {_describe(self.labels)}")

    @classmethod
    def of(cls, raw: RawSplit) -> Self:
        """The same images scaled to [0, 1]."""
        # In place: a division would hold two float copies of the whole set.
        images = torch.from_numpy(raw.images.astype(np.float32)).div_(255)
        return cls(images, torch.from_numpy(raw.labels.astype(np.int64)))

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, which: int | Tensor | Sequence[int]) -> "DataSplit":
        """The first `which` images, or the images at the indices `which`, in that order.

        Raises:
            ValueError: a number below 1 or above the number of images.
        """
        if not isinstance(which, int):
            indices = torch.as_tensor(which, dtype=torch.int64)
            return DataSplit(self.images[indices], self.labels[indices])
        _check_size(which, len(self))
        return DataSplit(self.images[:which], self.labels[:which])

    def sample(self, n: int, seed: int) -> "DataSplit":
        """`n` images drawn by `seed`, each class in its proportion, in their order here; raises as `draw`."""
        return self.subset(self.draw(n, seed))

    def draw(self, n: int, seed: int) -> Tensor:
        """The indices, int64 (n,), of the images of `sample`.

        Raises:
            ValueError: `n` is below 1 or above the number of images.
        """
        _check_size(n, len(self))
        return torch.from_numpy(stratified_indices(self.labels.cpu().numpy(), n, seed))

    def to(self, device: torch.device | str) -> "DataSplit":
        """This split on another device."""
        return DataSplit(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named data set cut into train, validation and test.

    The test split was read and checked with the others, but stays bytes until `.test` asks for it: code that
    has no business with it meets no tensor of it.
    """

    name: str
    classes: int  # labels are 0 … classes - 1
    train: DataSplit
    validation: DataSplit
    fingerprint: str  # sha256 of the train and validation splits
    test_fingerprint: str  # sha256 of the test split
    held_out: RawSplit = field(repr=False)
    notes: tuple[str, ...] = ()  # what a user must know: what was left out, turned, or is there twice
    class_names: tuple[str, ...] = ()  # of the labels; empty where these are all that is known

    @classmethod
    def cut(
        cls,
        name: str,
        train: RawSplit,
        test: RawSplit,
        seed: int = 0,
        validation_fraction: float = 0.1,
        notes: Sequence[str] = (),
        class_names: Sequence[str] = (),
    ) -> Self:
        """Cut the validation split from `train`: stratified, the same for the same seed.

        Raises:
            DataError: the fraction leaves no image for training or none for validation.
        """
        size = round(validation_fraction * len(train)) if 0 < validation_fraction < 1 else 0
        if not 0 < size < len(train):
            raise DataError(
                "data.validation_fraction: expected a share between 0 and 1 that leaves images for training "
                f"and for validation, found {validation_fraction} of {len(train)} images"
            )
        chosen = np.zeros(len(train), dtype=bool)
        chosen[stratified_indices(train.labels, size, seed)] = True
        kept, cut = train.take(np.flatnonzero(~chosen)), train.take(np.flatnonzero(chosen))
        return cls(
            name=name,
            classes=int(train.labels.max()) + 1,
            train=DataSplit.of(kept),
            validation=DataSplit.of(cut),
            fingerprint=_fingerprint(kept, cut),
            test_fingerprint=_fingerprint(test),
            held_out=test,
            notes=(*notes, *_missing(train, test), *_repeated(train, test)),
            class_names=tuple(class_names),
        )

    @property
    def test(self) -> DataSplit:
        """The held-out images, for the one look after every choice is made."""
        return DataSplit.of(self.held_out)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def merged(self) -> DataSplit:
        """Train and validation as one split, for the final training."""
        return DataSplit(
            torch.cat([self.train.images, self.validation.images]),
            torch.cat([self.train.labels, self.validation.labels]),
        )


def load_dataset(
    name_or_folder: str | Path,
    data_dir: str | Path | None = None,
    seed: int = 0,
    validation_fraction: float = 0.1,
) -> Dataset:
    """Read, check and cut a data set.

    Args:
        name_or_folder: a name in `DATASETS`, or a folder of idx files or of images by class.
        data_dir: where a named set is, or is downloaded to; default `sources.default_data_dir()`.
        seed: chooses the validation images.
        validation_fraction: share of each class's training images used for validation.

    Raises:
        DataError: the data cannot be had, or are not what they should be.
    """
    raw = read_raw(name_or_folder, data_dir)
    name = str(name_or_folder)
    if name not in DATASETS:
        name = expanded(name_or_folder).resolve().name
    return Dataset.cut(name, raw.train, raw.test, seed, validation_fraction, raw.notes, raw.class_names)


def _missing(train: RawSplit, test: RawSplit) -> tuple[str, ...]:
    """A note of classes that are trained and not tested."""
    missing = sorted(set(train.labels.tolist()) - set(test.labels.tolist()))
    return (f"test images: none of class {', '.join(map(str, missing))}",) if missing else ()


def _repeated(train: RawSplit, test: RawSplit) -> tuple[str, ...]:
    """A note of test images that are also training images, to the byte."""
    known = {_digest(image) for image in train.images}
    again = sum(_digest(image) in known for image in test.images)
    if not again:
        return ()
    share = f"{again} of {len(test)} test images are also training or validation images"
    return (f"{share}: on these, the figures measure memory",)


def _digest(image: Bytes) -> bytes:
    return hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def _fingerprint(*splits: RawSplit) -> str:
    digest = hashlib.sha256()
    for part in (part for split in splits for part in split.parts()):
        digest.update(part)
    return digest.hexdigest()


def _check_size(n: int, available: int) -> None:
    if not 1 <= n <= available:
        raise ValueError(f"n: expected 1 to {available} images, found {n}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
