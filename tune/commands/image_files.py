"""Image files as a defense takes them: found, checked against its shape, and read one by one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from components.datasets.idx import read_idx
from components.datasets.images import (
    DARK,
    KINDS,
    LIGHT,
    SUFFIXES,
    Pixels,
    border,
    image_files,
    in_words,
    left_out_note,
    printable,
    read_image,
    with_channels,
)
from components.datasets.raw import channels_first
from components.files import expanded

Shape = tuple[int, int, int]

_IDX = re.compile(r"(?P<stem>.+?)(?:[-.]idx[34](?:-ubyte)?|\.idx)(?:\.gz)?")


@dataclass(frozen=True)
class Picture:
    """One image to read.

    Attributes:
        name: what messages and tables call it: its file, and its number where the file holds several.
        stem: the name, without suffix, of what is made from it.
        read: gives its pixels, float32 (C, H, W) in [0, 1]; ValueError, naming the file, where it cannot.
    """

    name: str
    stem: str
    read: Callable[[], Pixels]


@dataclass(frozen=True)
class Reading:
    """Settings by which images are read.

    Attributes:
        shape: (C, H, W) that each must have; grey and colour are converted, sizes are not.
        ground: brightness of the training images' ground, 0 or 1, on which transparent pixels are laid; None where
            they have none, and transparent images are refused.
        invert: take dark for light.
        notes: what was left out, and what had to be done to images, in sentences; `find_pictures` adds to them.
        refused: why images cannot be taken, one sentence each; `find_pictures` adds to them.
    """

    shape: Shape
    ground: float | None = None
    invert: bool = False
    notes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def pixels(self, path: Path, remarks: Counter[str] | None = None) -> Pixels:
        """The pixels of an image file. Raises DataError, naming the file."""
        ground = 1 - self.ground if self.invert and self.ground is not None else self.ground
        return self.turned(read_image(path, self.shape[0], ground, remarks))

    def turned(self, pixels: Pixels) -> Pixels:
        """The pixels, light for dark where that was asked for."""
        return 1 - pixels if self.invert else pixels

    def check(self, name: str, pixels: Pixels) -> None:
        """Refuses another size, and what is light where the training images are dark. Raises ValueError."""
        height, width = pixels.shape[1:]
        if (height, width) != self.shape[1:]:
            expected = f"{self.shape[2]} × {self.shape[1]} pixels (width × height), as the defense was trained on"
            raise ValueError(f"{printable(name)}: expected {expected}, found {width} × {height}")
        brightness = float(border(pixels[None])[0])
        if (self.ground == 0 and brightness > LIGHT) or (self.ground == 1 and brightness < DARK):
            words = ("light on dark", "dark") if self.ground == 0 else ("dark on light", "light")
            advice = "leave out --invert" if self.invert else "if it shows the reverse, add --invert"
            raise ValueError(
                f"{printable(name)}: expected an image of a {words[1]} border ({words[0]}), as the defense was trained "
                f"on, found one of brightness {brightness:.2f}; {advice}"
            )


def find_pictures(words: Sequence[str], reading: Reading) -> list[Picture]:
    """The pictures that files and folders hold, each read once to see that it can be; none where all are refused.

    Args:
        words: image or idx files (`.gz` too), or folders of image files.
        reading: how to read them; it then says what was left out, and which images are damaged or of another size.

    Raises:
        ValueError: nothing found, a file that is missing, or two of one name.
    """
    remarks = Counter[str]()
    pictures: list[Picture] = []
    seen: dict[str, str] = {}
    for word in words:
        for picture, first in _pictures(expanded(word), reading, remarks):
            if picture.stem in seen:
                both = f"{seen[picture.stem]} and {picture.name}, both for {picture.stem}.png"
                raise ValueError(f"IMAGES: expected names that differ, found {printable(both)}")
            seen[picture.stem] = picture.name
            try:
                reading.check(picture.name, first())
            except ValueError as error:  # one of a thousand pictures is no reason to keep the others waiting
                reading.refused.append(str(error))
            else:
                pictures.append(picture)
    if not pictures and not reading.refused:
        raise ValueError("IMAGES: expected at least one file or folder, found none")
    reading.notes.extend(in_words(remarks))
    return pictures


def batch_of(pictures: Sequence[Picture]) -> Tensor:
    """Images float32 (N, C, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack([picture.read() for picture in pictures]))


def png_of(image: Tensor) -> Image.Image:
    """An image (C, H, W) in [0, 1], C 1 or 3, to be saved."""
    pixels = (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def _pictures(
    path: Path, reading: Reading, remarks: Counter[str]
) -> Iterator[tuple[Picture, Callable[[], Pixels]]]:
    """Each picture, and what reads it for the first time, with remarks."""
    if path.is_dir():
        found, left_out = image_files(path)
        if left_out:
            reading.notes.append(left_out_note(path, left_out))
        if not found:
            left = f": {reading.notes[-1]}" if left_out else ""
            raise ValueError(f"{printable(path)}: expected a folder with image files ({KINDS}), found none in it{left}")
    elif not path.is_file():
        raise ValueError(f"{printable(path)}: expected an image file or a folder of them, found no such file")
    elif path.suffix.lower() in SUFFIXES:
        found = [path]
    elif match := _IDX.fullmatch(path.name):
        yield from _rows(path, match["stem"], reading)
        return
    else:
        suffix = printable(path.suffix) or "no suffix"
        raise ValueError(f"{printable(path)}: expected an image ({KINDS}) or an idx file, found {suffix}")
    for file in found:
        picture = Picture(str(file), file.stem, partial(reading.pixels, file))
        yield picture, partial(reading.pixels, file, remarks)


def _rows(path: Path, stem: str, reading: Reading) -> Iterator[tuple[Picture, Callable[[], Pixels]]]:
    try:
        images = channels_first(path, read_idx(path))
        if not len(images):
            raise ValueError(f"{printable(path)}: expected at least one image, found none")
    except ValueError as error:
        reading.refused.append(str(error))
        return
    if stem.startswith("emnist-"):  # whose files hold each image by columns
        images = images.swapaxes(-1, -2)
    for number, image in enumerate(images):
        read = partial(_converted, image, reading)
        yield Picture(f"{path}#{number}", f"{stem}-{number:05d}", read), read


def _converted(image: NDArray[np.uint8], reading: Reading) -> Pixels:
    """Bytes (C, H, W) with the channels asked for, in [0, 1]."""
    return reading.turned(with_channels(np.divide(image, 255, dtype=np.float32), reading.shape[0]))
